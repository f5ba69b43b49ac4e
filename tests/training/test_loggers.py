"""Loggers mirror a run's own files, are rebuilt from them, and stop nothing when they fail."""

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import otfkd.training.train
from otfkd.base.errors import Interrupted, UserError
from otfkd.config.schema import Config
from otfkd.training.loggers import Mirror, final_scores
from otfkd.training.train import train
from tests.support.logged import points_of, warnings
from tests.support.published import make_cost
from tests.support.resuming import stop_after
from tests.support.rows import make_row
from tests.support.variants import OTFKD

Configure = Callable[..., Config]


class Kept:
    """A logger that keeps what it is given, and fails where it is told to."""

    def __init__(self, *failing: int) -> None:
        self.failing = failing
        self.points: list[tuple[int, dict[str, Any]]] = []
        self.status: str | None = None

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        if step in self.failing:
            raise ConnectionError(f"no answer at {step}\nand more")
        self.points.append((step, metrics))

    def finalize(self, status: str) -> None:
        if 0 in self.failing:
            raise TimeoutError
        self.status = status


def test_a_step_is_given_once_and_whole() -> None:
    kept = Kept()
    with Mirror("W&B", lambda: kept) as mirror:
        mirror.begin([(1, {"loss": 3.0}), (1, {"dev": 50.0}), (2, {"loss": 2.0})])
        mirror.log(2, {"rotation/generation": 1})
        mirror.log(3, {})
        mirror.log(4, {"loss": 1.0})
        assert kept.points == [(1, {"loss": 3.0, "dev": 50.0}), (2, {"loss": 2.0, "rotation/generation": 1})]
        assert kept.status is None
    assert kept.points[2:] == [(4, {"loss": 1.0})]
    assert kept.status == "success"


def test_a_block_that_fails_closes_its_logger_as_failed() -> None:
    kept, mirror = Kept(), Mirror("W&B", lambda: kept)

    def fail() -> None:
        with mirror:
            mirror.begin([(1, {"loss": 1.0})])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (kept.points, kept.status) == ([(1, {"loss": 1.0})], "failed")


def test_points_a_logger_does_not_take_are_counted_and_said_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(2, 3)
    with Mirror("W&B", lambda: kept) as mirror:
        mirror.begin([(1, {"loss": 1.0}), (2, {"loss": 1.0})])
        for step in (3, 4):
            mirror.log(step, {"loss": 1.0})
            mirror.log(step, {"dev": 1.0})
    assert [step for step, _ in kept.points] == [1, 4]
    assert warnings(caplog) == [
        "W&B failed (no answer at 2), and the run goes on without it",
        "W&B lost 2 of 4 points (no answer at 2): metrics.jsonl and rotations.jsonl have them all",
    ]


def test_a_logger_that_does_not_open_loses_every_point(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Kept:
        raise OSError("no room")

    with Mirror("CSV", broken) as mirror:
        mirror.begin([(1, {"loss": 1.0})])
        mirror.log(2, {"loss": 1.0})
    assert warnings(caplog)[1:] == ["CSV lost 2 of 2 points (no room): metrics.jsonl and rotations.jsonl have them all"]


def test_a_logger_that_does_not_close_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with Mirror("W&B", lambda: Kept(0)) as mirror:
        mirror.begin([])
    assert warnings(caplog) == ["W&B failed (TimeoutError), and the run goes on without it"]


def test_results_as_numbers() -> None:
    cost = make_cost(90, 1500)
    rows = [
        make_row({"tiny": 50.0}, split="dev", cost=cost),
        make_row({"STS12": 60.0, "STS-B": 70.0}, split="test", cost=cost),
        make_row({"STS12": 1.0}, split="test", checkpoint="last", cost=cost),
    ]
    assert final_scores(rows) == {
        "dev/average": 50.0, "dev/tiny": 50.0, "test/average": 65.0, "test/STS12": 60.0, "test/STS-B": 70.0,
        "cost/seconds": 90.0, "cost/forwards": 1500,
    }  # fmt: skip
    assert final_scores([make_row({"a": None, "b": 2.0})]) == {"test/b": 2.0}
    assert "cost/peak_bytes" in final_scores([make_row(cost=make_cost(peak_bytes=7))])


def read_csv(folder: Path) -> dict[int, dict[str, float]]:
    with (folder / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = [int(row.pop("step")) for row in rows]
    assert len(set(steps)) == len(steps)
    return {
        step: {name: float(value) for name, value in row.items() if value}
        for step, row in zip(steps, rows, strict=True)
    }


def read_tensorboard(folder: Path) -> dict[int, dict[str, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    points: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            assert name not in points.setdefault(event.step, {})
            points[event.step][name] = event.value
    return points


@pytest.mark.parametrize(("name", "read"), [("csv", read_csv), ("tensorboard", read_tensorboard)])
def test_files_of_a_resumed_run_hold_every_point_once(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, name: str, read: Callable[[Path], dict[int, Any]]
) -> None:
    if name == "tensorboard":
        pytest.importorskip("tensorboard")
    config = configure(*OTFKD, f"logger={name}", "trainer.checkpoint_every=3")
    with monkeypatch.context() as patched:
        stop_after(patched, 7)
        with pytest.raises(Interrupted):
            train(config)
    folder = train(config).folder
    expected = points_of(folder)
    found = read(folder)
    assert found.keys() == expected.keys() == set(range(1, 13))
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=1e-6), step  # TensorBoard keeps float32
    assert "schedule.every: 4" in (folder / name / "hparams.yaml").read_text()


def test_a_run_that_began_without_a_logger_is_whole_in_one(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stop_after(patched, 5)
        with pytest.raises(Interrupted):
            train(configure(*OTFKD))
    folder = train(configure(*OTFKD, "logger=csv")).folder
    assert read_csv(folder).keys() == set(range(1, 13))


def test_a_missing_tensorboard_is_said_before_training(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "tensorboard" else found(name))
    config = configure("logger=tensorboard")
    with pytest.raises(UserError, match=r"run pip install 'otfkd\[tensorboard\]', or take logger=csv"):
        train(config)
    assert not list(Path(config.paths.runs).glob("*"))


def test_no_logger_writes_nothing_of_its_own(configure: Configure) -> None:
    folder = train(configure(*OTFKD)).folder
    assert not {"wandb", "csv", "tensorboard"} & {path.name for path in folder.iterdir()}


def test_a_run_whose_logger_fails_has_the_same_rows(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    straight = train(configure(*OTFKD))
    monkeypatch.setattr(
        otfkd.training.train, "make_mirror", lambda run, resumed: Mirror("W&B", lambda: Kept(*range(5, 13)))
    )
    mirrored = train(configure(*OTFKD, "fresh=true"))
    assert (mirrored.folder / "metrics.jsonl").read_text() == (
        straight.folder.with_name("s0.kept-1") / "metrics.jsonl"
    ).read_text()
    assert [row.average for row in mirrored.rows] == [row.average for row in straight.rows]
    assert warnings(caplog)[-1].startswith("W&B lost 8 of 12 points (no answer at 5): ")
