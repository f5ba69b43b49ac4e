"""From rows made by hand to a table, against scipy and pencil and paper."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from otfkd.base.errors import UserError
from otfkd.evaluation.transfer import PROTOCOLS
from otfkd.runs.rows import Row
from otfkd.tables.columns import COSTS
from otfkd.tables.table import Table
from otfkd.tables.tabulate import build_table
from tests.support.published import ROWS, make_cost, make_spec, rows_of
from tests.support.rows import make_row


def table(measured: Mapping[str, Sequence[Row]], **changes: Any) -> Table:
    return build_table(make_spec(**changes), "mini", {None: measured})


def shown(made: Table) -> dict[str, list[str]]:
    """Label of each line to its cells."""
    return {line.label: [cell.text(" ± ") for cell in line.cells] for part in made.parts for line in part.lines}


def test_rows_become_lines_in_the_order_of_the_definition() -> None:
    made = table({"simcse": rows_of(50.0, 53.0), "encoder": [make_row({"tiny": 40.0}, seed=None)]})
    (part,) = made.parts
    assert [(line.label, line.n) for line in part.lines] == [("Encoder", 1), ("SimCSE", 2), ("On the fly", 0)]
    assert shown(made) == {"Encoder": ["40.00"], "SimCSE": ["51.50 ± 2.12"], "On the fly": ["—"]}


def test_a_missing_seed_is_never_averaged() -> None:
    made = table({"simcse": rows_of(50.0, 53.0)[1:]})
    line = made.parts[0].lines[1]
    assert (line.n, line.cells[0].values) == (1, {1: 53.0})


def test_the_average_column_is_the_mean_of_the_rows_averages() -> None:
    rows = [make_row({"STS12": 60.0, "STS-B": 70.0}), make_row({"STS12": 64.0, "STS-B": 72.0}, seed=1)]
    made = table({"simcse": rows})
    assert made.columns == ("STS12", "STS-B", "average")
    assert shown(made)["SimCSE"] == ["62.00 ± 2.83", "71.00 ± 1.41", "66.50 ± 2.12"]


@pytest.mark.parametrize("kind", ["sts", "cost"])
@pytest.mark.parametrize("average", [65.01, 65.0067, 0.0])
def test_an_average_that_is_not_of_its_rows_scores_is_refused_by_name(kind: str, average: float) -> None:
    scores = {"STS12": 60.004, "STS-B": 70.004}  # rounded first, as scoring does
    rows = [make_row(scores, cost=make_cost()), make_row(scores, cost=make_cost(), seed=1, average=average)]
    told = (
        rf"^row simcse of 'Title' has the average {average:.6f} with seed 1, and its scores make 65\.000000: "
        "restore its results, or make the table again$"
    )
    with pytest.raises(UserError, match=told):
        table({"simcse": rows}, kind=kind)


def test_an_undefined_score_is_a_dash_and_so_is_the_average() -> None:
    seeds = [make_row({"STS12": 60.0, "STS-B": 70.0}), make_row({"STS12": None, "STS-B": 72.0}, seed=1)]
    whole = [make_row({"STS12": 50.0 + seed, "STS-B": 60.0}, seed=seed) for seed in (0, 1)]
    made = table({"simcse": seeds, "otfkd": whole}, baseline="otfkd")
    assert shown(made)["SimCSE"] == ["—", "71.00 ± 1.41", "—"]
    assert shown(made)["On the fly"] == ["50.50 ± 0.71", "60.00 ± 0.00", "55.25 ± 0.35"]
    assert any("holds all pairs of STS12 for alike" in note for note in made.notes)
    assert "| SimCSE | 2 | 2 | — | 71.00 ± 1.41 | — |" in made.markdown()
    assert not any("A dash" in note for note in table({"otfkd": whole}).notes)
    # Nor may it be of fewer tasks.
    with pytest.raises(UserError, match=r"has the average 72\.000000 with seed 1, and its scores make nan"):
        table({"simcse": [seeds[0], seeds[1].model_copy(update={"average": 72.0})]})


@pytest.mark.parametrize("average", [83.0, 82.9])
def test_accuracies_have_an_average_too(average: float) -> None:
    scores = {task: {"accuracy": accuracy, "n": 9.0} for task, accuracy in (("MR", 80.0), ("CR", 86.0))}
    row = make_row(scores=scores, average=average, protocol=PROTOCOLS["full"].description, suite="transfer")
    if average == 83.0:
        assert shown(table({"simcse": [row]}, kind="transfer"))["SimCSE"][-1] == "83.00"
    else:
        with pytest.raises(UserError, match=r"row simcse of 'Title' has the average 82\.900000 with seed 0"):
            table({"simcse": [row]}, kind="transfer")


def test_one_task_needs_no_average() -> None:
    assert table({"simcse": rows_of(50.0)}).columns == ("tiny",)


def test_named_columns_alone_are_shown() -> None:
    rows = [make_row({"STS12": 60.0, "STS-B": 70.0})]
    made = table({"simcse": rows}, columns=["average", "STS12"])
    assert shown(made)["SimCSE"] == ["65.00", "60.00"]


def test_a_row_that_lacks_a_column_is_refused_and_not_averaged_around() -> None:
    whole, partial = make_row({"STS12": 60.0, "STS-B": 70.0}), make_row({"STS12": 64.0}, seed=1)
    for rows in ([whole, partial], [partial, whole]):
        with pytest.raises(UserError, match="not every row of 'Title' has STS-B, average: score all on one suite"):
            table({"simcse": rows})
    with pytest.raises(UserError, match="not every row of 'Title' has STSB"):
        table({"simcse": [whole]}, columns=["STSB"])


@pytest.mark.parametrize("field", ["suite_sha256", "protocol"])
def test_rows_that_cannot_be_compared_are_refused(field: str) -> None:
    with pytest.raises(UserError, match=f"'Title' differ in {field}") as caught:
        table({"simcse": rows_of(50.0), "otfkd": rows_of(51.0, **{field: "another"})})
    assert "another" in str(caught.value)


def test_backbones_that_were_scored_otherwise_are_refused() -> None:
    spec = make_spec(profiles={"mini": {"seeds": [0], "models": {"bert_base": [], "roberta_base": []}}})
    measured: dict[str | None, dict[str, list[Row]]] = {
        "bert_base": {"simcse": rows_of(1.0)},
        "roberta_base": {"simcse": rows_of(1.0, protocol="another")},
    }
    with pytest.raises(UserError, match="differ in protocol"):
        build_table(spec, "mini", measured)


def test_seeds_of_different_configs_are_no_row() -> None:
    first, second = rows_of(50.0, 51.0)
    with pytest.raises(UserError, match="row simcse of 'Title' was given seeds of different configs"):
        table({"simcse": [first, second.model_copy(update={"config_hash": "another"})]})


def test_a_seed_counts_once() -> None:
    with pytest.raises(UserError, match="row simcse of 'Title' was given seed 0 twice"):
        table({"simcse": [*rows_of(50.0, 51.0), *rows_of(52.0)]})


def test_results_that_the_table_has_no_row_for_are_refused() -> None:
    with pytest.raises(UserError, match="'Title' has no row gone, but its results do"):
        table({"gone": rows_of(50.0)})
    with pytest.raises(UserError, match="'Title' has no row simcse of bert_base, but its results do"):
        build_table(make_spec(), "mini", {"bert_base": {"simcse": rows_of(50.0)}})


def test_several_backbones_are_parts_with_their_own_quoted_rows() -> None:
    quoted = [
        {"label": f"SimCSE of {model}", "source": f"{model}, Table 5", "model": model, "scores": {"tiny": 76.25}}
        for model in ("bert_base", "roberta_base", "bert_large")
    ]
    spec = make_spec(
        quoted=quoted, profiles={"mini": {"seeds": [0, 1], "models": {"bert_base": [], "roberta_base": []}}}
    )
    bert, roberta = {"simcse": rows_of(70.0, 71.0)}, {"simcse": rows_of(80.0)}
    made = build_table(spec, "mini", {"bert_base": bert, "roberta_base": roberta})
    assert [(part.model, part.lines[1].n, [one.label for one in part.quoted]) for part in made.parts] == [
        ("bert_base", 2, ["SimCSE of bert_base"]), ("roberta_base", 1, ["SimCSE of roberta_base"]),
    ]  # fmt: skip
    assert made.notes[-1] == (
        "Quoted rows were published, not measured here. SimCSE of bert_base: bert_base, Table 5; "
        "SimCSE of roberta_base: roberta_base, Table 5."
    )


def test_what_is_not_shown_is_not_quoted() -> None:
    quoted = [{"label": "SimCSE", "source": "Table 5", "model": "bert_base", "scores": {"tiny": 76.25}}]
    made = table({"simcse": rows_of(50.0)}, quoted=quoted)
    assert made.parts[0].quoted == ()
    assert "Table 5" not in " ".join(made.notes)


# Bold.


def p_of(method: Sequence[float], baseline: Sequence[float]) -> float:
    """The two-sided p of a paired t test, from its formula."""
    differences = np.array(method) - np.array(baseline)
    n = len(differences)
    statistic = differences.mean() / (differences.std(ddof=1) / n**0.5)
    return float(2 * student.sf(abs(statistic), n - 1))


BASE = (50.0, 51.0, 52.0, 49.0)
SURE = (55.0, 56.1, 57.0, 53.9)  # about 5 above at every seed
LIKELY = (51.0, 53.0, 52.4, 50.2)  # about 1 above: p is between 0.05 / 2 and 0.05 by itself
WORSE = (45.0, 46.1, 47.0, 43.9)


def bold(**methods: Sequence[float]) -> set[str]:
    """Which of some methods a table with the baseline BASE shows in bold."""
    rows = [{"name": name, "label": name, "experiment": "otfkd"} for name in ("base", *methods)]
    measured = {name: rows_of(*values) for name, values in {"base": BASE, **methods}.items()}
    made = table(measured, baseline="base", rows=rows)
    return {line.label for line in made.parts[0].lines if line.cells[0].better}


def test_bold_is_what_beats_the_baseline_over_seeds() -> None:
    assert p_of(SURE, BASE) < 0.001
    assert bold(sure=SURE) == {"sure"}


def test_what_is_worse_is_never_bold() -> None:
    assert p_of(WORSE, BASE) < 0.001
    assert bold(worse=WORSE) == set()


def test_holm_decides_what_stays_bold() -> None:
    """Alone LIKELY is below 5 %; beside another test of no use its p is doubled, and it is not."""
    p = p_of(LIKELY, BASE)
    assert 0.025 < p < 0.05
    assert bold(likely=LIKELY) == {"likely"}
    noise = (50.3, 50.6, 52.2, 49.1)
    assert p_of(noise, BASE) > 0.5
    assert bold(likely=LIKELY, noise=noise) == set()
    # Holm's steps: the smallest of two p is doubled, the other is not.
    assert bold(likely=LIKELY, sure=SURE) == {"likely", "sure"}


def test_bold_pairs_the_seeds() -> None:
    """Shuffled over seeds the same scores tell nothing, since their spread is far larger than the difference."""
    base, method = (40.0, 50.0, 60.0, 70.0), (41.0, 51.1, 60.9, 71.0)
    rows = [{"name": name, "label": name, "experiment": "otfkd"} for name in ("base", "method")]

    def better(scores: Sequence[float]) -> bool:
        measured = {"base": rows_of(*base), "method": rows_of(*scores)}
        return table(measured, baseline="base", rows=rows).parts[0].lines[1].cells[0].better

    assert better(method)
    assert not better(method[::-1])


def test_bold_is_over_common_seeds_only() -> None:
    """Seeds 0 and 1 are common; the method's third would make it significant were it compared with anything."""
    rows = [{"name": name, "label": name, "experiment": "otfkd"} for name in ("base", "method")]
    measured = {"base": rows_of(50.0, 51.0), "method": rows_of(52.0, 51.5, 90.0)}
    assert p_of((52.0, 51.5), (50.0, 51.0)) > 0.05
    assert not table(measured, baseline="base", rows=rows).parts[0].lines[1].cells[0].better


