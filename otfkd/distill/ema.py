"""The moving average of the student, in float32 whatever the student computes in."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn


class Shadow:
    """An exponential moving average of a module's weights (Tarvainen & Valpola 2017).

    Args:
        decay: the share of the average that stays at each step.
        shape: `constant`; `ramp`, min(1 - 1/(t+1), decay), which forgets the start (Mean Teacher's code); or `cosine`,
            from `decay` to 1 over the run (Grill et al. 2020, BYOL, sec. 3.3).
        max_steps: optimizer steps of the run.
    """

    def __init__(self, decay: float, shape: Literal["constant", "ramp", "cosine"], max_steps: int):
        self.decay = decay
        self.shape = shape
        self.max_steps = max_steps
        self.weights: dict[str, Tensor] = {}

    def start(self, module: nn.Module) -> None:
        """Begin anew, at the module's weights."""
        self.weights = {name: _float32(tensor).clone() for name, tensor in module.state_dict().items()}

    def join(self, module: nn.Module) -> None:
        """Go where the module's weights are, after a resume."""
        now = module.state_dict()
        self.weights = {name: tensor.to(now[name].device) for name, tensor in self.weights.items()}

    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after optimizer step `step`."""
        now = module.state_dict()
        floating = [name for name, tensor in self.weights.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self.weights[name] for name in floating], [_float32(now[name]) for name in floating], 1 - self.rate(step)
        )
        for name in self.weights.keys() - floating:
            self.weights[name].copy_(now[name])

    def rate(self, step: int) -> float:
        """The decay used at a step."""
        match self.shape:
            case "constant":
                return self.decay
            case "ramp":
                return min(1 - 1 / (step + 1), self.decay)
            case "cosine":
                return 1 - (1 - self.decay) * (math.cos(math.pi * step / self.max_steps) + 1) / 2

    def state_dict(self) -> dict[str, Any]:
        return dict(self.weights)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = dict(state)


def _float32(tensor: Tensor) -> Tensor:
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
