"""Labelled sentences: SentEval's seven transfer tasks, read as SentEval reads them (Conneau & Kiela 2018).

The examples of a split are in SentEval's order, by length and then label, because its folds depend on it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from otfkd.base.errors import UserError
from otfkd.base.hashing import sha256_bytes
from otfkd.data.senteval import read_task_file

TransferName = Literal["MR", "CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC"]
NAMES: tuple[TransferName, ...] = get_args(TransferName)

# What a sentence without words is read as, in SentEval's own examples too: some tokenizers give nothing for nothing.
# SimCSE's script embeds the empty string instead; CR's 4 then move its accuracy by up to 0.3, MPQA's 3 by up to 0.2.
PLACEHOLDER = "."


@dataclass(frozen=True)
class Example:
    """A sentence, or a pair of them, and its class.

    Attributes:
        texts: one sentence or two, words separated by single spaces.
        label: its class, from 0.
    """

    texts: tuple[str, ...]
    label: int


@dataclass(frozen=True)
class TransferTask:
    """One classification task.

    Attributes:
        name: the name tables use.
        train: examples to learn from; all there are where `test` is empty, which is then scored by cross-validation.
        dev: chooses the penalty; where it is empty, folds of `train` do.
        test: only ever scored.
        blank: sentences without words, read as `PLACEHOLDER`.
    """

    name: TransferName
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    blank: int

    def examples(self) -> tuple[Example, ...]:
        """All of them: train, dev, test."""
        return self.train + self.dev + self.test


def load_transfer(given: Path, names: Sequence[TransferName] = NAMES) -> tuple[TransferTask, ...]:
    """The named tasks, every file of them read and checked.

    Args:
        given: the folder that holds SentEval's task folders, or one above it.
        names: which tasks, in this order.

    Raises:
        UserError: a file is missing, a web page, too short or long, or not what it should be, by its path.
    """
    root = _find(given)
    return tuple(_READERS[name](root) for name in names)


def checksum(tasks: Iterable[TransferTask]) -> str:
    """The sha256 over all examples of some tasks."""
    return sha256_bytes(
        f"{task.name}\t{split}\t{example.label}\t{chr(9).join(example.texts)}\n".encode()
        for task in tasks
        for split, examples in (("train", task.train), ("dev", task.dev), ("test", task.test))
        for example in examples
    )


_BINARY: dict[TransferName, tuple[tuple[str, int], tuple[str, int]]] = {
    # The file of class 1 and of class 0 with their published numbers of lines.
    "MR": (("MR/rt-polarity.pos", 5331), ("MR/rt-polarity.neg", 5331)),
    "CR": (("CR/custrev.pos", 2407), ("CR/custrev.neg", 1368)),
    "SUBJ": (("SUBJ/subj.objective", 5000), ("SUBJ/subj.subjective", 5000)),
    "MPQA": (("MPQA/mpqa.pos", 3312), ("MPQA/mpqa.neg", 7294)),
}
_TREC_CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")


def _find(given: Path) -> Path:
    for candidate in (given / below for below in ("", "downstream", "senteval/downstream", "SentEval/data/downstream")):
        if any((candidate / folder).is_dir() for folder in ("MR", "CR", "SUBJ", "MPQA", "SST", "TREC", "MRPC")):
            return candidate
    raise UserError(
        f"{given} holds no transfer tasks: point evaluation.path or OTFKD_DATA at the folder in which SentEval's "
        "'MR', 'CR', 'SUBJ', 'MPQA', 'SST', 'TREC' and 'MRPC' folders lie"
    )


def _binary(root: Path, name: TransferName) -> TransferTask:
    raw = []
    for label, (file, expected) in zip((1, 0), _BINARY[name], strict=True):
        raw += [((line,), label) for line in _lines(root / file, expected, "latin-1")]
    return _task(name, raw)


def _sst2(root: Path) -> TransferTask:
    def read(split: str, expected: int) -> list["_Raw"]:
        path = root / "SST" / "binary" / f"sentiment-{split}"
        rows = _columns(path, expected, 2)
        return [((row[0],), _label(row[1], path, number)) for number, row in enumerate(rows, 1)]

    return _task("SST2", read("train", 67349), read("dev", 872), read("test", 1821))


def _trec(root: Path) -> TransferTask:
    def read(file: str, expected: int) -> list["_Raw"]:
        path = root / "TREC" / file
        lines = _lines(path, expected, "latin-1")
        return [_question(line, path, number) for number, line in enumerate(lines, 1)]

    return _task("TREC", read("train_5500.label", 5452), test=read("TREC_10.label", 500))


def _question(line: str, path: Path, number: int) -> "_Raw":
    label, _, question = line.strip().partition(" ")
    coarse = label.partition(":")[0]
    if coarse not in _TREC_CLASSES:
        raise UserError(
            f"{path} line {number} starts with {label[:40]!r}, not with a class like 'NUM:date': fetch the data again"
        )
    return (question,), _TREC_CLASSES.index(coarse)


def _mrpc(root: Path) -> TransferTask:
    def read(split: str, expected: int) -> list["_Raw"]:
        path = root / "MRPC" / f"msr_paraphrase_{split}.txt"
        rows = _columns(path, expected, 5, header=True)
        return [((row[3], row[4]), _label(row[0], path, number)) for number, row in enumerate(rows, 2)]

    return _task("MRPC", read("train", 4076), test=read("test", 1725))


_READERS: dict[TransferName, Callable[[Path], TransferTask]] = {
    "MR": lambda root: _binary(root, "MR"),
    "CR": lambda root: _binary(root, "CR"),
    "SUBJ": lambda root: _binary(root, "SUBJ"),
    "MPQA": lambda root: _binary(root, "MPQA"),
    "SST2": _sst2,
    "TREC": _trec,
    "MRPC": _mrpc,
}

# The texts of an example as they stand in the file, and its label.
_Raw = tuple[tuple[str, ...], int]


def _task(
    name: TransferName, train: Sequence[_Raw], dev: Sequence[_Raw] = (), test: Sequence[_Raw] = ()
) -> TransferTask:
    blank = sum(not text.split() for split in (train, dev, test) for texts, _ in split for text in texts)
    return TransferTask(name, _in_order(train), _in_order(dev), _in_order(test), blank)


def _in_order(raw: Sequence[_Raw]) -> tuple[Example, ...]:
    words = [(tuple(text.split() for text in texts), label) for texts, label in raw]
    words.sort(key=lambda example: ([len(text) for text in example[0]], example[1]))
    return tuple(Example(tuple(" ".join(text) or PLACEHOLDER for text in texts), label) for texts, label in words)


def _columns(path: Path, expected: int, width: int, *, header: bool = False) -> list[list[str]]:
    lines = _lines(path, expected + header, "utf-8")
    rows = [line.strip().split("\t") for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) < width:
            raise UserError(f"{path} line {number} has {len(row)} columns, not {width}: fetch the data again")
    return rows[header:]


def _lines(path: Path, expected: int, encoding: str) -> list[str]:
    text = read_task_file(path, encoding)
    if text[:200].lstrip().lower().startswith(("<!doctype", "<html")):
        raise UserError(f"{path} is a web page, as failed downloads leave behind: fetch the data again")
    lines = text.removesuffix("\n").split("\n") if text else []
    if len(lines) != expected:
        raise UserError(f"{path} has {len(lines)} lines, not {expected}: fetch the data again")
    return lines


def _label(text: str, path: Path, number: int) -> int:
    if text not in ("0", "1"):
        raise UserError(f"{path} line {number} has the label {text[:40]!r}, not 0 or 1: fetch the data again")
    return int(text)
