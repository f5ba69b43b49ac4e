"""The supervised tasks: their splits, their order, and what is refused by its path."""

import shutil
from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.data.relatedness import RelatednessTask, checksum, load_relatedness
from tests.support.senteval import grade, make_senteval

SIZES = {"STS-B": (5749, 1500, 1379), "SICK-R": (4500, 500, 4927)}
TRAIN = "STS/STSBenchmark/sts-train.csv"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_senteval(tmp_path_factory.mktemp("senteval"))


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy of it for a test to break."""
    return Path(shutil.copytree(whole, tmp_path / "data"))


def sizes(tasks: tuple[RelatednessTask, ...]) -> dict[str, tuple[int, ...]]:
    return {task.name: (len(task.train), len(task.dev), len(task.test)) for task in tasks}


def test_every_split_has_the_published_number_of_pairs(whole: Path) -> None:
    assert sizes(load_relatedness(whole)) == SIZES


@pytest.mark.data
def test_real_splits_have_the_published_number_of_pairs(real_data: Path) -> None:
    assert sizes(load_relatedness(real_data / "senteval" / "downstream")) == SIZES


def test_each_split_is_read_from_its_own_file(whole: Path) -> None:
    stsb, sick = load_relatedness(whole)
    for pairs, title in [
        (stsb.train, "train"), (stsb.dev, "dev"), (stsb.test, "test"), (sick.train, "sick train"),
        (sick.dev, "sick trial"), (sick.test, "sick"),
    ]:  # fmt: skip
        assert (f"{title} 3 left", f"{title} 3 right", grade(3)) in pairs


def test_pairs_are_in_sentevals_order(root: Path) -> None:
    path = root / TRAIN
    lines = path.read_text().splitlines(keepends=True)
    lines[0] = "news\tfile\t2017\t0\t5.0\tone\ttwo words\n"
    lines[1] = "news\tfile\t2017\t1\t4.0\tone\ttwo words\n"
    lines[2] = "news\tfile\t2017\t2\t4.5\tone\tword\n"
    lines[3] = "news\tfile\t2017\t3\t0.0\tas many as four\tword\n"
    path.write_text("".join(lines))
    train = load_relatedness(root)[0].train
    assert [pair[2] for pair in train[:3]] == [4.5, 4.0, 5.0]  # by the left length, the right one, the grade
    assert train[-1] == ("as many as four", "word", 0.0)
    rest = [pair for pair in train[3:-1] if pair[2] == 2.5]
    assert rest[:2] == [("train 25 left", "train 25 right", 2.5), ("train 76 left", "train 76 right", 2.5)]


@pytest.mark.parametrize("file", [TRAIN, "SICK/SICK_train.txt", "SICK/SICK_trial.txt"])
def test_a_missing_or_short_split_is_named(root: Path, file: str) -> None:
    path = root / file
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=rf"{path} has \d+ pairs, not \d+"):
        load_relatedness(root)
    path.unlink()
    with pytest.raises(UserError, match=f"{path} is missing"):
        load_relatedness(root)


@pytest.mark.parametrize("file", [TRAIN, "SICK/SICK_trial.txt", "SICK/SICK_test_annotated.txt"])
def test_the_checksum_sees_every_file(whole: Path, root: Path, file: str) -> None:
    path = root / file
    path.write_text(path.read_text().replace(" 7 left", " 7 changed", 1))
    assert checksum(load_relatedness(root)) != checksum(load_relatedness(whole))
