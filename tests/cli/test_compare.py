"""otfkd-compare on runs whose scores are made up, and on runs of tiny models for what needs sentence pairs."""

import functools
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

import otfkd.cli.compare
import otfkd.reporting.graded_pairs
from otfkd.config.schema import Config
from otfkd.data.sts import Subset, Suite, TestTask
from otfkd.evaluation.encode import encode
from otfkd.evaluation.rows import Origin, score_rows
from otfkd.evaluation.significance import Array, bootstrap_pairs, percentile_interval, williams_spearman
from otfkd.evaluation.sts import similarities, spearman
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from otfkd.runs.failure import failure_kept
from otfkd.runs.folder import RunFolder
from otfkd.runs.origin import Provenance
from otfkd.runs.rows import Row, append_row, read_rows, write_rows
from tests.support.commands import Command, Outcome, assert_refused
from tests.support.copies import made_once
from tests.support.models import make_model
from tests.support.rows import make_row


@pytest.fixture
def compare(otfkd_command: Command) -> Command:
    return functools.partial(otfkd_command, "compare")


def cells(outcome: Outcome, task: str, letter: str = "B") -> list[str]:
    """The columns of the table's row of a task, after its name."""
    assert outcome.code == 0, outcome.err
    (line,) = (line for line in outcome.out.splitlines() if line.startswith(f"{letter}  {task}  "))
    return re.split(r"\s{2,}", line.strip())[2:]


def arm(folder: Path, scores: Sequence[float], first_seed: int = 0, **changes: object) -> Path:
    """Finished runs with these scores on one task, one a seed, as otfkd-train lays them out."""
    for seed, score in enumerate(scores, first_seed):
        write_rows(folder / f"s{seed}" / "results.jsonl", [make_row({"tiny": score}, seed=seed, **changes)])
    return folder


# Over seeds.


def test_three_seeds_by_hand(compare: Command, tmp_path: Path) -> None:
    a = arm(tmp_path / "simcse" / "0123456789", [70, 75, 71])
    b = arm(tmp_path / "otfkd" / "abcdef0123", [71, 77, 74], config_hash="abcdef0123", name="otfkd")
    shown = compare(a, b)
    # Differences 1, 2, 3; the half-width is 4.302653 / sqrt(3); p = 1 - x / sqrt(x^2 + 2) with x = 2 sqrt(3).
    p = f"{1 - math.sqrt(12 / 14):.3f}"
    assert cells(shown, "tiny") == [
        "72.00", "74.00", "+2.00", "-0.48 to +4.48", "3", "-", "-", p, p, "not distinguishable",
    ]  # fmt: skip
    assert f"A  simcse, {a}, seeds 0, 1, 2\nB  otfkd, {b}, seeds 0, 1, 2\n" in shown.out
    assert "No permutation p below 6 seeds" in shown.out
    assert "suite tiny (55555555), cosine, 128 tokens" in shown.out
    # One standard deviation of 1 and a difference of 2: five pairs of runs.
    assert shown.out.endswith(
        "B: a claim of +2.00 (tiny) takes 5 seeds at 80 % power, "
        "at the standard deviation of 1.00 that the differences of these 3 seeds have.\n"
    )
    assert "average" not in shown.out.split("\n\n")[1]


def test_a_clear_difference_is_called_one(compare: Command, tmp_path: Path) -> None:
    noise = np.array([0.3, -0.2, 0.1, 0.0, 0.4, -0.3, 0.2, -0.1])
    seeds = np.array([70.0, 72, 71, 69, 74, 68, 70, 73])
    shown = compare(arm(tmp_path / "a", list(seeds)), arm(tmp_path / "b", list(seeds - 1 + noise)))
    found = cells(shown, "tiny")
    assert found[2] == "-0.95"
    assert found[6:] == [f"{2 / 2**8:.3f}", "<0.001", "<0.001", "different"]
    assert "permutation p below" not in shown.out


def test_runs_are_paired_by_seed(compare: Command, tmp_path: Path) -> None:
    a = arm(tmp_path / "a", [10, 70, 75, 71])
    b = arm(tmp_path / "b", [71, 77, 74, 99], first_seed=1)
    shown = compare(a, b)
    assert cells(shown, "tiny")[:5] == ["72.00", "74.00", "+2.00", "-0.48 to +4.48", "3 of 5"]
    lacking = "A has no scores of seed 4; B has no scores of seed 0"
    assert f"B is compared on 3 of the 5 seeds that there are, no more: {lacking}." in shown.out


