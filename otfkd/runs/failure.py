"""Why a job failed, and by whose fault: kept in its run's folder until it is tried again, and told with the others'."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from otfkd.base.errors import UserError, exits_as_errors, first_line, refusals_as_user_errors
from otfkd.base.files import write_text


class Failure(BaseModel):
    """What ended a job.

    Attributes:
        kind: whether the user can mend it, or the fault is ours.
        reason: in one line.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Literal["users", "ours"]
    reason: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        if isinstance(error, UserError):
            return cls(kind="users", reason=" ".join(str(error).split()))
        return cls(kind="ours", reason=f"{type(error).__name__}: {first_line(error)}")

    @classmethod
    def read(cls, file: Path) -> "Failure":
        """What `failure_kept` has kept."""
        return cls.model_validate_json(file.read_bytes())


@contextlib.contextmanager
def failure_kept(file: Path) -> Iterator[None]:
    """Keep in a file what ends an attempt at a run, unless it is a signal.

    Of several processes the first that failed is right: the others fail for want of it.
    """
    try:
        with refusals_as_user_errors(), exits_as_errors():
            yield
    except Exception as error:
        if not file.is_file():
            with contextlib.suppress(OSError):  # on a full disk the error itself is what counts
                write_text(file, Failure.of(error).model_dump_json() + "\n")
        raise


def told(failures: Sequence[tuple[object, Failure]]) -> str:
    """Which jobs failed, each with its reason."""
    return f"{len(failures)} jobs failed ({'; '.join(f'{job}: {failure.reason}' for job, failure in failures)})"


def jobs_failed(failures: Sequence[tuple[object, Failure]]) -> UserError | RuntimeError:
    """What failed jobs add up to: an error of the user's where each of them is."""
    sentence = f"{told(failures)}; the same command tries them again"
    users = all(failure.kind == "users" for _, failure in failures)
    return UserError(sentence) if users else RuntimeError(sentence)
