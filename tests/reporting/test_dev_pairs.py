"""What dev pairs look like to a run's model, from a run of a tiny model."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import otfkd.reporting.graded_pairs
from otfkd.base.errors import UserError
from otfkd.config.messages import RENAMED
from otfkd.config.schema import Config
from otfkd.data.sts import Suite
from otfkd.evaluation.encode import encode
from otfkd.models.registry import fingerprint_model, load_encoder
from otfkd.reporting.dev_pairs import read_dev
from otfkd.reporting.methods import read_methods
from otfkd.reporting.space import DevPairs
from otfkd.training.train import TrainResult, train
from tests.support.copies import made_once


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished") / "runs"


@pytest.fixture
def result(
    configure: Callable[..., Config], tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch, kept: Path
) -> TrainResult:
    """A finished run on the fly."""
    monkeypatch.setattr(otfkd.reporting.graded_pairs, "load_suite", lambda *_: tiny_suite)
    config = configure("experiment=otfkd", "teacher.warmup_steps=4", "schedule.every=4")
    made_once(kept, Path(config.paths.runs), lambda: train(config))
    return train(config)


def by_loops(model: Path, suite: Suite) -> tuple[list[float], float, float]:
    """Cosines, alignment and uniformity, pair by pair, in plain Python."""
    pairs = suite.dev.subsets[0].pairs
    texts = [text for left, right, _ in pairs for text in (left, right)]
    vectors = encode(load_encoder(model, "cls"), texts, batch_size=3, max_length=128).double().tolist()
    unit = [[x / math.hypot(*vector) for x in vector] for vector in vectors]
    cosines = [sum(a * b for a, b in zip(unit[2 * n], unit[2 * n + 1], strict=True)) for n in range(len(pairs))]
    close = [math.dist(unit[2 * n], unit[2 * n + 1]) ** 2 for n, (_, _, gold) in enumerate(pairs) if gold > 4]
    apart = [math.exp(-2 * math.dist(a, b) ** 2) for n, a in enumerate(unit) for b in unit[:n]]
    return cosines, sum(close) / len(close), math.log(sum(apart) / len(apart))


def test_readings_are_of_the_base_and_of_the_selected_model(
    result: TrainResult, tiny_model: Path, tiny_suite: Suite
) -> None:
    before, after = read_dev(read_methods([result.folder]), every_seed=True)
    assert (before.label, before.seed) == (f"{tiny_model.name}, cls", None)
    assert (after.label, after.seed) == ("otfkd", 0)
    for found, model in ((before, tiny_model), (after, result.folder / "model")):
        cosines, alignment, uniformity = by_loops(model, tiny_suite)
        assert found.cosines == pytest.approx(np.array(cosines), abs=1e-6)
        assert (found.alignment, found.uniformity) == pytest.approx((alignment, uniformity), abs=1e-5)
        assert found.gold.tolist() == [gold for _, _, gold in tiny_suite.dev.subsets[0].pairs]
    (dev,) = (row for row in result.rows if row.split == "dev" and row.checkpoint == "selected")
    assert after.spearman == dev.scores["tiny dev"]["all"]


def assert_refused(folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_dev(read_methods([folder]), every_seed=False)
    assert "\n" not in str(caught.value)
    for word in (str(folder), *words):
        assert word in str(caught.value)


def test_what_is_not_as_it_was_is_refused(
    result: TrainResult, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    folder, facts = result.folder, (result.folder / "provenance.json").read_text()
    model_hash = fingerprint_model(tiny_model)
    (folder / "provenance.json").write_text(facts.replace(model_hash, "0" * 64))
    assert_refused(folder, str(tiny_model), "has changed")
    suite_hash = read_methods([folder])[0].runs[0].provenance.fingerprints["suite"]
    (folder / "provenance.json").write_text(facts.replace(suite_hash, "0" * 64))
    assert_refused(folder, "pairs", "changed")
    (folder / "provenance.json").write_text(facts)
    results = (folder / "results.jsonl").read_text()
    (folder / "results.jsonl").write_text(results.replace(result.rows[0].weights_sha256, "0" * 64))
    assert_refused(folder, "not the model that was scored")
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("clip_norm:", "clip:"))
    assert_refused(folder, "config.yaml is of another version", "optimizer.clip")
    (folder / "model").rename(tmp_path / "elsewhere")
    assert_refused(folder, "not finished")


def test_a_run_from_before_keys_were_renamed_is_read(result: TrainResult) -> None:
    path = result.folder / "config.yaml"
    text = path.read_text()
    for former, present in RENAMED.items():
        text = text.replace(f"  {present.partition('.')[2]}:", f"  {former.partition('.')[2]}:")
    assert text != path.read_text()
    path.write_text(text)
    assert len(read_dev(read_methods([result.folder]), every_seed=True)) == 2


def test_only_first_seeds_where_no_more_is_asked(result: TrainResult, configure: Callable[..., Config]) -> None:
    train(configure("experiment=otfkd", "teacher.warmup_steps=4", "schedule.every=4", "seed=1"))
    methods = read_methods([result.folder.parent])

    def kinds(readings: list[DevPairs]) -> list[int | None]:
        return [reading.seed for reading in readings]

    assert kinds(read_dev(methods, every_seed=False)) == [None, 0]
    assert kinds(read_dev(methods, every_seed=True)) == [None, 0, 1]
