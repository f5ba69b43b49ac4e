"""The documentation's examples run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

DOCS = Path(__file__).parents[1] / "docs"


def example(name: str) -> str:
    """The only Python block of a page."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / name).read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def test_the_rotation_drives_a_module_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example("rotation.md"), names)
    rows = [json.loads(line) for line in Path("run/rotations.jsonl").read_text().splitlines()]
    assert [(row["step"], row["snapshot_step"]) for row in rows] == [(25, 25), (50, 50), (75, 75)]
    (teacher,) = names["module"].teacher.members
    snapshot = load_file("run/snapshots/step-00000075.safetensors")
    held, student = teacher.state_dict(), names["module"].student.state_dict()
    assert held.keys() == snapshot.keys()
    assert all(torch.equal(held[name], snapshot[name]) for name in snapshot)
    assert not any(torch.equal(student[name], snapshot[name]) for name in snapshot)
    dev = [json.loads(line)["dev"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert len(dev) == 4
    assert dev[-1] > dev[0] > 25.0  # of four classes


def test_the_example_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = example("rotation.md")
    exec(block.replace("max_steps=100", "max_steps=60").replace("checkpoint_every=50", "checkpoint_every=60"), {})
    names: dict[str, Any] = {}
    resumed = 'batch_size=32), ckpt_path="run/checkpoints/last.ckpt", weights_only=True)'
    exec(block.replace("batch_size=32))", resumed), names)
    assert names["rotation"].generation == 3
    rows = [json.loads(line)["step"] for line in Path("run/rotations.jsonl").read_text().splitlines()]
    assert rows == [25, 50, 75]


def test_every_field_report_is_held_by_tests_that_exist() -> None:
    table = (DOCS / "field-reports.md").read_text().splitlines()
    rows = [line.split("|")[1:-1] for line in table if re.match(r"\| B\d\d ", line)]
    assert [name.strip() for name, *_ in rows] == [f"B{number:02}" for number in range(1, 29)]
    for name, *_, held in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", held)
        assert tests and held.count("`") == 2 * len(tests), name
        for file, test in tests:
            assert f"\ndef {test}(" in (DOCS.parent / file).read_text(), f"{name} names {file}::{test}"
