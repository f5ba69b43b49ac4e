"""The Callback that drives a run: evaluate, cache, rotate, checkpoint, in that order, after the steps of its plan."""

from collections.abc import Callable
from typing import Any, Protocol

import lightning as L
from torch import Tensor, nn

from otfkd.base.errors import Interrupted
from otfkd.config.schema import Schedule
from otfkd.distill.candidates import Candidates
from otfkd.distill.checkpoints import Checkpoints
from otfkd.distill.pool import Pool
from otfkd.distill.schedule import Plan
from otfkd.distill.snapshots import Snapshot, SnapshotCache
from otfkd.distill.teacher import TeacherSlot
from otfkd.distill.triggers import DevWatch


class Log(Protocol):
    """Where the callback writes; `offsets` and `rewind` let a resume write each line once."""

    def metrics(self, step: int, values: dict[str, Any]) -> None: ...
    def announce(self, row: dict[str, Any]) -> None: ...  # at once
    def rotation(self, row: dict[str, Any]) -> None: ...  # when what it names is whole
    def offsets(self) -> dict[str, int]: ...
    def rewind(self, offsets: dict[str, int]) -> None: ...


class TeacherRotation(L.Callback):
    """Rotates cached students into the teacher slot of a LightningModule with a `student` and a `teacher` slot.

    All in one hook, so that the checkpoint of step N already has the teacher that step N+1 will learn from.

    Args:
        plan: what is due after which optimizer step.
        schedule: which snapshot rotates, who stays beside it, and what else a rotation does.
        cache: where snapshots live.
        checkpoints: where `last` and `best` live.
        log: where metrics and rotations are written.
        evaluate: a dev score of a student, higher is better.
        diagnose: facts of student and teacher on a batch, asked before and after each rotation.
        stopping: whether a signal asked the run to stop.

    Attributes:
        step: optimizer steps done.
        generation: rotations so far.
        dev: what dev scores have said.
        pool: who teaches.
        candidates: who may teach next.
    """

    def __init__(
        self,
        plan: Plan,
        schedule: Schedule,
        cache: SnapshotCache,
        checkpoints: Checkpoints,
        log: Log,
        *,
        evaluate: Callable[[Any], float],
        diagnose: Callable[[Any, Any], dict[str, float | None]] = lambda module, batch: {},
        stopping: Callable[[], bool] = lambda: False,
    ):
        self.plan = plan
        self.schedule = schedule
        self.cache = cache
        self.checkpoints = checkpoints
        self.run_log = log
        self.evaluate = evaluate
        self.diagnose = diagnose
        self.stopping = stopping
        self.step = 0
        self.generation = 0
        self.first_installed = 0
        self.installed = 0
        self.dev = DevWatch(schedule)
        self.pool = Pool(schedule)
        self.candidates = Candidates(schedule, cache, evaluate, plan.max_steps)
        self.checkpointed: set[str] = set()
        self.origin: dict[str, Tensor] = {}
        self.untold: tuple[Snapshot, dict[str, Any]] | None = None  # a rotation whose file is still being written

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        # Before a checkpoint is read: a student that begins again begins here.
        if self.schedule.on_rotation.student == "reinit" or self.plan.anew is not None:
            self.origin = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        student, slot, shadow = _student(module), _slot(module), self.candidates.shadow
        if self.step == 0:
            self.pool.begin(slot, self.evaluate)
            if shadow is not None:
                shadow.start(student)
            return
        if shadow is not None:
            shadow.join(student)
        if self._follows:
            self._follow(module)
        else:
            self.pool.restore(slot, student, self.cache)
        self._date(slot)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            return  # a micro-batch in between two optimizer steps
        self.step = trainer.global_step
        self._tell()
        student, evaluated = _student(module), self.step in self.plan.evaluate
        if self.candidates.shadow is not None:
            self.candidates.shadow.update(student, self.step)
        if evaluated:
            self._evaluate(student)
        if self.step in self.plan.cache | self.plan.rotate:
            self._settle()
        if self.step in self.plan.cache:
            self.candidates.take(student, self.step, self.dev.latest if evaluated else None)
        if self._due:
            self._rotate(trainer, module, batch)
        if self._follows:
            self._follow(module)
        self._save(trainer)

    @property
    def _due(self) -> bool:
        most = self.schedule.max_rotations
        if self.step not in self.plan.rotate or (most is not None and self.generation >= most):
            return False
        return self.dev.fires or self.step == self.plan.fills

    @property
    def _follows(self) -> bool:
        return self.plan.follows is not None and self.step >= self.plan.follows

    def _evaluate(self, student: nn.Module) -> None:
        score = self.evaluate(student)
        self.dev.see(score)
        self.run_log.metrics(self.step, {"dev": score})
        if self.dev.improved:
            self.checkpoints.save_best(student, {"step": self.step, "dev": score, "generation": self.generation})

    def _rotate(self, trainer: L.Trainer, module: L.LightningModule, batch: Any) -> None:
        student, slot = _student(module), _slot(module)
        dev = self.dev.latest if self.step in self.plan.evaluate else None
        chosen = self.candidates.choose(student, self.step, dev)
        refusal = self._refusal(chosen)
        if chosen is None or refusal is not None:
            self._say({"event": "refused", "step": self.step, "reason": refusal})
            return
        before = self.diagnose(module, batch)
        self.pool.add(slot, student, chosen, self.cache)
        self._installed(slot)
        self.generation += 1
        self.candidates.rotated()
        self.dev.rotated()
        self.untold = chosen, {
            "event": "rotated", "step": self.step, "generation": self.generation, "snapshot": chosen.id,
            "snapshot_step": chosen.step, "sha256": chosen.sha256, "dev": chosen.dev,
            "lr": trainer.optimizers[0].param_groups[0]["lr"], "members": len(slot.members),
            **_paired(before, self.diagnose(module, batch)),
        }  # fmt: skip
        self.run_log.announce(self.untold[1])
        self._tell()
        self._begin_again(trainer, module)

    def _say(self, row: dict[str, Any]) -> None:
        self.run_log.announce(row)
        self.run_log.rotation(row)

    def _settle(self) -> None:
        """Have the last snapshot's file whole and its rotation told."""
        self.cache.join()
        self._tell()

    def _tell(self) -> None:
        if self.untold is not None and self.untold[0].sha256:
            snapshot, row = self.untold
            self.untold = None
            self.run_log.rotation({**row, "sha256": snapshot.sha256})

    def _refusal(self, chosen: Snapshot | None) -> str | None:
        if chosen is None:
            return "the student's weights are not finite"
        gate, held = self.schedule.gate, self.pool.dev
        if gate is None or held is None or chosen.dev is None or chosen.dev >= held - gate:
            return None
        return f"dev {chosen.dev:.2f} is more than {gate:g} below the teacher's {held:.2f}"

    def _installed(self, slot: TeacherSlot) -> None:
        self.installed, self.first_installed = self.step, self.first_installed or self.step
        self._date(slot)

    def _date(self, slot: TeacherSlot) -> None:
        slot.first_installed, slot.installed = self.first_installed, self.installed

    def _begin_again(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        again = self.schedule.on_rotation
        if again.student == "reinit" or self.step == self.plan.anew:
            module.load_state_dict(dict(self.origin))
            if self.candidates.shadow is not None:
                self.candidates.shadow.start(_student(module))
        if again.optimizer == "reset" or self.step == self.plan.anew:
            for optimizer in trainer.optimizers:
                optimizer.state.clear()

    def _follow(self, module: L.LightningModule) -> None:
        slot, shadow = _slot(module), self.candidates.shadow
        assert shadow is not None
        slot.put(0, _student(module), shadow.weights)
        slot.keep(1)
        slot.weights = [1.0]
        if self.generation == 0:
            self.generation = 1
            self._installed(slot)
            self._say({"event": "follows", "step": self.step, "generation": 1})

    def _save(self, trainer: L.Trainer) -> None:
        stop = self.stopping() and self.step < self.plan.max_steps
        if stop or self.step in self.plan.checkpoint:
            trainer.save_checkpoint(self.checkpoints.last)
            self.checkpointed = self._named
        if stop or self.step in self.plan.checkpoint | self.plan.cache | self.plan.rotate:
            # The last checkpoint may still name what the run itself is done with.
            self.cache.prune(self._named | self.checkpointed)
        if stop:
            raise Interrupted(f"stopped after step {self.step}; the same command goes on from there")

    @property
    def _named(self) -> set[str]:
        return self.pool.names | self.candidates.names

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._settle()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self.cache.let_finish()  # before somebody else may begin in its folder

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["otfkd"] = self.checkpoints.stamp

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.checkpoints.check(checkpoint)

    def state_dict(self) -> dict[str, Any]:
        self._settle()  # a checkpoint names whole files only
        return {
            "step": self.step,
            "generation": self.generation,
            "first_installed": self.first_installed,
            "installed": self.installed,
            "dev": self.dev.state_dict(),
            "pool": self.pool.state_dict(),
            "candidates": self.candidates.state_dict(),
            "offsets": self.run_log.offsets(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.generation = state["step"], state["generation"]
        self.first_installed, self.installed = state["first_installed"], state["installed"]
        self.dev.load_state_dict(state["dev"])
        self.pool.load_state_dict(state["pool"])
        self.candidates.load_state_dict(state["candidates"])
        self.checkpointed = self._named
        self.run_log.rewind(state["offsets"])


def _paired(before: dict[str, float | None], after: dict[str, float | None]) -> dict[str, float | None]:
    """What a rotation changed as two values, what only describes the teacher as one."""
    paired: dict[str, float | None] = {}
    for name, value in after.items():
        if name.startswith(("teacher_", "member_")):
            paired[name] = value
        else:
            paired |= {f"{name}_before": before[name], f"{name}_after": value}
    return paired


def _student(module: L.LightningModule) -> nn.Module:
    student = module.student
    assert isinstance(student, nn.Module)
    return student


def _slot(module: L.LightningModule) -> TeacherSlot:
    slot = module.teacher
    assert isinstance(slot, TeacherSlot)
    return slot
