"""SentEval's data: where it lies, and its STS and SICK files read as SentEval reads them (Conneau & Kiela 2018)."""

from pathlib import Path
from typing import Literal, NamedTuple

from otfkd.base.errors import UserError, first_line
from otfkd.config.sections import DataConfig, EvaluationConfig
from otfkd.data.grades import GradedPairs, check_grade

# The published test pairs of each year; STS13's SMT gold file comes without its sentences (licensing) and is left out.
YEARS: dict[str, tuple[tuple[str, ...], int]] = {
    "12": (("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"), 3108),
    "13": (("FNWN", "headlines", "OnWN"), 1500),
    "14": (("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"), 3750),
    "15": (("answers-forums", "answers-students", "belief", "headlines", "images"), 3000),
    "16": (("answer-answer", "headlines", "plagiarism", "postediting", "question-question"), 1186),
}
Split = Literal["train", "dev", "test"]
_STSB: dict[Split, int] = {"train": 5749, "dev": 1500, "test": 1379}
_SICK: dict[Split, tuple[str, int]] = {
    "train": ("SICK_train.txt", 4500),
    "dev": ("SICK_trial.txt", 500),
    "test": ("SICK_test_annotated.txt", 4927),
}


def find(config: EvaluationConfig | DataConfig, data_root: str | None, cache: Path) -> Path:
    """The folder in which SentEval's 'STS' and 'SICK' folders lie: evaluation.path, else the data root, else the hub's.

    Raises:
        UserError: there is none.
    """
    given = config.path if isinstance(config.path, str) else data_root  # a list is of text's files
    if given is None:
        return from_hub(config, cache)
    root = Path(given)
    candidates = [root / below for below in ("", "downstream", "senteval/downstream", "SentEval/data/downstream")]
    for candidate in candidates:
        if (candidate / "STS").is_dir():
            return candidate
    section = "data" if isinstance(config, DataConfig) else "evaluation"
    key = f"{section}.path" if config.path else "paths.data_root"
    raise UserError(
        f"{key}={root} holds no STS tasks: give the folder in which SentEval's 'STS' and 'SICK' folders lie"
    )


def from_hub(config: EvaluationConfig | DataConfig, cache: Path) -> Path:
    """SentEval's data from the hub, unpacked once: the folder in which its task folders lie.

    Raises:
        UserError: the hub cannot be reached, or its archive is not whole.
    """
    import tarfile
    import zlib

    from otfkd.base.hashing import sha256_file
    from otfkd.data.hub import download

    if config.repo is None or config.file is None:
        section = "data" if isinstance(config, DataConfig) else "evaluation"
        raise UserError(f"there is no SentEval data: give {section}.path=FOLDER, or set OTFKD_DATA")
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


def read_year(root: Path, year: str) -> dict[str, GradedPairs]:
    """The scored pairs of a year's subsets, "12" to "16".

    Raises:
        UserError: a file is missing, misaligned or not what it should be, by its path.
    """
    folder, (names, expected) = root / "STS" / f"STS{year}-en-test", YEARS[year]
    subsets = {name: _subset(folder, name) for name in names}
    size = sum(map(len, subsets.values()))
    if size != expected:
        raise UserError(f"{folder} has {size} scored pairs, not {expected}: fetch the data again")
    return subsets


def _subset(folder: Path, name: str) -> GradedPairs:
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
        pairs.append((_rejoined(fields[0]), _rejoined(fields[1]), check_grade(grade, f"{golds} line {number}")))
    return tuple(pairs)


def read_stsb(root: Path, split: Split) -> GradedPairs:
    """The pairs of a split of STS-B.

    Raises:
        UserError: as `read_year`.
    """
    path = root / "STS" / "STSBenchmark" / f"sts-{split}.csv"
    return _table(path, _STSB[split], 7, _Columns(left=5, right=6, grade=4))


def read_sick(root: Path, split: Split) -> GradedPairs:
    """The pairs of a split of SICK's relatedness.

    Raises:
        UserError: as `read_year`.
    """
    file, expected = _SICK[split]
    return _table(root / "SICK" / file, expected, 5, _Columns(left=1, right=2, grade=3), header=True)


def read_sick_judgments(root: Path, split: Split) -> tuple[str, ...]:
    """ENTAILMENT, NEUTRAL or CONTRADICTION for each pair that `read_sick` gives."""
    return tuple(line.split("\t")[4] for line in _lines(root / "SICK" / _SICK[split][0])[1:])


class _Columns(NamedTuple):
    left: int
    right: int
    grade: int


def _table(path: Path, expected: int, width: int, columns: _Columns, *, header: bool = False) -> GradedPairs:
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        if header and number == 1:
            continue
        row = line.split("\t")
        if len(row) < width:
            raise UserError(f"{path} line {number} has {len(row)} columns, not {width}: fetch the data again")
        grade = check_grade(row[columns.grade], f"{path} line {number}")
        pairs.append((_rejoined(row[columns.left]), _rejoined(row[columns.right]), grade))
    if len(pairs) != expected:
        raise UserError(f"{path} has {len(pairs)} pairs, not {expected}: fetch the data again")
    return tuple(pairs)


def _rejoined(text: str) -> str:
    """A sentence as SentEval's protocol has it: its words with single spaces between."""
    return " ".join(text.split())


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
