"""Graded sentence pairs: the STS tasks in SentEval's layout or mteb's, a user's own, and the embedded mini task.

Dev and test tasks are different types, so that code that selects on a test task does not type-check. That says nothing
of their pairs: STS-B was drawn from STS12 to STS16, and 1,135 of the pairs of these test tasks are STS-B dev pairs too,
580 of them in STS15. `Suite.dev_in_test` counts them.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from otfkd.base.errors import UserError
from otfkd.base.hashing import sha256_bytes
from otfkd.config.sections import EvaluationConfig
from otfkd.data import mteb, senteval
from otfkd.data.grades import GradedPairs
from otfkd.data.pairs import COLUMNS, read_pairs


@dataclass(frozen=True)
class Subset:
    """Scored pairs that were published together.

    Attributes:
        name: the subset's name.
        pairs: (sentence, sentence, gold grade).
    """

    name: str
    pairs: GradedPairs


@dataclass(frozen=True)
class Task:
    """One task: its subsets' pairs are scored together ('all') and apart."""

    name: str
    subsets: tuple[Subset, ...]

    @property
    def size(self) -> int:
        return sum(len(subset.pairs) for subset in self.subsets)

    def sentences(self) -> Iterable[str]:
        for subset in self.subsets:
            for left, right, _ in subset.pairs:
                yield left
                yield right

    def pairs(self) -> Iterator["Pair"]:
        return (as_pair(left, right) for subset in self.subsets for left, right, _ in subset.pairs)


Pair = frozenset[str]


def as_pair(left: str, right: str) -> Pair:
    """Two sentences in no order, as they are recognised in other data."""
    # The same pair is spaced, cased and punctuated differently in different releases.
    return frozenset(re.sub(r"\W", _mark, sentence.lower()) for sentence in (left, right))


def _mark(found: re.Match[str]) -> str:
    """A vowel sign or an accent, which is no letter but may tell two words apart; of anything else nothing."""
    return found[0] if unicodedata.category(found[0]).startswith("M") else ""


def found_again(pairs: Iterable[Pair], tasks: Iterable[Task]) -> dict[str, int]:
    """How many pairs of each task are among some pairs, for the tasks that have any."""
    own = set(pairs)
    counts = {task.name: sum(pair in own for pair in task.pairs()) for task in tasks}
    return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class DevTask(Task):
    """A task that may choose a checkpoint."""


@dataclass(frozen=True)
class TestTask(Task):
    """A task that is only ever reported."""

    __test__ = False  # not a pytest class


@dataclass(frozen=True)
class Suite:
    """What a run is selected and tested on.

    Attributes:
        name: the suite's name.
        dev: selects the checkpoint.
        test: scored after training; a user's own suite may have none.
        text: how its sentences were read, where suites differ in it; part of the protocol.
        checksum: sha256 over all pairs and grades.
    """

    name: str
    dev: DevTask
    test: tuple[TestTask, ...]
    text: str = ""

    @property
    def checksum(self) -> str:
        return checksum((self.dev, *self.test))

    def dev_in_test(self) -> dict[str, int]:
        """How many pairs of each test task are dev pairs too, for the tasks that have any."""
        return found_again(self.dev.pairs(), self.test)


def checksum(tasks: Iterable[Task]) -> str:
    """The sha256 over all pairs and grades of some tasks."""
    return sha256_bytes(
        f"{task.name}\t{subset.name}\t{left}\t{right}\t{gold!r}\n".encode()
        for task in tasks
        for subset in task.subsets
        for left, right, gold in subset.pairs
    )


# SentEval's readers split each sentence at white space, and what embeds them joins the words again (Conneau & Kiela
# 2018); mteb hands sentences over as they are. It moves few scores and by little, but they are not the same input.
REJOINED, PUBLISHED = "words rejoined by single spaces", "sentences as published"


