"""Memory that an ended run held is the system's again."""

import sys
from pathlib import Path

import pytest

from otfkd.base.memory import available_memory, release_memory


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


MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/", {}, 600 * 1024),
        ("0::/", {"memory.max": "max\n", "memory.current": "9\n"}, 600 * 1024),
        ("0::/", {"memory.max": "5000\n", "memory.current": "1000\n"}, 4000),
        ("0::/", {"memory.max": "5000\n", "memory.current": "1000\n", "memory.stat": "inactive_file 70\n"}, 4070),
        ("0::/job/step", {"job/memory.max": "5000\n", "job/memory.current": "4000\n"}, 1000),
        ("0::/job/step", {"job/step/memory.max": "800\n", "job/step/memory.current": "0\n"}, 800),
        (
            "4:memory:/job",
            {"memory/job/memory.limit_in_bytes": "700\n", "memory/job/memory.usage_in_bytes": "100\n"},
            600,
        ),
        (  # no limit, as version 1 says it
            "4:memory:/job\n3:cpu:/x",
            {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n", "memory/memory.usage_in_bytes": "100\n"},
            600 * 1024,
        ),
    ],
)
def test_what_is_left_is_the_machines_or_what_a_limit_leaves(
    tmp_path: Path, group: str, files: dict[str, str], expected: int
) -> None:
    limits = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    root = write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": f"{group}\n", **limits})
    assert available_memory(root) == expected


def test_a_system_that_does_not_tell_has_no_known_memory(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
