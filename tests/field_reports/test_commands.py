"""Field reports about data, loggers, sweeps and processes, as in docs/field-reports.md."""

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import otfkd.cli.common
import otfkd.cli.evaluate
import otfkd.cli.train
import otfkd.config.groups
import otfkd.training.train
from otfkd.base.errors import UserError
from otfkd.base.hashing import hash_weights
from otfkd.base.signals import stop_flag
from otfkd.config.schema import Config
from otfkd.evaluation.rows import dev_score
from otfkd.training.train import train
from tests.support.callbacks import joined_by
from tests.support.commands import Command, assert_refused
from tests.support.processes import TWO, in_processes
from tests.support.recording import Recorder

SHORT = ("trainer.max_steps=2", "evaluation.every=null")


OFFLINE = """
import os, socket, sys
def refuse(*given, **named):
    os.write(2, b"NETWORK ASKED FOR\\n")
    raise OSError("there is no network")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from otfkd.__main__ import main
for command in sys.argv[1:]:
    sys.argv[1:] = command.split()
    try:
        main()
    except SystemExit as end:
        assert end.code == 0, end.code
"""


@pytest.mark.slow
def test_b22_local_data_still_need_the_network(tmp_path: Path, tiny_model: Path, corpus_file: Path) -> None:
    """Reading a local file or model asks a server first, or serves what the file held before."""
    run = (
        f"train model={tiny_model} model.pooler=cls data=text data.path={corpus_file} data.batch_size=4 seed=5 "
        "trainer.max_steps=2 trainer.accelerator=cpu evaluation.every=null paths.runs=runs paths.cache=cache"
    )
    eager = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}  # as a person has it
    command = [sys.executable, "-c", OFFLINE, run]
    trained = subprocess.run(command, cwd=tmp_path, env=eager, capture_output=True, text=True, check=False)
    assert (trained.returncode, "NETWORK" in trained.stderr) == (0, False), trained.stderr
    (folder,) = tmp_path.glob("runs/simcse/*/s5")
    command[-1] = f"eval model={folder} evaluation=mini paths.cache=cache"
    scored = subprocess.run(command, cwd=tmp_path, env=eager, capture_output=True, text=True, check=False)
    assert (scored.returncode, "NETWORK" in scored.stderr) == (0, False), scored.stderr
    assert scored.stdout.startswith("dev: ")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """What reaches W&B, offline: the run's id, the values, and how they were given."""
    import wandb

    given: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
    original = wandb.Run.log

    def log(self: Any, data: dict[str, Any], *args: Any, **named: Any) -> None:
        assert not args
        given.append((self.id, data, named))
        original(self, data, **named)

    monkeypatch.setattr(wandb.Run, "log", log)
    return given


