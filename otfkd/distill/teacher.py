"""The teacher slot: what the student learns from, frozen, always in evaluation mode, and exchangeable in place."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from otfkd.data.collate import Batch
from otfkd.models.encoder import Encoder


class TeacherSlot(nn.Module):
    """Holds one frozen encoder, or none.

    It stays out of state dicts: a checkpoint names the teacher by its snapshot and does not grow with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder: Encoder | None = None
        self.reads_own_tokens = False
        self.first_installed = 0  # optimizer steps done when it was first filled; 0 for an initial teacher
        self.installed = 0  # when its teacher last changed
        self.register_load_state_dict_pre_hook(_keep_own)  # type: ignore[no-untyped-call]

    @property
    def filled(self) -> bool:
        return self.encoder is not None

    def install(self, encoder: Encoder, *, own_tokens: bool = False) -> None:
        """Put a frozen copy of an encoder into the slot.

        Args:
            encoder: left untouched and never aliased.
            own_tokens: whether batches carry tokens of its own tokenizer for it.
        """
        self.encoder = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.reads_own_tokens = own_tokens

    def install_weights(self, student: Encoder, weights: dict[str, Tensor]) -> None:
        """Make the teacher a student with these weights, in place where they fit so that addresses stay.

        Args:
            student: gives the shape, should the slot be empty or hold an encoder of another one.
            weights: a snapshot's.
        """
        if self.encoder is None or not self.encoder.same_shape(student):
            self.install(student)
        assert self.encoder is not None
        with torch.no_grad():
            self.encoder.load_state_dict(weights, strict=True)
        self.reads_own_tokens = False

    def forward(self, batch: Batch) -> Tensor:
        """Embed a batch's sentences once, (B, d'); the views are the same tokens, so one is enough."""
        assert self.encoder is not None
        tokens = batch.teacher if self.reads_own_tokens and batch.teacher is not None else batch.student
        with torch.no_grad():
            embeddings: Tensor = self.encoder(tokens)
        return embeddings

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whoever asks for training."""
        return super().train(False)

    def state_dict(  # type: ignore[override]
        self, *_: Any, destination: dict[str, Any] | None = None, **__: Any
    ) -> dict[str, Any]:
        """Nothing: the teacher is no part of what a checkpoint holds."""
        return {} if destination is None else destination


def _keep_own(slot: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # Strict loading stays strict for everything else: the slot answers for its own keys with what it holds.
    assert isinstance(slot, TeacherSlot)
    if slot.encoder is not None:
        for name, tensor in slot.encoder.state_dict().items():
            state[f"{prefix}encoder.{name}"] = tensor