def test_one_seed_or_an_untrained_encoder_is_never_bold() -> None:
    encoder = [make_row({"tiny": 99.0}, seed=None)]
    made = table({"encoder": encoder, "simcse": rows_of(50.0), "otfkd": rows_of(60.0)}, baseline="simcse")
    assert not any(cell.better for line in made.parts[0].lines for cell in line.cells)


def test_the_same_gain_at_every_seed_is_no_evidence_and_no_error() -> None:
    """Accuracies of few examples can differ by one and the same step; it still counts as a test for Holm."""
    assert bold(same=tuple(score + 0.2 for score in BASE)) == set()
    assert bold(likely=LIKELY, same=tuple(score + 0.2 for score in BASE)) == set()


def test_backbones_are_corrected_apart() -> None:
    rows = [{"name": name, "label": name, "experiment": "otfkd"} for name in ("base", "likely")]
    models: dict[str | None, list[str]] = {"bert_base": [], "roberta_base": []}
    spec = make_spec(rows=rows, baseline="base", profiles={"mini": {"seeds": [0], "models": models}})
    part = {"base": rows_of(*BASE), "likely": rows_of(*LIKELY)}
    made = build_table(spec, "mini", dict.fromkeys(models, part))
    assert [one.lines[1].cells[0].better for one in made.parts] == [True, True]


