"""What a finished table is, and how it is written."""

import csv
import io
import re
import statistics

import pytest

from otfkd.tables.definition import QuotedSpec
from otfkd.tables.table import MISSING, Cell, Line, Part, Table
from otfkd.tables.terminal import scores
from tests.support.rows import make_row


def cell(*values: float, better: bool = False) -> Cell:
    return Cell(dict(enumerate(values)), better)


QUOTED = QuotedSpec(label="SimCSE", source="Gao et al. 2021, Table 5", model="bert", scores={"STS12": 68.4})
TABLE = Table(
    "Title", ("STS12", "average"),
    (
        Part("bert", (
            Line("Encoder", 1, (Cell({None: 40.0}), Cell({None: 41.0}))),
            Line("SimCSE", 2, (cell(50.0, 53.0), cell(51.0, 52.0))),
            Line(
                "On the fly", 2, (cell(60.0, 63.0, better=True), cell(51.0, 53.0)), missing=(2,), steps=(50, 150),
                generations=(0, 2), unrotated=1, dev=cell(80.0, 81.0),
            ),
            Line("Gone", 0, (cell(), cell())),
        ), (QUOTED,)),
        Part("roberta", (Line("SimCSE", 1, (cell(55.0), cell(56.0))),), ()),
    ),
    ("First note.", "Second note."),
)  # fmt: skip


def test_mean_and_spread_of_two_by_hand() -> None:
    assert cell(70.0, 72.0).text(" ± ") == "71.00 ± 1.41"


def test_mean_and_spread_of_three_by_hand() -> None:
    made = cell(70.0, 71.0, 75.0)
    assert made.mean == 72.0
    assert made.spread == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert made.text(" ± ") == "72.00 ± 2.65"


def test_the_spread_is_of_a_sample() -> None:
    values = (61.3, 60.2, 64.9, 62.0)
    assert cell(*values).spread == statistics.stdev(values) != statistics.pstdev(values)


def test_one_seed_has_no_spread() -> None:
    assert cell(70.0).text(" ± ") == "70.00"
    assert cell(70.0).spread is None


def test_a_missing_cell_is_a_dash() -> None:
    assert cell().text(" ± ") == MISSING == "—"
    assert cell().mean is None


def test_markdown_by_hand() -> None:
    assert TABLE.markdown() == (
        "**Title**\n\n"
        "| | n | generation | STS12 | average |\n"
        "|---|--:|--:|--:|--:|\n"
        "| *bert* |  |  |  |  |\n"
        "| Encoder | 1 | — | 40.00 | 41.00 |\n"
        "| SimCSE | 2 | — | 51.50 ± 2.12 | 51.50 ± 0.71 |\n"
        "| On the fly † | 2 of 3 ‡ | 0, 2 | **61.50 ± 2.12** | 52.00 ± 1.41 |\n"
        "| Gone | — | — | — | — |\n"
        "| *quoted:* SimCSE | — | — | 68.40 | — |\n"
        "| *roberta* |  |  |  |  |\n"
        "| SimCSE | 1 | — | 55.00 | 56.00 |\n"
        "\nFirst note.\n\nSecond note.\n"
    )


def test_a_bar_in_a_label_makes_no_column() -> None:
    table = Table("T", ("a",), (Part(None, (Line("x|y", 1, (cell(1.0),)),), ()),), ())
    assert r"| x\|y | 1 | — | 1.00 |" in table.markdown()


def test_csv_by_hand() -> None:
    assert TABLE.csv() == (
        "model,row,source,n,n wanted,steps,generations,seeds not rotated,dev mean,dev sd,"
        "STS12 mean,STS12 sd,average mean,average sd\n"
        "bert,Encoder,measured,1,1,,,,,,40.0000,,41.0000,\n"
        "bert,SimCSE,measured,2,2,,,,,,51.5000,2.1213,51.5000,0.7071\n"
        "bert,On the fly,measured,2,3,50 150,0 2,1,80.5000,0.7071,61.5000,2.1213,52.0000,1.4142\n"
        "bert,Gone,measured,0,0,,,,,,,,,\n"
        'bert,SimCSE,"quoted: Gao et al. 2021, Table 5",,,,,,,,68.4,,,\n'
        "roberta,SimCSE,measured,1,1,,,,,,55.0000,,56.0000,\n"
    )


