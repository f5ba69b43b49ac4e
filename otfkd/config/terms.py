"""The terms of an objective beside InfoNCE: what one may be, what it reads, and how each is written in a config.

Nothing here imports torch, so a command can refuse its arguments at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from otfkd.config.sections import Fraction, ImportPath, Node

Kind = Literal["ce", "kl", "js", "listmle", "rank_margin", "mse", "cosine"]
Lists = Literal["one_view", "two_views"]
Shape = Literal["linear", "sigmoid"]
GroupSize = Annotated[int, Field(ge=2, le=1_000_000)]

VECTORS = ("mse", "cosine")  # compared one by one, not through lists of similarities
ALONE = ("consistency", "mlm")  # of the student alone
_SOFTMAX = ("ce", "kl", "js")
_LISTED = (*_SOFTMAX, "listmle", "rank_margin")
_READ_BY = {
    "group_p": _LISTED, "group_size": _LISTED, "lists": _LISTED,
    "temperature_student": (*_SOFTMAX, "listmle"), "temperature_student_final": (*_SOFTMAX, "listmle"),
    "temperature_teacher": _SOFTMAX, "temperature_teacher_final": _SOFTMAX, "margin": ("rank_margin",),
}  # fmt: skip
LENT = tuple(_READ_BY)  # keys that a term takes from its objective where it says nothing itself


def is_own(what: str) -> bool:
    """Whether a term is a function of the user's own, by its import path."""
    return ":" in what


def reads(what: str, key: str) -> bool:
    """Whether a term of some kind reads a key; a function of the user's own is given lists."""
    return what in _READ_BY[key] or (is_own(what) and _READ_BY[key] is _LISTED)


def check_read(what: str, given: Mapping[str, Any], told: str, named: str) -> None:
    """Refuse what a term has no use for.

    Args:
        what: its kind.
        given: keys with the values that were given.
        told: what to call a key, `{key}` and `{value}` in it.
        named: the key of the kind, as it is written with a value.

    Raises:
        ValueError: the first key that is not read.
    """
    for key, value in given.items():
        if not reads(what, key):
            kinds = _READ_BY[key]
            several = " or ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))
            raise ValueError(
                f"{told.format(key=key, value=value)} has no meaning with {named}{what}: "
                f"leave it out, or take {named}{several}"
            )


class TermConfig(Node):
    """One entry of `objective.terms`; None of its temperatures, margin, lists and groups: the objective's."""

    what: Literal[Kind, "consistency", "mlm"] | ImportPath
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] | None = None  # in metrics; None: what it is
    weight: PositiveFloat = 1.0
    ramp: Literal["run", "first", "rotation"] | None = None  # from 0, counted from the first step or teacher, or each
    ramp_steps: PositiveInt | None = None
    fade_steps: PositiveInt | None = None  # before the last, at which the weight is 0
    ramp_shape: Shape | None = None  # of both; None: linear
    lists: Lists | None = None
    temperature_student: PositiveFloat | None = None
    temperature_student_final: PositiveFloat | None = None
    temperature_teacher: PositiveFloat | None = None
    temperature_teacher_final: PositiveFloat | None = None
    margin: Annotated[float, Field(ge=0)] | None = None
    group_p: Fraction | None = None
    group_size: GroupSize | None = None

    @property
    def called(self) -> str:
        """What it is called in metrics."""
        return self.name or self.what.rpartition(":")[2]

    def takes(self, key: str) -> bool:
        """Whether it leaves a key to its objective."""
        of_groups = ("group_p", "group_size")
        return all(getattr(self, one) is None for one in (of_groups if key in of_groups else (key,)))

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        at = f"the term {self.called} of objective.terms"
        given = {key: value for key in LENT if (value := getattr(self, key)) is not None}
        check_read(self.what, given, f"{at}: {{key}}={{value}}", "what=")
        if None not in (self.group_p, self.group_size):
            raise ValueError(f"{at}: group_p and group_size exclude each other: leave one of them out")
        if (self.ramp is None) != (self.ramp_steps is None):
            raise ValueError(f"{at}: ramp and ramp_steps need each other: give both, or leave both out")
        if self.ramp_shape is not None and self.ramp is None and self.fade_steps is None:
            raise ValueError(f"{at}: ramp_shape={self.ramp_shape} shapes a ramp: give ramp or fade_steps too")
        if self.what in ALONE and self.ramp in ("first", "rotation"):
            raise ValueError(
                f"{at}: ramp={self.ramp} counts from a teacher, and what={self.what} has none: take ramp=run"
            )
        return self


@dataclass(frozen=True)
class Term:
    """A term with all that it takes from its objective; what its kind does not read has no meaning.

    Attributes:
        name: in metrics.
        what: a kind, or an import path.
        weight: of the term beside InfoNCE, apart from ramps.
        ramp: from 0, counted from the run's first step, from the first teacher or anew from each; None: constant.
        ramp_steps: until it reaches the weight.
        fade_steps: from its weight to 0, which it has at the last step.
        ramp_shape: of both.
        lists: the student's similarities: view 1 against itself or against view 2.
        temperature_student: of the student's lists.
        temperature_student_final: reached linearly at the last step; None: it stays.
        temperature_teacher: of the teacher's.
        temperature_teacher_final: as the student's.
        margin: of `rank_margin`.
        group_p: probability mass of the groups in which the teacher's ranking is shuffled.
        group_size: their size.
    """

    name: str
    what: str
    weight: float
    ramp: Literal["run", "first", "rotation"] | None
    ramp_steps: int | None
    fade_steps: int | None
    ramp_shape: Shape
    lists: Lists
    temperature_student: float
    temperature_student_final: float | None
    temperature_teacher: float
    temperature_teacher_final: float | None
    margin: float
    group_p: float | None
    group_size: int | None

    @property
    def of_teacher(self) -> bool:
        """Whether a teacher is learnt from."""
        return self.what not in ALONE

    @property
    def compares_embeddings(self) -> bool:
        """Whether the teacher is matched vector by vector, not through lists of similarities."""
        return self.what in VECTORS
