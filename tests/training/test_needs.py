"""What a run takes of memory and disk is planned, and compared with what there is."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import otfkd.training.needs
from otfkd.base.errors import UserError
from otfkd.config.schema import Config
from otfkd.training import needs
from otfkd.training.run import Run, prepare
from otfkd.training.train import train
from tests.support.models import make_model

SHORT = ("trainer.max_steps=2", "evaluation.every=null")

# Alone in a process: what tests import and leave in memory must not count.
MEASURED = """
import json, resource, sys
import otfkd.training.run
from otfkd.config.composition import load_config
from otfkd.training.needs import memory
from otfkd.training.train import train
from tests.support.texts import make_suite

otfkd.training.run.load_suite = lambda *_: make_suite()
config = load_config(json.loads(sys.argv[1]))
train(config)
peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run = otfkd.training.run.prepare(config)
print(json.dumps([memory(run, run.load_student(), run.load_teachers()), peak]))
"""


@pytest.mark.slow  # importing all that a run does takes ten seconds
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units")
@pytest.mark.parametrize(("width", "layers"), [(32, 2), (768, 6)])
def test_the_planned_memory_is_what_the_process_takes(
    overrides: list[str], tmp_path: Path, width: int, layers: int
) -> None:
    model = make_model(tmp_path / "model", width=width, layers=layers)
    given = [*overrides, f"model={model}", "experiment=otfkd", "schedule.every=4", "data.batch_size=16"]
    command = [sys.executable, "-c", MEASURED, json.dumps(given)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    planned, peak = json.loads(done.stdout.splitlines()[-1])
    assert planned == pytest.approx(peak, rel=0.25)


def test_a_scheduled_snapshot_and_a_second_checkpoint_take_their_room(configure: Callable[..., Config]) -> None:
    def models(*more: str) -> float:
        """The disk of a run in models' sizes."""
        run = prepare(configure(*more))
        student = run.load_student()
        return needs.disk(run, student) / (4 * needs.parameter_count(student))

    assert models() == 5
    assert models("trainer.checkpoint_every=6") == 5 + 3
    assert models("experiment=otfkd", "schedule.every=4") == 5 + 4


@pytest.fixture
def small(configure: Callable[..., Config]) -> tuple[Config, Run, Any]:
    config = configure(*SHORT)
    run = prepare(config)
    return config, run, run.load_student()


def test_a_disk_that_cannot_hold_what_a_run_leaves_is_refused_before_training(
    small: tuple[Config, Run, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run, student = small
    least = 5 * 4 * needs.parameter_count(student)
    monkeypatch.setattr(needs, "free_disk", lambda folder: least // 2)  # there is a log already
    told = rf"^{run.folder} takes at least . MiB more and its disk has . MiB left: make room, or name another folder"
    with pytest.raises(UserError, match=told):
        train(config)
    assert not run.folder.metrics_file.exists()
    monkeypatch.setattr(needs, "free_disk", lambda folder: least)
    assert train(config).status == "finished"


def test_what_a_run_has_written_already_is_not_asked_for_again(
    small: tuple[Config, Run, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run, student = small
    least = 5 * 4 * needs.parameter_count(student)
    monkeypatch.setattr(needs, "free_disk", lambda folder: least - 1000)
    run.folder.snapshots.mkdir(parents=True)
    (run.folder.snapshots / "one").write_bytes(bytes(1000))
    needs.check_room(run, student, [])
    (run.folder.snapshots / "one").write_bytes(bytes(999))
    with pytest.raises(UserError, match="takes at least"):
        needs.check_room(run, student, [])


def test_memory_that_may_not_do_is_warned_of(
    small: tuple[Config, Run, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, run, student = small
    needed = needs.memory(run, student, [])
    for left, warned in ((None, 0), (needed, 0), (needed - needs._PROCESS, 0), (needed - needs._PROCESS - 1, 1)):
        caplog.clear()
        monkeypatch.setattr(otfkd.training.needs, "available_memory", lambda left=left: left)
        with caplog.at_level(logging.WARNING, "otfkd"):
            needs.check_room(run, student, [])
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == warned
    assert told[0].startswith("the run takes about 6")
    assert told[0].endswith(
        "are left: if it is killed, lower data.batch_size or evaluation.batch_size, or set trainer.chunk"
    )


def test_room_is_looked_for_where_a_folder_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    usage = shutil.disk_usage

    def asking(path: Path) -> Any:
        asked.append(path)
        return usage(path)

    monkeypatch.setattr(shutil, "disk_usage", asking)
    assert needs.free_disk(tmp_path / "a/b/c") > 0
    assert asked == [tmp_path]
