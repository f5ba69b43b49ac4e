"""How long a command takes to say its first word, and a run to make its first step."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.benchmarks.common import Row, corpus, ratio
from otfkd.runs.folder import find_runs

ROUNDS = 3


def measure() -> list[Row]:
    """Seconds, the best of `ROUNDS`, processes and imports included; the corpus is in the cache already."""
    help_s = min(_seconds("train", "--help") for _ in range(ROUNDS))
    with tempfile.TemporaryDirectory() as folder:
        first_s = min(_first_step(Path(folder) / str(round_)) for round_ in range(ROUNDS + 1))
    return [
        ratio("otfkd-train --help / 1.5 s", help_s, 1.5, 1.0),
        ratio("first step of a cached run / 10 s", first_s, 10.0, 1.0),
    ]


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "otfkd", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def _first_step(runs: Path) -> float:
    """From the command to the first moment that a run of one step writes down."""
    start = time.time()
    subprocess.run(
        [
            sys.executable, "-m", "otfkd", "train", "experiment=simcse", "model=minilm", "data=text",
            f"data.path={corpus()}", "data.batch_size=64", "evaluation.every=null", "trainer.max_steps=1",
            "logger.every=1",
            f"paths.runs={runs}",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    (run,) = find_runs(runs)
    return min(timing.at for timing in run.read_timings()) - start
