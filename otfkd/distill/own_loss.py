"""A user's own loss of two lists of similarities, `package.module:function` in `objective.kd` or `objective.terms`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from otfkd.base.errors import UserError, first_line
from otfkd.config.parts import blaming, resolve

ListLoss = Callable[[Tensor, Tensor], Tensor]

_SIGNATURE = (
    "give a pure function of (student, teacher), two float32 tensors of cosines (B, B-1), whose value is a finite "
    "scalar tensor with a gradient to the student alone"
)


def own_loss(path: str, key: str = "objective.kd") -> ListLoss:
    """The loss that an import path names, in float32 under every precision.

    Args:
        path: the import path.
        key: the config key that names it.

    Raises:
        UserError: it cannot be imported.
    """
    part = resolve(key, path)

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        with blaming(part), torch.autocast(student.device.type, enabled=False):
            value = part.value(student, teacher.detach())
        if not is_scalar(value):
            raise UserError(f"{part} gave {shown(value)}: {_SIGNATURE}")
        scalar: Tensor = value.float()
        return scalar

    return loss


def check_own_loss(path: str, key: str = "objective.kd") -> None:
    """Ask a loss twice for its value on small random lists.

    Args:
        path: its import path.
        key: the config key that names it.

    Raises:
        UserError: it cannot be imported, or is no such function as a run needs.
    """
    part = resolve(key, path)
    generator = torch.Generator().manual_seed(0)
    student, teacher = (2 * torch.rand(6, 5, generator=generator) - 1 for _ in range(2))
    student.requires_grad_()
    objection = "is no function"
    if callable(part.value):
        objection = objection_to(
            lambda: part.value(student, teacher), [student], [teacher], "cosines", "two tensors (6, 5)"
        )
    if objection:
        raise UserError(f"{part} {objection}: {_SIGNATURE}")


def objection_to(
    asked: Callable[[], Any], learning: Sequence[Tensor], constant: Sequence[Tensor], what: str, told: str
) -> str:
    """What is against a function as a loss, found by asking it twice; empty where nothing is.

    Args:
        asked: asks it for its value.
        learning: what the student gives; a gradient must reach one of them, and nothing else.
        constant: what else it is given.
        what: what these are.
        told: the same, with their sizes.
    """
    before = [tensor.detach().clone() for tensor in (*learning, *constant)]
    random = torch.get_rng_state()
    try:
        first, again = asked(), asked()
        draws = not torch.equal(random, torch.get_rng_state())
    except Exception as error:
        return f"fails on {told} ({type(error).__name__}: {first_line(error)})"
    finally:
        torch.set_rng_state(random)
    if not is_scalar(first):
        return f"gives {shown(first)}"
    if not first.isfinite():
        return f"gives {first.item()} for ordinary {what}"
    if not all(torch.equal(one, other) for one, other in zip(before, (*learning, *constant), strict=True)):
        return "writes into the tensors that it is given"
    if draws or not (is_scalar(again) and torch.equal(first, again)):
        return "draws random numbers, or gives another value when it is asked again"
    if any(all(leaf is not tensor for tensor in learning) for leaf in _leaves(first)):
        return "sends a gradient to a tensor of its own, which nothing trains or keeps"
    return "" if _reaches(first, learning) else "gives no finite gradient to the student"


def _reaches(value: Tensor, learning: Sequence[Tensor]) -> bool:
    """Whether gradients that are finite, and not 0 everywhere, reach what the student gives."""
    if not value.requires_grad:
        return False
    found = [one for one in torch.autograd.grad(value, learning, allow_unused=True) if one is not None]
    return all(bool(one.isfinite().all()) for one in found) and any(bool(one.any()) for one in found)


def is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.shape == () and value.is_floating_point()


def shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return f"{value!r:.40}"


def _leaves(value: Tensor) -> Iterator[Tensor]:
    """The tensors that a value sends its gradient to."""
    waiting, seen = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            yield leaf
        waiting += [other for other, _ in node.next_functions]
