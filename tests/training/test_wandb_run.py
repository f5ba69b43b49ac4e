"""A run in W&B, read back from the file that `wandb sync` would send."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml  # type: ignore[import-untyped]
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from wandb.sdk.lib.config_util import save_config_file_from_dict

import otfkd.training.train
import otfkd.training.wandb_run
from otfkd.base.errors import Interrupted, UserError
from otfkd.config.composition import load_config
from otfkd.config.schema import Config
from otfkd.distill.rotation import TeacherRotation
from otfkd.runs.folder import RunFolder
from otfkd.training.run import prepare
from otfkd.training.train import train
from otfkd.training.wandb_run import WandbRun, _known, adopt, run_name, send_files
from tests.support.commands import Command
from tests.support.killing import arm, fork_and_train, killed
from tests.support.logged import points_of, warnings
from tests.support.offline_wandb import Kept, read_offline
from tests.support.resuming import stop_after
from tests.support.variants import OTFKD

Configure = Callable[..., Config]
WANDB = (*OTFKD, "logger=wandb", "trainer.checkpoint_every=3")
OWN = {"_step", "_timestamp", "_runtime"}


@pytest.fixture(autouse=True)
def _service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Whoever runs the tests has no account or sweep, and no service outlives a test or is there before it."""
    wandb.teardown()  # a child that is killed would leave its run with the service of an earlier test
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name, raising=False)
    yield
    wandb.teardown()


def history(kept: Kept) -> dict[int, dict[str, float]]:
    """The points by step, each of which is there once."""
    steps = [row["_step"] for row in kept.history]
    assert steps == sorted(set(steps))
    return {row["_step"]: {name: value for name, value in row.items() if name not in OWN} for row in kept.history}


@pytest.mark.slow
def test_a_killed_and_resumed_run_is_one_run_with_every_point_once(configure: Configure) -> None:
    config = configure(*WANDB, "logger.tags=[thesis]")
    assert killed(fork_and_train(config, lambda: arm((TeacherRotation, "_rotate", "before"), 2)))  # after step 8
    (runs,) = Path(config.paths.runs).glob("otfkd/*/s0")
    (first,) = (runs / "wandb").glob("offline-run-*")
    folder = train(config).folder
    kept = read_offline(folder)
    assert history(kept) == points_of(folder)
    assert sorted(history(kept)) == list(range(1, 13))
    assert kept.exit_code == 0
    assert first.name.endswith(kept.facts.run_id)
    name, digest = folder.parts[-3:-1]
    assert (kept.facts.project, kept.facts.run_group, kept.facts.job_type) == ("otfkd", f"{name}/{digest}", "train")
    assert list(kept.facts.tags) == ["otfkd", Path(config.model.path).name, "text", "every", "thesis"]


def test_the_config_is_nested_as_ours_beside_plan_and_provenance(configure: Configure) -> None:
    asked = configure(*WANDB)
    folder = train(asked).folder
    kept = read_offline(folder)
    config = {name: value for name, value in kept.config.items() if name != "_wandb"}
    assert config.pop("config_hash") == folder.parent.name
    assert config.pop("plan") == {"steps": 12, "rotations": [4, 8], "follows": None, "passes": prepare(asked).passes}
    written = RunFolder(folder).read_provenance()
    assert written is not None and written.environment["versions"] and written.fingerprints
    assert config.pop("provenance") == {"fingerprints": written.fingerprints, "environment": written.environment}
    assert config == asked.model_dump(mode="json")
    assert (config["schedule"]["every"], config["schedule"]["ema"]["decay"], config["teacher"]["path"]) == (
        4, 0.999, None,
    )  # fmt: skip
    assert kept.facts.display_name.startswith("otfkd ") and kept.facts.display_name.endswith(" seed=0")
    assert kept.facts.run_group == f"otfkd/{folder.parent.name}"


def test_rotations_have_an_axis_of_their_own(configure: Configure) -> None:
    kept = read_offline(train(configure(*WANDB)).folder)
    assert kept.axes["rotation/*"] == "rotation/generation"
    rotated = [row for row in kept.history if "rotation/generation" in row]
    seen = [[row[name] for name in ("_step", "rotation/step", "rotation/generation")] for row in rotated]
    assert seen == [[4, 4, 1], [8, 8, 2]]
    assert all({"rotation/lr", "rotation/agreement_after"} <= row.keys() for row in rotated)


def test_a_run_is_named_by_what_is_not_its_experiments_default(configure: Configure, tmp_path: Path) -> None:
    def name(*overrides: str) -> str:
        return run_name(replace(run, config=load_config([*overrides, f"paths.runs={tmp_path}"])))

    run = prepare(configure(*WANDB))
    assert name("experiment=otfkd") == "otfkd seed=0"
    assert name("experiment=otfkd", "schedule.every=50", "seed=3") == "otfkd schedule.every=50 seed=3"
    assert name("experiment=otfkd", "name=mine").startswith("mine ")
    assert name("experiment=otfkd", "name=mine").endswith(" seed=0")
    other = "a" * 200
    long = name("experiment=otfkd", f"model={other}", "model.pooler=cls", "seed=3")
    assert len(long) < 128
    assert long.startswith("otfkd model.path=aaa") and long.endswith(" seed=3")


