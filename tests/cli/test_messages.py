"""What a person who mistypes is told: one sentence in the words that they typed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from otfkd.config.composition import load_config
from otfkd.data.sts import load_suite
from tests.support.commands import Command, assert_refused

METHODS = (
    "distill_static, distillcse, distillcse_rounds, distillcse_script, finetune_nli, finetune_stsb, mean_teacher, "
    "otfkd, otfkd_average, otfkd_gated, otfkd_group_p, otfkd_pool, rankcse, simcse, snapshot_distillation"
)
NOWHERE = "give a model's folder, a run's folder or a hub id"

SAID = [
    # Keys.
    ("train foo=bar", "unknown key 'foo': otfkd-train --explain lists the keys"),
    ("train lr=1e-3", "unknown key 'lr': the nearest valid key is 'optimizer.lr'"),
    ("train trainer.max_stesp=3", "unknown key 'trainer.max_stesp': the nearest valid key is 'trainer.max_steps'"),
    ("train schedule.evry=3", "unknown key 'schedule.evry': the nearest valid key is 'schedule.every'"),
    ("train batchsize=3", "unknown key 'batchsize': the nearest valid key is 'data.batch_size'"),
    ("train --max-steps 3", "--max-steps is no flag: take trainer.max_steps=N"),
    ("train --foo", "--foo is no flag: write KEY=VALUE without dashes; otfkd-train --explain lists the keys"),
    ("eval foo=bar", "unknown key 'foo': otfkd-eval --explain lists the keys"),
    ("eval evaluation.batch_sise=1", "unknown key 'evaluation.batch_sise': the nearest valid key is "
                                     "'evaluation.batch_size'"),
    ("eval seed=1", "seed=1 is read by otfkd-train alone: leave it out"),
    ("eval experiment=otfkd", "experiment=otfkd is read by otfkd-train alone: leave it out"),
    ("eval learning_rate=1", "learning_rate=1 is read by otfkd-train alone: leave it out"),
    # Values.
    ("train schedule.every=0 experiment=otfkd", "schedule.every=0 is not valid: it must be greater than 0"),
    ("train evaluation.every=0 experiment=mean_teacher", "evaluation.every=0 is not valid: it must be greater than 0"),
    ("train trainer.max_steps=null", "trainer.max_steps=null is not valid: it must be a whole number"),
    ("train trainer.max_steps=true", "trainer.max_steps=true is not valid: it must be a whole number"),
    ("train trainer.max_steps=1.5", "trainer.max_steps=1.5 is not valid: it must be a whole number"),
    ("train optimizer.lr=fast", "optimizer.lr=fast is not valid: it must be a number"),
    ("train dry_run=yes", "dry_run=yes is not valid: it must be true or false"),
    ("train objective.kd=hinge", "objective.kd=hinge is not valid: it must be ce, kl, js, listmle, rank_margin, mse or "
                                 "cosine, or the import path of a function of your own, package.module:name"),
    ("train schedule.at=3", "schedule.at=3 is not valid: it must be a list, as [1,2]"),
    ("train teacher=", "teacher= is empty: give teacher a value, or leave it out"),
    ("train data.path= data=text", "data.path= is empty: give data.path a value, or leave it out"),
    ("train experiment=otfdk", f"experiment=otfdk is not a choice: take one of {METHODS}"),
    ("train seed=0,1", "'seed=0,1' has several values: add -m for a sweep; as one it is 'seed=\"0,1\"'"),
    ("train -m experiment=simcse,otfdk", f"experiment=otfdk is not a choice: take one of {METHODS}"),
    # What belongs together.
    ("train schedule=at experiment=otfkd", "schedule.at must name steps with schedule=at: add schedule.at=[100,200]"),
    ("train experiment=otfkd schedule=follow", "teacher=self needs to know when SimCSE ends and teaching begins: add "
                                               "teacher.warmup_steps=N"),
    ("train experiment=distillcse_rounds", "objective.kd_weight is above 0 but teacher=none: give "
                                           "teacher=FOLDER_OR_HUB_ID or teacher=self, or objective=simcse"),
    # Files.
    ("train model=/no/model", f"model=/no/model is not a folder: {NOWHERE}"),
    ("train experiment=distill_static teacher=/no/model", f"teacher=/no/model is not a folder: {NOWHERE}"),
    ("train data=text data.path=/no/text", "data.path=/no/text is not a file: correct the path"),
    ("eval /no/model", f"model=/no/model is not a folder: {NOWHERE}"),
    ("eval output=/", "output=/ is a folder, and rows are appended to a file: name one in it"),
    ("reproduce --tables nonesuch", "there is no table nonesuch: take one of ablation, compute, cost, finetune, "
                                    "interval, main, policies, restarts, rotations, transfer"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "sentence"), SAID, ids=[given for given, _ in SAID])
def test_a_mistake_is_answered_in_the_words_it_was_made_in(
    otfkd_command: Command, given: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTFKD_CACHE", str(tmp_path / "cache"))
    refused = otfkd_command(*given.split())
    assert_refused(refused)
    assert refused.err == f"otfkd: {sentence}\n"


@pytest.mark.parametrize(
    "given",
    [
        "train schedule=at",
        "train experiment=otfkd model=/no/model",
        "train data=text data.path=/no/text",
        "eval output=/",
    ],
)
def test_what_needs_no_torch_is_answered_without_it(given: str, tmp_path: Path) -> None:
    outcome, loaded = apart(given, tmp_path)
    assert outcome.startswith("otfkd: ")
    assert not loaded & {"torch", "transformers", "lightning", "datasets"}


def test_a_finished_run_is_skipped_without_torch_and_planned_without_lightning(
    otfkd_command: Command, real: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("otfkd.training.run.load_suite", load_suite)
    assert otfkd_command("train", *real).code == 0
    told, loaded = apart(f"train {' '.join(real)}", tmp_path)
    assert "\nskipped: " in told
    assert not loaded & {"torch", "transformers", "lightning", "datasets"}
    told, loaded = apart(f"train {' '.join(real)} dry_run=true", tmp_path)
    assert told.startswith("run ") and "(finished)" in told
    assert "torch" in loaded and "lightning" not in loaded


def apart(given: str, folder: Path) -> tuple[str, set[str]]:
    """What a command says in a process of its own, and the modules that it loads."""
    code = f"import sys; sys.argv[1:] = {given.split()}\nimport otfkd.__main__\n" \
        "try: otfkd.__main__.main()\nfinally: print('LOADED', *sys.modules)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    told, _, loaded = done.stdout.partition("LOADED")
    return told + done.stderr, set(loaded.split())


def test_a_teacher_without_a_pooler_is_answered_by_the_teachers_key(
    otfkd_command: Command, overrides: list[str], tiny_model: Path
) -> None:
    given = ("train", *overrides, "experiment=distill_static", f"teacher={tiny_model}", "dry_run=true")
    refused = otfkd_command(*given)
    assert refused.err.splitlines()[-1] == (
        f"otfkd: {tiny_model} says nothing of its pooler: name it by teacher.pooler=mean"
    )
    assert "teacher.layers=9 is more than the" in otfkd_command(*given, "teacher.pooler=mean", "teacher.layers=9").err


@pytest.mark.parametrize("pickled", [True, False])
def test_weights_that_are_not_read_are_said_to_be(
    otfkd_command: Command, tiny_model: Path, tmp_path: Path, pickled: bool
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = folder / "model.safetensors"
    if pickled:
        weights.rename(folder / "pytorch_model.bin")
    else:
        weights.unlink()
    what = "pickled weights (pytorch_model.bin), which are refused," if pickled else "no weights"
    assert otfkd_command("eval", folder).err == (
        f"otfkd: {folder} has {what} and no *.safetensors: if you trust them, convert them with transformers' "
        "AutoModel.from_pretrained(FOLDER_OR_HUB_ID).save_pretrained(FOLDER), and give that folder\n"
    )


@pytest.mark.parametrize(
    "command", ["train", "eval", "export", "compare", "figures", "reproduce", "search", "runs", ""]
)
def test_every_command_tells_the_version(otfkd_command: Command, command: str) -> None:
    assert otfkd_command(*filter(None, [command]), "--version") == (0, "otfkd 0.1.0\n", "")


def test_help_names_the_command_and_what_there_is(otfkd_command: Command) -> None:
    commands = otfkd_command("--help")
    assert commands.code == 0
    assert [line.split()[0] for line in commands.out.splitlines() if line.startswith("  ")] == [
        "train", "eval", "export", "compare", "figures", "reproduce", "search", "runs",
    ]  # fmt: skip
    for name in ("train", "eval"):
        told = otfkd_command(name, "--help").out
        assert told.startswith(f"otfkd-{name} ") and f"usage: otfkd-{name} [KEY=VALUE ...]" in told
        assert "Hydra" not in told


def test_a_flag_may_stand_anywhere(otfkd_command: Command, overrides: list[str]) -> None:
    swept = otfkd_command("train", "experiment=simcse", "-m", *overrides, "seed=0,1", "dry_run=true")
    assert (swept.code, swept.out.count("run        ")) == (0, 2)


def test_keys_are_completed(otfkd_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = otfkd_command("train", "-sc", "install=bash")
    assert installed.code == 0 and "complete -o nospace" in installed.out
    monkeypatch.setenv("COMP_LINE", "otfkd-train schedule=on_")
    assert otfkd_command("train", "-sc", "query=bash").out == "schedule=on_improvement\n"
    assert_refused(otfkd_command("train", "-sc"), "write -sc install=bash")


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (["schedule=at", "schedule.at=[300,100]"], 100),
        (["schedule=geometric"], 125),
        (["schedule=geometric", "schedule.first=7"], 7),
        (["schedule=on_improvement", "evaluation.every=30"], 30),
        (["schedule=plateau"], 125),
        (["schedule=every", "schedule.every=9"], 9),
        (["schedule=at", "schedule.at=[30,60]", "profile=mini"], 20),  # the profile's interval, as before
        (["schedule=at", "schedule.at=[100]", "teacher.warmup_steps=50"], 50),
    ],
)
def test_a_warm_up_lasts_until_the_schedule_first_rotates(schedule: list[str], steps: int) -> None:
    assert load_config(["experiment=otfkd", *schedule]).teacher.warmup_steps == steps
