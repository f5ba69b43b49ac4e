"""Whether a user's own code left a model as it found it, as far as can be told at no cost."""

from typing import Any

from torch import Tensor, nn

State = dict[str, list[Any]]


def state_of(module: nn.Module) -> State:
    """What changes where a module's tensors are replaced or written to in place, or its modes are switched.

    Tensors count their writes; those through `.data` are not counted.
    """
    weights = [*module.parameters(), *module.buffers()]
    gradients = [None if weight.grad is None else mark(weight.grad) for weight in weights]
    return {
        "the weights": [mark(weight) for weight in weights],
        "gradients": gradients,
        "the mode of a module (train or eval)": [part.training for part in module.modules()],
    }


def mark(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor lies and how often it was written to."""
    return tensor.data_ptr(), tensor._version


def changed(before: State, after: State) -> str | None:
    """The first thing that is no longer what it was; None where all is."""
    return next((what for what, value in before.items() if after[what] != value), None)
