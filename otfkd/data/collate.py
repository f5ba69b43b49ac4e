"""Batches: one copy of each sentence, as each model's own tokenizer reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Padded token ids.

    Attributes:
        input_ids: (B, L) int64.
        attention_mask: (B, L) int64, 1 on real tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self.input_ids.to(device), self.attention_mask.to(device))

    def twice(self) -> "Tokens":
        """Both views of the batch, (2B, L): the same sentences, told apart only by dropout."""
        return Tokens(self.input_ids.repeat(2, 1), self.attention_mask.repeat(2, 1))

    def split(self, size: int) -> "tuple[Tokens, ...]":
        """So many sentences at a time, as `Tensor.split` does."""
        return tuple(map(Tokens, torch.split(self.input_ids, size), torch.split(self.attention_mask, size)))


@dataclass(frozen=True)
class Batch:
    """B sentences of the corpus.

    Attributes:
        lines: their line numbers.
        student: their tokens as the student reads them.
        teachers: for those members of the initial teacher that do not read as the student does: the sentences as they
            read them, or as they have embedded them, (B, d).
    """

    lines: tuple[int, ...]
    student: Tokens
    teachers: tuple[Tokens | Tensor, ...] = ()

    def to(self, device: torch.device | str, **_: Any) -> Self:
        """Move to a device; Lightning calls this and passes transfer options on."""
        return type(self)(self.lines, self.student.to(device), tuple(read.to(device) for read in self.teachers))


@dataclass(frozen=True)
class LabelledBatch:
    """B labelled examples.

    Attributes:
        lines: their numbers among all examples.
        tokens: (columns * B, L), all first sentences, then all second ones, and so on.
        columns: sentences an example.
        labels: (B,) float32 grades or positions of classes; empty where the order of the sentences says it all.
    """

    lines: tuple[int, ...]
    tokens: Tokens
    columns: int
    labels: Tensor

    def to(self, device: torch.device | str, **_: Any) -> Self:
        """Move to a device; Lightning calls this and passes transfer options on."""
        return type(self)(self.lines, self.tokens.to(device), self.columns, self.labels.to(device))


def pad(rows: Sequence[Sequence[int] | NDArray[np.int32]], pad_id: int) -> Tokens:
    """Pad rows of token ids on the right to the longest of them."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, np.int64)
    ids[mask] = np.concatenate([np.asarray(row) for row in rows])
    return Tokens(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)))
