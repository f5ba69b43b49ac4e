"""The student as it is before training, saved and read back: a run must not find at its end that it cannot be saved."""

from pathlib import Path

from otfkd.base.errors import UserError, first_line
from otfkd.base.files import temporary_beside
from otfkd.models.encoder import Encoder, evaluating
from otfkd.models.export import save_encoder
from otfkd.models.probe import apart, sample
from otfkd.models.registry import load_encoder

_TOLERANCE = 1e-6


def check_saved(student: Encoder, folder: Path, max_length: int) -> None:
    """Save a student, read it back and compare what both make of a few sentences.

    Args:
        student: not trained yet.
        folder: where the files are for that time, the run's own, as there must be room for the model in it.
        max_length: tokens read of a sentence.

    Raises:
        UserError: it cannot be saved, not be read back, or is then another.
    """
    with temporary_beside(folder / "untrained") as temporary:
        saved = temporary / "model"
        try:
            save_encoder(student, saved, max_length)
            again = load_encoder(saved)
        except OSError as error:
            # The folder that the user knows, rather than the temporary one.
            raise OSError(error.errno, error.strerror, str(folder)) from error
        except Exception as error:  # as many kinds as there are architectures
            raise UserError(
                f"the student cannot be saved so that it can be read again ({first_line(error)}): "
                "take another model.path, model.layers or model.pooler"
            ) from None
        tokens = sample(student)
        with evaluating(student), evaluating(again):
            expected = student(tokens)
            same = apart(again.to(student.device)(tokens), expected) <= _TOLERANCE
        if not same and expected.isfinite().all():
            raise UserError(
                "the student embeds otherwise once it is saved and read again: "
                "take another model.path, model.layers or model.pooler"
            )
