"""Graded pairs of a user's own: what is read from where, on which scale, and what is refused."""

from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.config.composition import load_evaluate_config
from otfkd.data.labelled import Examples
from otfkd.data.pairs import read_pairs
from otfkd.data.sts import Suite, as_pair, load_suite
from tests.support.graded_files import write_pairs

ROWS = [("A cat, asleep.", " eine  Katze ", 1.0), ("naïve\u2028dog", "犬が走る", 4.0), ("a", 'b "c"', 2.5)]
READ = tuple(zip(*list(zip(*ROWS, strict=True))[:2], (0.0, 5.0, 2.5), strict=True))


def suite(dev: Path | None, *test: Path) -> Suite:
    given = [f"evaluation.dev='{dev}'"] if dev else []
    listed = ",".join(f"'{path}'" for path in test)
    config = load_evaluate_config(["evaluation=pairs", *given, *([f"evaluation.test=[{listed}]"] if test else [])])
    return load_suite(config.evaluation, None, Path())


@pytest.mark.parametrize("name", ["own.csv", "own.tsv", "own.jsonl", "own.parquet", "own.jsonl.gz"])
def test_every_format_gives_the_sentences_untouched_and_the_grades_from_0_to_5(tmp_path: Path, name: str) -> None:
    path = write_pairs(tmp_path / name, ROWS)
    assert read_pairs("evaluation.dev", [str(path)]) == {"own": READ}


@pytest.mark.parametrize(
    "columns",
    [
        ("sentence_A", "sentence_B", "relatedness_score"), ("Sentence 1", "Sentence 2", "Label"),
        ("text1", "text2", "similarity"),
    ],
)  # fmt: skip
def test_clear_names_of_columns_are_understood(tmp_path: Path, columns: tuple[str, str, str]) -> None:
    path = write_pairs(tmp_path / "own.csv", ROWS, columns)
    assert read_pairs("evaluation.dev", [str(path)]) == {"own": READ}


def test_the_column_called_score_is_the_grade_whatever_else_may_be(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("label,sentence2,score,sentence1\nx,b,-1,a\ny,d,1,c\n")
    assert read_pairs("evaluation.dev", [str(path)]) == {"own": (("a", "b", 0.0), ("c", "d", 5.0))}


HEAD = "sentence1,sentence2,score\n"
BAD = {
    "left,right,score\na,b,1\n": "has the columns left, right, score, and none of them is sentence1: call the columns",
    "a man,a dog,4.5\n": "has the columns a man, a dog, 4.5, and none of them is sentence1",
    "sentence1,sentence2,label,gold\na,b,1,2\n": "label and gold may both be score",
    "": "has the columns no names",
    HEAD: "has no pairs",
    f"{HEAD}a,b,3\nc,d,3\n": "has the grade 3 for all its pairs",
    f"{HEAD}a,b,3\nc,d,high\n": "line 3 has the grade 'high': give a number",
    f'{HEAD}a,b,3\nc,d,"3,5"\n': "line 3 has the grade '3,5': give a number, with a point",
    f"{HEAD}a,b,nan\nc,d,1\n": "line 2 has the grade 'nan'",
    f"{HEAD}a,b,\nc,d,1\n": "line 2 has no grade",
    f"{HEAD}a, ,1\nc,d,2\n": "line 2 has an empty sentence",
    f"{HEAD}a,b\nc,d,2\n": "line 2 has not as many columns",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_file_that_cannot_be_scored_on_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        read_pairs("evaluation.dev", [str(path)])
    assert str(refused.value).startswith(str(path)) and BAD[text] in str(refused.value)


def test_a_task_is_called_by_its_file_and_no_two_alike(tmp_path: Path) -> None:
    a, b, c = (write_pairs(tmp_path / name, ROWS) for name in ("a.csv", "b.2.jsonl.gz", "c.tsv"))
    own = suite(a, b, c)
    assert (own.name, own.dev.name, [task.name for task in own.test]) == ("pairs", "a", ["b.2", "c"])
    twins = write_pairs(tmp_path / "x" / "c.csv", ROWS), write_pairs(tmp_path / "x" / "a.csv", ROWS)
    with pytest.raises(UserError, match=r"evaluation.test names two files called c, and a task is called by its file"):
        suite(a, c, twins[0])
    with pytest.raises(UserError, match=r"evaluation.dev and evaluation.test name two files called a\b"):
        suite(a, twins[1])
    for name in ("average.csv", "a|b.csv"):
        with pytest.raises(UserError, match="cannot give its task a name"):
            suite(a, write_pairs(tmp_path / name, ROWS))


def test_a_pattern_names_test_files_and_one_file_selects(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        write_pairs(tmp_path / "data" / name, ROWS)
    dev, pattern = write_pairs(tmp_path / "dev.csv", ROWS), tmp_path / "data/*.csv"
    assert [task.name for task in suite(dev, pattern).test] == ["a", "b"]
    with pytest.raises(UserError, match=r"evaluation.dev=.* matches 2 files, and one selects: name it"):
        suite(pattern)
    with pytest.raises(UserError, match=r"evaluation.test=.*\.tsv matches no file"):
        suite(dev, tmp_path / "data/*.tsv")


def test_what_is_missing_is_named_by_its_key(tmp_path: Path) -> None:
    dev = write_pairs(tmp_path / "dev.csv", ROWS)
    with pytest.raises(UserError, match=r"evaluation.dev=.*nothing.csv is not a file: correct the path"):
        suite(tmp_path / "nothing.csv")
    with pytest.raises(UserError, match=r"evaluation.test=.* is not a file but a folder"):
        suite(dev, tmp_path)
    with pytest.raises(UserError, match=r"add evaluation.dev=FILE"):
        suite(None, dev)
    with pytest.raises(UserError, match=r"evaluation.dev=FILE is not read with evaluation=mini: .* evaluation=pairs"):
        load_evaluate_config(["evaluation.dev=FILE"])


def test_the_checksum_is_of_the_pairs_whatever_they_came_in(tmp_path: Path) -> None:
    dev = write_pairs(tmp_path / "dev.csv", ROWS)
    test = write_pairs(tmp_path / "test.csv", ROWS[:2])
    again = write_pairs(tmp_path / "x/dev.jsonl", ROWS), write_pairs(tmp_path / "x/test.parquet", ROWS[:2])
    assert suite(*again).checksum == suite(dev, test).checksum
    write_pairs(test, [*ROWS[:1], ("a", "another", 4.0)])
    assert suite(*again).checksum != suite(dev, test).checksum


def test_pairs_that_come_again_are_counted(tmp_path: Path) -> None:
    dev = write_pairs(tmp_path / "dev.csv", ROWS)
    test = write_pairs(tmp_path / "test.csv", [("EINE Katze!", "a cat asleep", 3.0), ("x", "y", 1.0)])
    own = suite(dev, test)
    assert own.dev_in_test() == {"test": 1}
    examples = Examples("train", "graded", (("犬が走る。", "Naïve dog"), ("x", "y"), ("new", "er")), (1.0, 2.0, 3.0))
    kept = examples.without(own.dev)
    assert (kept.left_out, kept.seen(own.test)) == (1, {"test": 1})


def test_words_that_differ_by_a_vowel_sign_are_not_one_pair() -> None:
    assert as_pair("कि", "x") != as_pair("का", "x")
    assert as_pair("की!", "X") == as_pair(" की", "x")
