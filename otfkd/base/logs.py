"""Where otfkd's messages go: to the person at the terminal, and to each run's own log."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("otfkd")


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write this run's messages, and the traceback of what ends it, to its own log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _File(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    except BaseException:
        # To the file alone: on the screen the error is one sentence.
        handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, "stopped", (), sys.exc_info()))
        raise
    finally:
        log.removeHandler(handler)
        with contextlib.suppress(OSError):  # as in handleError
            handler.close()


def log_to_terminal() -> None:
    """Show messages to the person who started the command."""
    log.setLevel(logging.INFO)
    log.propagate = False
    if not log.handlers:
        log.addHandler(_Stderr())


class _File(logging.FileHandler):
    """A run's own log; where a disk is full, what fails for it next says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging prints a traceback here
        pass


class _Stderr(logging.Handler):
    """Writes to whatever stderr is at the moment: a live progress bar puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")
