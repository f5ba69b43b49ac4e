"""The commands as a person starts them: what they print, how they exit."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import otfkd.evaluation.scoring
import otfkd.tables.jobs
from otfkd.base.errors import Interrupted
from otfkd.config.logger import LoggerConfig
from otfkd.config.schema import Config
from otfkd.data.sts import Suite
from otfkd.runs.folder import RunFolder
from otfkd.runs.rows import read_rows
from tests.support.commands import Command, Outcome, assert_refused, finish, start, states
from tests.support.texts import tied_task

# In processes of their own.


def test_help_is_quick_and_light(tmp_path: Path) -> None:
    code = "import sys; sys.argv[1:] = ['train', '--help']\nimport otfkd.__main__\n" \
        "try: otfkd.__main__.main()\nfinally: print('LOADED', *sys.modules)"  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    help_text, _, loaded = result.stdout.partition("LOADED")
    assert result.returncode == 0
    assert "experiment: " in help_text
    assert "otfkd.cli.train" in loaded.split()
    assert not {"torch", "transformers", "lightning"} & set(loaded.split())


def test_a_mistyped_key_is_refused_in_one_sentence(real: list[str], tmp_path: Path) -> None:
    outcome = finish(start(tmp_path, "train", *real, "+trainer.max_stesp=3"))
    assert_refused(outcome, "unknown key 'trainer.max_stesp': the nearest valid key is 'trainer.max_steps'")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.txt"]


def test_an_interrupted_command_goes_on_when_given_again(
    real: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, otfkd_command: Command
) -> None:
    command = ("train", *real, "experiment=otfkd", "schedule.every=50", "trainer.max_steps=100")
    process = start(tmp_path, *command)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        metrics = next((tmp_path / "runs").glob("otfkd/*/s0/metrics.jsonl"), None)
        if metrics is not None and metrics.read_text().count("\n") > 3:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.02)
    stopped = finish(process)
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1].startswith("otfkd: stopped after step ")
    assert "Traceback" not in stopped.err
    (run,) = (tmp_path / "runs" / "otfkd").glob("*/s0")
    assert not (run / "results.jsonl").exists()
    assert states(otfkd_command, tmp_path / "runs") == [("interrupted", run.name)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTFKD_CACHE", str(tmp_path / "cache"))
    again = otfkd_command(*command)
    assert again.code == 0
    assert "resuming after step " in again.err
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line]
    assert steps == list(range(1, 101))


# In this process.


def test_a_run_from_another_folder_and_its_eval(
    real: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, otfkd_command: Command, tiny_suite: Suite
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(otfkd.evaluation.scoring, "load_suite", lambda *_: tiny_suite)
    trained = otfkd_command("train", *real)
    assert trained.code == 0
    assert "Traceback" not in trained.err
    (run,) = (tmp_path / "runs" / "simcse").glob("*/s0")
    assert trained.out.endswith(f"finished: {run}\n")
    monkeypatch.chdir(run)
    rows = tmp_path / "out" / "rows.jsonl"
    scored = otfkd_command("eval", f"model={run}", "evaluation=mini", f"output={rows}")
    assert scored.code == 0
    assert scored.out.startswith("dev: ") and "\ntest: " in scored.out
    same = [row for row in read_rows(run / "results.jsonl") if row.checkpoint == "selected"]
    assert [(row.scores, row.weights_sha256) for row in read_rows(rows)] == [
        (row.scores, row.weights_sha256) for row in same
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["trainer.max_stesp=3"], ["'trainer.max_stesp'", "'trainer.max_steps'"]),
        (["+trainer.max_stesp=3"], ["'trainer.max_stesp'", "'trainer.max_steps'"]),
        (["+seed=1"], ["seed"]),
        (["trainer.max_steps=0"], ["trainer.max_steps=0"]),
        (["experiment=nonesuch"], ["experiment=nonesuch", "simcse"]),
        (["model=/no/such/model"], ["/no/such/model"]),
        (["model=no/such-model"], ["no/such-model"]),
        (["data.path=/no/such/corpus.txt"], ["/no/such/corpus.txt"]),
        (["evaluation=sts", "evaluation.path=/no/such/sts"], ["/no/such/sts"]),
        (["experiment=otfkd", "schedule.every=100"], ["no rotation", "100"]),
        (["experiment=distill_static"], ["teacher="]),
        (["paths.runs=/proc/no"], ["paths.runs=/proc/no"]),
        (["seed=[0"], ["seed=[0"]),
        (["data.path=null"], ["data.path"]),
        (["teacher=custom"], ["teacher.path"]),
        (["objective=null"], ["objective"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_code_2(
    otfkd_command: Command, overrides: list[str], monkeypatch: pytest.MonkeyPatch, more: list[str], words: list[str]
) -> None:
    if "evaluation=sts" in more:
        from otfkd.data.sts import load_suite

        monkeypatch.setattr("otfkd.training.run.load_suite", load_suite)
    assert_refused(otfkd_command("train", *overrides, *more), *words)


def test_a_refused_run_leaves_no_folder(otfkd_command: Command, overrides: list[str], tmp_path: Path) -> None:
    otfkd_command("train", *overrides, "data.path=/no/such/corpus.txt")
    assert list((tmp_path / "runs").glob("*/*/*")) == []


@pytest.mark.parametrize("more", [(), ("dry_run=true",)])
def test_too_small_a_corpus_is_refused_with_the_plan(
    otfkd_command: Command, overrides: list[str], more: tuple[str, ...]
) -> None:
    assert_refused(otfkd_command("train", *overrides, "data.batch_size=61", *more), "data.batch_size=61")


def test_a_fault_of_ours_is_code_1_and_leaves_a_traceback(
    otfkd_command: Command, overrides: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("otfkd.training.train.score_rows", lambda *_: 1 / 0)
    failed = otfkd_command("train", *overrides, "trainer.max_steps=1", "evaluation.every=null")
    assert failed.code == 1
    assert failed.err.splitlines()[-1].startswith("otfkd: ZeroDivisionError: division by zero")
    assert "Traceback" not in failed.err
    (told,) = (tmp_path / "runs").glob("simcse/*/s0/run.log")
    assert "Traceback" in told.read_text()


def test_a_run_on_a_task_that_cannot_be_ranked_is_finished_scored_compared_and_exported(
    otfkd_command: Command, overrides: list[str], tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    suite = replace(tiny_suite, test=(*tiny_suite.test, tied_task()))
    for module in ("training.run", "evaluation.scoring"):
        monkeypatch.setattr(f"otfkd.{module}.load_suite", lambda *_: suite)
    few = ("trainer.max_steps=2", "evaluation.every=1")
    trained = otfkd_command("train", "-m", *overrides, *few, "seed=0,1")
    assert trained.code == 0, trained.err
    assert "average of 'all': undefined, as tied" in trained.out
    (method,) = (tmp_path / "runs/simcse").iterdir()
    scored = otfkd_command("eval", f"model={method / 's0'}", "evaluation=mini", f"output={tmp_path / 'rows.jsonl'}")
    assert scored.code == 0, scored.err
    assert "average of 'all': undefined, as tied" in scored.out
    assert read_rows(tmp_path / "rows.jsonl")[1].scores == read_rows(method / "s0/results.jsonl")[1].scores
    compared = otfkd_command("compare", method, method)
    assert compared.code == 0, compared.err
    assert "B: tied is not compared" in compared.out
    exported = otfkd_command("export", method / "s0", tmp_path / "out")
    assert exported.code == 0, exported.err
    assert "| tied | undefined |" in (tmp_path / "out/README.md").read_text()


def test_the_traceback_is_shown_when_asked_for(
    otfkd_command: Command, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTFKD_TRACEBACK", "1")
    assert "Traceback" in otfkd_command("train", *overrides, "data.path=/no/such/corpus.txt").err


def test_a_dry_run_prints_the_plan_and_nothing_else(otfkd_command: Command, overrides: list[str]) -> None:
    planned = otfkd_command("train", *overrides, "experiment=otfkd", "schedule.every=4", "dry_run=true")
    assert planned.code == 0
    assert all(line.endswith(" is tokenised") for line in planned.err.splitlines())  # to count what is cut
    assert planned.out.startswith("run        ")
    assert "rotate     after 4, 8" in planned.out


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["-c", "job", "--resolve"]])
def test_cfg_job_shows_the_composed_config(
    flags: list[str], otfkd_command: Command, overrides: list[str], tmp_path: Path
) -> None:
    shown = otfkd_command("train", *overrides, *flags, "experiment=otfkd", "seed=7")
    assert shown.code == 0
    config = OmegaConf.create(shown.out)
    assert (config.trainer.max_steps, config.name, config.seed) == (12, "otfkd", 7)
    assert not (tmp_path / "runs").exists()
    scored = otfkd_command("eval", "-c", "job", "any/model", "evaluation=transfer")
    assert (scored.code, OmegaConf.create(scored.out).model.path) == (0, "any/model")


def test_cfg_job_is_of_one_run(otfkd_command: Command) -> None:
    told = "--cfg and --info tell of one run, and -m makes several: leave one of them out"
    assert_refused(otfkd_command("train", "-m", "-c", "job", "seed=1,2"), told)


def test_a_finished_run_is_skipped_with_its_scores(otfkd_command: Command, overrides: list[str]) -> None:
    command = ("train", *overrides, "trainer.max_steps=1", "evaluation.every=null")
    first, second = otfkd_command(*command), otfkd_command(*command)
    assert (first.code, second.code) == (0, 0)
    assert second.out == first.out.replace("\nfinished: ", "\nskipped: ")


def test_a_sweep_gives_each_job_its_own_log(otfkd_command: Command, overrides: list[str], tmp_path: Path) -> None:
    command = ("train", "-m", *overrides, "trainer.max_steps=1", "evaluation.every=null", "seed=3,4")
    assert otfkd_command(*command).code == 0
    folders = sorted((tmp_path / "runs" / "simcse").glob("*/s?"))
    assert [folder.name for folder in folders] == ["s3", "s4"]
    for own, other in (folders, folders[::-1]):
        told = (own / "run.log").read_text()
        assert told.count("blank lines skipped") == 1
        assert str(own) in told and str(other) not in told


def test_a_sweep_over_paths_and_lists_has_one_short_folder_a_job(
    otfkd_command: Command, overrides: list[str], tmp_path: Path
) -> None:
    command = (
        "train",
        "-m",
        *overrides,
        "trainer.max_steps=4",
        "evaluation.every=null",
        "experiment=otfkd",
        "schedule=at",
    )
    assert otfkd_command(*command, "teacher.warmup_steps=1", "schedule.at=[1],[1,2]").code == 0
    folders = [path.parent.relative_to(tmp_path / "runs") for path in (tmp_path / "runs").rglob("results.jsonl")]
    assert len(folders) == 2
    assert all(len(folder.parts) == 3 and len(str(folder)) <= 30 for folder in folders)


def test_a_repeated_sweep_runs_nothing_again(otfkd_command: Command, overrides: list[str], tmp_path: Path) -> None:
    command = ("train", "-m", *overrides, "trainer.max_steps=1", "evaluation.every=null", "seed=3,4")
    otfkd_command(*command)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "simcse").rglob("*.jsonl")}
    again = otfkd_command(*command)
    assert again.out.count("\nskipped: ") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before != {}


def test_runs_lists_every_state(otfkd_command: Command, tmp_path: Path) -> None:
    for name, files in {
        "a/1/s0": ["results.jsonl", "checkpoints/last.ckpt"], "b/2/s0": ["checkpoints/last.ckpt"], "c/3/s10": [],
        "c/3/s10.kept-1": ["results.jsonl"], "d/4/s0": ["checkpoints/last.ckpt"],
    }.items():  # fmt: skip
        for file in ["provenance.json", *files]:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).touch()
    with RunFolder(tmp_path / "d/4/s0").held():
        listed = otfkd_command("runs", str(tmp_path)).out.splitlines()
    assert [line.split("\t")[:2] for line in listed] == [
        ["finished", f"{tmp_path}/a/1/s0"], ["interrupted", f"{tmp_path}/b/2/s0"], ["new", f"{tmp_path}/c/3/s10"],
        ["kept aside", f"{tmp_path}/c/3/s10.kept-1"], ["training", f"{tmp_path}/d/4/s0"],
    ]  # fmt: skip


def test_runs_of_no_folder_are_refused(otfkd_command: Command, tmp_path: Path) -> None:
    assert_refused(otfkd_command("runs", str(tmp_path / "nonesuch")), "nonesuch is not a folder")


def test_eval_refuses_a_mistake(otfkd_command: Command, tmp_path: Path) -> None:
    assert_refused(otfkd_command("eval", f"model={tmp_path}"), "holds no model")
    assert_refused(otfkd_command("eval", "evaluation.batch_sise=1"), "'evaluation.batch_size'")
    assert_refused(otfkd_command("eval", "seed=1"), "seed=1 is read by otfkd-train alone: leave it out")


@pytest.mark.parametrize("arguments", [(), ("trian",), ("--hlep",)])
def test_an_unknown_command_lists_the_commands(otfkd_command: Command, arguments: tuple[str, ...]) -> None:
    assert_refused(otfkd_command(*arguments), "train, eval, export, compare, figures, reproduce, search, runs")


@pytest.fixture
def reproduce(
    otfkd_command: Command, overrides: list[str], tiny_suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run `otfkd reproduce` on tables of two rows, of which the second one of `tiny` fails, in 4 steps."""
    monkeypatch.setattr("otfkd.config.groups.tables_dir", lambda: tmp_path / "tables")
    monkeypatch.setattr(otfkd.evaluation.scoring, "load_suite", lambda *_: tiny_suite)
    late = ["teacher=minilm", "schedule=at", "schedule.at=[500]"]
    bad = {"name": "bad", "label": "Bad", "experiment": "simcse", "overrides": late}
    good = {"name": "good", "label": "Good", "experiment": "simcse"}
    (tmp_path / "tables").mkdir()
    (tmp_path / "profiles.yaml").write_text("mini: Profile mini is no evidence.")
    for name, rows in {"tiny": [good, bad], "other": [good]}.items():
        table = {"title": name.title(), "profiles": {"mini": {"seeds": [0]}}, "rows": rows}
        (tmp_path / "tables" / f"{name}.yaml").write_text(json.dumps(table))
    few = [*overrides, "trainer.max_steps=4", "evaluation.every=null"]

    def run(*arguments: str) -> Outcome:
        return otfkd_command("reproduce", "--experiments", str(tmp_path / "experiments"), *arguments, *few)

    return run


