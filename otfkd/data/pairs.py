"""Graded pairs of a user's own: two sentences and a grade a row, on whatever scale and in whatever language."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from otfkd.base.errors import UserError
from otfkd.data.formats import TextFile, filled, recognize
from otfkd.data.grades import GradedPairs, finite
from otfkd.data.sources import matching

COLUMNS = ("sentence1", "sentence2", "score")
# What else the columns are called, in lower case and without punctuation.
_ALIASES = (
    ("sentence1", "sent1", "text1", "s1", "sentencea", "senta", "texta"),
    ("sentence2", "sent2", "text2", "s2", "sentenceb", "sentb", "textb"),
    ("score", "similarityscore", "relatednessscore", "similarity", "relatedness", "grade", "gold", "rating", "label"),
)
# Alignment's positives are graded above 4 of 5, and figures are drawn on that scale; ranks are the same on any.
_LOWEST, _HIGHEST = 0.0, 5.0


def read_pairs(key: str, paths: Sequence[str]) -> dict[str, GradedPairs]:
    """The pairs of some files, by the names that the files give their tasks.

    Args:
        key: the config's key that names the files, for messages.
        paths: files and patterns: CSV, TSV, JSONL or Parquet.

    Returns:
        Each file's pairs, in its order; its lowest grade is 0 and its highest 5, as in the benchmarks.

    Raises:
        UserError: a file is missing, is not what it should be, or would give a task the name of another.
    """
    found: dict[str, GradedPairs] = {}
    for path in matching(paths, key):
        name = _task_name(path)
        if name in found:
            raise UserError(f"{key} names two files called {name}, and a task is called by its file: rename one")
        found[name] = _read(recognize(path, unnamed="csv", key=key))
    return found


def _task_name(path: Path) -> str:
    inner = path.with_suffix("") if path.suffix.lower() in (".gz", ".zst") else path
    # Tables, cards and loggers show the name, and 'average' is what they call the mean of tasks.
    if inner.stem == "average" or not re.fullmatch(r"[\w .+()-]+", inner.stem):
        raise UserError(
            f"{path} cannot give its task a name: call it by letters, digits, spaces, '.', '-', '+' and parentheses, "
            "and not average"
        )
    return inner.stem


def _read(file: TextFile) -> GradedPairs:
    rows = [
        (filled(left, where), filled(right, where), _grade(grade, where))
        for where, (left, right, grade) in file.rows(_columns(file))
    ]
    grades = [grade for _, _, grade in rows]
    low, high = min(grades, default=0.0), max(grades, default=0.0)
    if low == high:
        told = f"the grade {low:g} for all its pairs" if rows else "no pairs"
        raise UserError(f"{file.path} has {told}, which nothing can be ranked by: give pairs of different grades")
    scale = (_HIGHEST - _LOWEST) / (high - low)
    return tuple((left, right, _LOWEST + (grade - low) * scale) for left, right, grade in rows)


def _columns(file: TextFile) -> list[str]:
    """The columns of the two sentences and the grade: by their own names, or the only ones that mean them."""
    chosen = []
    for own, aliases in zip(COLUMNS, _ALIASES, strict=True):
        meant = [name for name in file.columns if re.sub(r"[\W_]", "", name.lower()) in aliases]
        if own not in meant and len(meant) != 1:
            listed = ", ".join(name[:40] for name in file.columns) or "no names"
            which = f"{' and '.join(meant)} may both be" if meant else "none of them is"
            raise UserError(
                f"{file.path} has the columns {listed}, and {which} {own}: call the columns {', '.join(COLUMNS)}"
            )
        chosen.append(own if own in meant else meant[0])
    return chosen


def _grade(value: Any, where: str) -> float:
    grade = finite(value)
    if grade is None:
        shown = "no grade" if value is None or not str(value).strip() else f"the grade {str(value).strip()[:40]!r}"
        raise UserError(f"{where} has {shown}: give a number, with a point for decimals")
    return grade
