"""What a run writes while it goes on: metrics, rotations and times, mirrored to a logger where one is chosen."""

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from otfkd.base.files import JsonLines, read_json_lines
from otfkd.base.processes import rank_zero_only, rank

Point = tuple[int, Mapping[str, float]]  # an optimizer step and its numbers

SAME = 0.95  # rank correlation from which on a new teacher is said to be much like the student


class Mirror(Protocol):
    """Gets every point that the log gets: `otfkd.training.loggers` has those that pass them on to a logger."""

    def begin(self, points: Iterable[Point]) -> None: ...
    def log(self, step: int, values: Mapping[str, float]) -> None: ...


class RunLog:
    """The jsonl files of a run's folder; metrics.jsonl is the source of truth and loggers only mirror it.

    Clock times have a file of their own, outside the promise that a resumed run writes the same bytes.
    """

    def __init__(self, folder: Path, mirror: Mirror | None = None):
        self._metrics = JsonLines(folder / "metrics.jsonl")
        self._rotations = JsonLines(folder / "rotations.jsonl")
        self._timings = JsonLines(folder / "timings.jsonl")
        if rank() == 0:
            self._timings.drop_half_line()  # the others are cut back to a checkpoint's length
        self._mirror = mirror
        self._opened = time.monotonic()

    @rank_zero_only
    def metrics(self, step: int, values: dict[str, Any]) -> None:
        self._metrics.append({"step": step, **values})
        if "dev" in values:
            self.timing("dev", step=step)
        if self._mirror is not None:
            self._mirror.log(step, values)

    @rank_zero_only
    def announce(self, row: dict[str, Any]) -> None:
        """Tell people of a rotation; its line follows when the snapshot's file is whole."""
        if self._mirror is not None:
            self._mirror.log(*_rotation_point(row))
        logging.getLogger("otfkd").info("after step %d, %s", row["step"], _told(row))

    @rank_zero_only
    def rotation(self, row: dict[str, Any]) -> None:
        self._rotations.append(row)

    @rank_zero_only
    def timing(self, event: str, **facts: Any) -> None:
        """Write when something happened: in seconds since the log was opened, and by the calendar."""
        seconds = time.monotonic() - self._opened
        self._timings.append({"event": event, "seconds": round(seconds, 3), "at": round(time.time(), 3), **facts})

    def offsets(self) -> dict[str, int]:
        return {"metrics": self._metrics.size(), "rotations": self._rotations.size()}

    @rank_zero_only
    def rewind(self, offsets: dict[str, int]) -> None:
        """Cut the files back to where a checkpoint was saved; the logger begins with what is left."""
        self._metrics.truncate(offsets["metrics"])
        self._rotations.truncate(offsets["rotations"])
        if self._mirror is not None:
            metrics = [(row.pop("step"), row) for row in read_json_lines(self._metrics.path)]
            rotations = map(_rotation_point, read_json_lines(self._rotations.path))
            self._mirror.begin(sorted([*metrics, *rotations], key=lambda point: point[0]))


def _rotation_point(row: dict[str, Any]) -> Point:
    """The numbers of a rotation; none of one that was refused."""
    numbers = {f"rotation/{name}": value for name, value in row.items() if isinstance(value, int | float)}
    return row["step"], numbers if "generation" in row else {}


def _told(row: dict[str, Any]) -> str:
    """A line of rotations.jsonl in words."""
    if row["event"] == "refused":
        return f"no rotation: {row['reason']}"
    if row["event"] == "follows":
        return "the student's moving average became the teacher"
    told = f"{row['snapshot']} became teacher {row['generation']}"
    agreement, before, after = row.get("agreement_after"), row.get("kd_gradient_before"), row.get("kd_gradient_after")
    if agreement is not None and agreement > SAME:
        left = "" if not before else f", the distillation's gradient {after / before:.0%} of what it was"
        told += f", which ranks as the student does (agreement {agreement:.3f}{left}): it has little new to teach yet"
    return told
