"""Tables' definitions and published rows made by hand."""

from collections.abc import Callable, Sequence
from typing import Any

from otfkd.runs.rows import Cost, DevPoint, Row
from otfkd.tables.definition import TableSpec
from otfkd.tables.published import Published
from tests.support.rows import make_row

ROWS: list[dict[str, Any]] = [
    {"name": "encoder", "label": "Encoder", "experiment": None},
    {"name": "simcse", "label": "SimCSE", "experiment": "simcse"},
    {"name": "otfkd", "label": "On the fly", "experiment": "otfkd", "teacher": "simcse"},
]
SWEPT: dict[str, Any] = {
    "name": "every", "label": "Every {value} steps", "experiment": "otfkd", "teacher": "simcse",
    "sweep": {"key": "schedule.every", "values": {"mini": [10, 20]}},
}  # fmt: skip


def make_spec(**changes: Any) -> TableSpec:
    """A table of an encoder, SimCSE and a method taught by it, two seeds at profile mini."""
    values = {"title": "Title", "profiles": {"mini": {"seeds": [0, 1]}}, "rows": ROWS, **changes}
    return TableSpec.model_validate(values)


def make_cost(
    seconds: float = 60, forwards: int = 1000, curve: Sequence[tuple[int, float, float]] = (), **more: Any
) -> Cost:
    """The curve's points are step, dev and seconds."""
    points = [DevPoint(step=step, dev=dev, seconds=at, forwards=step) for step, dev, at in curve]
    return Cost(**{
        "seconds": seconds, "forwards": forwards, "peak_bytes": None, "curve": points, "rotations": (), **more
    })  # fmt: skip


def rows_of(*scores: float, task: str = "tiny", **changes: Any) -> list[Row]:
    """One row a seed with these scores."""
    return [make_row({task: score}, seed=seed, **changes) for seed, score in enumerate(scores)]


def published(
    row: str, rows: Sequence[Row], *, table: str = "tiny", model: str | None = None,
    geometry: Callable[[Row], dict[str, float]] = lambda row: {"alignment": 0.2, "uniformity": -2.0},
    arguments: Sequence[str] = (), **more: Any,
) -> list[Published]:  # fmt: skip
    """What is published of some rows; `arguments` are those of the command, but for profile and seed."""
    return [
        Published(
            table=table,
            row=row,
            model=model,
            arguments=(*(arguments or [f"experiment={row}"]), "profile=mini", f"seed={one.seed}"),
            folder=f"../../runs/{row}/0123456789/s{one.seed}",
            geometry=geometry(one),
            result=one,
            **more,
        )
        for one in rows
    ]
