"""A user's own loss of two lists of similarities, `package.module:function` in `objective.kd` or `objective.terms`."""

from collections.abc import Callable, Iterator

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
        if not _is_scalar(value):
            raise UserError(f"{part} gave {_shown(value)}: {_SIGNATURE}")
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
    objection = _objection(part.value) if callable(part.value) else "is no function"
    if objection is not None:
        raise UserError(f"{part} {objection}: {_SIGNATURE}")


def _objection(function: ListLoss) -> str | None:
    """What is against a function as a loss; None where nothing is."""
    generator = torch.Generator().manual_seed(0)
    given = [2 * torch.rand(6, 5, generator=generator) - 1 for _ in range(2)]
    student, teacher = given[0].clone().requires_grad_(), given[1].clone()
    random = torch.get_rng_state()
    try:
        first, again = function(student, teacher), function(student, teacher)
        draws = not torch.equal(random, torch.get_rng_state())
    except Exception as error:
        return f"fails on two tensors (6, 5) ({type(error).__name__}: {first_line(error)})"
    finally:
        torch.set_rng_state(random)
    if not _is_scalar(first):
        return f"gives {_shown(first)}"
    if not first.isfinite():
        return f"gives {first.item()} for ordinary cosines"
    if not (torch.equal(student, given[0]) and torch.equal(teacher, given[1])):
        return "writes into the tensors that it is given"
    if draws or not (_is_scalar(again) and torch.equal(first, again)):
        return "draws random numbers, or gives another value when it is asked again"
    if any(leaf is not student for leaf in _leaves(first)):
        return "sends a gradient to a tensor of its own, which nothing trains or keeps"
    return None if _reaches(first, student) else "gives no finite gradient to the student"


def _reaches(value: Tensor, student: Tensor) -> bool:
    """Whether a gradient that is finite, and not 0 everywhere, reaches the student."""
    if not value.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(value, student, allow_unused=True)
    return gradient is not None and bool(gradient.isfinite().all() and gradient.any())


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.shape == () and value.is_floating_point()


def _shown(value: object) -> str:
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
