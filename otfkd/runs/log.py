"""What a run writes while it goes on: metrics, rotations and times, mirrored to a logger where one is chosen."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from otfkd.base.errors import UserError
from otfkd.base.files import JsonLines
from otfkd.base.processes import broadcast, rank, rank_zero_only
from otfkd.runs.folder import RunFolder
from otfkd.runs.rotations import Follows, Refused, Rotated

Point = tuple[int, Mapping[str, float]]  # an optimizer step and its numbers

# How old the newest time may be at a kill: so many seconds, or this share of the attempt, whichever is more.
_BEAT, _SHARE = 1.0, 0.01

SAME = 0.95  # rank correlation from which on a new teacher is said to be much like the student


class PointReceiver(Protocol):
    """Gets every point that the log gets: `otfkd.training.loggers` has those that pass them on to a logger."""

    def begin(self, points: Iterable[Point]) -> None: ...
    def log(self, step: int, values: Mapping[str, float]) -> None: ...


class Several:
    """Gives what it gets to several receivers, in their order."""

    def __init__(self, receivers: Sequence[PointReceiver]):
        self._receivers = receivers

    def begin(self, points: Iterable[Point]) -> None:
        known = list(points)
        for receiver in self._receivers:
            receiver.begin(known)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for receiver in self._receivers:
            receiver.log(step, values)


class RunLog:
    """The jsonl files of a run's folder; metrics.jsonl is the source of truth and loggers only mirror it.

    Clock times have a file of their own, outside the promise that a resumed run writes the same bytes.
    """

    def __init__(self, folder: RunFolder, mirror: PointReceiver | None = None):
        self._folder = folder
        self._metrics = JsonLines(folder.metrics_file)
        self._rotations = JsonLines(folder.rotations_file)
        self._timings = JsonLines(folder.timings_file)
        if rank() == 0:
            self._timings.drop_half_line()  # the others are cut back to a checkpoint's length
        self._mirror = mirror
        self._opened = time.monotonic()
        self._told = 0.0  # seconds until the newest time that was written

    @rank_zero_only
    def metrics(self, step: int, values: dict[str, Any]) -> None:
        self._metrics.append({"step": step, **values})
        if "dev" in values:
            self.timing("dev", step=step)
        if self._mirror is not None:
            self._mirror.log(step, values)

    @rank_zero_only
    def announce(self, record: Rotated | Refused | Follows) -> None:
        """Tell people of a rotation; its line follows when the snapshot's file is whole."""
        if self._mirror is not None:
            self._mirror.log(*_point(record))
        logging.getLogger("otfkd").info("after step %d, %s", record.step, _in_words(record))

    @rank_zero_only
    def rotation(self, record: Rotated | Refused | Follows) -> None:
        self._rotations.append(record.line())

    @rank_zero_only
    def timing(self, event: str, **facts: Any) -> None:
        """Write when something happened: in seconds since the log was opened, and by the calendar."""
        self._told = time.monotonic() - self._opened
        self._timings.append({"event": event, "seconds": round(self._told, 3), "at": round(time.time(), 3), **facts})

    @rank_zero_only
    def alive(self, step: int) -> None:
        """Write that a step is done, so that a kill loses the time of little more than it.

        Ever more rarely, or the lines would be as many as the steps.
        """
        if time.monotonic() - self._opened > max(self._told + _BEAT, self._told * (1 + _SHARE)):
            self.timing("alive", step=step)

    def offsets(self) -> dict[str, int]:
        return {"metrics": self._metrics.size(), "rotations": self._rotations.size()}

    def rewind(self, offsets: dict[str, int]) -> None:
        """Cut the files back to where a checkpoint was saved; the logger begins with what is left.

        Raises:
            UserError: a file has lost lines since then.
        """
        broadcast(lambda: self._rewind(offsets))

    def _rewind(self, offsets: dict[str, int]) -> None:
        self._metrics.truncate(offsets["metrics"])
        self._rotations.truncate(offsets["rotations"])
        timed = {timing.step for timing in self._folder.read_timings() if timing.event == "dev"}
        if untimed := self._folder.read_dev_scores().keys() - timed:
            raise UserError(
                f"{self._folder.timings_file} does not say when the dev score of step {min(untimed)} came: restore it, "
                "or start anew with fresh=true"
            )
        if self._mirror is not None:
            rotations = map(_point, self._folder.read_rotations())
            self._mirror.begin(sorted([*self._folder.read_metrics(), *rotations], key=lambda point: point[0]))


def _point(record: Rotated | Refused | Follows) -> Point:
    """The numbers of a rotation; none of one that was refused."""
    if isinstance(record, Refused):
        return record.step, {}
    numbers = {f"rotation/{name}": value for name, value in record.line().items() if isinstance(value, int | float)}
    return record.step, numbers


def _in_words(record: Rotated | Refused | Follows) -> str:
    match record:
        case Refused():
            return f"no rotation: {record.reason}"
        case Follows():
            return "the student's moving average became the teacher"
        case Rotated():
            told = f"{record.snapshot} became teacher {record.generation}"
            if record.agreement_after is not None and record.agreement_after > SAME:
                told += f", which ranks as the student does (agreement {record.agreement_after:.3f}"
                if record.kd_gradient_before and record.kd_gradient_after is not None:
                    left = record.kd_gradient_after / record.kd_gradient_before
                    told += f", the distillation's gradient {left:.0%} of what it was"
                told += "): it has little new to teach yet"
            return told