@pytest.mark.slow
def test_b23_a_failed_job_closes_its_loggers_run(
    otfkd_command: Command, overrides: list[str], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where the first job fails."""
    import wandb

    with monkeypatch.context() as patched:
        patched.setattr(otfkd.training.train, "dev_score", lambda *_: 1 / 0)
        assert otfkd_command("train", *overrides, *SHORT, "logger=wandb").code == 1
    assert wandb.run is None
    assert otfkd_command("train", *overrides, *SHORT, "logger=wandb", "seed=1").code == 0
    assert len({run_id for run_id, *_ in sent}) == 2


def test_b26_a_sweep_cannot_be_continued(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash the whole sweep is launched again by hand, over what was finished."""
    sweep = ("train", "-m", *overrides, *SHORT, "seed=0,1,2,3")
    jobs = iter(range(4))

    def third(*_: Any) -> Any:
        if next(jobs) == 2:
            return contextlib.nullcontext(lambda: True)
        return stop_flag()

    monkeypatch.setattr(otfkd.training.train, "stop_flag", third)
    stopped = otfkd_command(*sweep)
    assert (stopped.code, stopped.err.splitlines()[-1]) == (
        130, "otfkd: stopped after step 1; the same command goes on from there; 1 jobs were not begun (seed=3)",
    )  # fmt: skip
    (runs,) = (tmp_path / "runs" / "simcse").iterdir()
    states = {folder.name: (folder / "results.jsonl").exists() for folder in runs.glob("s?")}
    assert states == {"s0": True, "s1": True, "s2": False}
    before = {path: path.stat().st_mtime_ns for seed in ("s0", "s1") for path in (runs / seed).rglob("*")}
    monkeypatch.setattr(otfkd.training.train, "stop_flag", stop_flag)
    again = otfkd_command(*sweep)
    assert again.code == 0
    assert [again.out.count(f"\n{word}: ") for word in ("skipped", "finished")] == [2, 2]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert ["resuming after step 1" in (runs / seed / "run.log").read_text() for seed in ("s2", "s3")] == [True, False]
    assert sorted(folder.name for folder in runs.glob("s?")) == ["s0", "s1", "s2", "s3"]


def test_b26_edits_of_config_files_reach_jobs_that_wait(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of a sweep reads the config files when its turn comes, whatever they say by then."""
    conf = Path(shutil.copytree(otfkd.config.groups.conf_dir(), tmp_path / "conf"))
    for module in (otfkd.config.groups, otfkd.cli.common):
        monkeypatch.setattr(module, "conf_dir", lambda: conf)
    file, used = conf / "objective" / "base.yaml", []

    def edit(config: Config, *_: Any) -> Any:
        used.append((config.seed, config.objective.temperature))
        file.write_text(file.read_text().replace("\ntemperature: 0.05", "\ntemperature: 0.5"))
        return train(config)

    monkeypatch.setattr(otfkd.training.train, "train", edit)
    assert otfkd_command("train", "-m", *overrides, *SHORT, "seed=0,1").code == 0
    assert "\ntemperature: 0.5" in file.read_text()
    assert used == [(0, 0.05), (1, 0.05)]


def test_b27_what_a_launcher_sends_cannot_be_pickled() -> None:
    """Launchers of parallel jobs pickle the entry point, and module-level objects are in its way."""
    for entry in (otfkd.cli.train.task, otfkd.cli.evaluate.task, train):
        assert pickle.loads(pickle.dumps(entry)) is entry


def test_b28_relative_paths_break_when_the_folder_changes(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path means the folder of the job rather than the one the command was started in."""
    here = tmp_path / "here"
    here.mkdir()
    shutil.copy(corpus_file, here / "corpus.txt")
    monkeypatch.chdir(here)
    relative = [text for text in overrides if not text.startswith(("data.path", "paths."))]
    run = (*relative, *SHORT, "data.path=corpus.txt", "paths.runs=runs", "paths.cache=cache")
    assert otfkd_command("train", *run).code == 0
    assert otfkd_command("train", "-m", *run, "seed=0,1").code == 0
    assert sorted(path.name for path in (here / "runs" / "simcse").glob("*/s?")) == ["s0", "s1"]
    assert {path.name for path in here.iterdir()} == {"corpus.txt", "runs", "cache"}


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_b28_mistyped_keys_are_accepted_and_ignored(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    """A key that nobody reads, added with '+' or below a free-form node, changes nothing and is not refused."""
    monkeypatch.setattr(otfkd.training.train, "prepare", lambda *_: pytest.fail("a model was looked for"))
    wrong = {
        "schedule.evry=3": "the nearest valid key is 'schedule.every'",
        "trainer.precision=16": "the nearest valid key is 'precision'",
        "optimizer.args.betas=1": "unknown key 'optimizer.args.betas'",
    }
    for text, told in wrong.items():
        assert_refused(otfkd_command("train", *overrides, f"{sign}{text}"), told)
    assert not (tmp_path / "runs").exists()


def test_b25_two_identical_commands_write_into_one_folder(configure: Callable[..., Config], tmp_path: Path) -> None:
    """Two commands that are started at once share a folder and overwrite each other's files."""
    config, started, seen = configure("trainer.max_steps=3"), tmp_path / "started", tmp_path / "seen"
    child = os.fork()
    if child == 0:
        code = 1

        def slow(*given: Any) -> float:
            started.touch()
            wait_for(seen)
            return dev_score(*given)

        try:
            otfkd.training.train.dev_score = slow  # type: ignore[attr-defined, assignment]
            code = 0 if train(config).status == "finished" else 1
        finally:
            os._exit(code)
    wait_for(started)
    (folder,) = tmp_path.glob("runs/simcse/*/s0")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"another process is training in {folder}: wait for it"):
        train(config)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    seen.touch()
    assert os.waitpid(child, 0)[1] == 0
    assert train(config).status == "skipped"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_b27_ranks_have_different_teachers(configure: Callable[..., Config], tmp_path: Path) -> None:
    """Each process saves, looks up and loads snapshots by itself, and they end with different ones."""

    def part() -> Any:
        recorder = Recorder()
        slots: dict[int, list[str]] = {}
        with joined_by(recorder):
            result = train(configure("experiment=otfkd", "schedule.every=2", "trainer.max_steps=5", TWO))
        for step, members in recorder.members.items():
            slots[step] = [fingerprint(member) for member in members]
        return result.folder, slots

    (folder, first), (other, second) = in_processes(2, tmp_path / "answers", part)
    assert (folder, first) == (other, second)
    assert [len(first[step]) for step in range(6)] == [0, 0, 1, 1, 1, 1]
    assert len({first[2][0], first[4][0]}) == 2
    assert {path.name for path in (folder / "snapshots").iterdir()} == {
        "step-00000002.safetensors", "step-00000004.safetensors",
    }  # fmt: skip
    assert len(list((tmp_path / "runs" / "otfkd").glob("*/s*"))) == 1


def fingerprint(weights: dict[str, Tensor]) -> str:
    holder = torch.nn.Module()
    for number, tensor in enumerate(weights.values()):
        holder.register_buffer(str(number), tensor)
    return hash_weights(holder)
