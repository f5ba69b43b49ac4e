"""What a run writes while it goes on, and how a rotation is told."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from otfkd.runs.folder import RunFolder
from otfkd.runs.log import RunLog
from otfkd.runs.rotations import Follows, Refused, read_record
from otfkd.training.loggers import Mirror

ROTATED = {"event": "rotated", "step": 8, "generation": 2, "snapshot": "step-00000008"}
ALIKE = ", which ranks as the student does (agreement {}): it has little new to teach yet"


def told(row: dict[str, Any], folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    with caplog.at_level(logging.INFO, "otfkd"):
        log = RunLog(RunFolder(folder))
        log.announce(read_record(row))
        log.rotation(read_record(row))
    return caplog.messages[-1]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (ROTATED, "step-00000008 became teacher 2"),
        ({**ROTATED, "agreement_after": 0.9499}, "step-00000008 became teacher 2"),
        ({**ROTATED, "agreement_after": None}, "step-00000008 became teacher 2"),
        (
            {**ROTATED, "agreement_after": 0.98765, "kd_gradient_before": None, "kd_gradient_after": 0.5},
            "step-00000008 became teacher 2" + ALIKE.format("0.988"),
        ),
        (
            {**ROTATED, "agreement_after": 1.0, "kd_gradient_before": 2.0, "kd_gradient_after": 0.5},
            "step-00000008 became teacher 2" + ALIKE.format("1.000, the distillation's gradient 25% of what it was"),
        ),
        (
            {**ROTATED, "agreement_after": 0.96, "kd_gradient_before": 0.0, "kd_gradient_after": 0.5},
            "step-00000008 became teacher 2" + ALIKE.format("0.960"),
        ),
        (
            {"event": "refused", "step": 8, "reason": "the student's weights are not finite"},
            "no rotation: the student's weights are not finite",
        ),
        ({"event": "follows", "step": 8, "generation": 1}, "the student's moving average became the teacher"),
    ],
)
def test_a_rotation_is_told_in_a_sentence(
    row: dict[str, Any], sentence: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert told(row, tmp_path, caplog) == f"after step 8, {sentence}"
    assert json.loads((tmp_path / "rotations.jsonl").read_text()) == row


def test_lines_after_a_checkpoint_are_written_once_over(tmp_path: Path) -> None:
    log = RunLog(RunFolder(tmp_path))
    log.metrics(1, {"dev": 0.5})
    log.rotation(Follows(step=1))
    log.timing("stop", step=1)
    offsets = log.offsets()
    log.metrics(2, {"dev": 0.6})
    log.rotation(Follows(step=2))
    RunLog(RunFolder(tmp_path)).rewind(offsets)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "dev": 0.5}
    ]
    assert [json.loads(line)["step"] for line in (tmp_path / "rotations.jsonl").read_text().splitlines()] == [1]
    times = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert [row["event"] for row in times] == ["dev", "stop", "dev"]
    assert all(0 <= row["seconds"] < 60 and row["seconds"] == round(row["seconds"], 3) for row in times)
    assert set(offsets) == {"metrics", "rotations"}


class Kept:
    """Stands in for a logger."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, Any], int]] = []

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        self.seen.append((metrics, step))

    def finalize(self, status: str) -> None: ...


def test_a_logger_gets_the_metrics_and_a_rotations_numbers(tmp_path: Path) -> None:
    kept = Kept()
    with Mirror("kept", lambda: kept) as mirror:
        log = RunLog(RunFolder(tmp_path), mirror)
        log.rewind({"metrics": 0, "rotations": 0})
        log.metrics(3, {"loss": 1.5})
        log.announce(read_record({**ROTATED, "dev": None}))
        log.announce(Refused(step=9, reason="worse"))
    assert kept.seen == [({"loss": 1.5}, 3), ({"rotation/step": 8, "rotation/generation": 2}, 8)]


def test_a_logger_begins_with_what_a_checkpoint_left(tmp_path: Path) -> None:
    before = RunLog(RunFolder(tmp_path))
    before.metrics(7, {"loss": 2.5})
    before.metrics(8, {"loss": 2.0})
    before.metrics(8, {"dev": 50.0})
    before.rotation(read_record(ROTATED))
    offsets = before.offsets()
    before.metrics(9, {"loss": 1.0})
    kept = Kept()
    with Mirror("kept", lambda: kept) as mirror:
        log = RunLog(RunFolder(tmp_path), mirror)
        log.rewind(offsets)
        log.metrics(9, {"loss": 1.5})
    assert kept.seen == [
        ({"loss": 2.5}, 7),
        ({"loss": 2.0, "dev": 50.0, "rotation/step": 8, "rotation/generation": 2}, 8),
        ({"loss": 1.5}, 9),
    ]


def test_a_value_that_is_no_number_never_reaches_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        RunLog(RunFolder(tmp_path)).metrics(1, {"loss": float("nan")})
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_killed_writers_half_line_of_times_is_dropped(tmp_path: Path) -> None:
    times = tmp_path / "timings.jsonl"
    times.write_text('{"event": "start", "seconds": 0.0}\n{"event": "de')
    RunLog(RunFolder(tmp_path)).timing("stop")
    assert [json.loads(line)["event"] for line in times.read_text().splitlines()] == ["start", "stop"]
