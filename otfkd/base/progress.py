"""How far something long has come: a live bar in a terminal, plain lines elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINES = 10  # plain lines at least, where there is no terminal
_SILENCE = 30.0  # seconds at most between two of them
_MOMENT = 1.5  # seconds after which one wonders what takes so long


def live_bar() -> Progress | None:
    """A live bar, where there is a terminal to show it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console) if console.is_terminal else None


class Pace:
    """When a plain line is due: with each tenth that is done, and twice a minute at least.

    Args:
        total: of the things that are counted.
        done: how many were done before.
    """

    def __init__(self, total: int, done: int = 0):
        self.total = total
        self.done = self.before = done
        self.began = self.told = time.monotonic()

    def due(self, done: int) -> bool:
        """Whether to tell that so many are done; whoever asks tells it."""
        tenth = done * _LINES // self.total > self.done * _LINES // self.total
        self.done = done
        if not tenth and time.monotonic() - self.told < _SILENCE:
            return False
        self.told = time.monotonic()
        return True

    def left(self, done: int) -> str:
        """Behind the name of the next thing: what `times` says, once so many are done; nothing before that."""
        self.done = done
        return f" ({self.times()})" if done > self.before else ""

    def times(self) -> str:
        """How long it has taken, and may still take."""
        elapsed = time.monotonic() - self.began
        left = elapsed * (self.total - self.done) / max(1, self.done - self.before)
        return f"{elapsed:.0f} s, about {left:.0f} s left"


@contextlib.contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show how far something long has come and how long it may still take.

    Args:
        what: the things that are counted, for the reader.
        total: how many there are.

    Yields:
        A function that takes how many more are done.
    """
    if (live := live_bar()) is not None:
        with live:
            task = live.add_task(what, total=total)
            yield lambda more: live.advance(task, more)
        return
    pace = Pace(total)

    def tell(more: int) -> None:
        done = pace.done + more
        if pace.due(done):
            sys.stderr.write(f"{what} {done:,}/{total:,}  {pace.times()}\n")

    yield tell


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is going on, if it takes longer than a moment."""
    timer = threading.Timer(_MOMENT, lambda: sys.stderr.write(f"{what} ...\n"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
