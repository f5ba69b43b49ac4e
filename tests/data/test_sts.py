"""The STS tasks: what is read, what is dropped, and what is refused by its path."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.config.sections import EvaluationConfig
from otfkd.data.sts import DevTask, Suite, Task, TestTask, load_stsb, load_suite
from tests.support.edits import Change, line
from tests.support.senteval import YEARS, grade, make_senteval

SIZES = {
    "STS12": 3108, "STS13": 1500, "STS14": 3750, "STS15": 3000, "STS16": 1186, "STS-B": 1379, "SICK-R": 4927,
}  # fmt: skip
VIDEOS = "STS/STS12-en-test/STS.{}.MSRvid.txt"
DEV = "STS/STSBenchmark/sts-dev.csv"
SICK = "SICK/SICK_test_annotated.txt"
PAGE = "<!DOCTYPE html>\n<html><body>404</body></html>\n"


def asked(path: str | None) -> EvaluationConfig:
    return EvaluationConfig(
        suite="sts", path=path, repo="r", file="f", protocol=None, split=None, every=None, dev_compute="float32",
        batch_size=8, max_length=16,
    )  # fmt: skip


def load(root: Path) -> Suite:
    config = asked(str(root))
    return load_suite(config, None, root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic folder that passes every check."""
    return make_senteval(tmp_path_factory.mktemp("senteval"))


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy of it for a test to break."""
    return Path(shutil.copytree(whole, tmp_path / "data"))


@pytest.fixture(scope="module")
def suite(whole: Path) -> Suite:
    return load(whole)


def test_every_task_has_the_published_number_of_pairs(suite: Suite) -> None:
    assert {task.name: task.size for task in suite.test} == SIZES
    assert (suite.dev.name, suite.dev.size) == ("STS-B dev", 1500)


@pytest.mark.data
def test_real_tasks_have_the_published_number_of_pairs(real_data: Path) -> None:
    suite = load(real_data)
    assert {task.name: task.size for task in suite.test} == SIZES
    assert suite.dev.size == 1500


@pytest.mark.data
def test_real_subsets_have_the_published_number_of_pairs(real_data: Path) -> None:
    found = {
        task.name.removeprefix("STS"): {subset.name: len(subset.pairs) for subset in task.subsets}
        for task in load(real_data).test[:5]
    }
    assert found == YEARS


@pytest.mark.parametrize("below", ["", "downstream", "senteval/downstream", "SentEval/data/downstream"])
def test_the_tasks_are_found_from_the_folders_above(whole: Path, tmp_path: Path, below: str) -> None:
    outer = tmp_path / "outer"
    (outer / below).parent.mkdir(parents=True, exist_ok=True)
    (outer / below).symlink_to(whole)
    assert load(outer).dev.size == 1500


def test_only_the_dev_task_may_select(suite: Suite) -> None:
    assert isinstance(suite.dev, DevTask)
    assert all(isinstance(task, TestTask) and not isinstance(task, DevTask) for task in suite.test)


def test_dev_and_test_pairs_are_read_from_their_own_files(suite: Suite) -> None:
    assert suite.dev.subsets[0].pairs[3] == ("dev 3 left", "dev 3 right", grade(3))
    assert suite.test[5].subsets[0].pairs[3] == ("test 3 left", "test 3 right", grade(3))


def test_sicks_header_is_no_pair(suite: Suite) -> None:
    assert suite.test[6].subsets[0].pairs[:2] == (
        ("sick 0 left", "sick 0 right", grade(0)),
        ("sick 1 left", "sick 1 right", grade(1)),
    )


@pytest.mark.parametrize("year", [3, 4], ids=["STS15", "STS16"])
def test_unscored_pairs_go_with_their_sentences(suite: Suite, year: int) -> None:
    for subset in suite.test[year].subsets:
        title = f"{suite.test[year].name[-2:]} {subset.name}"
        assert subset.pairs == tuple(
            (f"{title} {i} left", f"{title} {i} right", grade(i)) for i in range(len(subset.pairs))
        )


def test_smt_which_has_grades_but_no_sentences_is_left_out(suite: Suite, whole: Path) -> None:
    assert (whole / "STS/STS13-en-test/STS.gs.SMT.txt").is_file()
    assert [subset.name for subset in suite.test[1].subsets] == ["FNWN", "headlines", "OnWN"]


def test_crlf_files_read_the_same(root: Path, suite: Suite) -> None:
    for path in root.rglob("*.*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load(root) == suite


def test_exotic_line_ends_break_no_line_and_are_spaces_like_any_other(root: Path) -> None:
    path = root / VIDEOS.format("input")
    path.write_text(path.read_text().replace("0 left", "0\u2028le\x0cft\x85", 1))
    assert load(root).test[0].subsets[1].pairs[0][0] == "12 MSRvid 0 le ft"


@pytest.mark.parametrize("changed", [VIDEOS.format("input"), VIDEOS.format("gs"), DEV, SICK])
def test_the_checksum_sees_every_file(root: Path, suite: Suite, changed: str) -> None:
    path = root / changed
    lines = path.read_text().split("\n")
    lines[7] = lines[7].replace("0.7", "0.8").replace("0.6", "0.8").replace("left", "changed")
    path.write_text("\n".join(lines))
    assert load(root).checksum != suite.checksum


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (VIDEOS.format("gs"), line(8, "0.7", "n/a"), "line 8 has the grade 'n/a'"),
        (VIDEOS.format("gs"), line(8, "0.7", "5.1"), "line 8 has the grade '5.1'"),
        (VIDEOS.format("gs"), line(8, "0.7", "-1"), "line 8 has the grade '-1'"),
        (VIDEOS.format("gs"), line(8, "0.7", "nan"), "line 8 has the grade 'nan'"),
        (VIDEOS.format("gs"), lambda lines: lines[1:], "749 lines for 750 pairs"),
        (VIDEOS.format("gs"), lambda lines: PAGE.splitlines(), "2 lines for 750 pairs"),
        (VIDEOS.format("input"), line(8, "\t", " "), "line 8 is not two sentences with a tab between"),
        (DEV, line(8, "0.7", "6"), "line 8 has the grade '6'"),
        (DEV, line(8, "\t", " "), "line 8 has 1 columns, not 7"),
        (DEV, lambda lines: lines[1:], "1499 pairs, not 1500"),
        (DEV, lambda lines: [*lines, lines[0]], "1501 pairs, not 1500"),
        (DEV, lambda lines: PAGE.splitlines(), "line 1 has 1 columns, not 7"),
        (DEV, lambda lines: [], "line 1 has 1 columns, not 7"),
        (SICK, line(8, "\t0.6\t", "\tinf\t"), "line 8 has the grade 'inf'"),
        (SICK, lambda lines: lines[:-1], "4926 pairs, not 4927"),
        (SICK, lambda lines: PAGE.splitlines(), "line 2 has 1 columns, not 5"),
    ],
)
def test_a_broken_file_is_named(root: Path, file: str, change: Change, message: str) -> None:
    path = root / file
    path.write_text("".join(f"{text}\n" for text in change(path.read_text().split("\n")[:-1])))
    with pytest.raises(UserError) as caught:
        load(root)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_page_instead_of_sentences_names_both_files(root: Path) -> None:
    (root / VIDEOS.format("input")).write_text(PAGE)
    with pytest.raises(UserError, match=r"STS\.gs\.MSRvid\.txt has 750 lines for 2 pairs in STS\.input\.MSRvid\.txt"):
        load(root)


def test_a_wrong_number_of_pairs_names_the_folder(root: Path) -> None:
    for kind in ("gs", "input"):
        path = root / VIDEOS.format(kind)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"STS12-en-test has 3107 scored pairs, not 3108"):
        load(root)


@pytest.mark.parametrize("file", [VIDEOS.format("gs"), VIDEOS.format("input"), DEV, SICK])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [(Path.unlink, "is missing"), (lambda path: path.write_bytes(b"caf\xe9\n"), "cannot be read")],
    ids=["missing", "not UTF-8"],
)
def test_an_unreadable_file_is_named(root: Path, file: str, spoil: Callable[[Path], object], message: str) -> None:
    spoil(root / file)
    with pytest.raises(UserError) as caught:
        load(root)
    assert f"{root / file} {message}" in str(caught.value)


def test_words_are_rejoined_by_single_spaces_as_senteval_does(root: Path, suite: Suite) -> None:
    for file in (VIDEOS.format("input"), DEV, SICK):
        path = root / file
        path.write_text(path.read_text().replace(" left", "  left ").replace(" right", "\u3000right"))
    assert load(root) == suite
    assert suite.text == "words rejoined by single spaces"


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_split_of_sts_b_alone_is_that_of_the_suite(whole: Path, suite: Suite, split: Literal["dev", "test"]) -> None:
    task = load_stsb(whole, split)
    whole_task: Task = {"dev": suite.dev, "test": suite.test[5]}[split]
    assert (task.name, task.subsets) == (whole_task.name, whole_task.subsets)


@pytest.mark.parametrize("name", ["transfer", "geometry", "supervised"])
def test_what_chooses_no_checkpoint_is_no_suite(whole: Path, name: str) -> None:
    config = load_config([f"evaluation={name}", f"evaluation.path={whole}"])
    with pytest.raises(
        UserError, match=f"evaluation={name} chooses no checkpoint: train with evaluation=sts, mteb, pairs"
    ):
        load_suite(config.evaluation, None, whole)


def test_a_folder_without_tasks_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"evaluation.path={tmp_path} holds no STS tasks"):
        load(tmp_path)


def test_the_data_root_is_named_by_its_own_key(tmp_path: Path) -> None:
    config = asked(None)
    with pytest.raises(UserError, match=rf"paths.data_root={tmp_path} holds no STS tasks"):
        load_suite(config, str(tmp_path), tmp_path)


def test_the_data_root_is_used_where_no_path_is_given(whole: Path, tmp_path: Path) -> None:
    config = asked(None)
    assert load_suite(config, str(whole), tmp_path).dev.size == 1500
