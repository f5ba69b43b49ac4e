"""What a rotation chooses from: the cached students since the last one, or the moving average beside them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from otfkd.config.sections import Schedule
from otfkd.distill.ema import Shadow
from otfkd.distill.snapshots import Snapshot, SnapshotCache
from otfkd.distill.teacher import TeacherSlot

Weights = Mapping[str, Tensor]


class Candidates:
    """Caches students and makes the snapshot that is to teach.

    Args:
        schedule: which snapshot that is.
        cache: where snapshots live.
        evaluate: a dev score of a student, asked of weights no student had, where the schedule needs one.
        max_steps: optimizer steps of the run.

    Attributes:
        taken: the snapshots a rotation may choose from.
        recent: ids of those kept for the user besides.
        shadow: the moving average, for the source `ema`.
    """

    def __init__(self, schedule: Schedule, cache: SnapshotCache, evaluate: Callable[[Any], float], max_steps: int):
        self.schedule = schedule
        self.cache = cache
        self.evaluate = evaluate
        self.taken: list[Snapshot] = []
        self.recent: list[str] = []
        ema = schedule.ema
        self.shadow = Shadow(ema.decay, ema.shape, max_steps) if schedule.source == "ema" else None

    def take(self, student: nn.Module, step: int, dev: float | None) -> None:
        """Cache the student after a step; one that has diverged is passed over, for it must never teach."""
        if not _finite(student.state_dict()):
            return
        snapshot = self.cache.save(student.state_dict(), step, dev)
        match self.schedule.source:
            case "best":
                # The later of two equals: it has learnt from more.
                self.taken = [max([*self.taken, snapshot], key=lambda one: (one.dev, one.step))]
            case "average":
                self.taken = [*self.taken, snapshot][-self.schedule.average_last :]
            case _:
                self.taken = [snapshot]
        self.recent = [*self.recent, snapshot.id][-self.schedule.keep_snapshots :]

    def choose(self, student: nn.Module, step: int, dev: float | None) -> Snapshot | None:
        """The snapshot that is to teach after a step; None where its weights are not finite.

        Args:
            student: as it is after the step.
            step: the step.
            dev: the student's dev score, where the step has one.
        """
        if self.shadow is not None:
            return self._make(student, self.shadow.weights, step, "ema")
        if self.schedule.source == "best" and self.taken:
            return self.taken[-1]
        if not self._took(step):
            self.take(student, step, dev)
        if not self._took(step):
            return None
        if len(self.taken) > 1:
            return self._make(student, _mean([self.cache.weights(one) for one in self.taken]), step, "average")
        return self.taken[-1]

    def _took(self, step: int) -> bool:
        return any(snapshot.step == step for snapshot in self.taken)

    def _make(self, student: nn.Module, weights: Weights, step: int, kind: str) -> Snapshot | None:
        if not _finite(weights):
            return None
        dev = None
        if self.schedule.gate is not None or self.schedule.aggregate == "dev_weighted":
            scratch = TeacherSlot()
            scratch.put(0, student, weights)
            dev = self.evaluate(scratch.members[0])
        return self.cache.save(weights, step, dev, kind)

    def rotated(self) -> None:
        """Begin a new choice; an average goes on over the last snapshots, whoever taught meanwhile."""
        if self.schedule.source != "average":
            self.taken = []

    def begin_again(self, student: nn.Module) -> None:
        """Forget what the student was: weights from before it began again and from after it have no mean."""
        self.taken = []
        if self.shadow is not None:
            self.shadow.start(student)

    @property
    def names(self) -> set[str]:
        return {*self.recent, *(snapshot.id for snapshot in self.taken)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "taken": [snapshot.as_dict() for snapshot in self.taken],
            "recent": self.recent,
            "shadow": self.shadow and self.shadow.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = [Snapshot.from_dict(snapshot) for snapshot in state["taken"]]
        self.recent = state["recent"]
        if self.shadow is not None:
            self.shadow.load_state_dict(state["shadow"])


def _finite(weights: Weights) -> bool:
    # NaN and infinities come through as an extreme, in a tenth of the time that a look at every number takes.
    extremes = [torch.stack(torch.aminmax(tensor)) for tensor in weights.values() if tensor.numel()]
    return all(bool(pair.isfinite().all()) for pair in extremes)


def _mean(members: list[Weights]) -> dict[str, Tensor]:
    """The mean of weights in float32; what is no floating number is the newest's."""
    return {
        name: torch.stack([one[name].float() for one in members]).mean(0) if newest.is_floating_point() else newest
        for name, newest in members[-1].items()
    }
