"""From a model and a suite to result rows."""

import logging
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import huggingface_hub
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

from otfkd.base.errors import DivergenceError, UserError
from otfkd.config.composition import compose, load_config, prepare_overrides
from otfkd.config.schema import Config, EvaluateConfig
from otfkd.data.relatedness import RelatednessTask
from otfkd.data.sts import DevTask, Suite, load_stsb
from otfkd.data.transfer import Example, TransferTask
from otfkd.evaluation.geometry import geometry
from otfkd.evaluation.rows import Origin, dev_score, score_rows
from otfkd.evaluation.scoring import score_model
from otfkd.evaluation.sts import embed
from otfkd.evaluation.transfer import PROTOCOLS
from otfkd.models.encoder import Encoder, Head
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from otfkd.runs.rows import Row, read_rows, write_rows
from otfkd.tables.definition import ProfileSpec, RowSpec, TableSpec
from otfkd.tables.table import Table
from otfkd.tables.tabulate import build_table
from otfkd.tables.terminal import scores
from otfkd.training.run import prepare
from tests.support.graded_files import random_pairs, write_pairs
from tests.support.rows import defined
from tests.support.senteval import make_senteval
from tests.support.texts import sentence, tied_task


def examples(rng: random.Random, number: int, texts: int) -> tuple[Example, ...]:
    """Sentences of one class are made of one word, those of the other of another, which a classifier can learn."""
    words = ("moon", "bread")
    return tuple(
        Example(tuple(" ".join([words[i % 2]] * rng.randint(2, 9)) for _ in range(texts)), i % 2) for i in range(number)
    )


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path) -> list[Row]:
    """The rows of the tiny model on two small transfer tasks, one of them of pairs."""
    rng = random.Random(5)
    tasks = (
        TransferTask("MR", examples(rng, 60, 1), (), (), blank=0),
        TransferTask("MRPC", examples(rng, 60, 2), (), examples(rng, 20, 2), blank=1),
    )
    monkeypatch.setattr("otfkd.data.transfer.load_transfer", lambda _: tasks)
    arguments = [f"model={tiny_model}", "model.pooler=mean", "evaluation=transfer", "evaluation.protocol=fast"]
    return score(*arguments, f"evaluation.path={tmp_path}", f"output={tmp_path / 'rows.jsonl'}")


def score(*arguments: str) -> list[Row]:
    """The rows of `otfkd-eval ARGUMENTS`."""
    return score_model(EvaluateConfig.from_hydra(compose(prepare_overrides(arguments, EvaluateConfig), "evaluate")))


def test_a_transfer_row_names_its_protocol_and_is_written(rows: list[Row], tmp_path: Path) -> None:
    (row,) = rows
    assert row.protocol.startswith("SentEval fast: accuracy, 5 folds")
    assert (row.suite, row.split, set(row.scores)) == ("transfer", "test", {"MR", "MRPC"})
    assert row.average == pytest.approx(sum(round(defined(task["accuracy"]), 2) for task in row.scores.values()) / 2)
    assert defined(row.scores["MR"]["accuracy"]) > 60  # of two equal classes
    assert read_rows(tmp_path / "rows.jsonl") == rows


# What is undefined.


