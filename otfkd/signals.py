"""Signals set a flag; the run looks at it after each optimizer step, so what it saves is always whole."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

# Ctrl-C, a kill, and what Slurm sends before a time limit (--signal=USR1@60).
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether a signal came; a second Ctrl-C stops at once."""
    came = threading.Event()

    def handle(number: int, _: object) -> None:
        if number == signal.SIGINT and came.is_set():
            raise KeyboardInterrupt
        came.set()

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set  # only the main thread may set handlers; a worker is stopped by its parent
        return
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
