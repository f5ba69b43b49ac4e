"""What can change a number although the config is the same: revision, versions, device, threads."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("otfkd", "torch", "lightning", "transformers", "tokenizers", "datasets", "hydra-core", "numpy", "scipy")


@functools.cache
def git_revision() -> str:
    """The checkout's revision, with '-dirty' when it has uncommitted changes; 'unknown' outside a checkout."""
    here = Path(__file__).parents[1]
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

    from otfkd.base.processes import world_size

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "git_revision": git_revision(),
        "versions": versions(),
        "device": device,
        "processes": world_size(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
    }
