"""Dropout from sixteen bits an element: the rate it says, unbiased, and nothing outside training."""

import pytest
import torch
from torch import nn

from otfkd.models.dropout import Dropout, dropout, enable_fast_dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_zeroes_at_the_rate_it_says_and_scales_the_rest(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n = 1_000_000
    dropped = dropout(torch.ones(n, dtype=dtype), p)
    # Five standard errors of a binomial share: p = 0.1 as 6554 / 65536 is far inside.
    assert abs(float((dropped == 0).double().mean()) - p) < 5 * (p * (1 - p) / n) ** 0.5
    assert sorted(set(dropped.tolist())) == [0.0, float(torch.ones((), dtype=dtype) / (1 - p))]


def test_elements_are_dropped_independently_of_each_other() -> None:
    torch.manual_seed(0)
    zeros = (dropout(torch.ones(100_000, 4), 0.5) == 0).double()
    # The four elements of one random word, and neighbours of a column: 1e5 pairs correlate by less than 5 / sqrt(1e5).
    assert (torch.corrcoef(zeros.T) - torch.eye(4)).abs().max() < 0.016
    assert torch.corrcoef(torch.stack([zeros[1:, 0], zeros[:-1, 0]]))[0, 1].abs() < 0.016


@pytest.mark.parametrize("shape", [(3,), (5, 7), (2, 3, 5), (0, 4)], ids=str)
def test_any_shape_passes_gradients_where_it_kept(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape, requires_grad=True)
    dropped = dropout(x, 0.5)
    dropped.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(dropped, x * x.grad)


def test_one_seed_drops_alike_and_another_does_not() -> None:
    def drop(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return dropout(torch.ones(64), 0.5)

    assert torch.equal(drop(0), drop(0))
    assert not torch.equal(drop(0), drop(1))


def test_only_training_drops() -> None:
    x = torch.ones(1000)
    layer = Dropout(0.5)
    assert (layer(x) == 0).any()
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_every_dropout_of_a_module_is_replaced() -> None:
    module = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3)))
    enable_fast_dropout(module)
    found = [part for part in module.modules() if isinstance(part, nn.Dropout)]
    assert [(type(part), part.p) for part in found] == [(Dropout, 0.1), (Dropout, 0.3)]