# Costs.

CURVE = [(40, 50.0, 30.0), (80, 55.0, 60.0)]


def costs(*per_seed: tuple[float, int, list[tuple[int, float, float]]], peak: int | None = 2**30) -> list[Row]:
    return [
        row.model_copy(update={"cost": make_cost(seconds, forwards, curve, peak_bytes=peak)})
        for row, (seconds, forwards, curve) in zip(rows_of(*[50.0] * len(per_seed)), per_seed, strict=True)
    ]


def cost_table(**measured: Sequence[Row]) -> dict[str, list[str]]:
    return shown(table(measured, kind="cost", baseline="simcse", rows=ROWS[1:]))


def test_costs_by_hand() -> None:
    simcse = costs((60.0, 480, CURVE), (90.0, 480, [(40, 52.0, 45.0), (80, 51.0, 90.0)]))
    otfkd = costs(
        (120.0, 560, [(40, 55.0, 66.0), (80, 60.0, 120.0)]), (60.0, 560, [(40, 51.0, 30.0), (80, 52.0, 60.0)])
    )
    made = table({"simcse": simcse, "otfkd": otfkd}, kind="cost", baseline="simcse", rows=ROWS[1:])
    assert made.columns == COSTS
    assert shown(made) == {
        # Its own best dev score: after 60 s, and after 45 s.
        "SimCSE": ["1.25 ± 0.35", "1.25 ± 0.35", "0.48 ± 0.00", "0.48 ± 0.00", "1.00 ± 0.00", "0.88 ± 0.18"],
        # 55 after 60 + 66 s and 52 after 90 + 60 s.
        "On the fly": ["1.50 ± 0.71", "2.75 ± 0.35", "0.56 ± 0.00", "1.04 ± 0.00", "1.00 ± 0.00", "2.30 ± 0.28"],
    }
    assert not any(cell.better for line in made.parts[0].lines for cell in line.cells)


