"""Labelled examples for fine-tuning: graded pairs, classified pairs, and triplets with a hard negative."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from otfkd.base.errors import UserError
from otfkd.base.files import write_bytes
from otfkd.base.hashing import sha256_bytes
from otfkd.config.sections import DataConfig
from otfkd.data.corpus import Corpus
from otfkd.data.formats import filled, recognize
from otfkd.data.grades import finite
from otfkd.data.mapped import mapped_rows
from otfkd.data.senteval import find, read_sick, read_sick_judgments, read_stsb
from otfkd.data.sts import DevTask, Pair, Task, as_pair, found_again

Kind = Literal["graded", "classified", "triplets"]
CLASSES = ("entailment", "neutral", "contradiction")

TOP_GRADE = 5.0  # of the benchmarks, whose scale all grades are brought to

_IN_WORDS: dict[Kind, str] = {
    "graded": "pairs with a grade from 0 to {scale:g}",
    "classified": f"pairs that are {', '.join(CLASSES[:-1])} or {CLASSES[-1]}",
    "triplets": "triplets of a sentence, what it entails and what contradicts it",
}
# A file's columns, the label last; triplets are called as in SimCSE's own file.
_COLUMNS: dict[Kind, tuple[str, str, str]] = {
    "graded": ("sentence1", "sentence2", "score"),
    "classified": ("sentence1", "sentence2", "label"),
    "triplets": ("sent0", "sent1", "hard_neg"),
}
_OFFERED: dict[Kind, str] = {
    "graded": "data=mini, stsb_train, sick_train, labelled with data.path=FILE, or custom",
    "classified": "data=sick_train, labelled with data.path=FILE, or custom",
    "triplets": "data=mini, nli, labelled with data.path=FILE, or custom",
}

# What each supervised objective learns from.
LEARNS_FROM: dict[str, Kind] = {
    "simcse": "triplets",
    "cosent": "graded",
    "cosine_regression": "graded",
    "softmax": "classified",
}


def in_words(kind: Kind, grade_scale: float | None = None) -> str:
    """What examples of a kind are; their grades are from 0 to 5 unless told."""
    return _IN_WORDS[kind].format(scale=TOP_GRADE if grade_scale is None else grade_scale)


@dataclass(frozen=True)
class Examples:
    """Labelled examples, all of one kind.

    Attributes:
        name: where they come from.
        kind: what they are.
        sentences: each example's two or three.
        labels: grades from 0 to 5 or positions in CLASSES; none for triplets, whose order says it all.
        grade_scale: the top grade as it was read, where there are grades.
        left_out: how many were dropped because dev holds their pair.
    """

    name: str
    kind: Kind
    sentences: tuple[tuple[str, ...], ...]
    labels: tuple[float, ...]
    grade_scale: float = TOP_GRADE
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def columns(self) -> int:
        """Sentences an example."""
        return 3 if self.kind == "triplets" else 2

    @property
    def what(self) -> str:
        """The kind in words."""
        return in_words(self.kind, self.grade_scale)

    @property
    def sha256(self) -> str:
        """Of all sentences and labels, whatever file they came in."""
        return sha256_bytes(f"{row!r}\n".encode() for row in (self.kind, *self.sentences, self.labels))

    def corpus(self, cache: Path) -> Corpus:
        """The sentences as a corpus of one a line, example by example: line e * columns + c is sentence c of e."""
        content = "".join(f"{sentence}\n" for example in self.sentences for sentence in example).encode()
        digest = sha256_bytes([content])
        path = cache / "corpora" / f"labelled-{digest[:16]}.txt"
        if not path.is_file():
            write_bytes(path, content)
        return Corpus(path, digest)

    def pairs(self) -> Iterator[Pair]:
        """The pairs an example teaches something of: the first sentence with each other one."""
        for first, *others in self.sentences:
            yield from (as_pair(first, other) for other in others)

    def without(self, dev: DevTask) -> "Examples":
        """Those whose pairs are not dev's: a checkpoint must not be chosen by what it was trained on.

        Raises:
            UserError: none is left.
        """
        taken = set(dev.pairs())
        kept = [not taken & {as_pair(first, other) for other in others} for first, *others in self.sentences]
        if not any(kept):
            raise UserError(f"all examples of {self.name} are pairs of {dev.name}: train on others")
        return replace(
            self,
            sentences=tuple(example for example, keep in zip(self.sentences, kept, strict=True) if keep),
            labels=tuple(label for label, keep in zip(self.labels, kept, strict=False) if keep),
            left_out=kept.count(False),
        )

    def seen(self, tasks: Iterable[Task]) -> dict[str, int]:
        """How many pairs of each task are among these, for the tasks that have any."""
        return found_again(self.pairs(), tasks)


def load_examples(config: DataConfig, kind: Kind, data_root: str | None, cache: Path) -> Examples:
    """The labelled examples a config names, every one read and checked.

    Args:
        config: `data` of the run.
        kind: what the objective learns from.
        data_root: holds SentEval's folders, where `data.path` does not say.
        cache: where an archive from the hub is unpacked.

    Raises:
        UserError: a file is missing or not what it should be, or the data has no such labels.
    """
    match config.source, kind:
        case "csv", _:
            path = _table_path(config)
            return _read(path.name, str(path), _rows(path, _COLUMNS[kind]), kind, config.grade_scale)
        case "custom", _:
            own = _own_map(config)
            return _read(own, f"data.path={own}", mapped_rows(own, _COLUMNS[kind]), kind, config.grade_scale)
        case "mini", "graded":
            from otfkd.data import mini

            return _labelled("mini train", kind, mini.pairs("train"))
        case "mini", "triplets":
            from otfkd.data import mini

            return Examples("mini triplets", kind, mini.triplets(), ())
        case "stsb", "graded":
            return _labelled("STS-B train", kind, read_stsb(find(config, data_root, cache), "train"))
        case "sick", "graded":
            return _labelled("SICK train", kind, read_sick(find(config, data_root, cache), "train"))
        case "sick", "classified":
            root = find(config, data_root, cache)
            judged = zip(read_sick(root, "train"), read_sick_judgments(root, "train"), strict=True)
            rows = ((left, right, _class(judgment, "SICK_train.txt")) for (left, right, _), judgment in judged)
            return _labelled("SICK train", kind, rows)
    raise UserError(
        f"the objective learns from {in_words(kind)}, and data.source={config.source} has none: take {_OFFERED[kind]}"
    )


def _labelled(name: str, kind: Kind, rows: Iterable[tuple[str, str, float]]) -> Examples:
    sentences, labels = [], []
    for number, (left, right, label) in enumerate(rows, 1):
        where = f"example {number} of {name}"
        sentences.append((_sentence(left, where), _sentence(right, where)))
        labels.append(label)
    return Examples(name, kind, tuple(sentences), tuple(labels))


def _table_path(config: DataConfig) -> Path:
    if isinstance(config.path, str):
        return Path(config.path)
    if config.repo is None or config.file is None:
        raise UserError("data.path must be given with data=labelled: add data.path=FILE")
    from otfkd.data.hub import download

    return download(config.repo, config.file, "data.path=FILE")


def _own_map(config: DataConfig) -> str:
    if not config.paths:
        raise UserError("data.path must be given with data=custom: add data.path=package.module:Class")
    return config.paths[0]


def _read(
    name: str, source: str, found: Iterator[tuple[str, tuple[Any, ...]]], kind: Kind, grade_scale: float | None
) -> Examples:
    """The examples of some rows, by the name of where they come from; messages name the source in full."""
    rows = [
        (where, _sentence(first, where), _sentence(second, where), "" if third is None else str(third))
        for where, (first, second, third) in found
    ]
    if not rows:
        raise UserError(f"{source} has no examples: give {in_words(kind, grade_scale)}")
    if kind == "triplets":
        triplets = tuple((first, second, _sentence(third, where)) for where, first, second, third in rows)
        return Examples(name, kind, triplets, ())
    if kind == "classified":
        classes = ((first, second, _class(third, where)) for where, first, second, third in rows)
        return _labelled(name, kind, classes)
    top = TOP_GRADE if grade_scale is None else grade_scale
    grades = [_grade(third, where, top) for where, _, _, third in rows]
    if grade_scale is None and max(grades) <= 1:
        raise UserError(
            f"{source} has no grade above 1, which grades from 0 to 1 and from 0 to 5 may both be: "
            "say which with data.grade_scale=1 or data.grade_scale=5"
        )
    scaled = [grade * (TOP_GRADE / top) for grade in grades]
    examples = ((first, second, grade) for (_, first, second, _), grade in zip(rows, scaled, strict=True))
    return replace(_labelled(name, kind, examples), grade_scale=top)


def _rows(path: Path, columns: tuple[str, str, str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Where each row is, for a message, and its values of some columns."""
    table = recognize(path, unnamed="csv")
    missing = [column for column in columns if column not in table.columns]
    if missing:
        has = f"only {', '.join(table.columns)}" if table.columns else "for it is empty"
        raise UserError(f"{path} has no column {missing[0]}, {has}: this objective reads {', '.join(columns)}")
    return table.rows(columns)


def _sentence(value: object, where: str) -> str:
    return filled(value, where).replace("\n", " ")


def _grade(text: str, where: str, top: float) -> float:
    grade = finite(text)
    if grade is None or not 0 <= grade <= top:
        raise UserError(
            f"{where} has the grade {text.strip()[:40]!r}: give a number from 0 to {top:g}, or the right "
            "data.grade_scale"
        )
    return grade


def _class(text: str, where: str) -> float:
    name = text.strip().lower()
    if name not in CLASSES:
        raise UserError(f"{where} has the label {text.strip()[:40]!r}: give {', '.join(CLASSES[:-1])} or {CLASSES[-1]}")
    return float(CLASSES.index(name))
