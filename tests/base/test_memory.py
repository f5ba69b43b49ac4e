"""Memory that an ended run held is the system's again."""

import sys
from pathlib import Path

import pytest

from otfkd.base.memory import release_memory


def held() -> int:
    """MiB of this process in memory."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_is_given_back_though_something_small_lies_above_it() -> None:
    before = held()
    pieces = [bytearray(100_000) for _ in range(3_000)]  # too small for mappings of their own
    last = bytearray(100_000)
    assert held() - before > 250
    del pieces
    release_memory()
    assert held() - before < 50
    assert len(last) == 100_000
