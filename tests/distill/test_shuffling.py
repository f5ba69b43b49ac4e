"""Group-P against the paper's algorithm written out in plain loops, and the shares of mass it promises."""

import functools
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from otfkd.distill.losses import cosine, off_diagonal
from otfkd.distill.shuffling import _groups, group_p, group_size


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def narrow_cosines(rows: int, others: int = 63, seed: int = 0) -> Tensor:
    """As between in-batch sentences of a BERT: 0.267 +- 0.064."""
    return 0.267 + 0.064 * torch.randn(rows, others, generator=seeded(seed))


def group_count(p: float) -> int:
    """ceil(1/p), in exact numbers."""
    return math.ceil(1 / Fraction(str(p)))


def slow_groups(descending: list[float], p: float) -> list[int]:
    weights = [math.exp(value) for value in descending]
    total, mass, groups = math.fsum(weights), 0.0, []
    for weight in weights:
        mass += weight / total
        groups.append(min(math.floor(mass / p), group_count(p) - 1))
    return groups


def slow_group_p(row: list[float], noise: list[float], p: float) -> list[float]:
    ranking = sorted(range(len(row)), key=lambda place: -row[place])
    groups = slow_groups([row[place] for place in ranking], p)
    shuffled = [math.nan] * len(row)
    for group in set(groups):
        ranks = [rank for rank in range(len(row)) if groups[rank] == group]
        for rank, drawn in zip(ranks, sorted(ranks, key=lambda rank: noise[rank]), strict=True):
            shuffled[ranking[rank]] = row[ranking[drawn]]
    return shuffled


def slow_shuffle(row: list[float], noise: list[float], kept: list[bool], groups: list[int]) -> list[float]:
    """Shuffle the ranking of what takes part; `groups` are of its ranks."""
    ranking = sorted((place for place in range(len(row)) if kept[place]), key=lambda place: -row[place])
    shuffled = list(row)
    for group in set(groups):
        ranks = [rank for rank in range(len(ranking)) if groups[rank] == group]
        for rank, drawn in zip(ranks, sorted(ranks, key=lambda rank: noise[rank]), strict=True):
            shuffled[ranking[rank]] = row[ranking[drawn]]
    return shuffled


Shuffle = Callable[..., Tensor]
by_mass = functools.partial(group_p, p=0.1)
by_count = functools.partial(group_size, size=6)