def test_each_job_of_a_sweep_is_a_run(configure: Configure) -> None:
    folders = [train(configure(*WANDB, f"seed={seed}")).folder for seed in (0, 1)]
    kept = [read_offline(folder) for folder in folders]
    assert [one.config["seed"] for one in kept] == [0, 1]
    assert [history(one) for one in kept] == [points_of(folder) for folder in folders]
    assert kept[0].facts.run_group == kept[1].facts.run_group
    assert wandb.run is None


def test_fine_tuning_is_a_job_of_its_own_type(configure: Configure, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sentence1,sentence2,score\n" + "the cat sat,the dog ran,1.5\na bird flew,a bird flew,5.0\n" * 8)
    run = prepare(configure("experiment=finetune_stsb", "data=labelled", f"data.path={pairs}", "logger=wandb"))
    WandbRun(run, resumed=False).finalize("success")
    assert read_offline(run.folder.path).facts.job_type == "finetune"


@pytest.mark.parametrize("broken", ["dev_score", "score_rows"])
def test_a_run_that_fails_is_closed_as_failed(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(otfkd.training.train, broken, fail)
    config = configure(*WANDB)
    with pytest.raises(RuntimeError, match="broken"):
        train(config)
    (folder,) = Path(config.paths.runs).glob("otfkd/*/s0")
    kept = read_offline(folder)
    assert kept.exit_code == 1
    assert max(history(kept)) == (3 if broken == "dev_score" else 12)


def test_the_same_config_in_another_folder_is_another_run(configure: Configure, tmp_path: Path) -> None:
    first, second = (prepare(configure(*WANDB, f"paths.runs={tmp_path / name}")) for name in "ab")
    assert _known(first) == _known(first) != _known(second)
    assert _known(second).id.startswith(f"{second.hash}-s0-")


AGENT = {"WANDB_RUN_ID": "ab12cd34", "WANDB_SWEEP_ID": "sw33p"}


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[dict[str, Any]], list[str]]:
    """Do what `wandb agent` does for a run of the sweep that docs/usage.md shows; gives the arguments."""
    page = (Path(__file__).parents[2] / "docs" / "usage.md").read_text()
    (sweep,) = map(yaml.safe_load, re.findall(r"^```yaml\n(method: .*?)^```$", page, re.MULTILINE | re.DOTALL))

    def begin(values: dict[str, Any]) -> list[str]:
        assert values.keys() == sweep["parameters"].keys()
        chosen = {name: {"value": value} for name, value in values.items()}
        save_config_file_from_dict(str(tmp_path / "params.yaml"), chosen)
        for name, value in {**AGENT, "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "params.yaml")}.items():
            monkeypatch.setenv(name, value)
        words = create_sweep_command_args({"args": chosen})
        parts = [words[part[2:-1]] if part.startswith("${") else [part] for part in sweep["command"]]
        program, *arguments = [word for part in parts for word in part]
        assert program == "otfkd-train"
        return arguments

    return begin


def test_a_run_of_wandb_agent_is_one_run_with_the_id_of_its_sweep(
    agent: Callable[..., list[str]], overrides: list[str], otfkd_command: Command, tmp_path: Path
) -> None:
    arguments = agent({"optimizer.lr": 0.002, "objective.kd_weight": 0.5})
    done = otfkd_command("train", *arguments, *overrides[:-3], *overrides[-2:], "schedule.every=4")
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "runs").glob("otfkd/*/s0")
    kept = read_offline(folder)
    assert (kept.facts.run_id, kept.facts.sweep_id) == ("ab12cd34", "sw33p")
    assert history(kept) == points_of(folder)
    assert "dev/average" in history(kept)[12]  # which the page has the sweep maximise
    # As the sweep knows them, beside what a run's own config says.
    assert (kept.config["optimizer.lr"], kept.config["optimizer"]["lr"]) == (0.002, 0.002)
    assert (kept.config["objective.kd_weight"], kept.config["objective"]["kd_weight"]) == (0.5, 0.5)


def test_a_run_of_a_sweep_goes_on_as_that_run_wherever_it_is_resumed(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        for name, value in AGENT.items():
            patched.setenv(name, value)
        stop_after(patched, 7)
        with pytest.raises(Interrupted):
            train(configure(*WANDB))
    wandb.teardown()  # it reads the environment once a process
    folder = train(configure(*WANDB)).folder
    kept = read_offline(folder)
    assert (kept.facts.run_id, kept.facts.sweep_id) == ("ab12cd34", "sw33p")
    assert history(kept) == points_of(folder)


def test_another_id_than_a_resumed_runs_own_is_refused(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        stop_after(patched, 7)
        with pytest.raises(Interrupted):
            train(configure(*WANDB))
    (folder,) = Path(configure().paths.runs).glob("otfkd/*/s0")
    own = (folder / "wandb" / "id").read_text()
    monkeypatch.setenv("WANDB_RUN_ID", "another")
    with pytest.raises(UserError, match=f"^{folder} is the W&B run {own}, and WANDB_RUN_ID=another names another: "):
        train(configure(*WANDB))
    assert (folder / "wandb" / "id").read_text() == own
    monkeypatch.setenv("WANDB_RUN_ID", own)
    assert train(configure(*WANDB)).status == "finished"
    assert read_offline(folder).facts.run_id == own


def test_an_id_is_of_one_run(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    first = prepare(configure("logger=wandb"))
    adopt(first, resumed=False)
    adopt(first, resumed=True)
    assert _known(first) == ("mine", "")
    first.folder.provenance_file.write_text('{"config_hash": ""}')
    other = prepare(configure("logger=wandb", "seed=1"))
    with pytest.raises(UserError, match=f"^WANDB_RUN_ID=mine is the W&B run of {first.folder} already: unset it"):
        adopt(other, resumed=False)
    monkeypatch.setenv("WANDB_RUN_ID", "hers")
    adopt(other, resumed=False)
    monkeypatch.setenv("WANDB_RUN_ID", "his")  # of the first attempt nothing was kept
    adopt(other, resumed=False)
    assert _known(other).id == "his"


def test_a_sweep_without_a_runs_id_is_honoured(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw33p")
    folder = train(configure(*WANDB)).folder
    kept = read_offline(folder)
    assert (kept.facts.run_id, kept.facts.sweep_id) == tuple((folder / "wandb" / "id").read_text().splitlines())
    assert kept.facts.sweep_id == "sw33p"


def test_an_outage_at_the_start_stops_nothing(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(**_: Any) -> None:
        raise wandb.Error("no service")

    monkeypatch.setattr(wandb, "init", down)
    assert train(configure(*WANDB)).status == "finished"
    assert warnings(caplog) == ["W&B failed (no service), and the run goes on without it"]
    lost = "W&B lost 12 of 12 points (no service): metrics.jsonl and rotations.jsonl have them all"
    assert lost in caplog.messages


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the service as Linux shows it")
def test_a_service_that_dies_stops_nothing_and_the_next_job_has_a_new_one(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scores = iter(range(1, 100))

    def kill_service(*_: Any) -> float:
        score = next(scores)
        if score == 2:  # after step 6
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                if "wandb-core" in Path(f"/proc/{child}/cmdline").read_text():
                    os.kill(int(child), signal.SIGKILL)
                    os.waitpid(int(child), 0)
        return float(score)

    monkeypatch.setattr(otfkd.training.train, "dev_score", kill_service)
    assert train(configure(*WANDB)).status == "finished"
    assert any("of 12 points" in line for line in caplog.messages)
    after = train(configure(*WANDB, "seed=1")).folder
    assert history(read_offline(after)) == points_of(after)


@pytest.mark.slow
def test_a_server_that_does_not_answer_makes_the_run_an_offline_one(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(otfkd.training.wandb_run, "_PATIENCE", 1.0)
    folder = train(configure(*WANDB, "logger.offline=false")).folder
    assert history(read_offline(folder)) == points_of(folder)
    (told,) = warnings(caplog)
    assert told.startswith("W&B cannot be reached (")
    assert told.endswith("), so the run is kept offline")


def test_without_an_account_the_run_is_an_offline_one(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    folder = train(configure(*WANDB, "logger.offline=false")).folder
    assert history(read_offline(folder)) == points_of(folder)
    assert "wandb login" in warnings(caplog)[0]


def test_on_the_server_a_run_goes_on_after_its_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    run = WandbRun.__new__(WandbRun)
    run._run = SimpleNamespace(starting_step=5, log=lambda values, step, commit: sent.append(step))
    for step in (3, 4, 5, 6):
        run.log_metrics({"loss": 1.0}, step)
    assert sent == [5, 6]


def test_what_could_not_be_sent_in_time_can_be_sent_later() -> None:
    def late(code: int) -> None:
        raise TimeoutError("Timed out finishing run.")

    run = WandbRun.__new__(WandbRun)
    run._run = SimpleNamespace(dir="/runs/s0/wandb/run-7/files", finish=late)
    with pytest.raises(TimeoutError, match=r"in 120 s, `wandb sync /runs/s0/wandb/run-7` sends the rest"):
        run.finalize("success")


def test_files_become_an_artifact(tmp_path: Path, configure: Configure) -> None:
    config = configure("logger=wandb").logger
    send_files(config, tmp_path, "tables-mini", {"main.md": "| a |", "report.html": "<p>"})
    kept = read_offline(tmp_path)
    assert kept.artifacts == {"tables-mini": ["main.md", "report.html"]}
    assert (kept.facts.job_type, kept.exit_code) == ("report", 0)


def test_an_artifact_that_is_not_taken_is_said(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(**_: Any) -> None:
        raise wandb.Error("no service")

    monkeypatch.setattr(wandb, "init", down)
    send_files(configure("logger=wandb").logger, tmp_path, "tables-mini", {"main.md": ""})
    assert warnings(caplog) == ["W&B did not take the artifact tables-mini (no service)"]
