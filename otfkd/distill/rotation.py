"""The Callback that rotates: it caches snapshots of the student and puts them into the teacher slot."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from otfkd.distill.candidates import Candidates
from otfkd.distill.driver import RunDriver, student_of
from otfkd.distill.pool import Pool
from otfkd.distill.schedule import Plan
from otfkd.distill.snapshots import Snapshot, SnapshotCache
from otfkd.distill.teacher import TeacherSlot
from otfkd.runs.log import PointReceiver
from otfkd.runs.rotations import Comparison, Follows, Refused, Rotated, compared


class TeacherRotation(RunDriver):
    """Rotates cached students into the teacher slot of a LightningModule with a `student` and a `teacher` slot.

    Args:
        folder: as for `RunDriver`; it gets the snapshots and rotations.jsonl too.
        plan: what is due after which optimizer step, and the schedule it follows.
        evaluate: as for `RunDriver`.
        diagnose: how student and teacher compare on a batch, asked before and after each rotation.
        stopping: as for `RunDriver`, and so are `mirror`, `run` and `extra`.

    Attributes:
        pool: who teaches.
        candidates: who may teach next.

    Example::

        >>> import lightning as L, otfkd, torch
        >>> class Regression(L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.student, self.teacher = torch.nn.Linear(4, 1), otfkd.TeacherSlot()
        ...     def training_step(self, x, _):
        ...         y = self.student(x)
        ...         return (y - x.sum(1, keepdim=True)).square().mean() + sum(
        ...             (y - taught).square().mean() for taught in self.teacher(x)
        ...         )
        ...     def configure_optimizers(self):
        ...         return torch.optim.AdamW(self.student.parameters(), lr=0.01)
        >>> plan = otfkd.plan_schedule(otfkd.Schedule(trigger="every", every=25), max_steps=100)
        >>> rotation = otfkd.TeacherRotation("run", plan, evaluate=lambda student: -float(student.bias.detach().abs()))
        >>> trainer = L.Trainer(
        ...     max_steps=100, callbacks=[rotation], plugins=[otfkd.WholeFiles()], accelerator="cpu", logger=False,
        ...     enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        ... )
        >>> trainer.fit(Regression(), torch.utils.data.DataLoader(torch.randn(800, 4), batch_size=8))
        >>> rotation.generation
        3
    """

    def __init__(
        self,
        folder: str | Path,
        plan: Plan,
        *,
        evaluate: Callable[[Any], float],
        diagnose: Callable[[Any, Any], Comparison] = lambda module, batch: Comparison(),
        stopping: Callable[[], bool] = lambda: False,
        mirror: PointReceiver | None = None,
        run: str = "",
        extra: Callable[[Any], Mapping[str, float]] = lambda student: {},
    ):
        super().__init__(folder, plan, evaluate=evaluate, stopping=stopping, mirror=mirror, run=run, extra=extra)
        self.schedule = plan.schedule
        self.diagnose = diagnose
        self.cache = SnapshotCache(self.folder.snapshots)
        self.pool = Pool(self.schedule)
        self.candidates = Candidates(self.schedule, self.cache, evaluate, plan.max_steps)
        self._origin: dict[str, Tensor] = {}
        self._checkpointed: set[str] = set()
        self._unwritten: tuple[Snapshot, Rotated] | None = None  # a rotation whose file is still being written

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        slot = module.teacher
        assert isinstance(slot, TeacherSlot)
        self.slot = slot
        # Before a checkpoint is read: a student that begins again begins here.
        if self.schedule.on_rotation.student == "reinit" or self.plan.anew is not None:
            self._origin = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        super().on_train_start(trainer, module)
        student, shadow = student_of(module), self.candidates.shadow
        if self.step == 0:
            self.cache.prune(())
            self.pool.begin(self.slot, self.evaluate)
            if shadow is not None:
                shadow.start(student)
            return
        if shadow is not None:
            shadow.join(student)
        if self._follows:
            self._follow(module)
        else:
            self.pool.restore(self.slot, student, self.cache)

    def after_evaluation(self, trainer: L.Trainer, module: L.LightningModule, batch: Any) -> None:
        """Cache the student and rotate it in, whichever is due."""
        self._write_if_whole()
        student, evaluated = student_of(module), self.step in self.plan.evaluate
        if self.candidates.shadow is not None:
            self.candidates.shadow.update(student, self.step)
        if self.step in self.plan.cache | self.plan.rotate:
            self._join_writer()
        if self.step in self.plan.cache and not self.ended:
            self.candidates.take(student, self.step, self.dev.latest if evaluated else None)
        if self._due and not self.ended:
            self._rotate(trainer, module, batch)
        if self._follows and self.generation == 0:
            self._follow(module)
        elif self._follows:
            self._keep_up()

    @property
    def _due(self) -> bool:
        most = self.schedule.max_rotations
        if self.step not in self.plan.rotate or (most is not None and self.generation >= most):
            return False
        return self.dev.fires or self.step == self.plan.fills

    @property
    def _follows(self) -> bool:
        return self.plan.follows is not None and self.step >= self.plan.follows

    def _rotate(self, trainer: L.Trainer, module: L.LightningModule, batch: Any) -> None:
        student = student_of(module)
        dev = self.dev.latest if self.step in self.plan.evaluate else None
        chosen = self.candidates.choose(student, self.step, dev)
        if chosen is None:
            self._refuse("the student's weights are not finite")
            return
        if self._gated(chosen):
            self._refuse(
                f"dev {chosen.dev:.2f} is more than {self.schedule.gate:g} below the teacher's {self.pool.dev:.2f}"
            )
            return
        before = self.diagnose(module, batch)
        self.pool.add(self.slot, student, chosen, self.cache)
        self.slot.date(self.step)
        self.generation += 1
        self.candidates.rotated()
        self.dev.rotated()
        record = Rotated(
            step=self.step, generation=self.generation, snapshot=chosen.id, snapshot_step=chosen.step, sha256="",
            dev=chosen.dev, lr=trainer.optimizers[0].param_groups[0]["lr"], members=len(self.slot.members),
            **compared(before, self.diagnose(module, batch)),
        )  # fmt: skip
        self.run_log.announce(record)
        self._unwritten = chosen, record
        self._write_if_whole()
        self._begin_again(trainer, module)

    def _gated(self, chosen: Snapshot) -> bool:
        """Whether dev keeps a snapshot from teaching."""
        gate, held = self.schedule.gate, self.pool.dev
        return gate is not None and held is not None and chosen.dev is not None and chosen.dev < held - gate

    def _refuse(self, reason: str) -> None:
        self._write(Refused(step=self.step, reason=reason))

    def _write(self, record: Refused | Follows) -> None:
        self.run_log.announce(record)
        self.run_log.rotation(record)

    def _join_writer(self) -> None:
        """Have the last snapshot's file whole, and its rotation written."""
        self.cache.join()
        self._write_if_whole()

    def _write_if_whole(self) -> None:
        # A line of rotations.jsonl names whole files only.
        if self._unwritten is not None and self._unwritten[0].written.done():
            snapshot, record = self._unwritten
            self._unwritten = None
            self.run_log.rotation(record.model_copy(update={"sha256": snapshot.sha256}))

    def _begin_again(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        again = self.schedule.on_rotation
        if again.student == "reinit" or self.step == self.plan.anew:
            module.load_state_dict(dict(self._origin))
            self.candidates.begin_again(student_of(module))
            self.patience.begin()
        if again.optimizer == "reset" or self.step == self.plan.anew:
            for optimizer in trainer.optimizers:
                optimizer.state.clear()

    def _follow(self, module: L.LightningModule) -> None:
        """Begin to follow, or go on to after a resume."""
        shadow = self.candidates.shadow
        assert shadow is not None
        self.slot.put(0, student_of(module), shadow.weights)
        self.slot.keep(1)
        self.slot.weights = [1.0]
        if self.generation == 0:
            self.generation = 1
            self.slot.date(self.step)
            self._write(Follows(step=self.step, generation=1))

    def _keep_up(self) -> None:
        # At every step, so it may not compare teacher and student again, tokenizers and all.
        assert self.candidates.shadow is not None
        self.slot.renew(0, self.candidates.shadow.weights)

    def after_checkpoint(self, *, saved: bool) -> None:
        """Delete the snapshots that nothing needs any more."""
        if saved:
            self._checkpointed = self._named
        if saved or self.step in self.plan.cache | self.plan.rotate:
            # The last checkpoint may still name what the run itself is done with.
            self.cache.prune(self._named | self._checkpointed)

    @property
    def _named(self) -> set[str]:
        return self.pool.names | self.candidates.names

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._join_writer()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self.cache.let_finish()  # before somebody else may begin in its folder

    def state_dict(self) -> dict[str, Any]:
        self._join_writer()  # a checkpoint names whole files only
        return {
            **super().state_dict(),
            "generation": self.generation,
            "first_installed": self.slot.first_installed,
            "installed": self.slot.installed,
            "pool": self.pool.state_dict(),
            "candidates": self.candidates.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generation = state["generation"]
        self.slot.first_installed, self.slot.installed = state["first_installed"], state["installed"]
        self.pool.load_state_dict(state["pool"])
        self.candidates.load_state_dict(state["candidates"])
        self._checkpointed = self._named
        super().load_state_dict(state)
