"""Labelled examples: what is read from where, what is refused, and what of dev and test is among them."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.data import mini
from otfkd.data.datamodule import LabelledData, Source
from otfkd.data.labelled import Examples, Kind, load_examples
from otfkd.data.sts import DevTask, Subset, TestTask
from otfkd.data.tokens import token_cache
from tests.support.models import make_tokenizer

Load = Callable[..., Examples]

GRADED = 'sentence1,sentence2,score\nA cat sat.,A cat was sitting.,4.5\n"One, two.",Three.,0\n'
CLASSED = "label,sentence1,sentence2\nneutral,a b,c d\nContradiction,e,f\n"
TRIPLETS = "sent0,sent1,hard_neg\nthe cat,a cat,a dog\nthe dog,a dog,a bird\n"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load some text as a CSV, or what other overrides name."""

    def loaded(kind: Kind, text: str | None = None, *more: str, root: Path | None = None) -> Examples:
        given = list(more)
        if text is not None:
            path = tmp_path / "examples.csv"
            path.write_text(text)
            given = ["data=labelled", f"data.path={path}", *more]
        if kind == "graded":
            given = [*given, "objective=cosent"]
        return load_examples(load_config(given).data, kind, None if root is None else str(root), tmp_path)

    return loaded


def test_a_csv_is_read_by_its_column_names(load: Load) -> None:
    graded = load("graded", GRADED)
    assert graded.sentences == (("A cat sat.", "A cat was sitting."), ("One, two.", "Three."))
    assert graded.labels == (4.5, 0.0)
    assert load("classified", CLASSED).labels == (1.0, 2.0)
    triplets = load("triplets", TRIPLETS)
    assert triplets.sentences == (("the cat", "a cat", "a dog"), ("the dog", "a dog", "a bird"))
    assert (triplets.labels, triplets.columns, graded.columns) == ((), 3, 2)


ROWS = [("A cat sat.", "A cat was sitting.", 4.5), ("One, two.", 'A "third".', 0.0)]


@pytest.mark.parametrize("name", ["t.jsonl", "t.tsv", "t.parquet", "t.jsonl.gz", "no-ending"])
def test_other_formats_give_the_same_examples(load: Load, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    keys = ("sentence1", "sentence2", "score")
    lines = [json.dumps({"n": 1, **dict(zip(keys, row, strict=True))}) for row in ROWS]
    match path.suffix:
        case ".parquet":
            parquet.write_table(pa.table({key: [row[place] for row in ROWS] for place, key in enumerate(keys)}), path)
        case ".tsv":
            path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [keys, *ROWS]))
        case ".gz":
            path.write_bytes(gzip.compress("\n".join(lines).encode()))
        case ".jsonl":
            path.write_text("\n".join(lines))
        case _:
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([("text", *keys), *(("of no use", *row) for row in ROWS)])
    examples = load("graded", None, "data=labelled", f"data.path={path}")
    assert examples.sentences == tuple((first, second) for first, second, _ in ROWS)
    assert examples.labels == (4.5, 0.0)


