"""The run's batches in order, from any batch on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from otfkd.data.collate import Batch, LabelledBatch, Tokens, pad
from otfkd.data.labelled import Examples
from otfkd.data.order import Order
from otfkd.data.tokens import TokenCache


@dataclass(frozen=True)
class Source:
    """A corpus as one model reads it: its tokens and the id it pads with."""

    tokens: TokenCache
    pad_id: int

    def batch(self, rows: NDArray[np.int64]) -> Tokens:
        """Some rows, (B,) to (B, L)."""
        return pad(self.tokens.read(rows)[1], self.pad_id)


class TeacherInput(Protocol):
    """A corpus as a member of the initial teacher reads it, or has embedded it."""

    def batch(self, rows: NDArray[np.int64]) -> Tokens | Tensor: ...


class OrderedBatches(Dataset[Batch]):
    """Batch `number` of a run, made on demand; what teachers read only where they do not read as the student does."""

    def __init__(self, order: Order, student: Source, teachers: Sequence[TeacherInput], total: int, share: slice):
        self.order = order
        self.student = student
        self.teachers = teachers
        self.total = total
        self.share = share

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, number: int) -> Batch:
        rows = self.order.batch(number)[self.share]
        lines, ids = self.student.tokens.read(rows)
        teachers = tuple(teacher.batch(rows) for teacher in self.teachers)
        return Batch(tuple(lines), pad(ids, self.student.pad_id), teachers)


class ResumedSampler(Sampler[int]):
    """The numbers of the batches still to come; its length is the whole run's, which is what Lightning asks for."""

    def __init__(self, start: int, total: int):
        self.start, self.total = start, total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))


class CorpusData(L.LightningDataModule):
    """Feeds a run's batches; to Lightning the whole run is one epoch.

    Args:
        student: the corpus as the student reads it.
        teachers: as members of the initial teacher read it, or have embedded it, where that differs.
        batch_size: sentences a micro-batch.
        seed: of the order.
        only: so many batches come, over and over; None: all.
        total_batches: micro-batches of the whole run.
        start: the first micro-batch to feed, on a resume.
        share: the rows of every micro-batch to feed, where several processes share it.
    """

    def __init__(
        self,
        student: Source,
        teachers: Sequence[TeacherInput],
        *,
        batch_size: int,
        seed: int,
        total_batches: int,
        only: int | None = None,
        start: int = 0,
        share: slice = slice(None),
    ):
        super().__init__()
        order = Order(len(student.tokens), batch_size, seed, only)
        self.batches = OrderedBatches(order, student, teachers, total_batches, share)
        self.start = start

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.batches, batch_size=None, sampler=ResumedSampler(self.start, len(self.batches)))


class LabelledBatches(Dataset[LabelledBatch]):
    """Batch `number` of a run on labelled examples, made on demand.

    Args:
        order: of the examples.
        source: their sentences as the student reads them, example by example.
        examples: how many sentences each has, and the labels.
        total: micro-batches of the whole run.
    """

    def __init__(self, order: Order, source: Source, examples: Examples, total: int):
        self.order = order
        self.source = source
        self.columns = examples.columns
        self.labels = torch.tensor(examples.labels, dtype=torch.float32)
        self.total = total

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, number: int) -> LabelledBatch:
        chosen = self.order.batch(number)
        lines = np.concatenate([chosen * self.columns + column for column in range(self.columns)])
        _, ids = self.source.tokens.read(lines)
        labels = self.labels[torch.from_numpy(chosen)] if len(self.labels) else self.labels
        return LabelledBatch(tuple(chosen.tolist()), pad(ids, self.source.pad_id), self.columns, labels)


class LabelledData(L.LightningDataModule):
    """Feeds the batches of a run on labelled examples; to Lightning the whole run is one epoch.

    Args:
        source: the examples' sentences as the student reads them, example by example.
        examples: the labels.
        batch_size: examples a micro-batch.
        seed: of the order.
        only: so many batches come, over and over; None: all.
        total_batches: micro-batches of the whole run.
        start: the first micro-batch to feed, on a resume.
    """

    def __init__(
        self,
        source: Source,
        examples: Examples,
        *,
        batch_size: int,
        seed: int,
        total_batches: int,
        only: int | None = None,
        start: int = 0,
    ):
        super().__init__()
        order = Order(len(examples), batch_size, seed, only)
        self.batches = LabelledBatches(order, source, examples, total_batches)
        self.start = start

    def train_dataloader(self) -> DataLoader[LabelledBatch]:
        return DataLoader(self.batches, batch_size=None, sampler=ResumedSampler(self.start, len(self.batches)))
