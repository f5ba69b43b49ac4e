"""A run that is finished: skipped where all that it left is whole, else made whole from its checkpoints."""

import logging
from typing import TYPE_CHECKING

from otfkd.base.errors import UserError
from otfkd.base.files import atomic_folder
from otfkd.base.hashing import hash_weights
from otfkd.runs.whole import damaged, seal_model, unreadable
from otfkd.training.result import TrainResult
from otfkd.training.run import Run

if TYPE_CHECKING:
    from otfkd.models.encoder import Encoder

log = logging.getLogger("otfkd")


def skipped(run: Run) -> TrainResult | None:
    """What there is to say of a run that is finished, whole and not to be made again; None of any other."""
    config, folder = run.config, run.folder
    if config.dry_run or config.fresh or not folder.finished or unreadable(folder) or damaged(folder):
        return None
    if config.evaluation.also:  # whose scores may be missing yet
        return None
    run.check_inputs()
    return TrainResult(folder.path, "skipped", folder.read_plan(), folder.read_rows())


def mended(run: Run, student: "Encoder") -> bool:
    """Whether a finished run is whole, or its model could be made again; False: its scores are to be made again.

    Args:
        run: it has scores, which may be broken.
        student: gets the weights that dev chose, where the model is made again.

    Raises:
        UserError: what it would be made of is gone or broken too.
    """
    folder = run.folder
    if (why := unreadable(folder)) is not None:
        if not folder.last_checkpoint.is_file():
            raise UserError(f"{why}, and {folder.last_checkpoint} is missing: {_restored_or_removed(run)}")
        log.warning("%s: the run is scored again from its checkpoints", why.rpartition(": ")[0] or why)
        return False
    if (lost := damaged(folder)) is not None:
        log.warning("%s is gone or altered: the model is made again from %s", lost, folder.best_student)
        _export_again(run, student)
    return True


def _export_again(run: Run, student: "Encoder") -> None:
    from otfkd.distill.checkpoints import Checkpoints, check_names
    from otfkd.models.export import write_encoder
    from otfkd.models.registry import load_encoder

    best = run.folder.best_student
    try:
        weights, _ = Checkpoints(run.folder).load_best()
        check_names(weights, student.state_dict(), str(best))
    except UserError as error:
        raise UserError(f"{str(error).rpartition(': ')[0]}: {_restored_or_removed(run)}") from None
    student.load_state_dict(weights)
    scored = {row.weights_sha256 for row in run.folder.read_rows() if row.checkpoint == "selected"}
    with atomic_folder(run.folder.model) as made:
        write_encoder(student, made, run.config.evaluation.max_length)
        if {hash_weights(load_encoder(made))} != scored:
            raise UserError(f"{best} is not the model that was scored: {_restored_or_removed(run)}")
    seal_model(run.folder)


def _restored_or_removed(run: Run) -> str:
    return f"restore it, or remove {run.folder} and the run is trained again"