@pytest.mark.parametrize("p", [0.05, 0.08, 0.1, 0.12, 0.15, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("others", [3, 15, 63])
def test_is_the_algorithm_of_the_paper(others: int, p: float) -> None:
    rows = narrow_cosines(12, others)
    noise = torch.rand(rows.shape, generator=seeded(7)).tolist()
    expected = [slow_group_p(row, drawn, p) for row, drawn in zip(rows.tolist(), noise, strict=True)]
    assert torch.equal(group_p(rows, p, seeded(7)), torch.tensor(expected))


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("spread", [0.0, 0.064, 1.0])
def test_rows_are_permutations(spread: float, p: float) -> None:
    rows = spread * torch.randn(32, 63, generator=seeded())
    assert torch.equal(group_p(rows, p, seeded(1)).sort().values, rows.sort().values)


@pytest.mark.parametrize("p", [0.05, 0.1, 0.3])
def test_each_value_stays_in_its_group(p: float) -> None:
    rows = narrow_cosines(64)
    descending, order = rows.sort(descending=True)
    groups = torch.empty_like(rows).scatter_(-1, order, _groups(descending, p))
    shuffled = group_p(rows, p, seeded(1))
    # Where each value of the shuffled row stood before.
    came_from = (shuffled[:, :, None] == rows[:, None, :]).int().argmax(-1)
    assert torch.equal(groups.gather(-1, came_from), groups)
    assert not torch.equal(shuffled, rows)


def test_a_tiny_p_moves_nothing() -> None:
    rows = narrow_cosines(16)
    assert torch.equal(group_p(rows, 1e-4, seeded()), rows)


def test_a_p_near_1_leaves_the_last_alone_and_mixes_the_rest() -> None:
    row = narrow_cosines(1, others=7).sort(descending=True).values
    shuffled = group_p(row.repeat(2000, 1), 0.99, seeded())
    reached = {(place, value) for values in shuffled.tolist() for place, value in enumerate(values)}
    assert len(reached) == 6 * 6 + 1


@pytest.mark.parametrize("seed", range(5))
def test_narrow_cosines_make_groups_of_about_6_in_a_batch_of_64(seed: int) -> None:
    groups = _groups(narrow_cosines(200, seed=seed).sort(descending=True).values, 0.1)
    sizes = [(groups == group).sum(-1).float().mean().item() for group in range(10)]
    # What was measured at N=64 (methods.md 2.2): the sum is inclusive, so the first is short and the last is long.
    assert sizes == pytest.approx([5, 6, 6, 6, 6.3, 6.6, 6.1, 7, 6.4, 7.6], abs=0.2)


@pytest.mark.parametrize("others", [7, 63, 511])
@pytest.mark.parametrize("p", [0.05, 0.08, 0.1, 0.12, 0.15, 0.3])
def test_no_group_beyond_the_last(others: int, p: float) -> None:
    groups = _groups(narrow_cosines(64, others).sort(descending=True).values, p)
    assert groups.min() >= 0
    assert groups.max() == group_count(p) - 1


# 1/p is not exact in binary: a p of 0.1 has 10 groups, not 11.
@pytest.mark.parametrize(
    ("p", "count"), [(0.1, 10), (0.05, 20), (0.15, 7), (0.08, 13), (0.12, 9), (1 / 3, 3), (0.3, 4), (0.01, 100)]
)
def test_no_group_has_more_than_its_mass(p: float, count: int) -> None:
    descending = narrow_cosines(16, 4000).sort(descending=True).values
    groups, mass = _groups(descending, p), descending.double().softmax(dim=-1)
    masses = torch.stack([mass.where(groups == group, 0).sum(-1) for group in range(count)], dim=-1)
    assert int(groups.max()) == count - 1
    torch.testing.assert_close(masses[:, :-1], torch.full_like(masses[:, :-1], p), atol=1e-3, rtol=0)
    rest = torch.full_like(masses[:, -1], 1 - (count - 1) * p)
    torch.testing.assert_close(masses[:, -1], rest, atol=1e-3, rtol=0)


def test_groups_never_fall_along_the_ranking() -> None:
    assert (_groups(narrow_cosines(64).sort(descending=True).values, 0.1).diff(dim=-1) >= 0).all()


def test_with_a_temperature_nearly_all_would_share_the_last_group() -> None:
    descending = narrow_cosines(200).sort(descending=True).values
    tempered, plain = (_groups(values, 0.1) == 9 for values in (descending / 0.0125, descending))
    assert tempered.sum(-1).float().mean() > 60
    assert plain.sum(-1).max() < 9


@pytest.mark.parametrize("p", [0.1, 0.25])
def test_members_land_on_all_places_of_their_group_equally_often(p: float) -> None:
    draws = 6000
    row = narrow_cosines(1, others=24).sort(descending=True).values
    shuffled = group_p(row.repeat(draws, 1), p, seeded())
    members: dict[float, list[int]] = {}
    for rank, group in enumerate(_groups(row, p)[0].tolist()):
        members.setdefault(group, []).append(rank)
    for ranks in members.values():
        counts = torch.stack([(shuffled[:, ranks] == row[0, rank]).sum(0) for rank in ranks]).double()
        expected, freedom = draws / len(ranks), (len(ranks) - 1) ** 2
        chi_square = ((counts - expected) ** 2 / expected).sum().item()
        assert chi_square <= freedom + 5 * math.sqrt(2 * freedom)


def test_pairs_within_a_group_are_ordered_independently() -> None:
    row = torch.tensor([[0.3, 0.2, 0.1, 0.0]])  # the last has a group of its own
    shuffled = group_p(row.repeat(6000, 1), 0.9, seeded())
    counts = Counter(tuple(values[:3]) for values in shuffled.tolist())
    assert len(counts) == 6
    assert all(abs(count - 1000) < 5 * math.sqrt(1000 * 5 / 6) for count in counts.values())


def test_rows_are_shuffled_apart() -> None:
    shuffled = group_p(narrow_cosines(1).repeat(50, 1), 0.1, seeded())
    assert len({tuple(row) for row in shuffled.tolist()}) == 50


def test_one_seed_gives_one_result_and_another_another() -> None:
    rows = narrow_cosines(16)
    assert torch.equal(group_p(rows, 0.1, seeded(3)), group_p(rows, 0.1, seeded(3)))
    assert not torch.equal(group_p(rows, 0.1, seeded(3)), group_p(rows, 0.1, seeded(4)))


def test_a_generator_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    group_p(narrow_cosines(16), 0.1, seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_input_is_left_as_it_was() -> None:
    rows = narrow_cosines(16)
    copy = rows.clone()
    group_p(rows, 0.1, seeded())
    assert torch.equal(rows, copy)


@pytest.mark.parametrize("p", [0.1, 0.99])
def test_no_target_comes_from_the_diagonal(p: float) -> None:
    embeddings = torch.randn(64, 32, generator=seeded())
    cosines = cosine(embeddings, embeddings)
    shuffled = group_p(off_diagonal(cosines), p, seeded(1))
    assert cosines.diagonal().min() > 0.999
    assert shuffled.max() < 0.95
    assert torch.equal(shuffled.sort().values, off_diagonal(cosines).sort().values)


# Groups of a fixed size


@pytest.mark.parametrize("size", [2, 3, 6, 64])
@pytest.mark.parametrize("others", [1, 3, 15, 63])
def test_group_size_is_a_loop_over_stretches_of_the_ranking(others: int, size: int) -> None:
    rows = narrow_cosines(12, others)
    noise = torch.rand(rows.shape, generator=seeded(7)).tolist()
    groups = [rank // size for rank in range(others)]
    expected = [
        slow_shuffle(row, drawn, [True] * others, groups) for row, drawn in zip(rows.tolist(), noise, strict=True)
    ]
    assert torch.equal(group_size(rows, size, seeded(7)), torch.tensor(expected))


@pytest.mark.parametrize("size", [2, 7, 100])
def test_no_rank_moves_further_than_its_group_and_all_within_it_occur(size: int) -> None:
    row = narrow_cosines(1, others=20).sort(descending=True).values
    shuffled = group_size(row.repeat(3000, 1), size, seeded())
    came_from = (shuffled[:, :, None] == row[:, None, :]).int().argmax(-1)
    reached = {(place, rank) for ranks in came_from.tolist() for place, rank in enumerate(ranks)}
    assert reached == {(i, j) for i in range(20) for j in range(20) if i // size == j // size}


def test_many_small_groups_do_not_mix() -> None:
    rows = narrow_cosines(8, others=4001)
    descending = group_size(rows.sort(descending=True).values, 2, seeded())
    pairs = descending[:, :4000].view(8, 2000, 2)
    assert (pairs.amin(-1)[:, :-1] >= pairs.amax(-1)[:, 1:]).all()
    assert 0.45 < (pairs[..., 0] < pairs[..., 1]).float().mean() < 0.55


# Entries that take no part


@pytest.mark.parametrize("shuffle", [by_mass, by_count])
def test_what_takes_no_part_stays_and_the_rest_is_shuffled_as_if_it_were_not_there(shuffle: Shuffle) -> None:
    rows, kept = narrow_cosines(12, 31), torch.rand(12, 31, generator=seeded(3)) > 0.3
    kept[0], kept[1], kept[2, 1:] = False, True, False
    noise = torch.rand(rows.shape, generator=seeded(7)).tolist()
    expected = []
    for row, drawn, keep in zip(rows.tolist(), noise, kept.tolist(), strict=True):
        descending = sorted((value for value, k in zip(row, keep, strict=True) if k), reverse=True)
        groups = slow_groups(descending, 0.1) if shuffle is by_mass else [rank // 6 for rank in range(len(descending))]
        expected.append(slow_shuffle(row, drawn, keep, groups))
    shuffled = shuffle(rows, generator=seeded(7), kept=kept)
    assert torch.equal(shuffled, torch.tensor(expected))
    assert not torch.equal(shuffled, rows)


@pytest.mark.parametrize("shuffle", [by_mass, by_count])
def test_when_all_take_part_nothing_is_special(shuffle: Shuffle) -> None:
    rows = narrow_cosines(12)
    everything = torch.ones_like(rows, dtype=torch.bool)
    assert torch.equal(shuffle(rows, generator=seeded(1), kept=everything), shuffle(rows, generator=seeded(1)))


@pytest.mark.parametrize("shuffle", [by_mass, by_count])
def test_when_none_take_part_nothing_moves(shuffle: Shuffle) -> None:
    rows = narrow_cosines(4)
    assert torch.equal(shuffle(rows, generator=seeded(), kept=torch.zeros_like(rows, dtype=torch.bool)), rows)
