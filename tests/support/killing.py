"""Runs that die at a chosen call of a function."""

import itertools
import json
import os
import signal
from collections.abc import Callable
from typing import Any, Literal

import torch

from otfkd.base import files
from otfkd.config.schema import Config
from otfkd.training.train import train

# A function, and whether the kill comes before it, after it, or when half of what it writes is in the file.
Where = Literal["before", "after", "amid"]


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_written(owner: Any, original: Callable[..., Any], *given: Any, **named: Any) -> None:
    """What a function leaves when it is killed while it writes."""
    if owner is files.JsonLines:
        log, row = given
        line = json.dumps(row)
        with log.path.open("a") as file:
            file.write(line[: len(line) // 2])
        return
    path = given[1]
    original(*given, **named)
    os.truncate(path, path.stat().st_size // 2)
    if owner is not torch:  # safetensors renames a file of its own once that is whole
        path.rename(path.with_name(".tmpXRPGTJ"))


def arm(moment: tuple[Any, str, Where], call: int) -> None:
    """Make this process die at the so-manyth call of a function."""
    owner, name, where = moment
    original, calls = getattr(owner, name), itertools.count(1)

    def armed(*given: Any, **named: Any) -> Any:
        if next(calls) < call:
            return original(*given, **named)
        if where == "amid":
            half_written(owner, original, *given, **named)
        elif where == "after":
            original(*given, **named)
        return die()

    setattr(owner, name, armed)


def fork_and_train(config: Config, prepare: Callable[[], None] = lambda: None) -> int:
    """Train in a child process; a fork, because importing torch anew would take longer than the run."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            prepare()
            train(config)
            code = 0
        finally:
            os._exit(code)
    return child


def killed(child: int) -> bool:
    """Wait for a child; whether it was killed rather than finished."""
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
