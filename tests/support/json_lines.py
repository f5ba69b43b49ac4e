"""The logs of a run, read without otfkd."""

import json
from pathlib import Path
from typing import Any


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that are of training, not of evaluation."""
    return [row for row in json_lines(folder / "metrics.jsonl") if "loss" in row]
