"""The learning rate as a function of the step alone, so that a resume has nothing to restore."""

import math
from typing import Literal


def decayed(decay: Literal["linear", "cosine", "constant"], step: int, start: int, end: int) -> float:
    """The share of the full rate used by the optimizer step after `step`.

    Args:
        decay: to 0, linearly or by half a cosine (Loshchilov & Hutter 2017, eq. 5), or not at all.
        step: optimizer steps done.
        start: the step the decay begins after.
        end: the step it reaches 0 after.
    """
    done = min(1.0, (step - start) / (end - start))
    match decay:
        case "linear":
            return 1 - done
        case "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        case "constant":
            return 1.0
