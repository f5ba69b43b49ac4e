"""Loggers mirror a run's own files, are rebuilt from them, and stop nothing when they fail."""

import contextlib
import csv
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from otfkd.base.errors import Interrupted, UserError
from otfkd.config.composition import prepare_overrides
from otfkd.config.identity import config_hash
from otfkd.config.schema import Config
from otfkd.runs.log import Several
from otfkd.training.loggers import Mirror, final_scores
from otfkd.training.train import train
from tests.support.logged import points_of, warnings
from tests.support.published import make_cost
from tests.support.resuming import final, stop_after
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


def test_a_logger_that_fails_is_said_once_and_what_it_lost_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "otfkd")
    kept = Kept(2, 3)
    with Mirror("W&B", lambda: kept) as mirror:
        mirror.begin([(1, {"loss": 1.0}), (2, {"loss": 1.0})])
        for step in (3, 4):
            mirror.log(step, {"loss": 1.0})
            mirror.log(step, {"dev": 1.0})
    assert [step for step, _ in kept.points] == [1, 4]
    assert warnings(caplog) == ["W&B failed (no answer at 2), and the run goes on without it"]
    assert caplog.messages[-1] == (
        "W&B lost 2 of 4 points (no answer at 2): metrics.jsonl and rotations.jsonl have them all"
    )


def test_a_logger_that_does_not_open_loses_every_point(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "otfkd")

    def broken() -> Kept:
        raise OSError("no room")

    with Mirror("CSV", broken) as mirror:
        mirror.begin([(1, {"loss": 1.0})])
        mirror.log(2, {"loss": 1.0})
    assert warnings(caplog) == ["CSV failed (no room), and the run goes on without it"]
    assert caplog.messages[1:] == ["CSV lost 2 of 2 points (no room): metrics.jsonl and rotations.jsonl have them all"]


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


def test_no_logger_writes_nothing_of_its_own(configure: Configure) -> None:
    folder = train(configure(*OTFKD)).folder
    assert not {"wandb", "csv", "tensorboard", "mlflow"} & {path.name for path in folder.iterdir()}