def test_a_seed_that_did_not_finish_is_missed(
    compare: Command, tmp_path: Path, configure: Callable[..., Config]
) -> None:
    """On both sides, so that each of them has as many scores as the other."""
    a, b = arm(tmp_path / "a", [70, 75, 71]), arm(tmp_path / "b", [71, 77, 74])
    c = arm(tmp_path / "c", [71, 77, 74])
    whole = compare(a, b)
    assert cells(whole, "tiny")[4] == "3"
    assert "compared on" not in whole.out
    facts = Provenance(config_hash="0123456789", seed=3)
    for path in (a, b):
        RunFolder(path / "s3").describe(configure(), "the plan", facts)
    with pytest.raises(ValueError, match="bang"), failure_kept(RunFolder(b / "s3").failure_file):
        raise ValueError("bang")
    # Of another config, or kept aside.
    RunFolder(a / "s4").describe(configure(), "the plan", Provenance(config_hash="abcdef0123", seed=4))
    RunFolder(a / "s5.kept-1").describe(configure(), "the plan", facts.model_copy(update={"seed": 5}))
    shown = compare(a, b, c)
    assert [cells(shown, "tiny", letter)[4] for letter in "BC"] == ["3 of 4"] * 2
    assert "B is compared on 3 of the 4 seeds that there are, no more: A has no scores of seed 3 (new); " \
        "B has no scores of seed 3 (failed)." in shown.out  # fmt: skip
    assert "C is compared on 3 of the 4 seeds that there are, no more: A has no scores of seed 3 (new); " \
        "C has no scores of seed 3." in shown.out  # fmt: skip


def test_runs_may_be_named_in_every_way(compare: Command, tmp_path: Path) -> None:
    scores = [70.0, 75.0, 71.0]
    folder = arm(tmp_path / "simcse" / "0123456789", scores)
    together = tmp_path / "together.jsonl"
    for seed in (2, 0, 1):
        append_row(together, make_row({"tiny": scores[seed]}, seed=seed))
    b = arm(tmp_path / "b", [71, 77, 74])
    tables = {compare(way, b).out.split("\n\n")[1] for way in (folder, folder.parent, together)}
    assert len(tables) == 1


def test_only_the_selected_checkpoints_test_scores_count(compare: Command, tmp_path: Path) -> None:
    a, b = arm(tmp_path / "a", [70, 75, 71]), arm(tmp_path / "b", [71, 77, 74])
    before = compare(a, b)
    for path in a.rglob("results.jsonl"):
        (row,) = read_rows(path)
        for changes in ({"checkpoint": "last"}, {"split": "dev"}, {"seed": None}):
            append_row(path, Row.model_validate({**row.model_dump(), **changes, "average": 1.0}))
    arm(a / "s0.kept-1", [5.0])
    assert compare(a, b).out == before.out != ""