def test_a_teachers_dev_that_one_seed_never_reaches_has_no_mean() -> None:
    simcse = costs((60.0, 480, CURVE), (60.0, 480, CURVE))
    otfkd = costs((60.0, 560, [(40, 55.0, 30.0)]), (60.0, 560, [(40, 54.9, 30.0)]))
    assert cost_table(simcse=simcse, otfkd=otfkd)["On the fly"][-1] == "—"


def test_a_row_without_a_teacher_has_the_baselines_dev_to_reach() -> None:
    alone = {"name": "alone", "label": "Alone", "experiment": "otfkd"}
    measured = {"simcse": costs((60.0, 480, CURVE)), "alone": costs((60.0, 500, [(40, 56.0, 30.0)]))}
    made = shown(table(measured, kind="cost", baseline="simcse", rows=[ROWS[1], alone]))
    assert made["Alone"] == ["1.00", "1.00", "0.50", "0.50", "1.00", "0.50"]


def test_a_fine_tuned_row_counts_its_model_and_that_models_teacher_once() -> None:
    tuned = {"name": "tuned", "label": "Fine-tuned", "experiment": "finetune_stsb", "student": "otfkd"}
    measured = {
        "simcse": costs((60.0, 480, CURVE)),
        "otfkd": costs((120.0, 560, CURVE)),
        "tuned": costs((30.0, 90, CURVE)),
    }
    made = table(measured, kind="cost", baseline="simcse", rows=[*ROWS[1:], tuned])
    assert shown(made)["Fine-tuned"][:4] == ["0.50", "3.50", "0.09", "1.13"]
    assert shown(made)["On the fly"][:4] == ["2.00", "3.00", "0.56", "1.04"]
    assert any("A model that is trained further counts like an initial teacher" in note for note in made.notes)
    del measured["simcse"]
    with pytest.raises(UserError, match="row otfkd of 'Title' lacks the run of simcse with seed 0"):
        table(measured, kind="cost", baseline="simcse", rows=[*ROWS[1:], tuned])


