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
    try:
        grade = float(given)
    except (TypeError, ValueError):
        grade = math.nan
    if not 0 <= grade <= 5:
        shown = str(given).strip()[:40]
        raise UserError(f"{where} has the grade {shown!r}, not a number from 0 to 5: fetch the data again")
    return grade
