"""The card of every preset, and of every training command of docs/usage.md, against what its run did."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from transformers import BertConfig, BertForMaskedLM, BertModel

import otfkd.training.train
from otfkd.config.groups import options
from otfkd.config.schema import Config
from otfkd.models.registry import fingerprint_model
from otfkd.reporting.export import export
from otfkd.training.train import train

USAGE = Path(__file__).parents[2] / "docs" / "usage.md"


@dataclass(frozen=True)
class Case:
    """A run of twelve steps and what its card says of it.

    Attributes:
        overrides: of the run; names in braces are models and files that `given` makes.
        says: sentences of its method, teachers or data, or parts of them.
        not_said: what would be false of it.
        dev: dev scores rise, so that the last step is selected, or fall, so that the first evaluation is.
    """

    overrides: tuple[str, ...]
    says: tuple[str, ...]
    not_said: tuple[str, ...] = ()
    dev: Literal["rising", "falling"] = "rising"


SIMCSE = "Unsupervised SimCSE"
LEARNS = "The student also learns"
ROTATES = "On the fly"
STAYS = "The teacher is the same throughout."
EVERY_4 = "schedule.every=4"
OTFKD = ("experiment=otfkd", EVERY_4)
STATIC = ("experiment=distill_static", "teacher={narrow}", "teacher.pooler=cls")
TWO = ("teacher=[{narrow},{wide}]", "teacher.pooler=cls")
LABELLED = ("data=labelled", "data.batch_size=4")
UNTAUGHT = ("Initial teacher: none.", "There is no teacher")
NO_TEACHER = (SIMCSE, LEARNS, ROTATES, "uses no labels", "No rotation")
CURRENT = "the student as it then is takes the teacher's place"

CASES = {
    # Presets.
    "simcse": Case(
        ("experiment=simcse",),
        (SIMCSE, "Training uses no labels.", "Initial teacher: none.", "The model is the student after step 12."),
        (LEARNS, ROTATES, STAYS, "rotation", "distilled"),
    ),
    "distill_static": Case(
        STATIC,
        (SIMCSE, f"{LEARNS} the cosines", "cross-entropy", STAYS, "generation 0 (0 is the initial one)"),
        (ROTATES, "snapshot", "rotation"),
    ),
    "distillcse": Case(
        ("experiment=distillcse", *TWO),
        (
            "p = 0.1", "0.02 of the student and 0.01 of the teacher", "The teachers are the same throughout.",
            "Initial teacher: 2 models together, of equal weight.", "together are averaged",
        ),
        (ROTATES, "snapshot"),
    ),
    "distillcse_script": Case(
        ("experiment=distillcse_script", "teacher={wide}", "teacher.pooler=cls"),
        ("p = 0.1", "0.025 of the student and 0.0125 of the teacher", STAYS),
        (ROTATES, "snapshot", "models together"),
    ),
    "distillcse_rounds": Case(
        ("experiment=distillcse_rounds", "teacher={narrow}", "teacher.pooler=cls", EVERY_4, "evaluation.every=2"),
        (
            ROTATES, "After every 4 optimizer steps the best snapshot by dev since the last rotation takes",
            "After each rotation the student begins again from where it started, the optimizer forgets and the "
            "learning rate begins a decay of its own.", "Initial teacher: a local model", "p = 0.1",
        ),
        (STAYS, "Once its first snapshot"),
    ),
    "rankcse": Case(
        ("experiment=rankcse", "data.batch_size=4", "teacher.path=[{narrow},{wide}]", "teacher.pooler=cls"),
        (
            "ListNet", "between its two views", "ranking consistency of RankCSE", "2 models together.",
            "weight 0.33", "weight 0.67", "The teachers are the same throughout.",
        ),
        (ROTATES, "snapshot", "equal weight", "DistillCSE"),
    ),
    "otfkd": Case(
        OTFKD,
        (
            ROTATES, f"First after step 4, then after every 4 optimizer steps {CURRENT}.",
            "Once its first snapshot teaches, the student begins again from the base encoder",
            "Initial teacher: none for 4 steps; then the student's first snapshot.", "generation 2 (0 is none)",
        ),
        (STAYS, "After each rotation", "taught together", "did not take place"),
    ),
    "otfkd_group_p": Case(
        ("experiment=otfkd_group_p", EVERY_4), (ROTATES, "p = 0.1", "(Zhu 2024)"), (STAYS, "taught together")
    ),
    "otfkd_pool": Case(
        ("experiment=otfkd_pool", "schedule.every=2", "schedule.pool_size=2"),
        (
            ROTATES, "joins the first snapshot, which stays, and a pool of the last 2",
            "similarities of those who teach together are averaged", "Up to 3 taught together",
        ),
        (STAYS, "takes the teacher's place."),
    ),
    "otfkd_average": Case(
        ("experiment=otfkd_average", "schedule.every=2", "schedule.average_last=3"),
        (ROTATES, "the mean of the weights of the last 3 snapshots takes the teacher's place"),
        (STAYS, "taught together", "moving average"),
    ),
    "otfkd_gated": Case(
        ("experiment=otfkd_gated", "schedule.every=2"),
        (
            ROTATES, "only where its dev score is at most 0 below the teacher's",
            "4 rotations that were due did not take place, the first after step 4: dev ",
            "The model is the student after step 2, before its first teacher came.",
        ),
        (STAYS, "its teacher then was"),
        dev="falling",
    ),
    "mean_teacher": Case(
        ("experiment=mean_teacher", "teacher.warmup_steps=4"),
        (
            "From step 4 on the teacher is the moving average of the student's weights (decay 0.999, ramp)",
            "nothing is cached", "Initial teacher: none for 4 steps; then the student's moving average.",
            "generation 1, the moving average",
        ),
        (ROTATES, "rotate", STAYS, "snapshot", "`unknown`"),
    ),
    "snapshot_distillation": Case(
        ("experiment=snapshot_distillation", EVERY_4),
        (ROTATES, CURRENT, "After each rotation the learning rate begins a decay of its own."),
        (STAYS, "begins again"),
    ),
    "finetune_stsb": Case(
        ("experiment=finetune_stsb", "data=stsb_train", "data.batch_size=4", "data.path={senteval}"),
        (
            "CoSENT", "pairs with a grade from 0 to 5, STS-B's training set", "Training learns from these labels",
            "none is a test pair", "12 optimizer steps of 1 x 4 examples", *UNTAUGHT,
        ),
        NO_TEACHER,
    ),
    "finetune_nli": Case(
        ("experiment=finetune_nli", *LABELLED, "data.path={triplets}"),
        (
            "Supervised SimCSE",
            "triplets of a sentence, what it entails and what contradicts it, the author's own table",
            "Training learns from these labels", *UNTAUGHT,
        ),
        NO_TEACHER,
    ),
    # Commands of docs/usage.md.
    "listnet": Case((*STATIC, "objective=rankcse_listnet"), ("ListNet", "between its two views", "consistency"),
                    ("ListMLE", "DistillCSE")),
    "listmle": Case((*STATIC, "objective=rankcse_listmle"), ("ListMLE", "at temperature 0.05 ("),
                    ("ListNet", "cross-entropy", "of the teacher,")),
    "margins": Case((*STATIC, "objective.kd=rank_margin"), ("0.05 apart (pairwise margins)",),
                    ("cross-entropy", "DistillCSE")),
    "mse": Case(("experiment=distill_static", *TWO, "objective.kd=mse"),
                (f"{LEARNS} the teacher's vectors themselves, by squared error", "linear map",
                 "losses against those who teach together are averaged"),
                ("cosines within", "similarities of those")),
    "cosine": Case((*STATIC, "objective.kd=cosine"), (f"{LEARNS} the teacher's vectors themselves, by 1 - cosine",),
                   ("squared error", "cosines within")),
    "group_size": Case((*STATIC, "objective.group_size=3"), ("shuffled within groups of rank, 3 sentences each",),
                       ("p =",)),
    "ramp": Case((*OTFKD, "objective.kd_ramp=rotation", "objective.kd_ramp_steps=2"),
                 ("in a linear rise over 2 steps from each teacher anew",), ("from the first teacher",)),
    "repeats": Case((*STATIC, "objective.mask_repeats=true"), ("Equal sentences of a batch do not repel",)),
    "mlm": Case(("experiment=simcse", "model={masked}", "model.pooler=cls", "objective.mlm_weight=0.1"),
                ("masked language loss is added, with weight 0.1",), (LEARNS,)),
    "dropout": Case(("experiment=simcse", "model.dropout=0.2", "model.attention_dropout=0"),
                    ("In training dropout is 0.2 of hidden states and 0 of attention's weights.",), (LEARNS,)),
    "terms": Case(
        (*STATIC, "model={masked}", "model.pooler=cls",
         "objective.terms=[{{what: ce, group_p: 0.2}}, {{what: mse, weight: 0.5, ramp: first, ramp_steps: 3}},"
         " {{what: mlm, weight: 0.1, fade_steps: 4, ramp_shape: sigmoid}}]"),
        (f"{LEARNS} the cosines within the batch", "p = 0.2", f"{LEARNS} the teacher's vectors themselves, by squared",
         "differ, which is not exported, with weight 0.5.\nThat weight is reached in a linear rise over 3 steps from "
         "the first teacher.", "masked language loss is added, with weight 0.1.\nThat weight falls to 0, in a sigmoid "
         "fall over the last 4 steps."),
        ("by 1 - cosine",)),
    "sizes": Case((*STATIC, "objective.dims=[32,8]"),
                  ("Every loss of embeddings is its mean over their first 32, 8 numbers (Matryoshka",)),
    "precomputed": Case((*STATIC, "teacher.precomputed=true"), ("computed once, before the first step", STAYS),
                        (ROTATES, "snapshot")),
    "given": Case((*OTFKD, "teacher={wide}", "teacher.pooler=cls"),
                  (ROTATES, f"After every 4 optimizer steps {CURRENT}.", "Initial teacher: a local model",
                   "generation 2 (0 is the initial one)"),
                  (STAYS, "Once its first snapshot", "none for")),
    "going_on": Case((*OTFKD, "teacher.warmup_steps=2", "teacher.after_warmup=continue"),
                     ("First after step 2, then after every 4", "none for 2 steps"), ("begins again",)),
    "best": Case((*OTFKD, "schedule.source=best", "schedule.cache_every=2"),
                 (f"{ROTATES}", "the best snapshot by dev since the last rotation"), (CURRENT,)),
    "average": Case(("experiment=otfkd", "schedule.every=2", "schedule.source=average"),
                    ("the mean of the weights of the last 3 snapshots",), (CURRENT,)),
    "ema": Case((*OTFKD, "schedule.source=ema"),
                (ROTATES, "the moving average of the student's weights (decay 0.999, constant) takes"),
                (CURRENT, "nothing is cached", "Mean Teacher")),
    "at": Case(("experiment=otfkd", "teacher.warmup_steps=2", "schedule=at", "schedule.at=[4,8]"),
               (f"First after step 2, then after steps 4, 8 {CURRENT}.",), (STAYS,)),
    "geometric": Case(("experiment=otfkd", "teacher.warmup_steps=2", "schedule=geometric", "schedule.first=3"),
                      ("then after step 3, then each time 2 times as late",), (STAYS,)),
    "on_improvement": Case(("experiment=otfkd", "teacher.warmup_steps=2", "schedule=on_improvement"),
                           ("each evaluation that is the run's best on dev so far",), (STAYS,)),
    "plateau": Case(("experiment=otfkd", "teacher.warmup_steps=2", "schedule=plateau", "schedule.patience=2"),
                    ("dev has not improved on its best since the last rotation for 2 evaluations in a row",), (STAYS,),
                    dev="falling"),
    "at_most": Case(("experiment=otfkd", "schedule.every=2", "schedule.max_rotations=3"),
                    ("at most 3 times in all", "generation 3 (0 is none)"), (STAYS,)),
    "weights": Case((*STATIC, *TWO, "teacher.weights=[1.0,3.0]"),
                    ("2 models together.", "weight 1\n", "weight 3"), ("equal weight",)),
    "regression": Case(("experiment=finetune_stsb", "objective=cosine_regression", *LABELLED, "data.path={graded}"),
                       ("Cosine regression", "grade from 0 to 5, the author's own table", *UNTAUGHT),
                       (*NO_TEACHER, "CoSENT")),
    "classes": Case(("experiment=finetune_stsb", "objective=softmax", *LABELLED, "data.path={classified}"),
                    ("Classification", "pairs that are entailment, neutral or contradiction", *UNTAUGHT),
                    (*NO_TEACHER, "CoSENT")),
    # What no row says: settings under which a nearby sentence would be false.
    "no_weight": Case((*OTFKD, "objective.kd_weight=0.0", "schedule.on_rotation.lr=restart"),
                      ("Nothing is distilled", "After each rotation the learning rate begins"),
                      (LEARNS, ROTATES, "its teacher then was", "begins again")),
    "kept_snapshot": Case(("experiment=otfkd", "schedule=never", "teacher.warmup_steps=4"),
                          ("a snapshot of the student itself, cached after step 4; it stays",), (ROTATES, STAYS)),
    "followed_beside_a_cache": Case(
        ("experiment=mean_teacher", "teacher.warmup_steps=4", "schedule.cache_every=3", "schedule.start=6"),
        ("From step 6 on", "none for 6 steps", "cached after every 3 steps, do not teach"),
        ("nothing is cached", ROTATES)),
    "given_then_followed": Case(
        ("experiment=mean_teacher", "teacher={wide}", "teacher.pooler=cls", "schedule.start=5"),
        ("From step 5 on the teacher is the moving average", "Initial teacher: a local model"), (STAYS, "none for")),
    "drawn": Case((*STATIC, *TWO, "schedule.aggregate=sample"), ("one is drawn for each batch",), ("averaged",)),
    "pool": Case((*OTFKD, "teacher={narrow}", "teacher.pooler=cls", "schedule.every=2", "schedule.retain=pool"),
                 ("joins a pool of the last 3, which takes the initial teacher's place", "Up to 3 taught together"),
                 (STAYS, "which stays")),
    "from_the_teacher": Case((*STATIC, "student.init=teacher"), ("starts from the initial teacher's weights",)),
}  # fmt: skip
FAST = ("distill_static", "terms", "otfkd", "otfkd_pool", "otfkd_gated", "finetune_nli", "kept_snapshot", "no_weight")

# Keys of docs/usage.md's commands that no sentence about method, teachers or data depends on, by their keys.
ELSEWHERE = {
    "evaluation.also": "tests/evaluation/test_also.py: the card is of the run's own suite",
    "evaluation.queries": "as above",
    "evaluation.corpus": "as above",
    "evaluation.qrels": "as above",
    "trainer.on_nonfinite": "tests/reporting/test_card.py: no loss of a tiny run is infinite",
    "trainer": "the processes are the same run",
    "trainer.fast_dev_run": "it leaves no model",
    "trainer.patience": "tests/training/test_patience.py",
    "debug": "tests/training/test_trial.py",
    "trainer.devices": "as above",
    "precision": "the same method",
    "trainer.accumulate": "the same method",
    "logger": "mirrors of metrics.jsonl",
    "model": "every case names one",
    "model.pooler": "as above",
    "model.layers": "as above",
    "data": "every case names its text; tests/reporting/test_card.py: wiki1m is on the hub",
    "data.repo": "as above",
    "data.subset": "as above",
    "data.split": "as above",
    "data.column": "as above",
    "data.unique": "as above",
    "evaluation.dev": "as evaluation",
    "evaluation.test": "as evaluation",
    "evaluation": "the suite is the test's own",
    "trainer.chunk": "the same method",
    "trainer.max_steps": "every run has twelve",
    "schedule.keep_snapshots": "files on disk",
    "seed": "the same method",
    "dry_run": "makes no run",
    "fresh": "the same run",
    "resume": "the same run",
    "logger.offline": "as logger",
}


@pytest.fixture
def given(tmp_path: Path, tiny_model: Path, corpus_file: Path) -> dict[str, Path]:
    """Models and files that a case may name."""
    folder = tmp_path / "given"
    folder.mkdir()

    def model(name: str, kind: Any = BertModel, **changes: Any) -> Path:
        shutil.copytree(tiny_model, folder / name)
        torch.manual_seed(1)
        kind(BertConfig.from_pretrained(tiny_model, **changes)).save_pretrained(folder / name)
        return folder / name

    def table(name: str, header: str, labels: list[str]) -> Path:
        lines = corpus_file.read_text().splitlines()[:30]
        rows = (f"{line},{lines[-at]},{labels[at % len(labels)]}\n" for at, line in enumerate(lines))
        (folder / name).write_text(header + "\n" + "".join(rows))
        return folder / name

    return {
        "narrow": model("narrow"),
        "wide": model("wide", hidden_size=48),
        "masked": model("masked", BertForMaskedLM),
        "senteval": benchmark(folder),
        "graded": table("graded.csv", "sentence1,sentence2,score", ["0", "2.5", "5"]),
        "classified": table("classified.csv", "sentence1,sentence2,label", ["entailment", "neutral", "contradiction"]),
        "triplets": table("triplets.csv", "sent0,sent1,hard_neg", ["the old red house", "a small blue bird"]),
    }


def benchmark(root: Path) -> Path:
    """STS-B's training file in SentEval's layout, with as many pairs as there are."""
    file = root / "STS/STSBenchmark/sts-train.csv"
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"news\tfile\t2017\t{at}\t{at % 6}\tleft {at}\tright {at}\n" for at in range(5749)))
    return root


@pytest.fixture
def carry_out(
    configure: Callable[..., Config], given: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Case], Path]:
    """Train a case; gives its run's folder."""

    def trained(case: Case) -> Path:
        scores = scores_of(case)
        monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: next(scores))
        return train(configure(*(override.format(**given) for override in case.overrides))).folder

    return trained


