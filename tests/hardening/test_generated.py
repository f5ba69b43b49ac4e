"""Five hundred and more generated bad configs and files, through the commands."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import otfkd.training.run
from otfkd.config.messages import quoted
from otfkd.data.sts import load_suite
from tests.support.commands import Command
from tests.support.config_keys import LEAVES
from tests.support.endings import assert_ends_well
from tests.support.senteval import make_senteval

pytestmark = pytest.mark.slow


def generated(examples: int) -> Callable[[Any], Any]:
    """The same examples each time; the fixtures only name folders and start commands."""
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip


NUMBERS = [
    "-1",
    "0",
    "1",
    "3",
    "1e30",
    "1e-300",
    "0.5",
    "nan",
    "inf",
    "-inf",
    "10000001",
    "99999999999999999999999",
    "0x10",
]
WORDS = [
    "null",
    "true",
    "[]",
    "[1,2]",
    "[nan]",
    "[-1]",
    "{a: 1}",
    "gpu",
    "hub",
    "stsb",
    "model",
    "auto",
    "sts",
    "average",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
VALUES = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.integers().map(str), st.floats().map(str), TEXT.map(quoted)
)
OVERRIDES = st.lists(
    st.tuples(st.sampled_from([leaf for leaf in LEAVES if leaf != "dry_run"]), VALUES), min_size=1, max_size=3
)


@generated(220)
@given(pairs=OVERRIDES)
def test_configs(
    otfkd_command: Command,
    overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pairs: list[tuple[str, str]],
) -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "in")
    given = [f"{key}={value}" for key, value in pairs]
    assert_ends_well(
        otfkd_command,
        ["train", *overrides, "experiment=otfkd", "schedule.every=4", *given, "dry_run=true"],
        tmp_path / "in",
    )


LINES = st.one_of(
    st.binary(max_size=40),
    TEXT.map(str.encode),
    st.sampled_from(
        [b"", b" ", b"the cat", b"the cat\r", b"\xef\xbb\xbfthe dog", b"caf\xe9", b"\x00", b"<html>", b"moon " * 40_000]
    ),
)


@generated(110)
@given(lines=st.lists(LINES, max_size=12), copies=st.integers(1, 3), end=st.sampled_from([b"", b"\n"]))
def test_corpora(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, lines: list[bytes], copies: int, end: bytes
) -> None:
    corpus = tmp_path / "in" / "corpus.txt"
    corpus.parent.mkdir(exist_ok=True)
    corpus.write_bytes(b"\n".join(lines * copies) + end)
    few = ["data.batch_size=2", "trainer.max_steps=1", "evaluation.every=null"]
    assert_ends_well(otfkd_command, ["train", *overrides, *few, f"data.path={corpus}"], corpus.parent)


CELLS = st.one_of(
    st.sampled_from(
        ["", " ", "nan", "inf", "-1", "5.1", "1e400", "3", "0", "entailment", "<td>", '"', "a, b", "two\nlines"]
    ),
    TEXT,
)
COLUMNS = st.sampled_from(["sentence1", "sentence2", "score", "label", "sent0", "sent1", "hard_neg", "more"])
OBJECTIVES = ["cosent", "softmax", "supervised_simcse", "cosine_regression"]


@generated(90)
@given(
    names=st.lists(COLUMNS, max_size=4), rows=st.lists(st.lists(CELLS, max_size=4), max_size=5),
    seed=st.integers(0, 99),
    objective=st.sampled_from(OBJECTIVES), fits=st.booleans(), quotes=st.booleans(),
)  # fmt: skip
def test_labelled_examples(
    otfkd_command: Command, overrides: list[str], tmp_path: Path,
    names: list[str], rows: list[list[str]], seed: int, objective: str, fits: bool, quotes: bool,
) -> None:  # fmt: skip
    if fits:  # the right columns, so that their values are what is wrong, if anything
        last = {"supervised_simcse": "hard_neg", "softmax": "label"}.get(objective, "score")
        names = [*(["sent0", "sent1"] if last == "hard_neg" else ["sentence1", "sentence2"]), last]
        rng = random.Random(seed)
        rows = [[f"the cat {n}", "a dog", "3" if last == "score" else "neutral"] for n in range(4)] + [
            (row + ["x"] * 3)[:3] for row in rows if rng.random() < 0.5
        ]
    table = tmp_path / "in" / "examples.csv"
    table.parent.mkdir(exist_ok=True)
    cell = json.dumps if quotes else str
    table.write_text("\n".join(",".join(map(cell, row)) for row in (names, *rows)))
    run = ["data=labelled", f"objective={objective}", f"data.path={table}", "data.batch_size=2", "trainer.max_steps=1"]
    assert_ends_well(otfkd_command, ["train", *overrides, *run, "evaluation.every=null"], table.parent)


def spoil_line(content: bytes, rng: random.Random, put: bytes) -> bytes:
    """Change one field of one line, or its columns."""
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    fields = lines[number].split(b"\t")
    place = rng.randrange(len(fields))
    match rng.randrange(4):
        case 0:
            fields[place] = put
        case 1:
            fields.insert(place, put)
        case 2:
            del fields[place]
        case _:
            del lines[number]
            return b"\n".join(lines)
    lines[number] = b"\t".join(fields)
    return b"\n".join(lines)


def spoil(path: Path, rng: random.Random, put: bytes) -> None:
    """Change a file somehow, or take it away."""
    content = path.read_bytes()
    match rng.randrange(8):
        case 0:
            path.unlink()
        case 1:
            path.write_bytes(content[: rng.randrange(len(content))])
        case 2:
            path.write_bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * rng.choice([1, 1500]))
        case 3:
            path.unlink()
            path.mkdir()
        case 4:
            path.write_bytes(content[:100] + put + content[100:])
        case _:
            path.write_bytes(spoil_line(content, rng, put))


PUT = st.one_of(
    st.binary(max_size=8), st.sampled_from([b"nan", b"inf", b"-inf", b"7", b"-0.1", b"", b"five", b"\xff\xfe"])
)


@pytest.fixture(scope="module")
def senteval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_senteval(tmp_path_factory.mktemp("senteval") / "downstream")


@generated(80)
@given(seed=st.integers(0, 10**6), put=PUT)
def test_sts_files(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, senteval: Path, monkeypatch: pytest.MonkeyPatch,
    seed: int, put: bytes,
) -> None:  # fmt: skip
    monkeypatch.setattr(otfkd.training.run, "load_suite", load_suite)
    root, rng = tmp_path / "in", random.Random(seed)
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(senteval, root)
    spoil(rng.choice(sorted(path for path in root.rglob("*") if path.is_file())), rng, put)
    assert_ends_well(
        otfkd_command, ["train", *overrides, "evaluation=sts", f"evaluation.path={root}", "dry_run=true"], root
    )


SETTINGS = [
    "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "model_type", "max_position_embeddings",
    "intermediate_size", "hidden_act", "architectures", "auto_map", "pad_token_id", "dtype", "layer_norm_eps",
]  # fmt: skip
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 70), st.floats(), st.sampled_from(["t5", "gpt2", "bert", "gelu", "x"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(SETTINGS), inner, max_size=2)),
    max_leaves=3,
)


@generated(120)
@given(
    seed=st.integers(0, 10**6),
    put=PUT,
    key=st.sampled_from(SETTINGS),
    value=JSON,
    use=st.sampled_from(["model", "teacher"]),
)
def test_models(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, tiny_model: Path,
    seed: int, put: bytes, key: str, value: Any, use: str,
) -> None:  # fmt: skip
    folder, rng = tmp_path / "in", random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny_model, folder)
    file = rng.choice(["config.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
    if file.endswith("g.json") and rng.random() < 0.7:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**config, key: value}))
    else:
        spoil(folder / file, rng, put)
    run = ["trainer.max_steps=1", "evaluation.every=null", f"{use}={folder}", f"{use}.pooler=mean"]
    if use == "teacher":
        run += ["objective=distill"]
    assert_ends_well(otfkd_command, ["train", *overrides, *run], folder)
