"""The transfer tasks: what is read, in which order, and what is refused by its path."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.data.transfer import NAMES, PLACEHOLDER, Example, TransferName, TransferTask, checksum, load_transfer
from tests.support.edits import Change, line

# Train, dev and test examples, and how many of all are of each class, as published.
SIZES: dict[TransferName, tuple[int, int, int]] = {
    "MR": (10662, 0, 0), "CR": (3775, 0, 0), "SUBJ": (10000, 0, 0), "MPQA": (10606, 0, 0),
    "SST2": (67349, 872, 1821), "TREC": (5452, 0, 500), "MRPC": (4076, 0, 1725),
}  # fmt: skip
CLASSES: dict[TransferName, list[int]] = {
    "MR": [5331, 5331], "CR": [1368, 2407], "SUBJ": [5000, 5000], "MPQA": [7294, 3312],
    "SST2": [31120, 38922], "TREC": [95, 1300, 1344, 1288, 916, 1009], "MRPC": [1901, 3900],
}  # fmt: skip
BINARY = {
    "MR/rt-polarity.pos": 5331, "MR/rt-polarity.neg": 5331, "CR/custrev.pos": 2407, "CR/custrev.neg": 1368,
    "SUBJ/subj.objective": 5000, "SUBJ/subj.subjective": 5000, "MPQA/mpqa.pos": 3312, "MPQA/mpqa.neg": 7294,
}  # fmt: skip
SST = {"SST/binary/sentiment-train": 67349, "SST/binary/sentiment-dev": 872, "SST/binary/sentiment-test": 1821}
TREC = {"TREC/train_5500.label": 5452, "TREC/TREC_10.label": 500}
MRPC = {"MRPC/msr_paraphrase_train.txt": 4076, "MRPC/msr_paraphrase_test.txt": 1725}
FILES = [*BINARY, *SST, *TREC, *MRPC]
HEADER = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
PAGE = "\n<!DOCTYPE html>\n<html><body>404</body></html>\n"


def make_transfer(root: Path) -> Path:
    """Write the folder in which the tasks lie: the published counts, sentences of one to five words."""

    def words(file: str, i: int) -> str:
        return " ".join([f"{file}-{i}", *["word"] * (i % 5)])

    def write(file: str, lines: list[str], head: str = "") -> None:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(head + "".join(f"{line}\n" for line in lines), encoding="utf-8")

    for file, count in BINARY.items():
        write(file, [words(Path(file).name, i) for i in range(count)])
    for file, count in SST.items():
        write(file, [f"{words(file[11:], i)} \t{i % 2}" for i in range(count)])
    kinds = ["ABBR:exp", "DESC:def", "ENTY:food", "HUM:ind", "LOC:city", "NUM:date"]
    for file, count in TREC.items():
        write(file, [f"{kinds[i % 6]} {words(file[5:], i)} ?" for i in range(count)])
    for file, count in MRPC.items():
        write(file, [f"{i % 2}\t{i}\t{i}\t{words('left', i)}\t{words('right', i // 5)}" for i in range(count)], HEADER)
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic folder that passes every check."""
    return make_transfer(tmp_path_factory.mktemp("transfer"))


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy of it for a test to break."""
    return Path(shutil.copytree(whole, tmp_path / "data"))


@pytest.fixture(scope="module")
def tasks(whole: Path) -> dict[str, TransferTask]:
    return {task.name: task for task in load_transfer(whole)}


@pytest.fixture(scope="module")
def real(real_data: Path) -> dict[str, TransferTask]:
    return {task.name: task for task in load_transfer(real_data)}


def name_of(file: str) -> TransferName:
    """The task a file belongs to."""
    folder = file.split("/")[0]
    return next(name for name in NAMES if name.startswith(folder))


def sizes(task: TransferTask) -> tuple[int, int, int]:
    return len(task.train), len(task.dev), len(task.test)


def test_every_task_has_the_published_number_of_examples(tasks: dict[str, TransferTask]) -> None:
    assert {name: sizes(task) for name, task in tasks.items()} == SIZES


@pytest.mark.data
def test_real_tasks_have_the_published_number_of_examples(real: dict[str, TransferTask]) -> None:
    assert {name: sizes(task) for name, task in real.items()} == SIZES


@pytest.mark.data
def test_real_tasks_have_the_published_classes(real: dict[str, TransferTask]) -> None:
    found = {}
    for name, task in real.items():
        labels = [example.label for example in task.examples()]
        found[name] = [labels.count(label) for label in range(max(labels) + 1)]
    assert found == CLASSES


@pytest.mark.data
def test_blank_sentences_of_the_real_tasks_are_counted(real: dict[str, TransferTask]) -> None:
    assert {name: task.blank for name, task in real.items() if task.blank} == {"CR": 4, "MPQA": 3}
    assert [example.texts for example in real["CR"].train[:4]] == [(PLACEHOLDER,)] * 4


@pytest.mark.data
def test_trec_is_read_as_latin_1(real: dict[str, TransferTask]) -> None:
    asked = "Which city has the oldest relationship as a sister\xf0city with Los Angeles ?"
    assert Example((asked,), 4) in real["TREC"].train


def test_the_named_tasks_alone_are_read_in_the_order_asked(root: Path) -> None:
    shutil.rmtree(root / "SST")
    assert [task.name for task in load_transfer(root, ("TREC", "CR"))] == ["TREC", "CR"]


@pytest.mark.parametrize("below", ["", "downstream", "senteval/downstream", "SentEval/data/downstream"])
def test_the_tasks_are_found_from_the_folders_above(whole: Path, tmp_path: Path, below: str) -> None:
    outer = tmp_path / "outer"
    (outer / below).parent.mkdir(parents=True, exist_ok=True)
    (outer / below).symlink_to(whole)
    assert sizes(load_transfer(outer, ("CR",))[0]) == SIZES["CR"]


@pytest.mark.parametrize(
    ("name", "one", "zero"),
    [
        ("MR", "rt-polarity.pos", "rt-polarity.neg"),
        ("CR", "custrev.pos", "custrev.neg"),
        ("SUBJ", "subj.objective", "subj.subjective"),
        ("MPQA", "mpqa.pos", "mpqa.neg"),
    ],
)
def test_each_class_is_read_from_its_own_file(tasks: dict[str, TransferTask], name: str, one: str, zero: str) -> None:
    for example in tasks[name].train:
        assert example.texts[0].startswith(one if example.label else zero)


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_sorted_by_words_and_then_label(tasks: dict[str, TransferTask], name: str) -> None:
    for split in (tasks[name].train, tasks[name].dev, tasks[name].test):
        keys = [([len(text.split()) for text in example.texts], example.label) for example in split]
        assert keys == sorted(keys)


def test_equals_keep_the_order_of_their_file(tasks: dict[str, TransferTask]) -> None:
    assert [example.texts[0] for example in tasks["CR"].train[:2]] == ["custrev.neg-0", "custrev.neg-5"]


def test_splits_and_fields_are_read_from_their_own_places(tasks: dict[str, TransferTask]) -> None:
    sst, trec, mrpc = tasks["SST2"], tasks["TREC"], tasks["MRPC"]
    assert sst.train[1] == Example(("sentiment-train-10",), 0)
    assert sst.dev[1] == Example(("sentiment-dev-10",), 0)
    assert sst.test[1] == Example(("sentiment-test-10",), 0)
    assert trec.train[0] == Example(("train_5500.label-0 ?",), 0)
    assert trec.test[-1] == Example(("TREC_10.label-479 word word word word ?",), 5)
    assert mrpc.train[0] == Example(("left-0", "right-0"), 0)
    assert mrpc.test[0] == Example(("left-0", "right-0"), 0)


def test_a_blank_sentence_gets_a_placeholder_is_counted_and_comes_first(root: Path) -> None:
    path = root / "CR/custrev.pos"
    path.write_text(path.read_text().replace("custrev.pos-5\n", " \n"))
    [task] = load_transfer(root, ("CR",))
    assert task.blank == 1
    assert task.train[0] == Example((PLACEHOLDER,), 1)


@pytest.mark.parametrize("file", [*BINARY, *TREC])
def test_files_of_senteval_that_are_latin_1_are_read_so(root: Path, file: str) -> None:
    path = root / file
    assert path.read_bytes().count(b"-1 word") == 1
    path.write_bytes(path.read_bytes().replace(b"-1 word", b"-1 caf\xe9"))
    [task] = load_transfer(root, (name_of(file),))
    assert sum("-1 caf\xe9" in example.texts[0] for example in task.examples()) == 1


def test_runs_of_spaces_become_one(root: Path) -> None:
    path = root / "CR/custrev.neg"
    path.write_text(path.read_text().replace("custrev.neg-1 word\n", " custrev.neg-1 \t  word \n"))
    assert Example(("custrev.neg-1 word",), 0) in load_transfer(root, ("CR",))[0].train


def test_crlf_files_read_the_same(root: Path, tasks: dict[str, TransferTask]) -> None:
    for file in FILES:
        (root / file).write_bytes((root / file).read_bytes().replace(b"\n", b"\r\n"))
    assert {task.name: task for task in load_transfer(root)} == tasks


@pytest.mark.parametrize("file", FILES)
def test_the_checksum_sees_every_file(root: Path, tasks: dict[str, TransferTask], file: str) -> None:
    path = root / file
    path.write_text(path.read_text(encoding="utf-8").replace("-7 ", "-seven ").replace("left-7", "left-seven"), "utf-8")
    [changed] = load_transfer(root, (name_of(file),))
    assert checksum([changed]) != checksum([tasks[changed.name]])


def test_the_checksum_sees_labels(tasks: dict[str, TransferTask]) -> None:
    task = tasks["CR"]
    first = Example(task.train[0].texts, 1 - task.train[0].label)
    changed = TransferTask(task.name, (first, *task.train[1:]), task.dev, task.test, task.blank)
    assert checksum([task]) != checksum([changed])


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("MR/rt-polarity.neg", lambda lines: lines[:-1], "5330 lines, not 5331"),
        ("CR/custrev.pos", lambda lines: [*lines, lines[0]], "2408 lines, not 2407"),
        ("MPQA/mpqa.pos", lambda lines: [], "0 lines, not 3312"),
        ("SST/binary/sentiment-dev", lambda lines: lines[1:], "871 lines, not 872"),
        ("SST/binary/sentiment-dev", line(8, "\t", " "), "line 8 has 1 columns, not 2"),
        ("SST/binary/sentiment-dev", line(8, "\t1", "\t2"), "line 8 has the label '2', not 0 or 1"),
        ("TREC/TREC_10.label", lambda lines: lines[1:], "499 lines, not 500"),
        ("TREC/TREC_10.label", line(8, "DESC:", "DESK:"), "line 8 starts with 'DESK:def'"),
        ("MRPC/msr_paraphrase_test.txt", lambda lines: lines[:-1], "1725 lines, not 1726"),
        ("MRPC/msr_paraphrase_test.txt", line(8, "\t", " "), "line 8 has 1 columns, not 5"),
        ("MRPC/msr_paraphrase_test.txt", line(8, "0\t", "yes\t"), "line 8 has the label 'yes', not 0 or 1"),
    ],
)
def test_a_broken_file_is_named(root: Path, file: str, change: Change, message: str) -> None:
    path = root / file
    lines = change(path.read_text(encoding="utf-8").split("\n")[:-1])
    path.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_transfer(root, (name_of(file),))
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "fetch the data again" in str(caught.value)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [(Path.unlink, "is missing"), (lambda path: path.write_text(PAGE), "is a web page")],
    ids=["missing", "web page"],
)
def test_a_missing_file_or_a_web_page_is_named(
    root: Path, file: str, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(root / file)
    with pytest.raises(UserError) as caught:
        load_transfer(root, (name_of(file),))
    assert f"{root / file} {message}" in str(caught.value)


@pytest.mark.parametrize("file", [*SST, *MRPC])
def test_a_file_that_is_not_utf_8_is_named(root: Path, file: str) -> None:
    (root / file).write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError) as caught:
        load_transfer(root, (name_of(file),))
    assert f"{root / file} cannot be read" in str(caught.value)


def test_every_task_is_read_unless_told_otherwise(root: Path) -> None:
    (root / "MRPC/msr_paraphrase_test.txt").unlink()
    with pytest.raises(UserError, match=r"msr_paraphrase_test\.txt is missing"):
        load_transfer(root)


def test_a_folder_without_tasks_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path} holds no transfer tasks: point evaluation.path or OTFKD_DATA"):
        load_transfer(tmp_path)
