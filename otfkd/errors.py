"""The ways a command can stop that are not our fault."""


class UserError(Exception):
    """A mistake the user can mend; the message is one sentence: what, where, what to do (exit code 2)."""


class DivergenceError(UserError):
    """Numbers of a model in training are no longer finite, or no longer differ."""


class Interrupted(BaseException):
    """A signal asked the run to stop; it saved and can be resumed (exit code 130).

    Not an ``Exception``: a sweep must stop with it rather than go on to its next job.
    """


def first_line(error: Exception) -> str:
    """What an error says, in one line; its type where it says nothing, as time-outs do."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
