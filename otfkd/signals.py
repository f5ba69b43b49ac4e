"""Signals set a flag; the run looks at it after each optimizer step, so what it saves is always whole."""

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
    others = {number for number, old in before.items() if callable(old) and old != signal.default_int_handler}
    _outer.append(lambda: bool(came))
    try:
        yield _outer[0]
    finally:
        _outer.clear()
        for number, old in before.items():
            signal.signal(number, old)
        for number in others.intersection(came):
            signal.raise_signal(number)