def test_memory_that_nobody_measured_is_a_dash() -> None:
    assert cost_table(simcse=costs((60.0, 480, CURVE), peak=None))["SimCSE"][4] == "—"


def test_a_row_that_does_not_say_its_cost_is_refused() -> None:
    with pytest.raises(UserError, match="a row of simcse does not say what its training cost: train it again"):
        cost_table(simcse=rows_of(50.0))


def test_a_cost_without_its_teachers_is_refused() -> None:
    with pytest.raises(UserError, match="row otfkd of 'Title' lacks the run of simcse with seed 1"):
        cost_table(simcse=costs((60.0, 480, CURVE)), otfkd=costs((60.0, 1, CURVE), (60.0, 1, CURVE)))


# Notes.


def test_the_notes_begin_with_the_profile_and_name_versions_and_data() -> None:
    warning, scored, made, *_ = table({"simcse": rows_of(50.0)}).notes
    assert warning == "Profile mini shows the machinery in minutes; it is not evidence."
    for fact in ("tiny", "55555555", "cosine, 128 tokens", "selected on dev"):
        assert fact in scored
    for fact in ("otfkd 0.1.0 at 0123456789ab", "torch 2.13.0", "1 threads", "x86_64"):
        assert fact in made


def test_every_revision_of_the_rows_is_named() -> None:
    first, second = rows_of(50.0, 51.0)
    changed = {**second.environment, "git_revision": "fedcba987654-dirty"}
    note = table({"simcse": [first, second.model_copy(update={"environment": changed})]}).notes[2]
    assert "0123456789ab" in note and "fedcba987654-dirty" in note


def test_differing_versions_are_all_named() -> None:
    first, second = rows_of(50.0, 51.0)
    versions = {**second.environment["versions"], "torch": "9.9.9"}
    second = second.model_copy(update={"environment": {**second.environment, "versions": versions}})
    assert "9.9.9" in table({"simcse": [first, second]}).notes[2]


def test_the_baseline_is_named() -> None:
    notes = table({"simcse": rows_of(50.0)}, baseline="simcse").notes
    assert notes[-1].startswith("Bold: above 'SimCSE' by the paired t interval over common seeds")


def test_a_table_of_nothing_has_only_dashes() -> None:
    made = table({})
    assert len(made.notes) == 1
    assert "| SimCSE | 0 of 2 ‡ | — |" in made.markdown()


def test_the_same_rows_make_the_same_bytes() -> None:
    measured = {"simcse": rows_of(50.0, 53.0), "otfkd": rows_of(51.0, 58.0)}
    assert table(measured).files("x") == table(dict(reversed(measured.items()))).files("x")


# What must not mislead.


def marked(made: Table) -> dict[str, tuple[str, str]]:
    """Label of each line to its count of seeds and its generations, marks and all."""
    return {line.marked: (line.counted, line.generation) for part in made.parts for line in part.lines}


def note(made: Table, begins: str) -> str:
    """The only note that begins so, or nothing."""
    found = [one for one in made.notes if one.startswith(begins)]
    assert len(found) < 2
    return found[0] if found else ""