def test_tasks_are_corrected_together_and_the_average_alone(compare: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, gain in (("a", 0.0), ("b", 1.3), ("c", 0.0)):
        for seed in range(4):
            scores = {task: float(70 + gain + rng.normal(0, 0.5)) for task in ("STS12", "STS-B")}
            write_rows(tmp_path / name / f"s{seed}" / "results.jsonl", [make_row(scores, seed=seed)])
    shown = compare(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    rows = [(letter, task) for letter in "BC" for task in ("STS12", "STS-B", "average")]
    drawn = [tuple(line.split()[:2]) for line in shown.out.split("\n\n")[1].splitlines()[1:]]
    assert drawn == rows
    found = {row: [float(p.replace("<", "")) for p in cells(shown, row[1], row[0])[7:9]] for row in rows}
    first = min((p, adjusted) for (_, task), (p, adjusted) in found.items() if task != "average")
    assert first[1] == pytest.approx(4 * first[0], abs=0.003)  # p is shown with three decimals
    best = min((p, adjusted) for (_, task), (p, adjusted) in found.items() if task == "average")
    assert best[1] == pytest.approx(2 * best[0], abs=0.002)
    mean_a, mean_b = averages(tmp_path / "a"), averages(tmp_path / "b")
    assert cells(shown, "average")[:3] == [f"{mean_a:.2f}", f"{mean_b:.2f}", f"{mean_b - mean_a:+.2f}"]
    assert "(average) takes" in shown.out


def test_a_task_that_is_undefined_is_marked_and_the_others_are_compared(compare: Command, tmp_path: Path) -> None:
    def write(name: str, scores: Sequence[float | None]) -> Path:
        for seed, score in enumerate(scores):
            row = make_row({"STS12": score, "STS-B": 70 + seed**2 * (name == "b")}, seed=seed)
            write_rows(tmp_path / name / f"s{seed}" / "results.jsonl", [row])
        return tmp_path / name

    a, b, c = write("a", [70, 75, 71]), write("b", [71, None, 74]), write("c", [None, None, None])
    assert cells(compare(a, a), "average")[0] == "71.00"
    shown = compare(a, b, c)
    assert cells(shown, "STS-B")[:3] == ["70.00", "71.67", "+1.67"]
    for letter in "BC":
        for task in ("STS12", "average"):
            assert cells(shown, task, letter) == ["-"] * 9 + ["undefined"]
    assert "B: STS12 is not compared, for it is undefined with seed 1 of B." in shown.out
    assert "B: average is not compared, for it is undefined with seed 1 of B." in shown.out
    assert "C: STS12 is not compared, for it is undefined with seed 0 of C, seed 1 of C, seed 2 of C." in shown.out
    assert "B: a claim of +1.67 (STS-B) takes" in shown.out
    only = write("only", [None, None])
    for path in only.rglob("*.jsonl"):
        (row,) = read_rows(path)
        write_rows(path, [row.model_copy(update={"scores": {"STS12": row.scores["STS12"]}})])
    assert compare(only, only).out.endswith("B: no score is defined for every seed, so there is nothing to claim.\n")


def averages(folder: Path) -> float:
    return float(np.mean([row.average for path in folder.rglob("results.jsonl") for row in read_rows(path)]))


def test_a_method_is_not_distinguishable_from_itself(compare: Command, tmp_path: Path) -> None:
    a = arm(tmp_path / "a", [70, 75, 71])
    shown = compare(a, a)
    assert cells(shown, "tiny")[2:] == [
        "+0.00", "+0.00 to +0.00", "3", "-", "-", "1.000", "1.000", "not distinguishable",
    ]  # fmt: skip
    assert "takes endlessly many seeds" in shown.out


# What is refused.


@pytest.mark.parametrize(("field", "what"), [("suite_sha256", "different suites"), ("protocol", "different protocols")])
def test_rows_made_differently_are_refused(compare: Command, tmp_path: Path, field: str, what: str) -> None:
    a, b = arm(tmp_path / "a", [70, 75, 71]), arm(tmp_path / "b", [71, 77, 74])
    path = b / "s2" / "results.jsonl"
    write_rows(path, [read_rows(path)[0].model_copy(update={field: "another"})])
    assert_refused(compare(a, b), what, "another", str(a / "s0"), str(b / "s2"))
    assert_refused(compare(b, a), what)


def test_arms_without_a_common_seed_are_refused(compare: Command, tmp_path: Path) -> None:
    a, b = arm(tmp_path / "a", [70, 75]), arm(tmp_path / "b", [71, 77], first_seed=2)
    assert_refused(compare(a, b), f"{a} and {b} have no seed in common")


def test_one_common_seed_needs_the_pairs(compare: Command, tmp_path: Path) -> None:
    assert_refused(compare(arm(tmp_path / "a", [70, 75]), arm(tmp_path / "b", [71])), "one seed in common", "--pairs")


def test_folders_without_scores_are_refused(compare: Command, tmp_path: Path) -> None:
    a = arm(tmp_path / "a", [70, 75])
    assert_refused(compare(a, tmp_path / "nonesuch"), "nonesuch does not exist")
    (tmp_path / "empty").mkdir()
    assert_refused(compare(tmp_path / "empty", a), "empty has no test scores")


def test_several_configs_are_no_method(compare: Command, tmp_path: Path) -> None:
    arm(tmp_path / "b" / "one", [71, 77])
    arm(tmp_path / "b" / "two", [74], first_seed=2, config_hash="abcdef0123")
    a = arm(tmp_path / "a", [70, 75, 71])
    assert_refused(compare(a, tmp_path / "b"), "several configs")
    arm(tmp_path / "b" / "two", [74], first_seed=1)
    assert_refused(compare(a, tmp_path / "b"), "two results of seed 1")


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"all":77.0', '"all":NaN', "scores.tiny.all: Input should be a finite number"),
        ('"all":77.0', '"all":null', "average: Value error, it is null where a task has no score, and only there"),
        ('"all":77.0', '"some":77.0', "has no score of tiny"),
        ('"tiny":', '"other":', "has no score of tiny"),
        ("{", "", "cannot be used"),
    ],
)
def test_a_missing_score_is_refused(compare: Command, tmp_path: Path, old: str, new: str, word: str) -> None:
    a, b = arm(tmp_path / "a", [70, 75, 71]), arm(tmp_path / "b", [71, 77, 74])
    path = b / "s1" / "results.jsonl"
    changed = path.read_text().replace(old, new, 1)
    assert changed != path.read_text()
    path.write_text(changed)
    assert_refused(compare(a, b), str(b / "s1"), word)


