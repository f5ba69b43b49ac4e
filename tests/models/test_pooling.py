"""Every pooler against a slow loop over sentences and tokens."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from otfkd.config.sections import Pooler
from otfkd.models.pooling import LAYERED, pool

RIGHT = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
LEFT = [row[::-1] for row in RIGHT]


def layers_of(count: int = 5) -> list[Tensor]:
    """Hidden states as a backbone of `count - 1` layers returns them, (3, 5, 4) each."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(count)]


def mean_of(*picked: int) -> Callable[[list[Tensor], list[int], int], Tensor]:
    def slow(layers: list[Tensor], mask: list[int], row: int) -> Tensor:
        real = [i for i, on in enumerate(mask) if on]
        total = torch.zeros(4, dtype=torch.float64)
        for layer in picked:
            for i in real:
                total += layers[layer][row, i] / (len(real) * len(picked))
        return total

    return slow


def last_real(layers: list[Tensor], mask: list[int], row: int) -> Tensor:
    return layers[-1][row, max(i for i, on in enumerate(mask) if on)]


def first(layers: list[Tensor], mask: list[int], row: int) -> Tensor:
    return layers[-1][row, 0]


ORACLES: dict[Pooler, Callable[[list[Tensor], list[int], int], Tensor]] = {
    "cls": first,
    "cls_head": first,
    "mean": mean_of(-1),
    "last": last_real,
    "first_last_mean": mean_of(1, -1),
    "top2_mean": mean_of(-2, -1),
}
# A class token stands first; with padding before it there is none to take.
CASES = [(pooler, mask) for pooler in ORACLES for mask in (RIGHT, LEFT) if mask is RIGHT or "cls" not in pooler]


@pytest.mark.parametrize(("pooler", "mask"), CASES, ids=[f"{p}-{'right' if m is RIGHT else 'left'}" for p, m in CASES])
def test_a_pooler_equals_its_slow_loop(pooler: Pooler, mask: list[list[int]]) -> None:
    layers = layers_of()
    expected = torch.stack([ORACLES[pooler](layers, row, i) for i, row in enumerate(mask)])
    torch.testing.assert_close(pool(pooler, layers, torch.tensor(mask)), expected)


@pytest.mark.parametrize(("pooler", "mask"), CASES, ids=[f"{p}-{'right' if m is RIGHT else 'left'}" for p, m in CASES])
def test_what_stands_in_the_padding_never_matters(pooler: Pooler, mask: list[list[int]]) -> None:
    layers, on = layers_of(), torch.tensor(mask)
    spoilt = [torch.where(on.bool().unsqueeze(-1), layer, 1e6) for layer in layers]
    assert torch.equal(pool(pooler, layers, on), pool(pooler, spoilt, on))


@pytest.mark.parametrize("pooler", ORACLES)
def test_only_layered_poolers_read_more_than_the_last_layer(pooler: Pooler) -> None:
    layers, mask = layers_of(), torch.tensor(RIGHT)
    changed = [layer + 1 for layer in layers[:-1]] + layers[-1:]
    assert torch.equal(pool(pooler, layers, mask), pool(pooler, changed, mask)) == (pooler not in LAYERED)


@pytest.mark.parametrize("pooler", ORACLES)
def test_word_embeddings_are_never_read(pooler: Pooler) -> None:
    layers, mask = layers_of(), torch.tensor(RIGHT)
    assert torch.equal(pool(pooler, layers, mask), pool(pooler, [layers[0] + 1, *layers[1:]], mask))


@pytest.mark.parametrize("pooler", ["mean", "first_last_mean"])
def test_a_mean_keeps_the_precision_of_the_hidden_states(pooler: Pooler) -> None:
    layers = [layer.bfloat16() for layer in layers_of()]
    assert pool(pooler, layers, torch.tensor(RIGHT)).dtype == torch.bfloat16
