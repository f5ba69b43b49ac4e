"""Result rows made by hand."""

from collections.abc import Mapping
from typing import Any

from otfkd.runs.rows import Row

ENVIRONMENT = {
    "git_revision": "0123456789abcdef0123456789abcdef01234567",
    "versions": {"python": "3.11.9", "otfkd": "0.1.0", "torch": "2.13.0", "transformers": "5.20.0"},
    "device": "x86_64",
    "threads": 1,
    "cpus": 2,
    "system": "Linux-test",
}


def defined(score: float | None) -> float:
    """A score that is there."""
    assert score is not None
    return score


def make_row(all_scores: Mapping[str, float | None] | None = None, **changes: Any) -> Row:
    """A valid test row with these 'all' scores, None for what is undefined."""
    found = all_scores or {"tiny": 50.0}
    known = [round(score, 2) for score in found.values() if score is not None]
    values: dict[str, Any] = {
        "name": "simcse", "seed": 0, "split": "test", "checkpoint": "selected", "step": 9, "generation": 2,
        "pooler": "cls",
        "scores": {task: {"all": score, "mean": score, "wmean": score, "pairs": 12} for task, score in found.items()},
        "average": sum(known) / len(known) if len(known) == len(found) else None,
        "protocol": "cosine, 128 tokens", "suite": "tiny",
        "suite_sha256": "5" * 64, "weights_sha256": "abcdef01" * 8, "config_hash": "0123456789",
        "teacher_sha256": None, "environment": ENVIRONMENT,
    }  # fmt: skip
    return Row(**{**values, **changes})
