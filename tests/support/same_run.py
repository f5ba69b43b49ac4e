"""Runs that are the same up to rounding."""

from pathlib import Path

import pytest
import torch

from tests.support.json_lines import json_lines


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """A run's final weights but for the biases of attention's keys: no loss depends on them, so rounding moves them."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name: tensor for name, tensor in state.items() if not name.endswith("key.bias")}


def assert_same_run(one: Path, other: Path) -> None:
    """Same data, teachers, losses and weights, up to rounding."""
    # A rotation's facts are of cosines over a temperature of .025, which makes rounding forty times as large.
    for file, rounding in (("metrics.jsonl", 1e-5), ("rotations.jsonl", 1e-4)):
        left, right = json_lines(one / file), json_lines(other / file)
        assert [row.keys() for row in left] == [row.keys() for row in right]
        for expected, found in zip(left, right, strict=True):
            for key, value in expected.items():
                if key == "sha256":
                    continue
                near = pytest.approx(value, rel=rounding, abs=rounding) if isinstance(value, float) else value
                assert found[key] == near, (file, expected["step"], key)
    expected, found = weights(one), weights(other)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)
