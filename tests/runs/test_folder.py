"""A run's folder: its state, its lock, and what its files say."""

import fcntl
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.config.schema import Config
from otfkd.runs.folder import RunFolder, find_runs, run_of
from otfkd.runs.origin import Provenance
from otfkd.runs.rotations import Follows, Refused, Rotated


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "otfkd" / "0123456789" / "s0")


def begin(run: RunFolder, config: Config) -> None:
    run.describe(config, "the plan", Provenance(config_hash="0123456789", seed=0, fingerprints={"suite": "5"}))


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_run_is_new_until_there_is_something_to_resume(run: RunFolder, configure: Callable[..., Config]) -> None:
    states = [run.state]
    begin(run, configure())
    states.append(run.state)
    touch(run.last_checkpoint)
    states.append(run.state)
    touch(run.results_file)
    assert [*states, run.state] == ["new", "new", "interrupted", "finished"]


def test_a_run_trains_while_its_lock_is_held_whatever_is_in_its_folder(run: RunFolder) -> None:
    with run.held():
        states = [run.state]
        touch(run.last_checkpoint)
        states.append(run.state)
    assert [*states, run.state] == ["training", "training", "interrupted"]


def test_the_lock_of_another_process_is_seen(run: RunFolder) -> None:
    code = (
        "import sys, pathlib; from otfkd.runs.folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).held(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        held = run.state
        with pytest.raises(UserError, match=f"another process is training in {run}"), run.held():
            pass
        other.communicate("")
    assert (held, run.state) == ("training", "new")


def test_whoever_asks_for_the_state_keeps_nobody_from_the_run(run: RunFolder) -> None:
    with run.held():
        pass
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            assert run.state in ("new", "training")

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        for _ in range(300):  # without patience one of them finds the lock held
            with run.held():
                pass
    finally:
        over.set()
        asker.join()


def test_of_two_who_ask_neither_takes_the_other_for_a_training(run: RunFolder) -> None:
    with run.held():
        pass
    (lock,) = run.path.parent.glob(".*.lock")
    with lock.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert run.state == "new"


def test_a_fresh_start_keeps_the_old_folder_aside(run: RunFolder) -> None:
    for number in (1, 2):
        touch(run.results_file)
        with run.held(fresh=True):
            assert not run.path.exists()
        kept = RunFolder(run.path.with_name(f"s0.kept-{number}"))
        assert kept.state == "kept aside"
        assert kept.results_file.is_file()


@pytest.mark.parametrize("deleted", [1, 2])
def test_a_fresh_start_takes_a_number_above_all_there_are(run: RunFolder, deleted: int) -> None:
    """Whichever kept folder was deleted by hand; the names beside the numbers are a user's."""
    touch(run.path.with_name("s0.kept-thesis") / "notes.txt")
    for number in (1, 2, 3):
        touch(run.metrics_file)
        run.metrics_file.write_text(str(number))
        with run.held(fresh=True):
            pass
    shutil.rmtree(run.path.with_name(f"s0.kept-{deleted}"))
    for number in (4, 5):
        touch(run.metrics_file)
        run.metrics_file.write_text(str(number))
        with run.held(fresh=True):
            pass
    kept = {path.name: [one.name for one in path.iterdir()] for path in run.path.parent.glob("s0.kept-?")}
    left = {1, 2, 3, 4, 5} - {deleted}
    assert kept == {f"s0.kept-{number}": [run.metrics_file.name] for number in left}
    for number in left:
        assert (run.path.with_name(f"s0.kept-{number}") / run.metrics_file.name).read_text() == str(number)


def test_holding_a_folder_deletes_no_hidden_folder_of_a_user(run: RunFolder) -> None:
    own = {".notes.20241129/a", ".cache.old/b", "model/.git.abcd1234/c"}
    for name in own:
        touch(run.path / name)
    with run.held():
        pass
    assert {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()} == own


def test_runs_are_found_but_for_those_kept_aside(run: RunFolder, configure: Callable[..., Config]) -> None:
    other = RunFolder(run.path.with_name("s1"))
    for one in (other, run):
        begin(one, configure())
    with run.held(fresh=True):
        begin(run, configure())
    assert find_runs(run.path.parents[2]) == [run, other]
    assert find_runs(run.path) == [run]
    kept = run.path.with_name("s0.kept-1")
    assert find_runs(kept) == [RunFolder(kept)]  # whoever names it means it


def test_only_the_exported_model_is_a_runs(run: RunFolder, configure: Callable[..., Config]) -> None:
    assert run_of(run.model) is None
    begin(run, configure())
    assert run_of(run.model) == run
    assert run_of(run.snapshots) is None


def test_what_is_written_is_read_back(run: RunFolder, configure: Callable[..., Config]) -> None:
    config = configure("experiment=otfkd")
    begin(run, config)
    assert run.read_config() == config
    assert run.read_plan() == "the plan\n"
    assert run.read_provenance() == Provenance(config_hash="0123456789", seed=0, fingerprints={"suite": "5"})
    assert run.read_rows() == []
    run.metrics_file.write_text('{"step": 1, "loss": 2.0}\n{"step": 1, "dev": 70.0}\n{"step": 2, "dev": 71.5}\n')
    assert run.read_dev_scores() == {1: 70.0, 2: 71.5}
    assert run.read_metrics()[0] == (1, {"loss": 2.0})


def test_each_kind_of_rotation_record_is_read_as_what_it_is(run: RunFolder) -> None:
    records = [
        Rotated(step=4, generation=1, snapshot="step-00000004", snapshot_step=4, sha256="a", lr=0.1, kl_after=0.5),
        Refused(step=8, reason="dev 1.00 is more than 0 below the teacher's 2.00"),
        Follows(step=9, generation=1),
    ]
    touch(run.rotations_file)
    run.rotations_file.write_text("".join(json.dumps(record.line()) + "\n" for record in records))
    assert run.read_rotations() == records
    # What was not written is unknown, which is not the same as having no value.
    assert "kl_before" not in run.read_rotations()[0].model_fields_set


def test_a_line_of_a_version_without_events_is_a_rotation(run: RunFolder) -> None:
    touch(run.rotations_file)
    run.rotations_file.write_text('{"step": 4, "generation": 1}\n')
    assert run.read_rotations() == [Rotated(step=4, generation=1)]


def test_an_older_config_is_unknown_section_by_section(run: RunFolder, configure: Callable[..., Config]) -> None:
    config = configure("experiment=otfkd")
    begin(run, config)
    old = run.config_file.read_text().replace("kd_weight", "distillation_weight")
    run.config_file.write_text(old)
    stored = run.read_stored_config()
    assert stored.objective is None
    assert (stored.name, stored.model, stored.teacher, stored.data) == (
        config.name, config.model, config.teacher, config.data
    )  # fmt: skip
    with pytest.raises(UserError, match=r"is of another version of otfkd \(its objective\."):
        run.read_config()


def test_a_folder_without_files_says_nothing(run: RunFolder) -> None:
    assert run.read_provenance() is None
    assert run.read_stored_config().model_dump(exclude_none=True) == {}
    assert (run.read_metrics(), run.read_rotations(), run.read_timings(), run.read_plan()) == ([], [], [], "")


def test_only_this_module_spells_the_names_of_a_runs_files() -> None:
    import otfkd

    package = Path(otfkd.__file__).parent
    names = (
        "config.yaml", "plan.txt", "provenance.json", "metrics.jsonl", "rotations.jsonl", "timings.jsonl", "last.ckpt",
        "best.safetensors", "results.jsonl", "transfer.jsonl", ".kept-",
    )  # fmt: skip
    spelled = {
        str(path.relative_to(package)): name
        for path in package.rglob("*.py")
        for name in names
        if path != package / "runs" / "folder.py" and f'"{name}' in path.read_text()
    }
    assert spelled == {}