def scores_of(case: Case) -> Iterator[float]:
    return iter(range(1, 99) if case.dev == "rising" else range(99, 1, -1))


class Card:
    """The exported card of a run, in parts.

    Attributes:
        text: all of it.
        tags: of its metadata.
        method: in words, without the settings.
        teachers: who they were.
        data: what it was trained on.
    """

    def __init__(self, run: Path, output: Path):
        export(str(run), output)
        card = ModelCard.load(output / "README.md")
        data: Any = card.data
        self.text, self.tags = str(card.text), set(data.tags)
        self.method, self.teachers, self.data = map(self._section, ("Method", "Teachers", "Data"))

    def _section(self, title: str) -> str:
        return self.text.split(f"## {title}\n\n")[1].split("\n\n## ")[0].split("\n\n<details>")[0]

    @property
    def told(self) -> str:
        return f"{self.method}\n{self.teachers}\n{self.data}\n"


class Facts:
    """What a run did, from its files alone.

    Attributes:
        config: as it was composed.
        rotated: the lines of its rotations, and so `refused` and `follows`.
        taught: the steps that learnt from a teacher.
        row: of the exported model on test.
        cached: how many snapshots are in its cache.
    """

    def __init__(self, run: Path):
        self.config = OmegaConf.load(run / "config.yaml")
        lines = _lines(run / "rotations.jsonl")
        self.rotated, self.refused, self.follows = (
            [line for line in lines if line["event"] == event] for event in ("rotated", "refused", "follows")
        )
        self.taught = [
            line["step"] for line in _lines(run / "metrics.jsonl") if line.keys() & {"kd", "term/ce", "term/mse"}
        ]
        self.row = next(
            row for row in _lines(run / "results.jsonl") if (row["split"], row["checkpoint"]) == ("test", "selected")
        )
        self.cached = len(list((run / "snapshots").glob("*.safetensors")))


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def check(card: Card, facts: Facts, given: dict[str, Path]) -> None:
    """Hold each kind of sentence against what happened."""
    check_labels(card, facts)
    check_what_rotated(card, facts)
    check_who_taught(card, facts, given)
    check_the_last_generation(card, facts)


