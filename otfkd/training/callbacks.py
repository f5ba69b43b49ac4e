"""Lightning callbacks of a user's own, `trainer.callbacks=[package.module:Class]`: they watch, and change nothing."""

import inspect
import io
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from torch import Tensor

from otfkd.base.errors import UserError, first_line
from otfkd.config.parts import Part, blaming, resolve
from otfkd.models.untouched import State, changed, mark, state_of

_SIGNATURE = "give a class derived from lightning.Callback that is made without arguments"
_HOOKS = [name for name in vars(L.Callback) if name.startswith("on_") or name in ("setup", "teardown")]


def check_callback(path: str) -> None:
    """Raise a UserError where an import path leads to no callback that may take part; none is made yet."""
    part = resolve("trainer.callbacks", path)
    if not inspect.isclass(part.value) or not issubclass(part.value, L.Callback):
        raise UserError(f"{part} is no callback: {_SIGNATURE}")
    if issubclass(part.value, Checkpoint | ProgressBar):
        raise UserError(f"{part} does what a run does itself, with its checkpoints or its progress: leave it out")


def make_callbacks(paths: Sequence[str]) -> list[L.Callback]:
    """Make the callbacks that import paths name, each watched while its hooks run.

    Raises:
        UserError: one cannot be imported or made, or cannot be kept in a checkpoint.
    """
    return [_watched(path) for path in paths]


def _watched(path: str) -> L.Callback:
    check_callback(path)
    part = resolve("trainer.callbacks", path)
    with blaming(part):
        callback: L.Callback = part.value()
    for hook in _HOOKS:
        if getattr(part.value, hook) is not getattr(L.Callback, hook):
            setattr(callback, hook, _watching(part, hook, getattr(callback, hook)))
    keep = callback.state_dict
    callback.state_dict = lambda: _kept(part, keep)  # type: ignore[method-assign]
    return callback


def _watching(part: Part, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def watched(trainer: L.Trainer, module: L.LightningModule, *given: Any, **named: Any) -> Any:
        before = _state(trainer, module)
        with blaming(part):
            result = hook(trainer, module, *given, **named)
        if (what := changed(before, _state(trainer, module))) is not None:
            raise UserError(f"{part} changed {what} in {name}: let it only look")
        return result

    return watched


def _state(trainer: L.Trainer, module: L.LightningModule) -> State:
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    kept = [kept for optimizer in trainer.optimizers for state in optimizer.state.values() for kept in state.values()]
    return {
        **state_of(module),
        "the optimizer's settings": [
            {key: value for key, value in group.items() if key != "params"} for group in groups
        ],
        "the optimizer's state": [mark(one) if isinstance(one, Tensor) else one for one in kept],
        "the trainer's loop": [trainer.should_stop, trainer.max_steps, trainer.global_step],
    }


def _kept(part: Part, keep: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a callback wants to find again, which a checkpoint must be able to hold."""
    with blaming(part):
        state = keep()
    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:
        raise UserError(
            f"{part} has a state_dict that no checkpoint can hold ({first_line(error)}): "
            "let it have tensors, numbers, strings, lists and dicts only"
        ) from None
    return state
