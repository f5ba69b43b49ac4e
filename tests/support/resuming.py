"""Runs that are stopped, and all that must be the same bits when they have gone on."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import otfkd.training.train
from otfkd.runs.rows import Row


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Make the next run find a signal after so many optimizer steps."""
    calls = iter(range(1, 1000))

    @contextlib.contextmanager
    def flag() -> Iterator[Callable[[], bool]]:
        yield lambda: next(calls) >= steps

    monkeypatch.setattr(otfkd.training.train, "stop_flag", flag)


def plain(value: Any) -> Any:
    """A checkpoint's content as something that `==` compares to the bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def final(folder: Path) -> dict[str, Any]:
    """All that must be the same bits after a resume."""
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {
        "weights": plain(last["state_dict"]),
        "optimizer": plain(last["optimizer_states"]),
        "callbacks": plain(last["callbacks"]),  # places, candidates, the moving average, what dev has said
        "best": (folder / "checkpoints" / "best.safetensors").read_bytes(),
        "metrics": (folder / "metrics.jsonl").read_text(),
        "rotations": (folder / "rotations.jsonl").read_text(),
        "model": (folder / "model" / "model.safetensors").read_bytes(),
        "snapshots": sorted((path.name, path.read_bytes()) for path in (folder / "snapshots").glob("*")),
        "unfinished": sorted(str(path.relative_to(folder)) for path in folder.rglob(".*")),
    }


def unclocked(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows without what the clock and the machine's memory said."""
    measured: Any = {"cost": {"seconds": True, "peak_bytes": True, "curve": {"__all__": {"seconds"}}}}
    return [row.model_dump(exclude=measured) for row in rows]
