"""The lines of rotations.jsonl: every rotation, every refused one, and the step a moving average began to teach."""

from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Comparison(TypedDict, total=False):
    """How student and teacher compare on one batch; None where there is no teacher, or no second member.

    Attributes:
        agreement: Spearman of each sentence's similarities, mean over the batch.
        kl: of the student's distribution from the teacher's, in nats.
        kd_gradient: norm of the distillation's gradient by the student's cosines, mean over the batch.
        teacher_mean: of the teacher's cosines.
        teacher_variance: of them.
        member_correlation: Pearson between members, mean over pairs of them.
    """

    agreement: float | None
    kl: float | None
    kd_gradient: float | None
    teacher_mean: float | None
    teacher_variance: float | None
    member_correlation: float | None


class Record(BaseModel):
    # Little is required: what an earlier version did not write is unknown, and what it wrote besides is let be.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    step: int

    def line(self) -> dict[str, Any]:
        """What is written of it."""
        return {"event": getattr(self, "event"), **self.model_dump(exclude_unset=True)}  # noqa: B009


class Rotated(Record):
    """A snapshot became a teacher.

    Attributes:
        step: the optimizer step after which it did.
        generation: rotations so far, this one included.
        snapshot: its id in the cache.
        snapshot_step: the step it was taken after.
        sha256: of its file.
        dev: its dev score, where it has one.
        lr: of the step before.
        members: how many teach from then on.
        agreement_before: and the others, as in `Comparison`; what a rotation changes has two values, what only
            describes the teacher has that of the new one.
    """

    event: Literal["rotated"] = "rotated"
    generation: int | None = None
    snapshot: str | None = None
    snapshot_step: int | None = None
    sha256: str | None = None
    dev: float | None = None
    lr: float | None = None
    members: int = 1
    agreement_before: float | None = None
    agreement_after: float | None = None
    kl_before: float | None = None
    kl_after: float | None = None
    kd_gradient_before: float | None = None
    kd_gradient_after: float | None = None
    teacher_mean: float | None = None
    teacher_variance: float | None = None
    member_correlation: float | None = None


class Refused(Record):
    """A rotation was due and did not take place; `reason` says why, in words."""

    event: Literal["refused"] = "refused"
    reason: str


class Follows(Record):
    """From this step on the student's moving average teaches, anew after every step."""

    event: Literal["follows"] = "follows"
    generation: int = 1

    @property
    def members(self) -> int:
        return 1

    @property
    def sha256(self) -> None:
        """There is no file: it is another teacher at every step."""
        return


RotationRecord = Annotated[Rotated | Refused | Follows, Field(discriminator="event")]

_RECORD: TypeAdapter[Rotated | Refused | Follows] = TypeAdapter(RotationRecord)


def read_record(line: dict[str, Any]) -> Rotated | Refused | Follows:
    """A line of rotations.jsonl; one without an event is of a version that wrote rotations alone.

    Raises:
        ValidationError: it is no such line.
    """
    return _RECORD.validate_python({"event": "rotated", **line})


def compared(before: Comparison, after: Comparison) -> dict[str, Any]:
    """The fields of `Rotated` that say what a rotation changed, and what the new teacher is like."""
    found: dict[str, Any] = {}
    for name in ("agreement", "kl", "kd_gradient"):
        if name in before and name in after:
            found |= {f"{name}_before": before[name], f"{name}_after": after[name]}
    for name in ("teacher_mean", "teacher_variance", "member_correlation"):
        if name in after:
            found[name] = after[name]  # type: ignore[literal-required]
    return found
