"""Signals set a flag; training looks at it after each optimizer step, so what it saves is always whole."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

# Ctrl-C, a kill, what Slurm sends before a time limit (--signal=USR1@60), and what submitit has it send.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

_outer: list[Callable[[], bool]] = []


@contextlib.contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether a signal came; a second Ctrl-C stops at once.

    A flag inside another is the same one. Whoever had a handler for the signal hears of it afterwards: submitit's
    queues the job again once its run has saved.
    """
    if _outer:
        yield _outer[0]
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may set handlers; a worker is stopped by its parent
        return
    came: list[int] = []

    def handle(number: int, _: object) -> None:
        if number == signal.SIGINT and came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    own = (signal.default_int_handler, _interrupt)
    others = {number for number, old in before.items() if callable(old) and old not in own}
    _outer.append(lambda: bool(came))
    try:
        yield _outer[0]
    finally:
        _outer.clear()
        for number, old in before.items():
            signal.signal(number, old)
        for number in others.intersection(came):
            signal.raise_signal(number)


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(f"interrupted by {signal.Signals(number).name}")


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Have every signal end a command as Ctrl-C does, by way of all that closes and clears up, and not on the spot.

    For where a run has nothing to save, as before its first step and while it is scored.
    """
    replaced = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    for number in replaced:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)