def test_reproduce_writes_the_tables_and_names_what_failed(reproduce: Command, tmp_path: Path) -> None:
    built, results = (tmp_path / "experiments" / name for name in ("built/mini", "results/mini.jsonl"))
    made = reproduce("--tables", "tiny")
    assert made.code == 2
    assert made.err.splitlines()[-1].startswith("otfkd: 1 jobs failed (tiny, Bad, seed 0: ")
    assert made.err.endswith("; the same command tries them again\n")
    assert (built / "tiny.md").read_text() in made.out
    assert "| Bad | 0 of 1 ‡ | — | — |" in made.out
    files = {f"{name}.{kind}" for name in ("tiny", "other") for kind in ("md", "csv", "tex")} | {"report.html"}
    assert {path.name for path in built.iterdir()} == {name for name in files if not name.startswith("other")}
    # Another table joins it; the report then shows both, and the first one's rows stay.
    assert reproduce("--tables", "other").code == 0
    assert {path.name for path in built.iterdir()} == files
    assert [json.loads(line)["table"] for line in results.read_text().splitlines()] == ["other", "tiny"]
    assert [f'id="{name}"' in (built / "report.html").read_text() for name in ("tiny", "other")] == [True, True]
    # And again: nothing is trained, and every byte is the same.
    before = {path: path.read_bytes() for path in (*built.iterdir(), results)}
    assert reproduce("--tables", "other").code == 0
    assert {path: path.read_bytes() for path in before} == before
    check = reproduce("--check")
    assert (check.code, check.err) == (0, "")
    # One changed byte, a missing file and one that comes of no row.
    (built / "tiny.csv").write_text((built / "tiny.csv").read_text().replace("Good", "Goof"))
    (built / "other.tex").unlink()
    (built / "old.md").write_text("old")
    wrong = reproduce("--check")
    assert_refused(wrong, "tiny.csv", "other.tex", "old.md", "not what the published rows give")
    assert "tiny.md" not in wrong.err and "report.html" not in wrong.err


