"""The training order: a seeded permutation that is computed, not stored, so it can start anywhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele et al. 2014): every input bit moves every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Map positions to items by a keyed bijection of range(size).

    A Feistel network over the smallest even number of bits that holds `size`, walked again while it leaves the range
    (Black and Rogaway 2002): memory in proportion to `index` alone.

    Args:
        index: positions in [0, size), any shape.
        size: how many items there are.
        key: which permutation.

    Returns:
        Items in [0, size), the shape of `index`.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    with np.errstate(over="ignore"):
        keys = _mix(np.uint64(key) + _GOLDEN * np.arange(1, _ROUNDS + 1, dtype=np.uint64))
    x = index.astype(np.uint64)
    outside = np.ones(x.shape, bool)
    while outside.any():
        left, right = x[outside] >> half, x[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        x[outside] = (left << half) | right
        outside = x >= size
    return x.astype(np.int64)


@dataclass(frozen=True)
class Order:
    """Batches of sentence indices over as many passes as a run needs.

    Each pass is a permutation of its own; the sentences that do not fill a last batch sit that pass out, so no batch is
    ragged and none holds a sentence twice.

    Attributes:
        sentences: the corpus' size.
        batch_size: sentences a batch, at most `sentences`.
        seed: the run's seed.
        only: so many batches come, over and over; None: all of every pass.
    """

    sentences: int
    batch_size: int
    seed: int
    only: int | None = None

    def __post_init__(self) -> None:
        if self.sentences < self.batch_size:
            raise ValueError(f"{self.sentences} sentences fill no batch of {self.batch_size}")

    @property
    def batches_per_pass(self) -> int:
        return self.sentences // self.batch_size

    def batch(self, number: int) -> NDArray[np.int64]:
        """Sentence indices of the run's batch `number`, counted from 0 over all passes; shape (batch_size,)."""
        if self.only is not None:
            number %= self.only
        corpus_pass, place = divmod(number, self.batches_per_pass)
        positions = np.arange(place * self.batch_size, (place + 1) * self.batch_size)
        return permute(positions, self.sentences, key=(self.seed << 32) + corpus_pass)
