"""Graded pairs to learn from: the train, dev and test splits of STS-B and SICK-R, in SentEval's order."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from otfkd.base.hashing import sha256_bytes
from otfkd.data import senteval
from otfkd.data.grades import GradedPairs
from otfkd.data.senteval import Split


@dataclass(frozen=True)
class RelatednessTask:
    """One task of grades to be predicted.

    Attributes:
        name: the name tables use.
        train: pairs to learn from, by length and then grade, which is the order SentEval shuffles from.
        dev: choose when to stop.
        test: only ever scored.
    """

    name: str
    train: GradedPairs
    dev: GradedPairs
    test: GradedPairs


def load_relatedness(root: Path) -> tuple[RelatednessTask, ...]:
    """STS-B and SICK-R with all their splits, every file of them read and checked.

    Args:
        root: from `senteval.find`.

    Raises:
        UserError: a file is missing or not what it should be, by its path.
    """
    splits: tuple[Split, ...] = ("train", "dev", "test")
    return (
        RelatednessTask("STS-B", *(_in_order(senteval.read_stsb(root, split)) for split in splits)),
        RelatednessTask("SICK-R", *(_in_order(senteval.read_sick(root, split)) for split in splits)),
    )


def checksum(tasks: Iterable[RelatednessTask]) -> str:
    """The sha256 over all pairs and grades of some tasks."""
    return sha256_bytes(
        f"{task.name}\t{split}\t{left}\t{right}\t{grade!r}\n".encode()
        for task in tasks
        for split, pairs in (("train", task.train), ("dev", task.dev), ("test", task.test))
        for left, right, grade in pairs
    )


def _in_order(pairs: GradedPairs) -> GradedPairs:
    return tuple(sorted(pairs, key=lambda pair: (len(pair[0].split()), len(pair[1].split()), pair[2])))
