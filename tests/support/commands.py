"""What a command leaves, how it is started in a process of its own, and what a refusal is."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """What a command left."""

    code: object
    out: str
    err: str


Command = Callable[..., Outcome]


def start(folder: Path, *arguments: str, new_group: bool = False) -> "subprocess.Popen[str]":
    """Start `python -m otfkd ARGUMENTS` in a folder, at wish in a process group of its own."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OTFKD_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "otfkd", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=new_group
    )


def finish(process: "subprocess.Popen[str]") -> Outcome:
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    return Outcome(process.returncode, out, err)


def assert_refused(outcome: Outcome, *words: str) -> None:
    """One sentence on stderr, nothing else, and exit code 2."""
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("otfkd: ")
    assert outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err


def states(otfkd_command: Command, runs: Path) -> list[tuple[str, str]]:
    """The state and the seed's folder of each run."""
    listed = (line.split("\t")[:2] for line in otfkd_command("runs", runs).out.splitlines())
    return [(state, Path(folder).name) for state, folder in listed]


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Wait until something is so, while a command goes on."""
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
