"""What a run is called: the hash of its config, with what `auto` means on this machine put in first."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from otfkd.config.markers import AddedLater, HashedAs
from otfkd.config.schema import Config

# Keys that say where or how to run, not what: two runs that differ only here are the same run.
_MACHINE_KEYS = ("seed", "dry_run", "fresh", "resume", "paths", "logger")
_MACHINE_SUBKEYS = (
    ("data", "path"),
    ("data", "column"),  # the content of what is read says it, as it does of the path
    ("data", "subset"),
    ("data", "split"),
    ("evaluation", "path"),
    ("evaluation", "tasks"),
    ("evaluation", "also"),  # reported when the run is finished, or later
    ("evaluation", "dev"),
    ("evaluation", "test"),
    ("evaluation", "queries"),
    ("evaluation", "corpus"),
    ("evaluation", "qrels"),
    ("model", "path"),
    ("teacher", "path"),
    ("trainer", "on_nonfinite"),  # stopped by one loss, a run may be told to go on without it
    ("trainer", "fast_dev_run"),
    ("trainer", "devices"),
    ("trainer", "nodes"),
    ("trainer", "threads"),
)


def config_hash(config: Config, fingerprints: Mapping[str, str]) -> str:
    """Ten hex digits naming what a run computes: its config without seed and machine, with what it reads.

    Args:
        config: the resolved config.
        fingerprints: content hashes that stand for the paths of data and models.
    """
    values = _hashed_values(config)
    for key in _MACHINE_KEYS:
        del values[key]
    for section, key in _MACHINE_SUBKEYS:
        del values[section][key]
    text = json.dumps({"config": values, "fingerprints": dict(fingerprints)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _hashed_values(node: BaseModel) -> dict[str, Any]:
    """The keys of a config, or of a section of one, as its hash knows them."""
    dumped, values = node.model_dump(mode="json"), dict[str, Any]()
    for name, field in type(node).model_fields.items():
        value = getattr(node, name)
        if AddedLater() in field.metadata and value == field.default:
            continue
        key = next((mark.name for mark in field.metadata if isinstance(mark, HashedAs)), name)
        if isinstance(value, BaseModel):
            values[key] = _hashed_values(value)
        elif isinstance(value, list):  # keys that its entries do not give stay out: further ones may come
            values[key] = [
                one.model_dump(mode="json", exclude_defaults=True) if isinstance(one, BaseModel) else of
                for one, of in zip(value, dumped[name], strict=True)
            ]
        else:
            values[key] = dumped[name]
    return values


def resolve_precision(config: Config) -> Config:
    """Put what `precision.compute=auto` means here in its place: bfloat16 where the hardware computes in it."""
    if config.precision.compute != "auto":
        return config
    bfloat16 = has_bfloat16(config.trainer.accelerator)
    precision = config.precision.model_copy(update={"compute": "bfloat16" if bfloat16 else "float32"})
    return config.model_copy(update={"precision": precision})


def has_bfloat16(accelerator: str) -> bool:
    """Whether the hardware computes in bfloat16, rather than slowly imitating it: the GPU, or the CPU if asked for."""
    import torch

    if torch.cuda.is_available() and accelerator != "cpu":
        return bool(torch.cuda.is_bf16_supported())
    features = torch.cpu.get_capabilities()
    return any(features.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