def one_fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the row `good` of a table end so, in the midst of its steps."""
    from otfkd.training.train import train

    def faulty(config: Config) -> Any:
        if config.teacher.source == "none":
            raise error
        return train(config)

    monkeypatch.setattr(otfkd.tables.jobs, "train", faulty)


def test_reproduce_exits_as_failed_jobs_do(reproduce: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs, of which one fails by the user's error: 1 as soon as the other fails by a fault of ours."""
    for error, code in ((OSError(28, "full", "/x"), 2), (SystemExit(0), 1), (RuntimeError("bang"), 1)):
        with monkeypatch.context() as patched:
            one_fails(patched, error)
            failed = reproduce("--tables", "tiny")
        assert failed.code == code, failed.err
        last = failed.err.splitlines()[-1]
        assert "2 jobs failed (tiny, Good, seed 0: " in last
        assert "; tiny, Bad, seed 0: " in last
    assert "tiny, Good, seed 0: RuntimeError: bang;" in last


def test_an_interrupted_reproduction_tells_of_the_jobs_that_had_failed(
    reproduce: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = json.loads((tmp_path / "tables/tiny.yaml").read_text())
    (tmp_path / "tables/tiny.yaml").write_text(json.dumps({**table, "rows": table["rows"][::-1]}))
    one_fails(monkeypatch, Interrupted("stopped"))
    stopped = reproduce("--tables", "tiny")
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1].startswith("otfkd: stopped; 1 jobs failed (tiny, Bad, seed 0: ")


