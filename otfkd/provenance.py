"""Where a number came from: revision, versions, threads, fingerprints of what was read, and the hash of the config."""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otfkd.config import Config

if TYPE_CHECKING:
    from torch import nn

PACKAGES = ("otfkd", "torch", "lightning", "transformers", "tokenizers", "datasets", "hydra-core", "numpy", "scipy")

# Keys that say where or how to run, not what: two runs that differ only here are the same run.
_MACHINE_KEYS = ("seed", "dry_run", "fresh", "resume", "paths", "logger")
_MACHINE_SUBKEYS = (
    ("data", "path"),
    ("evaluation", "path"),
    ("model", "path"),
    ("teacher", "path"),
    ("trainer", "on_nonfinite"),  # stopped by one loss, a run may be told to go on without it
    ("trainer", "devices"),
    ("trainer", "nodes"),
    ("trainer", "threads"),
)


def sha256_bytes(chunks: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """A file's sha256; asked again of a file that has not changed since, as a table's many jobs do, it is not read."""
    stat = path.stat()
    return _sha256(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, version: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_folder(folder: Path, patterns: Iterable[str]) -> str:
    """sha256 over the names and contents of the files in a folder that match."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return sha256_bytes(f"{path.relative_to(folder)}:{sha256_file(path)}\n".encode() for path in files)


def config_hash(config: Config, fingerprints: Mapping[str, str]) -> str:
    """Ten hex digits naming what a run computes: its config without seed and machine, with what it reads.

    Args:
        config: the resolved config.
        fingerprints: content hashes that stand for the paths of data and models.
    """
    # A key has a default here where it came later: runs that do not use it keep their names.
    values: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    for key in _MACHINE_KEYS:
        del values[key]
    for section, key in _MACHINE_SUBKEYS:
        del values[section][key]
    text = json.dumps({"config": values, "fingerprints": dict(fingerprints)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


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


def derived_seed(*parts: int | str) -> int:
    """A seed for one purpose, well mixed in its low 32 bits too, which are all that torch's CPU generator reads."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7])


def hash_weights(module: "nn.Module") -> str:
    """sha256 over a module's tensors, the same in whatever file or on whatever device they lie."""
    return sha256_bytes(
        chunk
        for name, tensor in sorted(module.state_dict().items())
        for chunk in (
            f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode(),
            tensor.detach().cpu().contiguous().numpy().data,
        )
    )


@functools.cache
def git_revision() -> str:
    """The checkout's revision, with '-dirty' when it has uncommitted changes; 'unknown' outside a checkout."""
    here = Path(__file__).parent
    try:
        # `-C here` alone would find any repository around an installed package.
        top = _git(here, "rev-parse", "--show-toplevel")
        if Path(top) != here.parent.resolve():
            return "unknown"
        return _git(here, "rev-parse", "HEAD") + ("-dirty" if _git(here, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@functools.cache
def versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def environment() -> dict[str, Any]:
    """What can change a number although the config is the same."""
    import torch

    from otfkd.processes import count

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "git_revision": git_revision(),
        "versions": versions(),
        "device": device,
        "processes": count(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
    }
