"""Memory: this process' peak, giving back what an ended run held, and what the machine has left."""

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator
from pathlib import Path


def release_memory() -> None:
    """Free what nothing refers to any more, and give it back to the system where the C library can be asked to."""
    gc.collect()
    # glibc keeps freed memory that is in pieces: a gigabyte more with each job of a sweep.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak_memory() -> None:
    """Begin a new peak, where the system lets a process do so: jobs of a sweep share one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Bytes at the peak, the GPU's where there is one; None where the system does not tell."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform != "linux":
        return None
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that may still be taken: of the machine, or of a container or Slurm job where that is less.

    None where the system does not tell.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        left = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        return min([*left, *_control_groups(root)], default=None)
    except (OSError, ValueError):
        return None


def _control_groups(root: Path) -> Iterator[int]:
    """What each limit leaves that this process is under, in both versions of Linux' control groups."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, kind, name = line.split(":", 2)
        if kind not in ("", "memory"):
            continue
        base, limit, usage = (
            (root / "sys/fs/cgroup", "memory.max", "memory.current")
            if kind == ""
            else (root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        # A container sees its own group at the base, whatever the name.
        for group in {
            base,
            *(base / Path(*Path(name).parts[1:depth]) for depth in range(2, len(Path(name).parts) + 1)),
        }:
            if (group / limit).is_file() and (most := (group / limit).read_text().strip()) != "max":
                yield int(most) - int((group / usage).read_text()) + _file_pages(group)


def _file_pages(group: Path) -> int:
    """Pages of files, which the system takes back first."""
    lines = (group / "memory.stat").read_text().splitlines() if (group / "memory.stat").is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def in_words(size: float) -> str:
    """So many bytes, for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
