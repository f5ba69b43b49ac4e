"""The section `objective`: what is minimised, InfoNCE and the terms beside it.

Nothing here imports torch, so a command can refuse its arguments at once.
"""

from collections import Counter
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from otfkd.config.markers import AddedLater
from otfkd.config.sections import Fraction, ImportPath, Node
from otfkd.config.terms import LENT, GroupSize, Kind, Lists, Shape, Term, TermConfig, check_read, is_own, reads


class ObjectiveConfig(Node):
    supervised: Literal["simcse", "cosent", "cosine_regression", "softmax"] | None  # None: from sentences alone
    temperature: PositiveFloat
    mask_repeats: bool
    consistency_weight: NonNegativeFloat
    kd: Kind | ImportPath
    kd_weight: NonNegativeFloat
    kd_ramp: Literal["first", "rotation"] | None  # counted from the first teacher or from each one; None: constant
    kd_ramp_steps: PositiveInt | None
    kd_ramp_shape: Shape
    lists: Lists  # the student's: view 1 against itself or against view 2
    temperature_student: PositiveFloat
    temperature_student_final: PositiveFloat | None  # reached linearly at the last step; None: fixed
    temperature_teacher: PositiveFloat
    temperature_teacher_final: PositiveFloat | None
    margin: NonNegativeFloat
    group_p: Fraction | None
    group_size: GroupSize | None
    mlm_weight: NonNegativeFloat
    mlm_probability: Fraction
    fn: Annotated[ImportPath | None, AddedLater()] = (
        None  # the whole loss, of the user's own; no other key is then read
    )
    dims: Annotated[list[PositiveInt] | None, AddedLater()] = None  # sizes of the embedding that each are one
    terms: Annotated[list[TermConfig] | None, AddedLater()] = None  # in the place of kd, kd_weight and kd_ramp

    @property
    def kd_term(self) -> Term:
        """The teacher's term that the keys from `kd` on describe."""
        return Term(
            "kd", self.kd, self.kd_weight, self.kd_ramp, self.kd_ramp_steps, None, self.kd_ramp_shape, self.lists,
            self.temperature_student, self.temperature_student_final, self.temperature_teacher,
            self.temperature_teacher_final, self.margin, self.group_p, self.group_size,
        )  # fmt: skip

    @property
    def all_terms(self) -> list[Term]:
        """The terms beside InfoNCE that count, in the order in which they are added."""
        if self.fn is not None:
            return []
        if self.terms is None:
            several = [self.kd_term] if self.kd_weight else []
        else:
            several = [self._filled_in(term) for term in self.terms]
        alone = {"consistency": self.consistency_weight, "mlm": self.mlm_weight}
        consistency, mlm = ([self._constant(what, weight)] if weight else [] for what, weight in alone.items())
        return [*consistency, *several, *mlm]

    @property
    def compared_term(self) -> Term:
        """The term at whose temperatures teacher and student are compared: the first that goes by lists, if any."""
        taught = [term for term in self.all_terms if term.of_teacher]
        return next((term for term in taught if not term.compares_embeddings), taught[0] if taught else self.kd_term)

    def _constant(self, what: str, weight: float) -> Term:
        return replace(self.kd_term, name=what, what=what, weight=weight, ramp=None, ramp_steps=None)

    def _filled_in(self, term: TermConfig) -> Term:
        own = {key: value for key, value in term.model_dump(exclude={"name"}).items() if value is not None}
        lent = {key: getattr(self, key) for key in LENT if key not in own}
        if own.keys() & {"group_p", "group_size"}:  # of its own, which the objective's exclude
            lent |= {"group_p": None, "group_size": None}
        absent = dict.fromkeys(("ramp", "ramp_steps", "fade_steps"))
        return Term(**{**absent, "ramp_shape": "linear", **lent, **own, "name": f"term/{term.called}"})

    def is_lent(self, key: str) -> bool:
        """Whether one of several terms takes a key from the objective."""
        return any(reads(term.what, key) and term.takes(key) for term in self.terms or ())

    @property
    def distils(self) -> bool:
        """Whether a teacher's term counts."""
        return any(term.of_teacher for term in self.all_terms)

    def learns_from(self, teacher: str | None) -> bool:
        """Whether a teacher is learnt from: by a term, or by a whole loss of the user's own, which gets any there is.

        Args:
            teacher: `teacher.source`; None where it is unknown.
        """
        return self.distils or (self.fn is not None and teacher != "none")

    @property
    def own_losses(self) -> list[str]:
        """The import paths of losses of the user's own, each once."""
        return list(dict.fromkeys(term.what for term in self.all_terms if is_own(term.what)))

    @property
    def compares_embeddings(self) -> bool:
        """Whether a teacher is matched vector by vector, too or only."""
        return any(term.compares_embeddings for term in self.all_terms)

    @property
    def predicts_tokens(self) -> bool:
        """Whether SimCSE's masked-language loss counts."""
        return any(term.what == "mlm" for term in self.all_terms)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.group_p is not None and self.group_size is not None:
            raise ValueError("objective.group_p and objective.group_size exclude each other: set one of them to null")
        if (self.kd_ramp is None) != (self.kd_ramp_steps is None):
            raise ValueError(
                "objective.kd_ramp and objective.kd_ramp_steps need each other: give both, or set both to null"
            )
        if self.terms is None:
            finals = ("temperature_student_final", "temperature_teacher_final")
            unset = {"group_p": None, "group_size": None, "lists": "one_view", **dict.fromkeys(finals)}
            given = {key: value for key, none in unset.items() if (value := getattr(self, key)) != none}
            check_read(self.kd, given, "objective.{key}={value}", "objective.kd=")
        if self.mask_repeats and self.own_losses:
            named = "objective.kd" if self.terms is None else "objective.terms"
            raise ValueError(
                "objective.mask_repeats=true takes entries out of the lists, of which a loss of your own, "
                f"{named}={self.own_losses[0]}, is not told: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _falls(self) -> Self:
        dims = self.dims
        if dims is not None and (not dims or dims != sorted(set(dims), reverse=True)):
            raise ValueError(
                f"objective.dims=[{','.join(map(str, dims))}] is no falling list of sizes: write the largest first, as "
                "[384,256,128,64]"
            )
        if dims is not None and self.fn is not None:
            raise ValueError(
                f"objective.fn={self.fn} is the whole loss, which objective.dims would average over sizes: "
                "leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _has_each_term_once(self) -> Self:
        if self.terms == []:
            raise ValueError("objective.terms=[] has no term: write one, as [{what: ce}], or leave it null")
        names = [term.name for term in self.all_terms]
        for name, times in Counter(name.removeprefix("term/") for name in names).items():
            if times > 1 and name in names:
                raise ValueError(
                    f"objective.{name}_weight={getattr(self, f'{name}_weight'):g} and a term {name} of objective.terms "
                    "are the same: leave one of them out"
                )
            if times > 1:
                raise ValueError(
                    f"objective.terms has two terms called {name}: give one of them a name, as name: other"
                )
        return self
