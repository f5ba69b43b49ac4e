"""Several processes that train together, forked and started as by torchrun, which costs no imports."""

import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otfkd.base.errors import Interrupted
from otfkd.training.launch import _free_port

TWO = "trainer.devices=2"


def in_processes(number: int, folder: Path, action: Callable[[], Any]) -> list[Any]:
    """What an action gives or raises in each of several processes that train together."""
    folder.mkdir(exist_ok=True)
    port = _free_port()
    children = [forked(place, number, port, folder / str(place), action) for place in range(number)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * number
    return [pickle.loads((folder / str(place)).read_bytes()) for place in range(number)]


def forked(place: int, number: int, port: int, answer: Path, action: Callable[[], Any]) -> int:
    """One of several processes that train together; what the action gives or raises is pickled into a file."""
    if child := os.fork():
        return child
    code = 1
    signal.alarm(300)  # a process that waits in vain dies
    try:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0",
            "RANK": str(place), "LOCAL_RANK": str(place), "WORLD_SIZE": str(number),
        }  # fmt: skip
        try:
            result = action()
        except (Exception, Interrupted) as error:
            result = error
        answer.write_bytes(pickle.dumps(result))
        code = 0
    finally:
        os._exit(code)