def load_suite(config: EvaluationConfig, data_root: str | None, cache: Path) -> Suite:
    """The suite a config names, every file of it read and checked.

    Raises:
        UserError: a file is missing, misaligned or not what it should be, by its path.
    """
    match config.suite:
        case "mini":
            return _mini_suite()
        case "sts":
            return _sts_suite(senteval.find(config, data_root, cache))
        case "mteb":
            return _mteb_suite(config, cache)
        case "pairs":
            return _own_suite(config)
    raise UserError(
        f"evaluation={config.suite} chooses no checkpoint: train with evaluation=sts, mteb, pairs or mini, then score "
        f"the run with otfkd-eval evaluation={config.suite}"
    )


def load_own_tests(config: EvaluationConfig) -> tuple[TestTask, ...]:
    """The test tasks of a user's own files, without dev beside them.

    Raises:
        UserError: as `load_suite`.
    """
    if not config.tests:
        raise UserError(
            "evaluation=pairs scores files of your own: add evaluation.dev=FILE, evaluation.test=FILE or both, with "
            f"the columns {', '.join(COLUMNS)}"
        )
    found = read_pairs("evaluation.test", config.tests)
    return tuple(TestTask(name, (Subset("test", pairs),)) for name, pairs in found.items())


def _own_suite(config: EvaluationConfig) -> Suite:
    if config.dev is None:
        raise UserError("evaluation=pairs chooses the checkpoint by a file of your own: add evaluation.dev=FILE")
    found = read_pairs("evaluation.dev", [config.dev])
    if len(found) > 1:
        raise UserError(f"evaluation.dev={config.dev} matches {len(found)} files, and one selects: name it")
    ((name, pairs),) = found.items()
    test = load_own_tests(config) if config.tests else ()
    if name in (task.name for task in test):
        raise UserError(
            f"evaluation.dev and evaluation.test name two files called {name}, and a task is called by its file: "
            "rename one"
        )
    return Suite("pairs", DevTask(name, (Subset("dev", pairs),)), test)


def load_stsb(root: Path, split: Literal["dev", "test"]) -> Task:
    """STS-B alone, one split of it.

    Args:
        root: from `senteval.find`.
        split: which.

    Raises:
        UserError: as `load_suite`.
    """
    return Task({"dev": "STS-B dev", "test": "STS-B"}[split], (Subset(split, senteval.read_stsb(root, split)),))


def _mini_suite() -> Suite:
    from otfkd.data import mini

    dev = DevTask("mini dev", (Subset("dev", mini.pairs("dev")),))
    return Suite("mini", dev, (TestTask("mini", (Subset("test", mini.pairs("test")),)),))


def _sts_suite(root: Path) -> Suite:
    years = tuple(_year(root, year) for year in senteval.YEARS)
    dev = DevTask("STS-B dev", (Subset("dev", senteval.read_stsb(root, "dev")),))
    stsb = TestTask("STS-B", (Subset("test", senteval.read_stsb(root, "test")),))
    sick = TestTask("SICK-R", (Subset("test", senteval.read_sick(root, "test")),))
    return Suite("sts", dev, (*years, stsb, sick), REJOINED)


def _year(root: Path, year: str) -> TestTask:
    subsets = senteval.read_year(root, year)
    return TestTask(f"STS{year}", tuple(Subset(name, pairs) for name, pairs in subsets.items()))


def _mteb_suite(config: EvaluationConfig, cache: Path) -> Suite:
    source = config.path or config.repo
    if source is None:
        raise UserError("evaluation.suite=mteb needs evaluation.path or evaluation.repo: take evaluation=mteb")

    def subset(name: str, split: str, expected: int) -> tuple[Subset]:
        return (Subset(split, mteb.pairs(source, name, split, expected, cache)),)

    tests = (TestTask(task, subset(name, "test", expected)) for task, (name, expected) in mteb.TEST.items())
    return Suite("mteb", DevTask("STS-B dev", subset(*mteb.DEV)), tuple(tests), PUBLISHED)