def test_of_several_loggers_each_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Kept:
        raise OSError("no room")

    failing, whole, unclosed = Kept(2), Kept(), Kept(0)
    named = {"W&B": lambda: failing, "MLflow": broken, "CSV": lambda: whole, "TensorBoard": lambda: unclosed}
    with contextlib.ExitStack() as opened:
        mirrors = Several([opened.enter_context(Mirror(name, open)) for name, open in named.items()])
        mirrors.begin(iter([(1, {"loss": 1.0})]))
        for step in (2, 3):
            mirrors.log(step, {"loss": 1.0})
    assert [step for step, _ in failing.points] == [1, 3]
    assert [step for step, _ in whole.points] == [step for step, _ in unclosed.points] == [1, 2, 3]
    assert (failing.status, whole.status, unclosed.status) == ("success", "success", None)
    assert [line.partition(", and")[0] for line in warnings(caplog)] == [
        "MLflow failed (no room)", "W&B failed (no answer at 2)", "TensorBoard failed (TimeoutError)",
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["__init__", "log_metrics", "finalize"])
def test_a_run_whose_logger_fails_has_the_same_bits_and_the_other_logger_is_whole(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    straight = train(configure(*OTFKD)).folder

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no answer\nand more")

    monkeypatch.setattr(TensorBoardLogger, method, fail)
    mirrored = train(configure(*OTFKD, "logger=[tensorboard,csv]", "fresh=true")).folder
    assert final(mirrored) == final(straight.with_name("s0.kept-1"))
    assert warnings(caplog) == ["TensorBoard failed (no answer), and the run goes on without it"]
    assert read_csv(mirrored).keys() == points_of(mirrored).keys()


def test_loggers_in_a_list_are_the_run_without_one(configure: Configure) -> None:
    plain, listed = configure(), configure("logger=[csv,wandb,csv]", "logger.project=mine")
    assert (plain.logger.names, listed.logger.names, listed.logger.project) == ([], ["csv", "wandb"], "mine")
    assert configure("logger=wandb").logger.name == "wandb"
    assert config_hash(plain, {}) == config_hash(listed, {})
    assert configure("logger.name=[mlflow]").logger.names == ["mlflow"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["logger=[csv,excel]"], r"^logger\.name=\[csv,excel\] is not valid: it must be none, wandb, mlflow, "),
        (["logger=[csv,tensorboard]", "logger.project=x"],
         r"^logger\.project=x is not read with logger\.name=\[csv,tensorboard\]: leave it out, or take logger=wandb"),
    ],
)  # fmt: skip
def test_a_list_that_is_wrong_is_refused_in_a_sentence(configure: Configure, given: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        configure(*given)


def test_a_sweep_may_be_over_lists_of_loggers() -> None:
    assert prepare_overrides(["logger=[csv,wandb],[csv]"], Config) == [
        "logger=none",
        "logger.name=['csv','wandb'],['csv']",
    ]
    with pytest.raises(UserError, match="sweeps over the choice csv and over lists: sweep over them in two commands"):
        prepare_overrides(["logger=[csv,wandb],csv"], Config)


def read_mlflow(runs: Path) -> list[Any]:
    """The runs in the store beside the runs of a folder."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()]))


def history_of(runs: Path, found: Any) -> dict[int, dict[str, float]]:
    """The points of a run in MLflow by step, each of which is there once."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    points: dict[int, dict[str, float]] = {}
    for name in found.data.metrics:
        for one in client.get_metric_history(found.info.run_id, name):
            assert name not in points.setdefault(one.step, {})
            points[one.step][name] = one.value
    return points


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of MLflow's without a run: to make its tables takes longer than a run."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("store")
    read_mlflow(folder)
    return folder / "mlflow.db"


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch, empty_store: Path, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for place in ("runs", "a", "b"):
        (tmp_path / place).mkdir()
        shutil.copy(empty_store, tmp_path / place)


def test_a_resumed_run_goes_on_in_mlflow(configure: Configure, monkeypatch: pytest.MonkeyPatch, mlflow: None) -> None:
    given = (*OTFKD, "logger=mlflow", "logger.project=lab", "trainer.checkpoint_every=3")
    with monkeypatch.context() as patched:
        stop_after(patched, 7)
        with pytest.raises(Interrupted):
            train(configure(*given))
    runs = Path(configure().paths.runs)
    (stopped,) = read_mlflow(runs)
    folder = train(configure(*given, "trainer.on_nonfinite=skip")).folder  # MLflow refuses another value of a param
    (found,) = read_mlflow(runs)
    assert (stopped.info.status, found.info.status) == ("FAILED", "FINISHED")
    assert found.info.run_id == stopped.info.run_id == (folder / "mlflow" / "id").read_text()
    assert history_of(runs, found) == points_of(folder)
    assert found.data.params["schedule.every"] == "4"
    assert found.data.params["config_hash"] == folder.parent.name
    assert found.info.run_name.startswith("otfkd ") and found.info.run_name.endswith(" seed=0")


def test_each_job_of_a_process_is_a_run_in_the_store_that_it_is_told_of(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow: None
) -> None:
    for place, seed in (("a", 0), ("b", 0), ("b", 1)):
        train(configure("trainer.max_steps=1", "logger=mlflow", f"seed={seed}", f"paths.runs={tmp_path / place}"))
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert [len(read_mlflow(tmp_path / place)) for place in ("a", "b")] == [1, 2]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'a' / 'mlflow.db'}")
    train(configure("trainer.max_steps=1", "logger=mlflow", f"paths.runs={tmp_path / 'c'}"))
    assert len(read_mlflow(tmp_path / "a")) == 2
    assert not (tmp_path / "c" / "mlflow.db").exists()


def test_a_store_that_is_not_there_is_said_and_stops_nothing(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mlflow: None
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")
    assert train(configure("trainer.max_steps=1", "logger=mlflow")).status == "finished"
    (told,) = warnings(caplog)
    assert told.startswith("MLflow failed (") and told.endswith("), and the run goes on without it")


@pytest.mark.parametrize(("name", "missing"), [("tensorboard", "tensorboard"), ("mlflow", "sqlalchemy")])
def test_a_missing_package_is_said_before_training(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, name: str, missing: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == missing else found(name))
    config = configure(f"logger=[csv,{name}]")
    with pytest.raises(UserError, match=rf"needs the package {missing}: run pip install 'otfkd\[{name}\]', or take"):
        train(config)
    assert not list(Path(config.paths.runs).glob("*"))
