"""What the memory benchmark promises of a corpus' size."""

from pathlib import Path

import pytest

from experiments.benchmarks.memory import corpus_memory, make_table
from otfkd.data.tokens import TokenCache, _open


def test_the_made_table_is_read_as_a_token_cache(tmp_path: Path) -> None:
    import numpy as np

    cache = TokenCache(_open(make_table(tmp_path / "made.arrow", 20_000)), 0, 0, 0)
    assert len(cache) == 20_000
    lines, ids = cache.read(np.array([19_999, 3]))
    assert lines == [19_999, 3]
    assert [row.tolist() for row in ids] == [[19_996, 19_997, 19_998, 19_999], [12, 13, 14, 15]]


@pytest.mark.slow
def test_a_corpus_a_hundred_times_as_large_takes_no_more_memory(tmp_path: Path) -> None:
    assert corpus_memory(tmp_path)[-1]["grown_mb"] < 50
