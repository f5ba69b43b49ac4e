"""A run that goes on and on: nothing grows but what it writes of each step."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest

from otfkd.config.schema import Config
from otfkd.training.train import train
from tests.support.callbacks import joined_by
from tests.support.models import make_model

STEPS, EVERY = 20_050, 100  # a rotation at the last step would be skipped


class State(NamedTuple):
    """What a process holds.

    Attributes:
        memory: resident bytes.
        files: open ones.
        kept: files of the run's folder with their sizes, but for those that grow with each step.
    """

    memory: int
    files: int
    kept: dict[str, int]


def state(folder: Path) -> State:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    kept = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl"}
    kept.pop("run.log")
    return State(pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path("/proc/self/fd").iterdir())), kept)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="there is no /proc")
def test_memory_open_files_and_folder_stay_flat_over_20000_steps_and_200_rotations(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    seen: dict[int, State] = {}

    class Look(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step % 1000 == 500:
                (folder,) = tmp_path.glob("runs/otfkd/*/s0")
                seen[trainer.global_step] = state(folder)

    model = make_model(tmp_path / "model", width=8, layers=1)
    config = configure(
        f"model={model}", "experiment=otfkd", f"schedule.every={EVERY}", f"trainer.max_steps={STEPS}",
        "data.batch_size=4", "data.max_length=8", "evaluation.every=500", "trainer.checkpoint_every=250",
    )  # fmt: skip
    with joined_by(Look()):
        result = train(config)

    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows if "dev" in row] == [*range(500, STEPS, 500), STEPS]
    rotations = [json.loads(line) for line in (result.folder / "rotations.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rotations] == list(range(EVERY, STEPS, EVERY))
    assert len(rotations) == 200

    first, last = seen[1500], seen[19_500]
    print({step: (one.memory >> 10, one.files, sum(one.kept.values())) for step, one in seen.items()})  # noqa: T201
    assert {one.files for one in seen.values()} == {first.files}
    assert {len(one.kept) for one in seen.values()} == {len(first.kept)}
    sizes = {sum(one.kept.values()) for one in seen.values()}
    assert max(sizes) - min(sizes) < 4096  # a checkpoint's numbers get longer
    assert last.memory - first.memory < 16 << 20
