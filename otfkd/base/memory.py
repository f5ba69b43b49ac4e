"""The memory of this process: its peak, and giving back what an ended run held."""

import contextlib
import ctypes
import gc
import sys
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
