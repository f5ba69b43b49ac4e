"""The learning rate's decay against its closed forms."""

import math
from itertools import pairwise
from typing import Literal

import pytest

from otfkd.distill.rate import decayed

Decay = Literal["linear", "cosine", "constant"]
DECAYS: tuple[Decay, ...] = ("linear", "cosine", "constant")


@pytest.mark.parametrize(
    ("decay", "values"),
    [
        ("linear", [1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0]),
        ("constant", [1.0] * 5),
    ],
)
@pytest.mark.parametrize("start", [0, 7])
def test_the_rate_has_its_known_values(decay: Decay, values: list[float], start: int) -> None:
    rates = [decayed(decay, start + step, start, start + 8) for step in (0, 2, 4, 6, 8)]
    assert rates == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("decay", DECAYS)
def test_the_rate_begins_full_never_rises_and_stays_at_its_end(decay: Decay) -> None:
    rates = [decayed(decay, step, 3, 20) for step in range(3, 40)]
    assert rates[0] == 1.0
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert set(rates[17:]) == {1.0 if decay == "constant" else 0.0}


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_last_step_of_a_run_still_moves(decay: Decay) -> None:
    assert decayed(decay, 99, 0, 100) > 0


@pytest.mark.parametrize("decay", DECAYS)
def test_a_cycle_repeats_the_first(decay: Decay) -> None:
    first = [decayed(decay, step, 0, 10) for step in range(10)]
    assert [decayed(decay, 10 + step, 10, 20) for step in range(10)] == first