def check_labels(card: Card, facts: Facts) -> None:
    labelled = facts.row["fine_tuned"] is not None
    assert ("Training uses no labels." in card.data) == (not labelled)
    assert ("Training learns from these labels" in card.data) == labelled
    assert ("Unsupervised SimCSE" in card.method) == (not labelled)
    assert ("simcse" in card.tags) == (facts.config.objective.supervised in (None, "simcse"))


def check_what_rotated(card: Card, facts: Facts) -> None:
    fixed = facts.config.schedule.trigger in ("never", "follow")
    assert ("rotate into the teacher's place" in card.method) == (bool(facts.taught) and not fixed)
    assert ("nothing is cached" in card.method) == (bool(facts.follows) and not facts.cached)
    numbered = re.findall(r"^\| (\d+) \| (\d+) \| \d+ \| `(\w+)` \|", card.teachers, re.MULTILINE)
    assert numbered == [(str(one["generation"]), str(one["step"]), one["sha256"]) for one in facts.rotated]
    assert ("did not take place" in card.teachers) == bool(facts.refused)
    assert ("has no file" in card.teachers) == bool(facts.follows)


def check_who_taught(card: Card, facts: Facts, given: dict[str, Path]) -> None:
    assert ("The student also learns" in card.method) == bool(facts.taught)
    paths = facts.config.teacher.path or []
    members = [paths] if isinstance(paths, str) else list(paths)
    told = re.findall(r"sha256 of its files `(\w+)`", card.teachers)
    assert told == [fingerprint_model(Path(member)) for member in members]
    assert ("models together" in card.teachers) == (len(members) > 1)
    assert ("Initial teacher: none" in card.teachers) == (not members)
    assert all(str(folder) not in card.text for folder in given.values())