def test_quoted_rows_are_told_apart_in_every_format() -> None:
    """Two rows of the same label: only one of them was measured."""
    (markdown,) = (line for line in TABLE.markdown().splitlines() if "68.40" in line)
    assert markdown.startswith("| *quoted:* SimCSE")
    (latex,) = (line for line in TABLE.latex().splitlines() if "68.40" in line)
    assert latex.startswith(r"\emph{quoted:} SimCSE & --")
    lines = TABLE.latex().splitlines()
    assert lines[lines.index(latex) - 1] == r"\midrule"
    found = [row for row in csv.DictReader(io.StringIO(TABLE.csv())) if row["STS12 mean"] == "68.4"]
    assert [row["source"] for row in found] == ["quoted: Gao et al. 2021, Table 5"]


def assert_compiles(latex: str, columns: int) -> None:
    """What LaTeX stumbles over: braces and environments that do not match, rows of other lengths, bare specials."""
    bare = re.sub(r"\\[&%$#_{}]|\\text\w+\{\}", "", "\n".join(re.sub(r"^%.*", "", line) for line in latex.splitlines()))
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert re.findall(r"\\(begin|end)\{(\w+)\}", bare) == [("begin", "tabular"), ("end", "tabular")]
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[#%~^_]", bare)
    assert set(re.findall(r"\\[a-z]+", bare)) <= {
        r"\begin", r"\end", r"\toprule", r"\midrule", r"\bottomrule", r"\textbf", r"\emph", r"\footnotesize", r"\pm",
        r"\multicolumn", r"\dag", r"\ddag",
    }  # fmt: skip
    assert [bare.count(rule) for rule in (r"\toprule", r"\bottomrule")] == [1, 1]
    rows = [line for line in bare.splitlines() if line.endswith(r"\\")]
    assert rows
    for row in rows:
        spans = re.search(r"\\multicolumn\{(\d+)\}", row)
        assert row.count("&") + 1 + (int(spans[1]) - 1 if spans else 0) == columns
    assert f"{{l{'r' * (columns - 1)}}}" in bare


def test_latex_is_in_shape() -> None:
    made = TABLE.latex()
    assert_compiles(made, 5)
    cells = r"\textbf{61.50 {\footnotesize$\pm$ 2.12}} & 52.00 {\footnotesize$\pm$ 1.41} \\"
    assert rf"On the fly \dag{{}} & 2 of 3 \ddag{{}} & 0, 2 & {cells}" in made
    assert r"Gone & -- & -- & -- & -- \\" in made
    assert r"\multicolumn{5}{l}{\emph{bert}} \\" in made


@pytest.mark.parametrize("text", ["50 % & more", "a_b^c", r"C:\x", "{open", "~ #1 $2", "snow | rain"])
def test_latex_escapes_what_it_would_read(text: str) -> None:
    quoted = QuotedSpec(label=text, source="s", model=text, scores={text: 1.0})
    table = Table("100 %", (text,), (Part(text, (Line(text, 1, (cell(1.0),)),), (quoted,)),), (text,))
    assert_compiles(table.latex(), 4)


def test_the_check_of_latex_sees_what_is_wrong() -> None:
    for broken in (("&", ""), ("}", ""), (r"\textbf", r"\textnf"), ("Gone", "Go%ne"), (r"\toprule", "")):
        with pytest.raises(AssertionError):
            assert_compiles(TABLE.latex().replace(*broken), 5)


def test_the_files_of_a_table() -> None:
    files = TABLE.files("main")
    assert files == {"main.md": TABLE.markdown(), "main.csv": TABLE.csv(), "main.tex": TABLE.latex()}


def test_terminal_scores_name_their_model() -> None:
    shown = scores([make_row(), make_row(split="dev", step=4, checkpoint="last")])
    assert "test: simcse, selected checkpoint, step 9, teacher generation 2, pooler cls, weights abcdef01" in shown
    assert "dev: simcse, last checkpoint, step 4" in shown


def test_terminal_scores_of_a_given_model_claim_no_step() -> None:
    shown = scores([make_row(seed=None, step=None, generation=None, checkpoint="given")])
    assert shown.startswith("test: simcse, pooler cls, weights abcdef01 (cosine, 128 tokens)")


def test_terminal_scores_show_each_aggregation_of_each_task() -> None:
    tasks = {"STS12": {"all": 1.0, "mean": 2.0, "wmean": 3.0, "pairs": 4.0}, "STS-B": dict.fromkeys(
        ("all", "mean", "wmean", "pairs"), 9.0)}  # fmt: skip
    lines = scores([make_row(scores=tasks, average=5.0)]).splitlines()
    found = [line.split()[-2:] for line in lines[1:6]]
    assert found == [["STS12", "STS-B"], ["1.00", "9.00"], ["2.00", "9.00"], ["3.00", "9.00"], ["4", "9"]]
    assert lines[6] == "average of 'all': 5.00"