def chosen(*generations: int, taught: str | None = "t" * 64, rotations: int = 3, refused: int = 0) -> list[Row]:
    """A row's seeds, of selected models of these generations."""
    cost = make_cost(rotations=tuple((10 * n, "a" * 64) for n in range(rotations)), refused=refused)
    return [
        make_row(seed=seed, generation=generation, teacher_sha256=taught, cost=cost)
        for seed, generation in enumerate(generations)
    ]


def test_a_row_that_lacks_seeds_is_marked_and_said_to_be_unfinished() -> None:
    whole = table({"encoder": [make_row(seed=None)], "simcse": rows_of(50.0, 51.0), "otfkd": rows_of(60.0, 61.0)})
    assert [count for count, _ in marked(whole).values()] == ["1", "2", "2"]
    assert note(whole, "‡") == ""
    holes = table({"simcse": rows_of(50.0, 51.0), "otfkd": rows_of(60.0, 61.0)[1:]})
    assert [count for count, _ in marked(holes).values()] == ["0 of 1 ‡", "2", "1 of 2 ‡"]
    assert note(holes, "‡").startswith("‡ Unfinished: 2 of the 3 rows lack seeds")
    assert holes.parts[0].lines[2].missing == (0,)
    assert ",1,2," in holes.csv().splitlines()[3]


def test_a_seed_that_no_row_has_is_missed_all_the_same() -> None:
    made = table({"simcse": rows_of(50.0), "otfkd": rows_of(60.0)}, rows=ROWS[1:])
    assert [count for count, _ in marked(made).values()] == ["1 of 2 ‡", "1 of 2 ‡"]


def test_a_seed_that_one_row_has_more_is_wanted_of_all() -> None:
    more = table({"simcse": rows_of(50.0, 51.0, 52.0), "otfkd": rows_of(60.0, 61.0)}, rows=ROWS[1:])
    assert [count for count, _ in marked(more).values()] == ["3", "2 of 3 ‡"]


def test_each_row_shows_the_generation_of_its_selected_models() -> None:
    made = table({"simcse": chosen(0, 0, rotations=0), "otfkd": chosen(2, 3)}, rows=ROWS[1:])
    assert marked(made) == {"SimCSE": ("2", "0"), "On the fly": ("2", "2, 3")}
    assert note(made, "Generation") == (
        "Generation: how often the teacher had changed before the step that dev chose, seed by seed where they differ."
    )
    assert note(made, "†") == ""


def test_a_rotating_row_whose_model_never_rotated_is_marked_and_its_seeds_are_counted() -> None:
    made = table({"simcse": chosen(0, 0, rotations=0), "otfkd": chosen(0, 3)}, rows=ROWS[1:])
    assert marked(made) == {"SimCSE": ("2", "0"), "On the fly †": ("2", "0, 3")}
    assert note(made, "†").endswith("which had only the first teacher: On the fly, 1 of 2 seeds.")
    # One that was to rotate and never did, too.
    refused = table({"otfkd": chosen(0, 0, rotations=0, refused=2)}, rows=ROWS[1:])
    assert "On the fly †" in marked(refused)


def test_a_first_teacher_that_a_run_makes_itself_is_no_rotation() -> None:
    """Generation 1 is that teacher; kept it is no rotating row, replaced it is one that dev has not chosen."""
    kept = table({"simcse": chosen(1, 1, taught=None, rotations=1)}, rows=ROWS[1:])
    assert "SimCSE" in marked(kept)
    replaced = table({"simcse": chosen(1, 2, taught=None)}, rows=ROWS[1:])
    assert "SimCSE †" in marked(replaced)
    assert note(replaced, "Generation").endswith("a first teacher that the run makes itself counts as one change.")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"tiny": 5}, "Dev chose the checkpoints, and 5 test pairs are dev pairs too: 5 of the 12 of tiny."),
        ({}, "No test pair is a dev pair."),
        (None, ""),
    ],
)
def test_dev_pairs_among_the_test_pairs_are_counted(counts: dict[str, int] | None, said: str) -> None:
    made = build_table(make_spec(), "mini", {None: {"simcse": rows_of(50.0)}}, counts)
    told = " ".join(one for one in made.notes if "dev pair" in one)
    assert told.startswith(said) and bool(told) == bool(said)