def test_a_task_that_only_some_were_scored_on_is_refused(compare: Command, tmp_path: Path) -> None:
    a, b = arm(tmp_path / "a", [70, 75, 71]), arm(tmp_path / "b", [71, 77, 74])
    for seed in range(2):
        scores = {"tiny": 70.0, "more": 60.0 + seed}
        write_rows(b / f"s{seed}" / "results.jsonl", [make_row(scores, seed=seed)])
    assert_refused(compare(a, b), f"{a}/s0 has no score of more")


def test_help_is_quick_and_light() -> None:
    code = "import sys; sys.argv[1:] = ['compare', '--help']\nimport otfkd.__main__\n" \
        "try: otfkd.__main__.main()\nfinally: print('LOADED', *sys.modules)"  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    help_text, _, loaded = result.stdout.partition("LOADED")
    assert result.returncode == 0
    assert "--pairs" in help_text
    assert "otfkd.cli.compare" in loaded.split()
    assert not {"torch", "transformers", "scipy.stats"} & set(loaded.split())


# Over pairs.


@pytest.fixture
def paired_suite(tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Two test tasks, one of two subsets, as the suite that a config names."""
    (only,) = tiny_suite.test
    pairs = only.subsets[0].pairs
    backwards = tuple((left, right, 5 - grade) for left, right, grade in reversed(pairs))
    tasks = (only, TestTask("both", (Subset("first", pairs), Subset("second", backwards[:7]))))
    suite = Suite("tiny", tiny_suite.dev, tasks)
    monkeypatch.setattr(otfkd.reporting.graded_pairs, "load_suite", lambda *_: suite)
    return suite


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arms") / "runs"


@pytest.fixture
def models(paired_suite: Suite, tmp_path: Path, configure: Callable[..., Config], kept: Path) -> tuple[Path, Path]:
    """Two arms of two seeds, each run a tiny model of its own, as otfkd-train leaves them."""
    runs = tmp_path / "runs"
    made_once(kept, runs, lambda: train_arms(runs, paired_suite, configure))
    return runs / "a", runs / "b"


def train_arms(runs: Path, suite: Suite, configure: Callable[..., Config]) -> None:
    for number, folder in enumerate((runs / "a", runs / "b")):
        for seed in range(2):
            run = folder / f"s{seed}"
            config = configure(f"seed={seed}", "evaluation.max_length=16")
            made = make_model(runs.parent / "made" / run.parent.name / run.name, seed=10 * number + seed)
            save_encoder(load_encoder(made, "cls"), run / "model", 16)
            (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json"))))
            origin = Origin(folder.name, "selected", seed, 12, 0, folder.name)
            rows = score_rows(load_encoder(run / "model"), suite, config.evaluation, origin)
            write_rows(run / "results.jsonl", rows)


def cosines(run: Path, task: TestTask) -> Array:
    """Cosines of a task's pairs by a run's model, in the order of its subsets."""
    encoder = load_encoder(run / "model")
    pairs = [pair for subset in task.subsets for pair in subset.pairs]
    left = encode(encoder, [first for first, _, _ in pairs], batch_size=3, max_length=16)
    right = encode(encoder, [second for _, second, _ in pairs], batch_size=3, max_length=16)
    return similarities(left, right)


def grades(task: TestTask) -> Array:
    return np.array([grade for subset in task.subsets for _, _, grade in subset.pairs])


def test_the_interval_over_pairs_is_the_joint_bootstraps(
    compare: Command, models: tuple[Path, Path], paired_suite: Suite
) -> None:
    shown = compare(*models, "--pairs")
    draws = []
    for number, task in enumerate(paired_suite.test):
        first, second = (np.stack([cosines(folder / f"s{seed}", task) for seed in (0, 1)]) for folder in models)
        means = [np.mean([spearman(own, grades(task)) for own in each]) for each in (first, second)]
        assert cells(shown, task.name)[:2] == [f"{mean:.2f}" for mean in means]
        draws.append(bootstrap_pairs(first, second, grades(task), seed=number))
        low, high = percentile_interval(draws[-1])
        assert cells(shown, task.name)[5] == f"{low:+.2f} to {high:+.2f}"
    low, high = percentile_interval((draws[0] + draws[1]) / 2)
    assert cells(shown, "average")[5] == f"{low:+.2f} to {high:+.2f}"
    assert "1,000 resamples of the same pairs" in shown.out


def test_a_method_has_no_interval_against_itself(compare: Command, models: tuple[Path, Path]) -> None:
    shown = compare(models[0], models[0], "--pairs")
    assert cells(shown, "both")[5] == cells(shown, "average")[5] == "+0.00 to +0.00"


def test_one_seed_is_judged_by_williams(compare: Command, models: tuple[Path, Path], paired_suite: Suite) -> None:
    runs = [folder / "s1" for folder in models]
    shown = compare(*runs, "--pairs")
    for task in paired_suite.test:
        p = williams_spearman(cosines(runs[0], task), cosines(runs[1], task), grades(task))
        assert cells(shown, task.name)[3:5] == ["-", "1"]
        assert cells(shown, task.name)[6:8] == ["-", f"{p:.3f}"]
    assert "Williams' test" in shown.out
    assert "\nB  average" not in shown.out
    assert "one seed shows no spread" in shown.out


def test_models_that_were_not_scored_are_refused(compare: Command, models: tuple[Path, Path], tmp_path: Path) -> None:
    other = load_encoder(make_model(tmp_path / "other", seed=99), "cls")
    save_encoder(other, models[1] / "s1" / "model", 16)
    assert_refused_at_last(compare(*models, "--pairs"), f"{models[1]}/s1/model is not the model that was scored")


def test_changed_test_data_are_refused(
    compare: Command, models: tuple[Path, Path], paired_suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = Suite("tiny", paired_suite.dev, paired_suite.test[:1])
    monkeypatch.setattr(otfkd.reporting.graded_pairs, "load_suite", lambda *_: smaller)
    assert_refused(compare(*models, "--pairs"), "the test data has changed")


def test_pairs_need_the_runs_own_folder(compare: Command, models: tuple[Path, Path]) -> None:
    (models[1] / "s0" / "config.yaml").unlink()
    assert_refused(compare(*models, "--pairs"), f"{models[1]}/s0/config.yaml is missing")


def test_a_config_of_another_version_is_refused(compare: Command, models: tuple[Path, Path]) -> None:
    """The key it lacks is of no use on the command line of otfkd-compare."""
    path = models[1] / "s0" / "config.yaml"
    stored = OmegaConf.load(path)
    del stored.objective.lists
    OmegaConf.save(stored, path)
    refused = compare(*models, "--pairs")
    assert_refused(refused, f"{path} is of another version of otfkd (its objective.lists): train the run again")
    assert "to the command" not in refused.err
    assert compare(*models).code == 0  # without the pairs it is not read


def assert_refused_at_last(outcome: Outcome, word: str) -> None:
    """Exit code 2 with the sentence after what was logged on the way."""
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1].startswith(f"otfkd: {word}")
