"""Sentence pairs with gold grades, and what may pass for a grade."""

import math

from otfkd.base.errors import UserError

# (sentence, sentence, gold grade) each.
GradedPairs = tuple[tuple[str, str, float], ...]


def check_grade(given: str | float, where: str) -> float:
    """A gold grade.

    Raises:
        UserError: it is not a number from 0 to 5, naming where it stands.
    """
    grade = finite(given)
    if grade is None or not 0 <= grade <= 5:
        shown = str(given).strip()[:40]
        raise UserError(f"{where} has the grade {shown!r}, not a number from 0 to 5: fetch the data again")
    return grade


def finite(value: object) -> float | None:
    """A finite number, as tables have it or as text; None for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
