"""One config, the same bits: in other folders, in another order of jobs, and alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from otfkd.config.composition import load_config
from otfkd.training.train import train
from tests.support.resuming import plain

Jobs = dict[str, tuple[str, ...]]

# Each leaves something behind that another would feel, did runs not take care: threads, precision, modes, streams.
JOBS: Jobs = {
    "otfkd": ("experiment=otfkd_group_p", "schedule.every=2"),
    "bfloat16": ("experiment=mean_teacher", "teacher.warmup_steps=1", "precision=bfloat16", "precision.tf32=true"),
    "unordered": (
        "experiment=rankcse",
        "teacher=self",
        "schedule=every",
        "schedule.every=2",
        "precision.deterministic=false",
    ),
    "tuned": ("experiment=finetune_stsb", "data=mini", "data.batch_size=4", "evaluation=mini"),
}


@pytest.fixture
def small(tiny_model: Path, corpus_file: Path) -> list[str]:
    """Overrides of a run of four steps on the embedded suite."""
    return [
        f"model={tiny_model}", "model.pooler=cls", "data=text", f"data.path={corpus_file}", "data.batch_size=4",
        "data.max_length=16", "trainer.max_steps=4", "trainer.accelerator=cpu", "trainer.threads=1",
        "evaluation.every=null", "optimizer.lr=1e-3",
    ]  # fmt: skip


def bits(folder: Path) -> dict[str, object]:
    import torch

    facts = json.loads((folder / "provenance.json").read_text())["environment"]
    assert facts["threads"] == 1 and facts["versions"]["torch"]
    return {
        "last": plain(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]),
        "model": (folder / "model" / "model.safetensors").read_bytes(),
        "metrics": (folder / "metrics.jsonl").read_text(),
        "rotations": (folder / "rotations.jsonl").read_text(),
    }


@pytest.mark.slow
def test_neither_folder_nor_order_nor_company_changes_a_bit(small: list[str], tmp_path: Path) -> None:
    found: dict[str, list[dict[str, object]]] = {name: [] for name in JOBS}
    for order in (list(JOBS), list(JOBS)[::-1]):
        runs = tmp_path / f"first {order[0]}"
        for name in order:
            given = [*small, *JOBS[name], f"paths.runs='{runs}'", f"paths.cache={tmp_path / order[0]}"]
            found[name].append(bits(train(load_config(given)).folder))
    name, alone = "otfkd", tmp_path / "alone"
    command = ["-m", "otfkd", "train", *small, *JOBS[name], f"paths.runs={alone}", f"paths.cache={alone}/cache"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, *command], check=True, capture_output=True, env=environment, cwd=tmp_path)
    (folder,) = alone.glob("*/*/s0")
    found[name].append(bits(folder))
    for name, (first, *others) in found.items():
        for other in others:
            assert other == first, name
    assert len({str(runs[0]["model"]) for runs in found.values()}) == len(JOBS)
