"""Copies of weights, and whether two are the same."""

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def copy_of(module: torch.nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(left: Weights, right: Weights) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def close(left: Weights, right: Weights) -> bool:
    """The same but for the order in which floats were added."""
    return left.keys() == right.keys() and all(
        torch.allclose(left[name].double(), right[name].double(), rtol=1e-5, atol=1e-7) for name in left
    )
