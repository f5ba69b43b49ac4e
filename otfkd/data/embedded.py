"""A corpus as a fixed teacher has embedded it: made once, then memory-mapped."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap, write_array_header_1_0
from numpy.typing import NDArray
from torch import Tensor

from otfkd.base.files import atomic_file


@dataclass(frozen=True)
class Embedded:
    """The embeddings of all sentences of a corpus, in the order of their lines.

    Attributes:
        path: an .npy file of (sentences, width) float32.
        sentences: how many the corpus has.
        width: of the teacher.
    """

    path: Path
    sentences: int
    width: int

    @property
    def size(self) -> int:
        """Bytes of the numbers."""
        return 4 * self.sentences * self.width

    @property
    def whole(self) -> bool:
        """Whether the file is there and as long as it should be."""
        try:
            rows = open_memmap(self.path, mode="r")
        except (OSError, ValueError):  # not there; no .npy, or shorter than it says
            return False
        exact = self.path.stat().st_size == rows.offset + self.size
        return exact and rows.shape == (self.sentences, self.width) and rows.dtype == np.float32

    @cached_property
    def _rows(self) -> NDArray[np.float32]:
        return open_memmap(self.path, mode="r")

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """The embeddings of some sentences, (B,) to (B, d)."""
        return torch.from_numpy(np.array(self._rows[rows]))

    @contextlib.contextmanager
    def writing(self) -> Iterator[Callable[[Tensor], object]]:
        """Yield what takes the next (n, d) embeddings; the file is there when the block ends."""
        # Written rather than mapped: a full disk is then an error, where a mapped page would end the process.
        with atomic_file(self.path) as temporary, temporary.open("wb") as file:
            shape = (self.sentences, self.width)
            write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            yield lambda rows: file.write(rows.numpy().tobytes())
