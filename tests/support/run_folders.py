"""Run folders made by hand, as far as figures read them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def write_run(
    runs: Path,
    dev: Mapping[int, float],
    rotations: Sequence[Mapping[str, Any]] = (),
    *,
    name: str = "otfkd",
    config_hash: str = "aaaa",
    seed: int = 0,
    suite: str = "5",
    **settings: Any,
) -> Path:
    """A run with these dev scores by step and these lines of rotations.jsonl; gives its folder."""
    folder = runs / name / config_hash / f"s{seed}"
    folder.mkdir(parents=True)
    config = {"name": name, "seed": seed, "paths": {"runs": str(runs)}, **settings}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    facts = {"config_hash": config_hash, "fingerprints": {"suite": suite}}
    (folder / "provenance.json").write_text(json.dumps(facts))
    steps = range(1, max(dev, default=0) + 1)
    metrics = [{"step": step, "loss": 1 / step, "generation": 0} for step in steps]
    metrics += [{"step": step, "dev": score} for step, score in dev.items()]
    for file, rows in (("metrics", metrics), ("rotations", rotations)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rotation(step: int, *agreement: float | None, **more: Any) -> dict[str, Any]:
    """A line of rotations.jsonl: agreement before and after, KL before and after, or none of them."""
    names = ("agreement_before", "agreement_after", "kl_before", "kl_after")
    return {"step": step, **dict(zip(names, agreement, strict=bool(agreement))), **more}


def refusal(step: int, reason: str = "worse") -> dict[str, Any]:
    """A line of rotations.jsonl: a rotation that was due and did not take place."""
    return {"event": "refused", "step": step, "reason": reason}


def follows(step: int) -> dict[str, Any]:
    """A line of rotations.jsonl: from this step on a moving average teaches."""
    return {"event": "follows", "step": step, "generation": 1}
