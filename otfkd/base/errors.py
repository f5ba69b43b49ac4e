"""The ways a command can stop that are not our fault."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator


class UserError(Exception):
    """A mistake the user can mend; the message is one sentence: what, where, what to do (exit code 2)."""


class DivergenceError(UserError):
    """Numbers of a model in training are no longer finite, or no longer differ.

    Args:
        told: what, and where.
        of_a_step: whether the run could go on without the optimizer step that it is of.
    """

    def __init__(self, told: str, *, of_a_step: bool = False):
        super().__init__(told)
        self.of_a_step = of_a_step


# What a machine refuses, whatever asks for it.
_REFUSED = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.EMFILE,
    errno.EIO,
    errno.EFBIG,
}
_NUMBERED = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")


def refusal(error: Exception) -> int | None:
    """The number of what the machine refuses, where an error says that; None for any other.

    Libraries in Rust, and shutil where it copies folders, have it in their words alone.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _NUMBERED.search(str(error))):
        number = int(found[1] or found[2])
    return number if number in _REFUSED else None


@contextlib.contextmanager
def refusals_as_user_errors() -> Iterator[None]:
    """Make the user's error of what the machine refuses: no room, no permission, a name too long.

    Raises:
        UserError: in the place of such an error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (number := refusal(error)) is None:
            raise
        raise UserError(
            f"{getattr(error, 'filename', None) or 'a file'} cannot be read or written ({os.strerror(number)}): make "
            "room or change its permissions, or name another folder, then give the same command again"
        ) from error


@contextlib.contextmanager
def exits_as_errors() -> Iterator[None]:
    """Make an error of an exit in the midst of a job: it would end the command, a whole sweep, as if all were done.

    Raises:
        KeyboardInterrupt: Lightning exits so when it is interrupted, without a word.
        RuntimeError: in the place of any other SystemExit.
    """
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt("stopped at once; the same command goes on from the last checkpoint") from None
        raise RuntimeError(f"exited by itself with code {error.code}") from error


class Interrupted(BaseException):
    """A signal asked the run to stop; it saved and can be resumed (exit code 130).

    Not an ``Exception``: a sweep must stop with it rather than go on to its next job.
    """


def first_line(error: Exception) -> str:
    """What an error says, in one line; its type where it says nothing, as time-outs do."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
