"""The Callback that drives a run: evaluate, cache, rotate, checkpoint, in that order, after the steps of its plan."""

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol

import lightning as L

from otfkd.distill.checkpoints import FORMAT, Checkpoints
from otfkd.distill.schedule import Plan
from otfkd.distill.snapshots import Snapshot, SnapshotCache
from otfkd.distill.teacher import TeacherSlot
from otfkd.errors import Interrupted, UserError
from otfkd.models.encoder import Encoder


class Log(Protocol):
    """Where the callback writes; `offsets` and `rewind` let a resume write each line once."""

    def metrics(self, step: int, values: dict[str, Any]) -> None: ...
    def rotation(self, row: dict[str, Any]) -> None: ...
    def offsets(self) -> dict[str, int]: ...
    def rewind(self, offsets: dict[str, int]) -> None: ...


class TeacherRotation(L.Callback):
    """Rotates cached students into the teacher slot of a LightningModule with a `student` encoder and a `teacher` slot.

    All in one hook, so that the checkpoint of step N already has the teacher that step N+1 will learn from.

    Args:
        plan: what is due after which optimizer step.
        cache: where snapshots live.
        checkpoints: where `last` and `best` live.
        evaluate: a dev score of the student, higher is better.
        log: where metrics and rotations are written.
        source: which snapshot rotates in: the student as it is, or the best by dev cached since the last rotation.
        keep: snapshots kept besides the teacher's and the candidates for the next rotation.
        stopping: whether a signal asked the run to stop.
    """

    def __init__(
        self,
        plan: Plan,
        cache: SnapshotCache,
        checkpoints: Checkpoints,
        *,
        evaluate: Callable[[Encoder], float],
        log: Log,
        source: Literal["current", "best"] = "current",
        keep: int = 2,
        stopping: Callable[[], bool] = lambda: False,
    ):
        self.plan = plan
        self.cache = cache
        self.checkpoints = checkpoints
        self.evaluate = evaluate
        self.run_log = log
        self.source = source
        self.keep = keep
        self.stopping = stopping
        self.step = 0
        self.generation = 0
        self.teacher: Snapshot | None = None
        self.candidates: list[Snapshot] = []
        self.recent: list[str] = []
        self.checkpointed: set[str] = set()
        self.best = -math.inf
        self.dev: float | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            return  # a micro-batch in between two optimizer steps
        self.step = trainer.global_step
        dev = self._evaluate(module) if self.step in self.plan.evaluate else None
        if self.step in self.plan.cache:
            self._cache(module, dev)
        if self.step in self.plan.rotate:
            self._rotate(module, trainer.optimizers[0].param_groups[0]["lr"])
        stop = self.stopping() and self.step < self.plan.max_steps
        save = stop or self.step in self.plan.checkpoint
        if save:
            trainer.save_checkpoint(self.checkpoints.last)
            self.checkpointed = self._named()
        if save or self.step in self.plan.cache:
            self._prune()
        if stop:
            raise Interrupted(f"stopped after step {self.step}; the same command goes on from there")

    def _evaluate(self, module: L.LightningModule) -> float:
        self.dev = self.evaluate(_student(module))
        self.run_log.metrics(self.step, {"dev": self.dev})
        if self.dev > self.best:
            self.best = self.dev
            facts = {"step": self.step, "dev": self.dev, "generation": self.generation}
            self.checkpoints.save_best(_student(module), facts)
        return self.dev

    def _cache(self, module: L.LightningModule, dev: float | None) -> None:
        snapshot = self.cache.save(_student(module), self.step, dev)
        self.candidates = [*self.candidates, snapshot] if self.source == "best" else [snapshot]
        self.recent = [*self.recent, snapshot.id][-self.keep :]

    def _choose(self) -> Snapshot:
        if self.source == "current":
            return self.candidates[-1]
        # The later of two equals: it has learnt from more.
        return max(self.candidates, key=lambda snapshot: (snapshot.dev, snapshot.step))

    def _rotate(self, module: L.LightningModule, rate: float) -> None:
        chosen = self._choose()
        _slot(module).install_weights(_student(module), self.cache.load(chosen))
        self.generation += 1
        self.teacher, self.candidates = chosen, []
        self.run_log.rotation({
            "step": self.step, "generation": self.generation, "snapshot": chosen.id, "snapshot_step": chosen.step,
            "sha256": chosen.sha256, "dev": chosen.dev, "lr": rate,
        })  # fmt: skip

    def _named(self) -> set[str]:
        named = [self.teacher, *self.candidates]
        return {*self.recent, *(snapshot.id for snapshot in named if snapshot is not None)}

    def _prune(self) -> None:
        # The last checkpoint may still name what the run itself is done with.
        self.cache.prune(self._named() | self.checkpointed)

    def state_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "step": self.step,
            "generation": self.generation,
            "teacher": self.teacher and self.teacher.as_dict(),
            "candidates": [snapshot.as_dict() for snapshot in self.candidates],
            "recent": list(self.recent),
            "best": self.best,
            "dev": self.dev,
            "offsets": self.run_log.offsets(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["format"] != FORMAT:
            raise UserError(
                f"{self.checkpoints.last} has format {state['format']}, not {FORMAT}: "
                "finish the run with the otfkd that began it, or start anew with fresh=true"
            )
        self.step, self.generation = state["step"], state["generation"]
        self.teacher = Snapshot(**state["teacher"]) if state["teacher"] else None
        self.candidates = [Snapshot(**snapshot) for snapshot in state["candidates"]]
        self.recent, self.best, self.dev = state["recent"], state["best"], state["dev"]
        self.checkpointed = self._named()
        self.run_log.rewind(state["offsets"])

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        # After a resume the slot holds the initial teacher again; the checkpoint names the one that was in use.
        if self.teacher is not None:
            _slot(module).install_weights(_student(module), self.cache.load(self.teacher))


def _student(module: L.LightningModule) -> Encoder:
    student = module.student
    assert isinstance(student, Encoder)
    return student


def _slot(module: L.LightningModule) -> TeacherSlot:
    slot = module.teacher
    assert isinstance(slot, TeacherSlot)
    return slot
