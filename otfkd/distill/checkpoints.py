"""A run's checkpoints: `last`, from which it resumes, and `best`, the student that dev chose."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from otfkd.base.errors import UserError, first_line
from otfkd.base.files import atomic_file
from otfkd.base.hashing import sha256_file
from otfkd.base.processes import broadcast, rank_zero_only
from otfkd.runs.folder import RunFolder

FORMAT = 4  # of what the driver and the rotation keep in a checkpoint


class WholeFiles(CheckpointIO):
    """Checkpoints that are whole or absent, and hold tensors and plain types only; a plugin of Lightning's Trainer.

    Example::

        >>> import lightning as L, otfkd, torch
        >>> L.Trainer(plugins=[otfkd.WholeFiles()], accelerator="cpu", logger=False).strategy.checkpoint_io.__class__
        <class 'otfkd.distill.checkpoints.WholeFiles'>
        >>> files = otfkd.WholeFiles()
        >>> files.save_checkpoint({"step": torch.tensor(3)}, "steps.ckpt")
        >>> files.load_checkpoint("steps.ckpt")
        {'step': tensor(3)}
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        with atomic_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        Path(path).unlink(missing_ok=True)


def check_names(found: Collection[str], own: Collection[str], what: str) -> None:
    """Refuse weights that are not those of a model.

    Args:
        found: the names of the weights.
        own: the model's.
        what: holds the weights, for the message.

    Raises:
        UserError: one is missing or foreign.
    """
    told = [f"lacks {name}" for name in own if name not in found]
    told += [f"has {name}, which the model has not" for name in found if name not in own]
    if told:
        raise UserError(f"{what} {told[0]}: restore it, or start anew with fresh=true")


class Checkpoints:
    """The two checkpoints of a run's folder.

    A new best waits beside the old one until `last` names it: were the run killed in between, it would go on from
    `last`, and a best of steps that it then takes otherwise would be nobody's.

    Args:
        folder: the run's.
        run: what the run computes, as a hash or a name; its checkpoints say so, and those of another are refused.

    Attributes:
        chosen: the facts and the sha256 of the best that the next `last` goes with; None before the first dev score.
            In several processes the first one's counts, which writes `last`.
    """

    def __init__(self, folder: RunFolder, run: str = ""):
        self.last = folder.last_checkpoint
        self.best = folder.best_student
        self._next_best = folder.next_best_student
        self.chosen: dict[str, Any] | None = None
        self.stamp = {"format": FORMAT, "run": run}

    @rank_zero_only
    def save_best(self, student: nn.Module, facts: dict[str, Any]) -> None:
        """Have the student that dev prefers so far, with the facts of its step, wait for the next checkpoint."""
        with atomic_file(self._next_best) as temporary:
            weights = {name: tensor.contiguous() for name, tensor in student.state_dict().items()}
            save_file(weights, temporary, metadata={"facts": json.dumps(facts)})
        self.chosen = {**facts, "sha256": sha256_file(self._next_best)}

    @rank_zero_only
    def settle_best(self) -> None:
        """Make the best that waits the run's, `last` having named it."""
        if self._next_best.is_file():
            self._next_best.replace(self.best)

    @rank_zero_only
    def drop_best(self) -> None:
        """Leave no best to a run that begins at its first step."""
        for path in (self.best, self._next_best):
            path.unlink(missing_ok=True)

    def resume_best(self, chosen: dict[str, Any] | None) -> None:
        """Go back to the best that `last` names; one that is newer is dropped.

        Raises:
            UserError: it is missing, or no longer what was written.
        """
        self.chosen = chosen
        if chosen is None:
            self.drop_best()
        else:
            broadcast(lambda: self._find_best(chosen))

    def _find_best(self, chosen: dict[str, Any]) -> None:
        found = {path: sha256_file(path) for path in (self.best, self._next_best) if path.is_file()}
        if found.get(self._next_best) == chosen["sha256"]:  # killed between the checkpoint and this
            self.settle_best()
        elif found.get(self.best) == chosen["sha256"]:
            self._next_best.unlink(missing_ok=True)
        else:
            state = "was altered since the last checkpoint" if self.best in found else "is missing"
            raise UserError(
                f"{self.best}, the student of step {chosen['step']}, {state}: restore it, or start anew with fresh=true"
            )

    def load_best(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The chosen student's weights and the facts of its step.

        Raises:
            UserError: it cannot be read.
        """
        try:
            with safe_open(self.best, "pt") as file:
                facts: dict[str, Any] = json.loads(file.metadata()["facts"])
            return load_file(self.best), facts
        except (OSError, SafetensorError) as error:
            raise self._unreadable(self.best, error) from None

    def read_last(self) -> dict[str, Any]:
        """The resumable checkpoint.

        Raises:
            UserError: it cannot be read, or is not this run's.
        """
        try:
            checkpoint = WholeFiles().load_checkpoint(self.last)
        except Exception as error:  # torch raises many kinds for a file that is not whole
            raise self._unreadable(self.last, error) from None
        self.check(checkpoint)
        return checkpoint

    def check(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that this run cannot go on from.

        Raises:
            UserError: it is of another run or format.
        """
        found = checkpoint.get("otfkd", {})
        for key, own in self.stamp.items():
            if found.get(key) != own:
                raise UserError(
                    f"{self.last} has {key} {found.get(key)}, not {own}: restore it, or start anew with fresh=true"
                )

    @staticmethod
    def _unreadable(path: Path, error: Exception) -> UserError:
        reason = first_line(error).partition(". ")[0]  # torch adds a lecture on how files break
        return UserError(f"{path} cannot be read ({reason}): restore it, or start anew with fresh=true")
