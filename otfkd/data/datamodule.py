"""The run's batches in order, from any batch on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, Dataset

from otfkd.data.collate import Batch, pad
from otfkd.data.order import Order
from otfkd.data.tokens import TokenCache


@dataclass(frozen=True)
class Source:
    """A corpus as one model reads it: its tokens and the id it pads with."""

    tokens: TokenCache
    pad_id: int


class OrderedBatches(Dataset[Batch]):
    """Batch `number` of a run, made on demand; teacher tokens only where an initial teacher reads differently."""

    def __init__(self, order: Order, student: Source, teachers: Sequence[Source], total: int, share: slice):
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
        teachers = tuple(pad(source.tokens.read(rows)[1], source.pad_id) for source in self.teachers)
        return Batch(tuple(lines), pad(ids, self.student.pad_id), teachers)


class _From(Sequence[int]):
    """The batch numbers still to come: `range(start, total)`, of which Lightning asks the whole run's length."""

    def __init__(self, start: int, total: int):
        self.start, self.total = start, total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))

    def __getitem__(self, index: Any) -> Any:
        return range(self.start, self.total)[index]


class CorpusData(L.LightningDataModule):
    """Feeds a run's batches; to Lightning the whole run is one epoch.

    Args:
        student: the corpus as the student reads it.
        teachers: as members of the initial teacher read it, where that differs.
        batch_size: sentences a micro-batch.
        seed: of the order.
        total_batches: micro-batches of the whole run.
        start: the first micro-batch to feed, on a resume.
        share: the rows of every micro-batch to feed, where several processes share it.
    """

    def __init__(
        self,
        student: Source,
        teachers: Sequence[Source],
        *,
        batch_size: int,
        seed: int,
        total_batches: int,
        start: int = 0,
        share: slice = slice(None),
    ):
        super().__init__()
        order = Order(len(student.tokens), batch_size, seed)
        self.batches = OrderedBatches(order, student, teachers, total_batches, share)
        self.start = start

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.batches, batch_size=None, sampler=_From(self.start, len(self.batches)))
