"""The processes that train one run together: what they share, and what the first does for all.

Each holds the same weights and the same teacher and reads its own share of every batch. In a run of one process every
function here gives back what it is given.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, distributed

from otfkd.base.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")


def world_size() -> int:
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """This process's number; the first is 0."""
    return distributed.get_rank() if _together() else 0


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def own_rows(rows: int) -> slice:
    """This process's part of so many rows, which must divide."""
    each = rows // world_size()
    return slice(rank() * each, (rank() + 1) * each)


def all_gather(rows: Tensor) -> Tensor:
    """The rows of all processes in order, (b, d) to (B, d) float32, for a loss that each of them computes alike."""
    all_gather: Tensor = rows if world_size() == 1 else _Gather.apply(rows.float())  # type: ignore[no-untyped-call]
    return all_gather


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # The loss is the same everywhere, so a process has the whole gradient of its rows without asking. The weights'
        # gradient is the sum of what all rows add to it; DDP takes the mean over processes instead.
        return gradient[own_rows(len(gradient))] * world_size()


def broadcast(action: Callable[[], T]) -> T:
    """What an action gives in the first process, which alone does it; a user's error is raised in all alike."""
    if world_size() == 1:
        return action()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = action()
        except UserError as error:
            answer[1] = error
    distributed.broadcast_object_list(answer)
    result, refusal = answer
    if refusal is not None:
        raise refusal
    return result  # type: ignore[no-any-return]


def rank_zero_first(action: Callable[[], T]) -> T:
    """Act in every process, in the others after the first: they find the files it fetched or made."""
    done: list[T] = []
    broadcast(lambda: done.append(action()))
    return done[0] if done else action()


def rank_zero_only(action: Callable[P, None]) -> Callable[P, None]:
    """Make the other processes pass over what one does for all, such as writing a file."""

    @functools.wraps(action)
    def alone(*args: P.args, **kwargs: P.kwargs) -> None:
        if rank() == 0:
            action(*args, **kwargs)

    return alone


def all_gather_object(value: T) -> list[T]:
    """What each process has, in their order; every one of them must ask."""
    values: list[Any] = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(values, value)
    return values


def any_process(flag: bool) -> bool:
    """Whether a flag is set in any process."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(int(flag))
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags)