def test_reproduce_keeps_tables_and_figures_as_an_artifact_where_wandb_is_chosen(
    reproduce: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[LoggerConfig, Path, str, dict[str, str]]] = []
    monkeypatch.setattr("otfkd.training.wandb_run.send_files", lambda *given: sent.append(given))
    table = json.loads((tmp_path / "tables/other.yaml").read_text())
    (tmp_path / "tables/drawn.yaml").write_text(json.dumps({**table, "figures": ["curves", "interval"]}))
    assert reproduce("--tables", "drawn").code == 0
    assert sent == []
    assert reproduce("--tables", "drawn", "logger=wandb", "logger.project=lab").code == 0
    ((config, folder, name, files),) = sent
    assert (config.project, folder, name) == ("lab", tmp_path / "runs", "tables-mini")
    built = {path.name: path.read_text() for path in (tmp_path / "experiments/built/mini").iterdir()}
    # No row has an interval, so that figure is not there.
    assert files.keys() - built.keys() == {"drawn-1.svg"}
    assert built.items() <= files.items()
    assert files["drawn-1.svg"].startswith("<svg ")
    assert files["drawn-1.svg"].removeprefix("<svg ") in files["report.html"]


def test_reproduce_shows_what_it_would_do(reproduce: Command, tmp_path: Path) -> None:
    dry = reproduce("--tables", "other", "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert dry.out.startswith("other, Good, seed 0  new\n1 runs are left to train; none is finished here yet")
    assert reproduce("--tables", "other", "--print-commands").out.startswith(
        "otfkd-train experiment=simcse profile=mini "
    )
    assert reproduce("--tables", "other", "--print-slurm").out.startswith("#!/bin/bash\n")
    assert not (tmp_path / "experiments").exists()
    assert not list((tmp_path / "runs").rglob("*.jsonl"))


def test_reproduce_knows_published_rows(reproduce: Command, tmp_path: Path) -> None:
    assert reproduce("--tables", "other").code == 0
    shutil.rmtree(tmp_path / "runs")
    before = (tmp_path / "experiments/results/mini.jsonl").read_bytes()
    # What is published is what is made where no table is named.
    dry = reproduce("--dry-run")
    assert (dry.code, dry.out) == (0, "other, Good, seed 0  published\nnothing is left to train\n")
    assert reproduce("--print-commands").out.startswith("# nothing is left to train")
    assert reproduce("--dry-run", "--fresh").out.startswith("other, Good, seed 0  new\n1 runs are left")
    assert "other, Good, seed 7  new\n" in reproduce("--dry-run", "--seeds", "7").out
    assert reproduce().code == 0
    assert not list((tmp_path / "runs").rglob("*.jsonl"))
    assert (tmp_path / "experiments/results/mini.jsonl").read_bytes() == before
    assert reproduce("--seeds", "7,3").code == 0
    assert "| Good | 3 |" in (tmp_path / "experiments/built/mini/other.md").read_text()
    assert reproduce("--check").out.startswith("all of")


def test_an_unfinished_table_that_says_so_passes_the_check(reproduce: Command, tmp_path: Path) -> None:
    assert reproduce("--tables", "tiny").code == 2
    check = reproduce("--check")
    assert (check.code, check.err) == (0, "")
    assert check.out.startswith("unfinished: mini/tiny, Bad: 0 of 1 seeds, lacks 0\nall of")
    page = tmp_path / "experiments/built/mini/tiny.md"
    page.write_text(page.read_text().replace(" of 1 ‡", ""))
    assert_refused(reproduce("--check"), "tiny.md", "not what the published rows give")


def test_figures_on_pages_are_checked_and_written(reproduce: Command, tmp_path: Path) -> None:
    assert reproduce("--tables", "other").code == 0
    average = json.loads((tmp_path / "experiments/results/mini.jsonl").read_text())["result"]["average"]
    page, figure = tmp_path / "README.md", "<!-- mini/other, good, average -->{}<!-- / -->"
    (tmp_path / "experiments/README.md").write_text("Experiments.\n")
    page.write_text(f"Read.\n\nIt is {figure.format('')}.\n")
    assert_refused(reproduce("--check"), f"{page}:3: mini/other, good, average is {average:.2f} by its rows")
    assert reproduce("--fill").out == f"figures written to {page}\n"
    assert page.read_text() == f"Read.\n\nIt is {figure.format(f'{average:.2f}')}.\n"
    assert reproduce("--check").code == 0
    assert reproduce("--fill").out == ""


def test_reproduce_refuses_a_mistake_at_once(otfkd_command: Command, reproduce: Command, tmp_path: Path) -> None:
    assert_refused(otfkd_command("reproduce", "--tables", "nonesuch"), "there is no table nonesuch")
    assert_refused(otfkd_command("reproduce", "sede=1"), "unknown key 'sede'")
    assert_refused(reproduce("--tables", "tiny", "seed=1"), "seed is not given by hand")
    assert_refused(reproduce("--check"), "holds no published rows: make a table first")
    assert_refused(reproduce("--fill"), "holds no published rows: make a table first")
    assert_refused(reproduce("--fresh", "--publish"), "--publish trains nothing")
    for seeds in ("a", "-1", ""):
        assert "argument --seeds: give whole numbers from 0, with commas" in reproduce("--seeds", seeds).err