def test_a_task_that_a_model_cannot_rank_is_marked_and_takes_nothing_along(
    tiny_encoder: Encoder, tiny_suite: Suite, configure: Callable[..., Config], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    config = configure().evaluation
    suite = replace(tiny_suite, test=(*tiny_suite.test, tied_task()))
    whole = score_rows(tiny_encoder, tiny_suite, config, Origin("tiny"))
    with caplog.at_level(logging.WARNING, logger="otfkd"):
        dev, test = rows = score_rows(tiny_encoder, suite, config, Origin("tiny"))
    assert dev.scores == whole[0].scores
    assert test.scores == {**whole[1].scores, "tied": {"all": None, "mean": None, "wmean": None, "pairs": 6}}
    assert test.average is None
    assert "tied: undefined, for all pairs have the same similarity" in caplog.text
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert '"tied":{"all":null,' in (tmp_path / "rows.jsonl").read_text()
    shown = scores([test]).splitlines()
    assert shown[2].split()[2:] == [f"{defined(whole[1].average):.2f}", "—"]
    assert shown[-1] == "average of 'all': undefined, as tied"


def test_a_model_without_a_dev_score_is_scored_and_never_selected(
    tiny_encoder: Encoder, tiny_suite: Suite, configure: Callable[..., Config]
) -> None:
    config = configure().evaluation
    suite = replace(tiny_suite, dev=DevTask("tied", tied_task().subsets))
    dev, test = score_rows(tiny_encoder, suite, config, Origin("tiny"))
    assert (dev.average, test.average is None) == (None, False)
    with pytest.raises(DivergenceError, match="the embeddings collapsed"):
        dev_score(tiny_encoder, suite, config)


def test_a_model_that_ranks_nothing_collapsed(
    tiny_encoder: Encoder, tiny_suite: Suite, configure: Callable[..., Config]
) -> None:
    suite = Suite("tied", DevTask("tied dev", tied_task().subsets), (tied_task(),))
    with pytest.raises(DivergenceError, match="the embeddings collapsed"):
        score_rows(tiny_encoder, suite, configure().evaluation, Origin("tiny"))


def test_the_terminal_shows_a_dash_where_a_task_has_no_f1(rows: list[Row]) -> None:
    lines = {line[:16].strip(): line[16:].split() for line in scores(rows).splitlines()}
    assert lines["accuracy"] == [f"{rows[0].scores[task]['accuracy']:.2f}" for task in ("MR", "MRPC")]
    assert lines["F1"] == ["—", f"{rows[0].scores['MRPC']['f1']:.2f}"]
    assert "average of 'accuracy'" in scores(rows)


def table(kind: Literal["sts", "transfer"], **measured: list[Row]) -> Table:
    """A table of these rows, by the names of its own rows."""
    specs = tuple(RowSpec(name=name, label=name, experiment=None) for name in measured)
    spec = TableSpec(title="T", kind=kind, profiles={"mini": ProfileSpec(seeds=(0,))}, rows=specs)
    return build_table(spec, "mini", {None: measured})


def test_transfer_rows_cannot_land_in_a_table_of_sts(rows: list[Row]) -> None:
    full = [row.model_copy(update={"protocol": PROTOCOLS["full"].description}) for row in rows]
    with pytest.raises(UserError, match=r"table of sts scores was given a row of .* with other tasks \(MR, MRPC\)"):
        table("sts", a=full)
    assert table("transfer", a=full).columns == ("MR", "MRPC", "average")


def test_accuracies_of_the_fast_protocol_can_land_in_no_table(rows: list[Row]) -> None:
    fitting = [row.model_copy(update={"scores": {"MR": {"all": 1.0}}, "average": 1.0}) for row in rows]
    kinds: tuple[tuple[Literal["sts", "transfer"], list[Row]], ...] = (("transfer", rows), ("sts", fitting))
    for kind, found in kinds:
        with pytest.raises(UserError, match="was scored by the fast protocol, for prototypes: score it with full"):
            table(kind, a=found)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_dev_scores_in_training_may_be_computed_in_bfloat16_and_final_rows_are_not(
    tiny_encoder: Encoder, tiny_suite: Suite, compute: str
) -> None:
    seen: list[bool] = []
    tiny_encoder.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    config = load_config([f"evaluation.dev_compute={compute}"]).evaluation
    dev_score(tiny_encoder, tiny_suite, config)
    assert seen == [compute == "bfloat16"] * len(seen) != []
    seen.clear()
    score_rows(tiny_encoder, tiny_suite, config, Origin("tiny"))
    assert seen == [False] * len(seen) != []


def test_training_refuses_to_select_on_transfer_tasks(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from otfkd.data.sts import load_suite

    monkeypatch.setattr("otfkd.training.run.load_suite", load_suite)
    with pytest.raises(UserError, match="evaluation=transfer chooses no checkpoint"):
        prepare(load_config([*overrides, "evaluation=transfer"]))


# --- geometry and supervised tasks ---------------------------------------------------------------------------------


def test_a_dev_row_carries_the_geometry_of_its_sentences_encoded_once(tiny_encoder: Encoder, tiny_suite: Suite) -> None:
    sizes: list[int] = []
    tiny_encoder.register_forward_hook(lambda module, args, output: sizes.append(len(args[0].input_ids)))
    config = load_config([]).evaluation
    dev, test = score_rows(tiny_encoder, tiny_suite, config, Origin("tiny"))
    assert sum(sizes) == len({text for task in (tiny_suite.dev, *tiny_suite.test) for text in task.sentences()})
    vectors = embed(tiny_encoder, [tiny_suite.dev], batch_size=8, max_length=128)
    assert dev.geometry == pytest.approx(geometry(tiny_suite.dev, vectors).as_dict(), abs=1e-5)
    assert test.geometry is None
    assert "geometry of 24 sentences, 2 pairs above 4: alignment 0." in scores([dev])
    assert "geometry" not in scores([test])


@pytest.mark.parametrize(("split", "name"), [("dev", "STS-B dev"), ("test", "STS-B")])
def test_geometry_alone_is_a_row_of_sts_b(tiny_model: Path, tmp_path: Path, split: str, name: str) -> None:
    root = make_senteval(tmp_path / "senteval")
    more = [] if split == "dev" else ["evaluation.split=test"]
    given = (f"model={tiny_model}", "model.pooler=mean", f"evaluation.path={root}", f"output={tmp_path / 'rows.jsonl'}")
    (row,) = score(*given, "evaluation=geometry", *more)
    assert read_rows(tmp_path / "rows.jsonl") == [row]
    assert (row.split, row.suite, list(row.scores)) == (split, "geometry", [name])
    task = load_stsb(root, "dev" if split == "dev" else "test")
    vectors = embed(load_encoder(tiny_model, "mean"), [task], batch_size=64, max_length=128)
    assert row.geometry == pytest.approx(geometry(task, vectors).as_dict(), rel=1e-4)


def test_a_supervised_row_names_its_protocol_and_is_written(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    rng = random.Random(3)

    def pairs(number: int) -> tuple[tuple[str, str, float], ...]:
        texts = [sentence(rng) for _ in range(number)]
        return tuple((text, text, 5.0) if i % 2 else (text, sentence(rng), 1.0) for i, text in enumerate(texts))

    tasks = [RelatednessTask(name, pairs(90), pairs(30), pairs(30)) for name in ("STS-B", "SICK-R")]
    root = tmp_path / "senteval"
    monkeypatch.setattr("otfkd.data.relatedness.load_relatedness", {root: tasks}.__getitem__)
    (root / "STS").mkdir(parents=True)
    given = (f"model={tiny_model}", "model.pooler=mean", f"evaluation.path={root}", f"output={tmp_path / 'rows.jsonl'}")
    (row,) = score(*given, "evaluation=supervised")
    assert read_rows(tmp_path / "rows.jsonl") == [row]
    assert row.protocol.startswith("SentEval supervised: Pearson x 100")
    assert (row.split, row.suite, list(row.scores)) == ("test", "supervised", ["STS-B", "SICK-R"])
    assert row.average == pytest.approx(sum(round(defined(task["pearson"]), 2) for task in row.scores.values()) / 2)
    assert defined(row.average) > 80
    assert "average of 'pearson'" in scores([row])
    with pytest.raises(UserError, match="with other tasks"):
        table("sts", a=[row])


def test_how_sentences_were_read_is_part_of_the_protocol(tiny_encoder: Encoder, tiny_suite: Suite) -> None:
    config = load_config([]).evaluation
    read = Suite("mteb", tiny_suite.dev, tiny_suite.test, "sentences as published")
    plain, raw = (score_rows(tiny_encoder, suite, config, Origin("tiny"))[1] for suite in (tiny_suite, read))
    assert raw.protocol == plain.protocol.replace("regressor, ", "regressor, sentences as published, ")
    again = raw.model_copy(update={"suite_sha256": plain.suite_sha256})
    with pytest.raises(UserError, match="differ in protocol"):
        table("sts", a=[plain], b=[again])


# --- any model -----------------------------------------------------------------------------------------------------


@pytest.fixture
def suite(tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setattr("otfkd.evaluation.scoring.load_suite", lambda *_: tiny_suite)
    return tiny_suite


def plain(tiny: Path, folder: Path) -> tuple[str, ...]:
    return f"model={tiny}", "model.pooler=mean"


def run_folder(tiny: Path, folder: Path) -> tuple[str, ...]:
    save_encoder(load_encoder(tiny, "mean"), folder / "run" / "model", 16)
    return (f"model={folder / 'run'}",)


def sentence_transformers(tiny: Path, folder: Path) -> tuple[str, ...]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(tiny))
    pooling = Pooling(32, pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder / "st"))
    return (f"model={folder / 'st'}",)


def hub(tiny: Path, folder: Path) -> tuple[str, ...]:
    save_encoder(load_encoder(tiny, "mean"), folder / "hub", 16)
    return ("model=some/model",)


@pytest.mark.parametrize("kind", [plain, run_folder, sentence_transformers, hub])
def test_a_model_scores_the_same_wherever_it_comes_from(
    kind: Callable[[Path, Path], tuple[str, ...]],
    tiny_model: Path, tmp_path: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def download(name: str, **_: object) -> str:
        assert name == "some/model"
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    expected = score_rows(load_encoder(tiny_model, "mean"), suite, load_config([]).evaluation, Origin("tiny"))
    found = score(*kind(tiny_model, tmp_path))
    assert [row.scores for row in found] == [row.scores for row in expected]
    assert {(row.pooler, row.checkpoint, row.seed) for row in found} == {("mean", "given", None)}


def test_a_plain_encoder_needs_a_pooler_by_name(tiny_model: Path, suite: Suite) -> None:
    with pytest.raises(UserError, match="says nothing of its pooler"):
        score(f"model={tiny_model}", "model.pooler=null")


def test_a_head_without_trained_weights_is_not_scored(tiny_model: Path, tmp_path: Path, suite: Suite) -> None:
    save_encoder(load_encoder(tiny_model, "mean"), tmp_path / "model", 16)
    for folder in (tiny_model, tmp_path / "model"):
        with pytest.raises(UserError, match="has no trained weights for the pooler cls_head"):
            score(f"model={folder}", "model.pooler=cls_head")


def test_a_head_that_was_saved_is_scored(tiny_model: Path, tmp_path: Path, suite: Suite) -> None:
    backbone = load_encoder(tiny_model, "cls")
    trained = Encoder(backbone.backbone, backbone.tokenizer, "cls_head", Head(32)).eval()
    torch.nn.init.normal_(trained.get_submodule("head.dense").weight)  # type: ignore[arg-type]
    save_encoder(trained, tmp_path / "model", 16)
    expected = score_rows(trained, suite, load_config([]).evaluation, Origin("tiny"))
    found = score(f"model={tmp_path / 'model'}")
    assert [row.scores for row in found] == [row.scores for row in expected]
    (tmp_path / "model" / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no trained weights for the pooler cls_head"):
        score(f"model={tmp_path / 'model'}")


@pytest.mark.parametrize(("pooler", "said"), [("cls", True), ("mean", False), ("null", False)])
def test_an_override_of_the_saved_pooler_is_said_aloud(
    tiny_model: Path, tmp_path: Path, suite: Suite, caplog: pytest.LogCaptureFixture, pooler: str, said: bool
) -> None:
    save_encoder(load_encoder(tiny_model, "mean"), tmp_path / "model", 16)
    with caplog.at_level(logging.WARNING, "otfkd"):
        score(f"model={tmp_path / 'model'}", f"model.pooler={pooler}")
    warning = f"pooler cls instead of mean, which was saved with {tmp_path / 'model'}"
    assert [record.getMessage() for record in caplog.records] == ([warning] if said else [])


def test_a_pooler_named_for_a_folder_that_says_nothing_overrides_nothing(
    tiny_model: Path, tmp_path: Path, suite: Suite, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "modules.json").write_text("[]")
    score(f"model={tmp_path / 'model'}", "model.pooler=mean")
    assert not caplog.records


# A user's own pairs.


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """A dev file and two test files on different scales."""
    dev = write_pairs(tmp_path / "mine.csv", random_pairs(1))
    first = write_pairs(tmp_path / "b.jsonl", random_pairs(2, grades=(-1, 0.25, 1)))
    second = write_pairs(tmp_path / "c.tsv", random_pairs(3, grades=(0, 1), times=9))
    return ["evaluation=pairs", f"evaluation.dev={dev}", f"evaluation.test=[{first},{second}]"]


def test_own_pairs_score_as_in_sentence_transformers(tiny_model: Path, tmp_path: Path, own: list[str]) -> None:
    save_encoder(load_encoder(tiny_model, "mean"), tmp_path / "model", 64)
    dev, test = score(f"model={tmp_path / 'model'}", *own)
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    known = {
        "mine": random_pairs(1), "b": random_pairs(2, grades=(-1, 0.25, 1)),
        "c": random_pairs(3, grades=(0, 1), times=9),
    }  # fmt: skip
    for name, rows in known.items():
        left, right, grades = map(list, zip(*rows, strict=True))
        theirs = EmbeddingSimilarityEvaluator(left, right, grades, main_similarity="cosine")(model)
        found = (dev if name == "mine" else test).scores[name]
        assert found["all"] == pytest.approx(100 * theirs["spearman_cosine"], abs=0.01)
        assert found["pairs"] == len(rows)
    assert [(row.split, row.suite, list(row.scores)) for row in (dev, test)] == [
        ("dev", "pairs", ["mine"]), ("test", "pairs", ["b", "c"]),
    ]  # fmt: skip
    assert dev.geometry is not None and dev.geometry["positives"] == 4  # those of the highest grade


def test_own_pairs_are_scored_without_dev_or_without_test(tiny_model: Path, own: list[str]) -> None:
    model = [f"model={tiny_model}", "model.pooler=mean"]
    dev, test = score(*model, *own)
    (tested,) = score(*model, own[0], own[2])
    assert (tested.split, tested.scores, tested.average) == ("test", test.scores, test.average)
    assert (tested.protocol, tested.suite) == (test.protocol, "pairs")
    (chosen,) = score(*model, *own[:2])
    assert (chosen.split, chosen.scores, chosen.geometry) == ("dev", dev.scores, dev.geometry)
    with pytest.raises(UserError, match=r"evaluation=pairs scores files of your own: add evaluation.dev=FILE"):
        score(*model, own[0])
