"""The training order: a permutation, another one each pass, computed from nothing but a number."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from otfkd.data.order import Order, permute

SIZES = (1, 2, 3, 5, 7, 64, 100, 1000, 4097)


def whole(size: int, key: int) -> NDArray[np.int64]:
    return permute(np.arange(size), size, key)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", [0, 1, (7 << 32) + 3, 2**64 - 1])
def test_every_item_comes_exactly_once(size: int, key: int) -> None:
    assert sorted(whole(size, key)) == list(range(size))


@pytest.mark.parametrize(
    ("one", "other"), [((5, 0), (5, 1)), ((5, 0), (6, 0)), ((0, 1), (1, 0))], ids=["pass", "seed", "both"]
)
def test_passes_and_seeds_have_orders_of_their_own(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = (
        np.concatenate([Order(1000, 10, seed).batch(corpus_pass * 100 + i) for i in range(100)])
        for seed, corpus_pass in (one, other)
    )
    assert (first == second).mean() < 0.01


@pytest.mark.parametrize(("sentences", "batch_size"), [(100, 10), (103, 10), (7, 7), (9, 2)])
def test_no_sentence_comes_twice_in_a_pass(sentences: int, batch_size: int) -> None:
    order = Order(sentences, batch_size, seed=3)
    for corpus_pass in range(3):
        start = corpus_pass * order.batches_per_pass
        seen = np.concatenate([order.batch(start + i) for i in range(order.batches_per_pass)])
        assert len(seen) == sentences // batch_size * batch_size == len(set(seen.tolist()))


def test_what_sits_one_pass_out_takes_part_in_others() -> None:
    order = Order(103, 10, seed=3)
    seen = {int(i) for number in range(10 * order.batches_per_pass) for i in order.batch(number)}
    assert seen == set(range(103))


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    forward = [Order(50, 7, 1).batch(number).tolist() for number in range(20)]
    used = Order(50, 7, 1)
    backward = [used.batch(number).tolist() for number in reversed(range(20))]
    assert forward == backward[::-1]


def test_the_order_of_a_seed_stays_what_it_is() -> None:
    # Resuming a run with a later version must go on in the same order.
    assert Order(1000, 8, 42).batch(0).tolist() == [789, 474, 659, 834, 520, 495, 966, 831]


def test_a_trillion_sentences_cost_no_memory() -> None:
    batch = Order(10**12, 64, 0).batch(10**9)
    assert len(set(batch.tolist())) == 64
    assert ((batch >= 0) & (batch < 10**12)).all()


def serial_correlation(items: NDArray[np.int64]) -> float:
    return abs(float(np.corrcoef(items[:-1], items[1:])[0, 1]))


def looks_random(items: NDArray[np.int64]) -> bool:
    """Neighbours say nothing of each other, nor places of their items; an item moves a third of the way on average."""
    places = np.arange(len(items))
    moved = float(np.abs(items - places).mean()) / len(items)
    along = abs(float(np.corrcoef(places, items)[0, 1]))
    return serial_correlation(items) < 0.05 and along < 0.05 and abs(moved - 1 / 3) < 0.02


@pytest.mark.parametrize("key", range(5))
@pytest.mark.parametrize("size", [4096, 4097, 10_000])
def test_the_order_looks_random(size: int, key: int) -> None:
    assert looks_random(whole(size, key))


@pytest.mark.parametrize(
    "items",
    [np.arange(4096), np.arange(4096)[::-1], np.roll(np.arange(4096), 700), np.arange(4096).reshape(64, 64).T.ravel()],
    ids=["as it is", "backward", "rotated", "strided"],
)
def test_an_order_that_is_not_random_does_not_look_so(items: NDArray[np.int64]) -> None:
    assert not looks_random(items)


def test_all_orders_of_three_items_are_about_as_frequent() -> None:
    counts = Counter(tuple(whole(3, key).tolist()) for key in range(3000))
    assert len(counts) == 6
    assert all(400 < count < 600 for count in counts.values()), counts