def check_the_last_generation(card: Card, facts: Facts) -> None:
    step, generation = facts.row["step"], facts.row["generation"]
    learnt = any(taught <= step for taught in facts.taught)
    assert ("knowledge-distillation" in card.tags) == learnt
    assert f"The model is the student after step {step}" in card.teachers
    assert re.findall(r"its teacher then was generation (\d+)", card.teachers) == ([str(generation)] if learnt else [])
    assert (f"after step {step}, before its first teacher" in card.teachers) == (bool(facts.taught) and not learnt)


@pytest.mark.parametrize("name", [pytest.param(one, marks=() if one in FAST else pytest.mark.slow) for one in CASES])
def test_a_card_says_what_its_run_did(
    carry_out: Callable[[Case], Path], given: dict[str, Path], tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    run = carry_out(case)
    card = Card(run, tmp_path / "out")
    check(card, Facts(run), given)
    assert [phrase for phrase in case.says if phrase not in card.told] == []
    assert [phrase for phrase in case.not_said if phrase in card.told] == []


@pytest.mark.parametrize("name", ["rankcse", "distillcse"])
def test_a_run_with_several_teachers_is_exported_and_names_each(
    carry_out: Callable[[Case], Path], given: dict[str, Path], tmp_path: Path, name: str
) -> None:
    card = Card(carry_out(CASES[name]), tmp_path / "out")
    for member in ("narrow", "wide"):
        assert f"- a local model, sha256 of its files `{fingerprint_model(given[member])}`" in card.teachers


def test_fine_tuning_is_said_to_learn_from_labels(carry_out: Callable[[Case], Path], tmp_path: Path) -> None:
    run = carry_out(CASES["finetune_stsb"])
    card = Card(run, tmp_path / "out")
    check_labels(card, Facts(run))
    assert "uses no labels" not in card.data and "different dropout" not in card.method
    assert not {"simcse", "knowledge-distillation"} & card.tags


def test_a_moving_average_is_not_said_to_rotate(carry_out: Callable[[Case], Path], tmp_path: Path) -> None:
    run = carry_out(CASES["mean_teacher"])
    card, facts = Card(run, tmp_path / "out"), Facts(run)
    assert facts.follows and not facts.rotated and not facts.cached
    assert "snapshots" not in card.method and "nothing is cached" in card.method


def test_teachers_that_a_pattern_matched_are_named_as_the_runs_they_are(
    carry_out: Callable[[Case], Path], given: dict[str, Path], tmp_path: Path
) -> None:
    brief = ("experiment=simcse", "trainer.max_steps=2", "evaluation.every=null")
    earlier = [carry_out(Case((*brief, f"seed={seed}"), ())) for seed in (3, 4)]
    pattern = f"{earlier[0].parent}/s*"
    card = Card(carry_out(Case(("experiment=distillcse", f"teacher='{pattern}'"), ())), tmp_path / "out")
    assert "Initial teacher: 2 models together" in card.teachers
    for seed, run in zip((3, 4), earlier, strict=True):
        assert (
            f"- the model of a run of `simcse`, config {run.parent.name}, seed {seed}, sha256 of its files "
            f"`{fingerprint_model(run / 'model')}`"
        ) in card.teachers
    assert str(tmp_path) not in card.text


def test_every_preset_has_a_case() -> None:
    assert set(options("experiment")) <= CASES.keys()


def test_every_training_command_of_the_usage_page_has_a_case() -> None:
    # A user's own presets are no part of the package.
    commands = re.findall(r"`otfkd-train (?!-m|--config-dir)([^`]+)`", USAGE.read_text())
    assert len(commands) > 50
    held = {stands_for(override) for case in CASES.values() for override in case.overrides}
    asked = {override for command in commands for override in shlex.split(command) if "=" in override}
    asked = {override for override in asked if "mine:" not in override}  # a user's own: tests/test_extending.py
    assert sorted(one for one in asked if stands_for(one) not in held and key_of(one) not in ELSEWHERE) == []


def stands_for(override: str) -> str:
    """An override whose value is a word is one of a few choices; of any other its key counts alone."""
    return override if re.fullmatch(r"[\w.]+=[a-z]\w*", override) else key_of(override)


def key_of(override: str) -> str:
    return override.split("=")[0]
