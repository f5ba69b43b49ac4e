"""Graded sentence pairs: the STS tasks in SentEval's layout and the embedded mini task.

Dev and test tasks are different types, so that selection on test pairs does not type-check.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from otfkd.config import EvaluationConfig
from otfkd.errors import UserError, first_line
from otfkd.provenance import sha256_bytes


@dataclass(frozen=True)
class Subset:
    """Scored pairs that were published together.

    Attributes:
        name: the subset's name.
        pairs: (sentence, sentence, gold grade).
    """

    name: str
    pairs: tuple[tuple[str, str, float], ...]


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
        test: scored after training.
        checksum: sha256 over all pairs and grades.
    """

    name: str
    dev: DevTask
    test: tuple[TestTask, ...]

    @property
    def checksum(self) -> str:
        tasks = (self.dev, *self.test)
        return sha256_bytes(
            f"{task.name}\t{subset.name}\t{left}\t{right}\t{gold!r}\n".encode()
            for task in tasks
            for subset in task.subsets
            for left, right, gold in subset.pairs
        )


def load_suite(config: EvaluationConfig, data_root: str | None, cache: Path) -> Suite:
    """The suite a config names, every file of it read and checked.

    Raises:
        UserError: a file is missing, misaligned or not what it should be, by its path.
    """
    if config.suite == "transfer":
        raise UserError(
            "evaluation=transfer chooses no checkpoint: train with evaluation=sts or mini, then score the run "
            "with otfkd-eval evaluation=transfer"
        )
    if config.suite == "mini":
        return _mini_suite()
    return _sts_suite(_find_sts(config, data_root, cache))


def _mini_suite() -> Suite:
    from otfkd.data import mini

    dev = DevTask("mini dev", (Subset("dev", mini.pairs("dev")),))
    return Suite("mini", dev, (TestTask("mini", (Subset("test", mini.pairs("test")),)),))


# The published test pairs of each year; STS13's SMT gold file comes without its sentences (licensing) and is left out.
_YEARS: dict[str, tuple[tuple[str, ...], int]] = {
    "12": (("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"), 3108),
    "13": (("FNWN", "headlines", "OnWN"), 1500),
    "14": (("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"), 3750),
    "15": (("answers-forums", "answers-students", "belief", "headlines", "images"), 3000),
    "16": (("answer-answer", "headlines", "plagiarism", "postediting", "question-question"), 1186),
}
_STSB = {"dev": 1500, "test": 1379}
_SICK_TEST = 4927


def _sts_suite(root: Path) -> Suite:
    years = tuple(_sts_year(root / "STS" / f"STS{year}-en-test", year) for year in _YEARS)
    stsb = TestTask("STS-B", (Subset("test", _stsb(root, "test")),))
    sick = TestTask("SICK-R", (Subset("test", _sick(root / "SICK" / "SICK_test_annotated.txt")),))
    return Suite("sts", DevTask("STS-B dev", (Subset("dev", _stsb(root, "dev")),)), (*years, stsb, sick))


def _find_sts(config: EvaluationConfig, data_root: str | None, cache: Path) -> Path:
    given = config.path or data_root
    if given is None:
        return from_hub(config, cache)
    root = Path(given)
    candidates = [root / below for below in ("", "downstream", "senteval/downstream", "SentEval/data/downstream")]
    for candidate in candidates:
        if (candidate / "STS").is_dir():
            return candidate
    key = "evaluation.path" if config.path else "paths.data_root"
    raise UserError(
        f"{key}={root} holds no STS tasks: give the folder in which SentEval's 'STS' and 'SICK' folders lie"
    )


def from_hub(config: EvaluationConfig, cache: Path) -> Path:
    """SentEval's data from the hub, unpacked once: the folder in which its task folders lie.

    Raises:
        UserError: the hub cannot be reached, or its archive is not whole.
    """
    import tarfile
    import zlib

    from otfkd.data.hub import download
    from otfkd.provenance import sha256_file

    assert config.repo is not None and config.file is not None
    archive = download(config.repo, config.file, "evaluation.path=FOLDER or OTFKD_DATA=FOLDER")
    target = cache / "senteval" / sha256_file(archive)[:16]
    if not (target / ".whole").is_file():
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            reason = first_line(error)
            raise UserError(f"{archive} is not a whole tar archive ({reason}): delete it and start again") from None
        (target / ".whole").touch()
    found = sorted(target.rglob("STS12-en-test"))
    if not found:
        raise UserError(f"{config.file} of {config.repo} holds no STS12-en-test: give evaluation.path=FOLDER instead")
    return found[0].parent.parent


def _sts_year(folder: Path, year: str) -> TestTask:
    names, expected = _YEARS[year]
    task = TestTask(f"STS{year}", tuple(_sts_subset(folder, name) for name in names))
    return _counted(task, expected, folder)


def _counted(task: TestTask, expected: int, where: Path) -> TestTask:
    if task.size != expected:
        raise UserError(f"{where} has {task.size} scored pairs, not {expected}: fetch the data again")
    return task


def _sts_subset(folder: Path, name: str) -> Subset:
    inputs, golds = folder / f"STS.input.{name}.txt", folder / f"STS.gs.{name}.txt"
    left_right, grades = _lines(inputs), _lines(golds)
    if len(left_right) != len(grades):
        raise UserError(
            f"{golds} has {len(grades)} lines for {len(left_right)} pairs in {inputs.name}: fetch the data again"
        )
    pairs = []
    for number, (line, grade) in enumerate(zip(left_right, grades, strict=True), 1):
        if not grade.strip():
            continue  # a pair nobody scored goes together with its sentences
        fields = line.split("\t")
        if len(fields) < 2:
            raise UserError(f"{inputs} line {number} is not two sentences with a tab between: fetch the data again")
        pairs.append((fields[0], fields[1], _grade(grade, golds, number)))
    return Subset(name, tuple(pairs))


def _stsb(root: Path, split: Literal["dev", "test"]) -> tuple[tuple[str, str, float], ...]:
    path = root / "STS" / "STSBenchmark" / f"sts-{split}.csv"
    return _table(path, _STSB[split], 7, lambda row: (row[5], row[6], row[4]))


def _sick(path: Path) -> tuple[tuple[str, str, float], ...]:
    return _table(path, _SICK_TEST, 5, lambda row: (row[1], row[2], row[3]), header=True)


def _table(
    path: Path, expected: int, width: int, pick: Callable[[list[str]], tuple[str, str, str]], *, header: bool = False
) -> tuple[tuple[str, str, float], ...]:
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        if header and number == 1:
            continue
        row = line.split("\t")
        if len(row) < width:
            raise UserError(f"{path} line {number} has {len(row)} columns, not {width}: fetch the data again")
        left, right, grade = pick(row)
        pairs.append((left, right, _grade(grade, path, number)))
    if len(pairs) != expected:
        raise UserError(f"{path} has {len(pairs)} pairs, not {expected}: fetch the data again")
    return tuple(pairs)


def read_task_file(path: Path, encoding: str = "utf-8") -> str:
    """The text of one of SentEval's files.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes().decode(encoding)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: fetch SentEval's data, or point evaluation.path or OTFKD_DATA at it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): fetch the data again") from None


def _lines(path: Path) -> list[str]:
    text = read_task_file(path)
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _grade(text: str, path: Path, number: int) -> float:
    try:
        grade = float(text)
    except ValueError:
        grade = math.nan
    if not 0 <= grade <= 5:
        raise UserError(
            f"{path} line {number} has the grade {text.strip()[:40]!r}, not a number from 0 to 5: fetch the data again"
        )
    return grade
