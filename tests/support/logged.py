"""What loggers must have of a run, and what is warned of."""

import logging
from pathlib import Path

import pytest

from tests.support.json_lines import json_lines


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def points_of(folder: Path) -> dict[int, dict[str, float]]:
    """What loggers must have of a finished run, by step; written without what it checks."""
    points: dict[int, dict[str, float]] = {}
    for row in json_lines(folder / "metrics.jsonl"):
        points.setdefault(row["step"], {}).update({name: value for name, value in row.items() if name != "step"})
    for row in json_lines(folder / "rotations.jsonl"):
        if row["event"] != "refused":
            numbers = {f"rotation/{name}": value for name, value in row.items() if isinstance(value, int | float)}
            points[row["step"]] |= numbers
    rows = [row for row in json_lines(folder / "results.jsonl") if row["checkpoint"] == "selected"]
    last = points[max(points)]
    for row in rows:
        last[f"{row['split']}/average"] = row["average"]
        last |= {f"{row['split']}/{task}": scores["all"] for task, scores in row["scores"].items()}
    cost = rows[0]["cost"]
    last |= {f"cost/{name}": cost[name] for name in ("seconds", "forwards", "peak_bytes") if cost[name] is not None}
    return points