@pytest.mark.parametrize("ending", ["tsv", "jsonl"])
def test_columns_that_are_not_there_are_said_with_those_that_are(load: Load, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t.{ending}"
    path.write_text('{"a": "x", "b": "y"}\n' if ending == "jsonl" else "a\tb\nx\ty\n")
    told = rf"{path} has no column sentence1, only a, b: this objective reads sentence1, sentence2, score$"
    with pytest.raises(UserError, match=told):
        load("graded", None, "data=labelled", f"data.path={path}")


def test_a_line_break_inside_a_sentence_becomes_a_space(load: Load) -> None:
    assert load("graded", 'sentence1,sentence2,score\n"a\nb",c,2\n').sentences == (("a b", "c"),)


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("graded", "sentence1,sentence2\na,b\n", "no column score"),
        ("graded", TRIPLETS, "no column sentence1"),
        ("triplets", GRADED, "no column sent0"),
        ("graded", "", "no column sentence1"),
        ("graded", "sentence1,sentence2,score\n", "has no examples"),
        ("graded", "sentence1,sentence2,score\na,b,1\na,b,good\n", "line 3 has the grade 'good'"),
        ("graded", "sentence1,sentence2,score\na,b,5.1\n", "line 2 has the grade '5.1'"),
        ("graded", "sentence1,sentence2,score\na,b,nan\n", "line 2 has the grade 'nan'"),
        ("graded", "sentence1,sentence2,score\na,b,\n", "line 2 has the grade ''"),
        ("graded", "sentence1,sentence2,score\na, ,1\n", "line 2 has an empty sentence"),
        ("graded", "sentence1,sentence2,score\na,b\n", "line 2 has not as many columns"),
        ("graded", "sentence1,sentence2,score\na,b,1,2\n", "line 2 has not as many columns"),
        ("graded", 'sentence1,sentence2,score\n"a,b,1\n', "cannot be read as CSV"),
        ("classified", "sentence1,sentence2,label\na,b,maybe\n", "line 2 has the label 'maybe'"),
        ("triplets", "sent0,sent1,hard_neg\na,b,\n", "line 2 has an empty sentence"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused(load: Load, kind: Kind, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load(kind, text)


UNIT = "sentence1,sentence2,score\na,b,1\na,c,0.25\na,d,0\n"


@pytest.mark.parametrize("scale", ["1", "1.0"])
def test_grades_of_any_scale_are_brought_to_0_to_5(load: Load, scale: str) -> None:
    unit = load("graded", UNIT, f"data.grade_scale={scale}")
    assert (unit.labels, unit.what) == ((5.0, 1.25, 0.0), "pairs with a grade from 0 to 1")
    five = load("graded", UNIT, "data.grade_scale=5")
    assert (five.labels, five.what) == ((1.0, 0.25, 0.0), "pairs with a grade from 0 to 5")
    ten = load("graded", "sentence1,sentence2,score\na,b,10\na,c,2.5\n", "data.grade_scale=10")
    assert (ten.labels, ten.what) == ((5.0, 1.25), "pairs with a grade from 0 to 10")


def test_a_grade_above_1_says_that_the_scale_is_5(load: Load) -> None:
    found = load("graded", "sentence1,sentence2,score\na,b,1\na,c,1.25\n")
    assert (found.labels, found.what) == ((1.0, 1.25), "pairs with a grade from 0 to 5")


def test_grades_that_fit_two_scales_are_refused(load: Load) -> None:
    told = (
        r"examples\.csv has no grade above 1, which grades from 0 to 1 and from 0 to 5 may both be: "
        r"say which with data\.grade_scale=1 or data\.grade_scale=5$"
    )
    with pytest.raises(UserError, match=told):
        load("graded", UNIT)


def test_a_grade_above_the_scale_is_refused_with_its_line(load: Load) -> None:
    with pytest.raises(UserError, match=r"line 3 has the grade '1\.1': give a number from 0 to 1, or the right data"):
        load("graded", "sentence1,sentence2,score\na,b,1\na,b,1.1\n", "data.grade_scale=1")


def test_a_file_that_is_not_there_or_not_text_is_refused(load: Load, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.csv is not a file"):
        load("graded", None, "data=labelled", f"data.path={tmp_path}/gone.csv")
    (tmp_path / "latin.csv").write_bytes(b"sentence1,sentence2,score\n\xe9,b,1\n")
    with pytest.raises(UserError, match=r"latin\.csv cannot be read"):
        load("graded", None, "data=labelled", f"data.path={tmp_path}/latin.csv")


@pytest.mark.parametrize(
    ("kind", "data"),
    [("classified", "mini"), ("classified", "stsb_train"), ("triplets", "stsb_train"), ("triplets", "sick_train"),
     ("graded", "wiki1m")],
)  # fmt: skip
def test_data_without_such_labels_is_refused_before_it_is_looked_for(load: Load, kind: Kind, data: str) -> None:
    with pytest.raises(UserError, match=r"the objective learns from .* has none: take data="):
        load(kind, None, f"data={data}")


def test_the_embedded_data_has_graded_pairs_and_triplets(load: Load) -> None:
    graded = load("graded", None, "data=mini")
    assert [(*pair, grade) for pair, grade in zip(graded.sentences, graded.labels, strict=True)] == list(
        mini.pairs("train")
    )
    assert load("triplets", None, "data=mini").sentences == mini.triplets()


def make_senteval(root: Path) -> None:
    """The training files of STS-B and SICK, with made-up sentences and the published counts."""
    (root / "STS" / "STSBenchmark").mkdir(parents=True)
    (root / "SICK").mkdir()
    rows = (f"news\tfile\t2017\t{i}\t{i % 6}\tleft {i}\tright {i}\n" for i in range(5749))
    (root / "STS/STSBenchmark/sts-train.csv").write_text("".join(rows))
    words = ("ENTAILMENT", "NEUTRAL", "CONTRADICTION")
    judged = (f"{i}\tsick {i}\tsick too {i}\t{1 + i % 5}\t{words[i % 3]}\n" for i in range(4500))
    (root / "SICK/SICK_train.txt").write_text("pair_ID\tsentence_A\tsentence_B\tscore\tjudgment\n" + "".join(judged))


def test_sentevals_training_sets_are_read(load: Load, tmp_path: Path) -> None:
    make_senteval(tmp_path)
    stsb = load("graded", None, "data=stsb_train", root=tmp_path)
    assert (len(stsb), stsb.sentences[8], stsb.labels[8]) == (5749, ("left 8", "right 8"), 2.0)
    sick = load("graded", None, "data=sick_train", f"data.path={tmp_path}")
    assert (len(sick), sick.sentences[8], sick.labels[8]) == (4500, ("sick 8", "sick too 8"), 4.0)
    assert load("classified", None, "data=sick_train", root=tmp_path).labels[:4] == (0.0, 1.0, 2.0, 0.0)


def test_a_short_training_set_is_refused(load: Load, tmp_path: Path) -> None:
    make_senteval(tmp_path)
    path = tmp_path / "STS/STSBenchmark/sts-train.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="5748 pairs, not 5749"):
        load("graded", None, "data=stsb_train", root=tmp_path)


def test_the_checksum_is_of_what_is_learnt_not_of_the_file(load: Load) -> None:
    first = load("graded", GRADED).sha256
    assert load("graded", GRADED.replace("4.5", '"4.50"')).sha256 == first
    assert load("graded", GRADED.replace("4.5", "4.6")).sha256 != first
    assert load("graded", GRADED.replace("cat sat", "cat sits")).sha256 != first


def test_dev_pairs_are_left_out_however_they_are_written(load: Load) -> None:
    examples = load("graded", GRADED)
    dev = DevTask("dev", (Subset("dev", (("a cat was sitting .", "A CAT  sat", 1.0), ("Three.", "Four.", 1.0))),))
    kept = examples.without(dev)
    assert (kept.sentences, kept.labels, kept.left_out) == ((("One, two.", "Three."),), (0.0,), 1)
    assert examples.without(DevTask("dev", ())).left_out == 0


def test_a_triplet_is_left_out_for_either_of_its_pairs(load: Load) -> None:
    dev = DevTask("dev", (Subset("dev", (("a dog", "the cat", 1.0),)),))
    assert load("triplets", TRIPLETS).without(dev).sentences == (("the dog", "a dog", "a bird"),)


def test_examples_that_are_all_devs_are_refused(load: Load) -> None:
    dev = DevTask(
        "the dev task", (Subset("dev", (("A cat sat.", "A cat was sitting.", 1.0), ("One two", "three", 0.0))),)
    )
    with pytest.raises(UserError, match=r"all examples of examples\.csv are pairs of the dev task"):
        load("graded", GRADED).without(dev)


def test_test_pairs_among_the_examples_are_counted(load: Load) -> None:
    held = TestTask(
        "held", (Subset("a", (("three", "one two", 3.0), ("x", "y", 1.0))), Subset("b", (("a", "b", 1.0),)))
    )
    assert load("graded", GRADED).seen([held, TestTask("other", ())]) == {"held": 1}


@pytest.mark.parametrize("start", [0, 3])
def test_batches_hold_each_examples_sentences_column_by_column(load: Load, tmp_path: Path, start: int) -> None:
    tokenizer = make_tokenizer()
    rows = [(f"cat {i}", f"dog {i}", i % 6) for i in range(10)]
    examples = load("graded", "sentence1,sentence2,score\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    source = Source(token_cache(examples.corpus(tmp_path), tokenizer, 16, tmp_path), tokenizer.pad_token_id)
    data = LabelledData(source, examples, batch_size=4, seed=1, total_batches=7, start=start)
    batches = list(data.train_dataloader())
    assert (len(batches), len(data.train_dataloader())) == (7 - start, 7)
    for batch, number in zip(batches, range(start, 7), strict=True):
        chosen = data.batches.order.batch(number)
        texts = [rows[i][column] for column in (0, 1) for i in chosen]
        assert batch.tokens.input_ids.tolist() == tokenizer(texts, padding=True)["input_ids"]
        assert batch.labels.tolist() == [rows[i][2] for i in chosen]


def test_triplets_have_three_columns_and_no_labels(load: Load, tmp_path: Path) -> None:
    tokenizer, examples = make_tokenizer(), load("triplets", TRIPLETS)
    source = Source(token_cache(examples.corpus(tmp_path), tokenizer, 16, tmp_path), tokenizer.pad_token_id)
    (batch,) = LabelledData(source, examples, batch_size=2, seed=0, total_batches=1).train_dataloader()
    assert (batch.columns, len(batch.tokens.input_ids), len(batch.labels)) == (3, 6, 0)


OWN_MAP = """
class Rows:
    rows = {rows!r}

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.rows[number]
"""


@pytest.fixture
def own_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], tuple[str, ...]]:
    """The overrides of a map from Python that holds some rows."""
    monkeypatch.chdir(tmp_path)

    def written(rows: object) -> tuple[str, ...]:
        (tmp_path / "labelled_map.py").write_text(OWN_MAP.format(rows=rows))
        return ("data=custom", "data.path=labelled_map:Rows")

    return written


@pytest.mark.parametrize(("kind", "text"), [("graded", GRADED), ("classified", CLASSED), ("triplets", TRIPLETS)])
def test_a_map_from_python_gives_the_examples_that_a_file_of_its_rows_does(
    load: Load, own_map: Callable[[object], tuple[str, ...]], kind: Kind, text: str
) -> None:
    columns = {
        "graded": ("sentence1", "sentence2", "score"),
        "classified": ("sentence1", "sentence2", "label"),
        "triplets": ("sent0", "sent1", "hard_neg"),
    }[kind]
    rows = [tuple(row[name] for name in columns) for row in csv.DictReader(text.splitlines())]
    mapped = load(kind, None, *own_map([(*row[:2], float(row[2])) if kind == "graded" else row for row in rows]))
    assert mapped.sha256 == load(kind, text).sha256 and mapped.name == "labelled_map:Rows"


@pytest.mark.parametrize(
    ("rows", "more", "sentence"),
    [
        ([("a", "b")], [], r"example 1 is \('a', 'b'\): give a class .* a tuple \(sentence1, sentence2, score\)"),
        ([("a", "b", 3.0), "c"], [], r"example 2 is 'c': give a class"),
        ([("a", "b", 6.0)], [], r"data\.path=labelled_map:Rows: example 1 has the grade '6\.0'"),
        ([("a", None, 3.0)], [], r"example 1"),
        ([("a", "b", 0.5)], [], r"^data\.path=labelled_map:Rows has no grade above 1"),
        ([], [], r"^data\.path=labelled_map:Rows has no examples: give pairs with a grade"),
    ],
)
def test_a_map_that_gives_no_examples_is_refused(
    load: Load, own_map: Callable[[object], tuple[str, ...]], rows: object, more: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        load("graded", None, *own_map(rows), *more)


def test_the_scale_of_a_maps_grades_may_be_told(load: Load, own_map: Callable[[object], tuple[str, ...]]) -> None:
    assert load("graded", None, *own_map([("a", "b", 0.5)]), "data.grade_scale=1").labels == (2.5,)
