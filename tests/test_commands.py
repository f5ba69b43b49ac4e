"""Every command of README.md and docs/usage.md is given as it stands, to a small model and with few steps."""

import gzip
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import otfkd.evaluation.scoring
import otfkd.reporting.graded_pairs
import otfkd.training.run
from otfkd.config.composition import load_config, loaded
from otfkd.config.groups import also_in
from otfkd.config.schema import Config
from otfkd.data.sts import load_suite
from otfkd.training.train import train
from tests.support.beir import random_task, write_beir
from tests.support.commands import Outcome
from tests.support.graded_files import random_pairs, write_pairs
from tests.support.models import make_model
from tests.support.pages import ROOT, commands
from tests.support.senteval import make_senteval
from tests.support.texts import make_corpus, make_suite

USAGE = (ROOT / "docs/usage.md").read_text()
COMMANDS = list(dict.fromkeys([*commands((ROOT / "README.md").read_text()), *commands(USAGE)]))

# What only names a command in a sentence.
NAMES = {"eval", "reproduce", "compare", "export", "search", "export --push", "runs/simcse/HASH"}
# What this machine may lack, and the sentence that then ends a command; the first part that a command has counts.
LACKING = {
    "hydra/launcher=slurm": "finds no srun",
    "trainer=ddp": "no GPU is to be seen here|trainer.devices=4",
    "--push": "hub|repository|not pushed",
    "--watch": "draws on a terminal",
    "bert_base": "from the hub",
    "roberta_large": "from the hub",
    "model=$HUB": "from the hub",
    "data.repo=$HUB": "hub",
    "data=wiki1m": "hub",
    "finetune_nli": "hub",
    "evaluation=mteb": "hub|mteb",
    "evaluation=beir_nano": "cannot be had",
    "evaluation=transfer": "MR|transfer|SentEval",
    "evaluation.also=[transfer]": "MR|transfer|SentEval",
}
# What is given elsewhere, as it takes other processes, a server that is waited for, or the default encoder.
ELSEWHERE = {
    "hydra/launcher=joblib": "tests/cli/test_sweep.py",
    "logger.offline=false": "tests/training/test_wandb_run.py",
}
QUICK = {
    "train --explain", "train --explain schedule.every", "train --help", "--help", "runs --sort test", "runs",
    "runs --csv", "runs --where state=training --where method=otfkd --where schedule.every=125", "runs --watch",
    "train experiment=otfkd dry_run=true", "compare $METHOD $METHOD_B", "eval model=$FOLDER output=scores.jsonl",
    "export $FOLDER my-model --licence apache-2.0", "train experiment=otfkd schedule=geometric",
    "train experiment=otfkd data=text data.path=reviews.csv data.column=body",
    "train --config-dir mine experiment=my_method",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages' variables and paths name."""
    root = tmp_path_factory.mktemp("world")
    make_model(root / "tiny")
    make_corpus(root / "sentences.txt")
    _texts(root)
    _graded(root)
    make_senteval(root / "data/downstream")
    for name, text in re.findall(r"`(mine/[\w/]+\.yaml)`[^`]*```yaml\n(.*?)^```$", USAGE, re.MULTILINE | re.DOTALL):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    page = (ROOT / "docs/extending.md").read_text()
    (root / "mine.py").write_text(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0])
    shutil.copytree(ROOT / "experiments", root / "experiments", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(ROOT / "README.md", root)
    shutil.copytree(ROOT / "docs", root / "docs")
    return root


def _texts(root: Path) -> None:
    lines = (root / "sentences.txt").read_text().splitlines()
    (root / "a.txt").write_text("\n".join(lines[:20]))
    rows = "".join(json.dumps({"text": line}) + "\n" for line in lines[20:])
    (root / "b.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    (root / "corpus").mkdir()
    (root / "corpus/one.txt").write_text("\n".join(lines))
    (root / "reviews.csv").write_text("id,body\n" + "".join(f"{n},{line}\n" for n, line in enumerate(lines)))
    (root / "my (1) text.txt").write_text("\n".join(lines))
    pairs = "".join(
        f"{left},{right},{n % 6}\n" for n, (left, right) in enumerate(zip(lines[:30], lines[30:], strict=True))
    )
    (root / "pairs.csv").write_text(f"sentence1,sentence2,score\n{pairs}")


def _graded(root: Path) -> None:
    for seed, name in enumerate(("dev.csv", "news.csv", "chat.jsonl", "test/one.parquet")):
        write_pairs(root / name, random_pairs(seed))
    write_beir(root / "faq", *random_task())
    (root / "faq/qrels").mkdir()
    for split in ("dev", "test"):
        shutil.copy(root / "faq/qrels.tsv", root / f"faq/qrels/{split}.tsv")


@pytest.fixture
def here(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The world as current folder, with a dozen pairs in the place of the suites that otfkd has."""
    monkeypatch.chdir(world)
    monkeypatch.setenv("OTFKD_CACHE", str(world / "cache"))
    monkeypatch.setenv("OTFKD_DATA", str(world / "data"))
    monkeypatch.setattr(sys, "path", [*sys.path])

    def small(config: Any, *more: Any) -> Any:
        return load_suite(config, *more) if config.suite == "pairs" else make_suite()

    for module in (otfkd.training.run, otfkd.evaluation.scoring, otfkd.reporting.graded_pairs):
        monkeypatch.setattr(module, "load_suite", small)
    return world


@pytest.fixture
def named(here: Path) -> dict[str, str]:
    """The pages' variables, of two methods that are trained when the first test asks."""
    for experiment in ("simcse", "otfkd"):
        for seed in (0, 1) if not Path("runs", experiment).is_dir() else ():
            train(load_config([*_few([f"experiment={experiment}"]), f"seed={seed}"]))
    (method,), (other,) = ([*Path("runs").glob(f"{name}/*")][:1] for name in ("simcse", "otfkd"))
    return {
        "$METHOD_B": str(other), "$METHOD": str(method), "$FOLDER": f"{method}/s0", "$OTHER": f"{other}/s0",
        "$TEXT": "sentences.txt", "$PAIRS": "pairs.csv", "$HUB": "ORG/NAME",
        "runs/simcse/7ca2c9af8e": str(method), "runs/otfkd/107c329310": str(other),
    }  # fmt: skip


# What fits the small run in the place of what a page has.
_SMALLER = {
    "trainer.chunk=128": "trainer.chunk=2",
    "evaluation.every=50": "evaluation.every=1",
    "objective.dims=[384,256,128,64]": "objective.dims=[32,16,8]",
}
_SEARCH = (
    "--trials=1", "--seeds=0", "model=tiny", "model.pooler=cls", "data.batch_size=4", "data.max_length=16",
    "trainer.max_steps=210", "trainer.accelerator=cpu", "evaluation.every=70",
)  # fmt: skip


def _few(given: list[str]) -> list[str]:
    """A training command's overrides with those of a small run, where it has none of its own and reads them."""
    keys = {text.partition("=")[0] for text in given}
    steps = [int(number) for text in given if re.match(r"(schedule|teacher|trainer|objective)\.", text)
             for number in re.findall(r"\b\d+\b", text.partition("=")[2])]  # fmt: skip
    most = max([12, *(step + 4 for step in steps if step < 900)])
    kept = [text for text in given if text not in ("profile=mini", "trainer.max_steps=1000", "data.batch_size=4096")]
    more = [
        "model=tiny", "model.pooler=cls", "data.batch_size=4", "data.max_length=16", f"trainer.max_steps={most}",
        "trainer.accelerator=cpu", f"evaluation.every={max(3, most // 4)}", f"schedule.every={max(3, most // 4)}",
        "teacher.warmup_steps=3", "schedule.first=3", "optimizer.lr=1e-3",
    ]  # fmt: skip
    if "model.layers=5" in kept:
        kept[kept.index("model.layers=5")] = "model.layers=1"  # the small model has two
    if keys & {"model"}:
        more = more[2:]
    more = [text for text in more if text.partition("=")[0] not in keys]
    job = [_SMALLER.get(text, text) for text in kept]
    unread = _unread(job, more)
    return [*job, *(text for text in more if text not in unread)]


def _unread(job: list[str], more: list[str]) -> set[str]:
    # Of a sweep its last job: one of the jobs must read what all are given.
    swept = re.compile(r"^(experiment|seed|model|teacher|schedule\.every)=[^\[,]+,(?:.*,)?([^,]+)$")
    one = [swept.sub(r"\1=\2", text) for text in job]
    with also_in([Path("mine")]):
        return set(loaded([text for text in [*one, *more] if not text.startswith("hydra")], Config)[1])


def arguments(command: str, named: dict[str, str]) -> list[str]:
    for variable, value in named.items():
        command = command.replace(variable, value)
    words = shlex.split(command.partition(" | ")[0])
    if words[:1] == ["search"]:
        return [*words, *_SEARCH]
    if words[:1] == ["train"] and "-c" not in words and any("=" in word for word in words) and "-sc" not in words:
        flags = words[1 : next(place for place, word in enumerate(words) if "=" in word)]
        return ["train", *flags, *_few(words[1 + len(flags) :])]
    if words[:1] == ["reproduce"] and not {"--check", "--fill", "--dry-run", "--publish"} & set(words):
        return [*words, "--dry-run"]  # tests/cli/test_cli.py makes tables
    return words


def cases() -> Iterator[Any]:
    for command in COMMANDS:
        if command not in NAMES and not any(part in command for part in ELSEWHERE):
            yield pytest.param(command, id=command, marks=[] if command in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("command", list(cases()))
def test_a_command_does_what_the_page_says(
    command: str, named: dict[str, str], otfkd_command: Callable[..., Outcome]
) -> None:
    lacking = next((told for part, told in LACKING.items() if part in command), None)
    shutil.rmtree("my-model", ignore_errors=True)  # an earlier command's
    ended = otfkd_command(*arguments(command, named))
    if lacking is not None and ended.code != 0:
        assert ended.code == 2, ended.err
        assert re.search(lacking, ended.err.splitlines()[-1], re.IGNORECASE), ended.err
    else:
        assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err


def test_the_commands_are_found_and_none_is_passed_over() -> None:
    assert len(COMMANDS) > 110
    assert {*COMMANDS} >= QUICK
    for part, test in ELSEWHERE.items():
        assert any(part in command for command in COMMANDS)
        assert part.partition("=")[2] in (ROOT / test).read_text()
    assert all(any(part in command for command in COMMANDS) for part in LACKING)
