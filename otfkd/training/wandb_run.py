"""A run in Weights & Biases: one a run's folder, offline unless told otherwise, rebuilt whole when training resumes."""

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from otfkd.base.errors import UserError, first_line
from otfkd.base.files import write_text
from otfkd.config.differences import differences, in_short
from otfkd.config.logger import LoggerConfig
from otfkd.runs.folder import RunFolder, find_runs, run_of
from otfkd.training.run import Run

log = logging.getLogger("otfkd")

_LONGEST = 90  # characters for what a run's name says of its settings: W&B takes 128 in all
_PATIENCE = 120.0  # seconds to wait for W&B's answer, and at the end for what is still to be sent


class WandbRun:
    """Points go in as history, one row an optimizer step; rotations have an axis of their own, the generation.

    W&B cannot resume an offline run, and of several with one id the last to be synced replaces the others. So an
    offline run starts empty and is given all points again; on the server a run goes on after its last step.
    """

    def __init__(self, run: Run, *, resumed: bool):
        config, known = run.config, _known(run)
        for earlier in run.folder.logger("wandb").glob("offline-run-*"):
            shutil.rmtree(earlier)
        self._run = _open(
            config.logger, run.folder.path, known.sweep,
            id=known.id, name=run_name(run), group=f"{config.name}/{run.hash}",
            job_type="train" if config.objective.supervised is None else "finetune", tags=_tags(run),
            config=_facts(run),
            resume="allow" if resumed else None,
        )  # fmt: skip
        if self._run.id != known.id:  # in a sweep, W&B draws it where the environment does not name it
            _keep(run, known._replace(id=self._run.id))
        self._run.define_metric("dev", summary="max,last")
        self._run.define_metric("rotation/*", step_metric="rotation/generation")

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if step >= self._run.starting_step:  # the server has the earlier ones
            self._run.log(metrics, step=step, commit=True)

    def finalize(self, status: str) -> None:
        _finish(self._run, 0 if status == "success" else 1)


def send_files(config: LoggerConfig, folder: Path, name: str, files: Mapping[str, str]) -> None:
    """Keep files as an artifact of a run of its own; where W&B fails, that is said.

    Args:
        config: the project, and whether to send anything.
        folder: gets the local copy.
        name: of the artifact.
        files: names and texts.
    """
    import wandb

    try:
        run = _open(config, folder, name=name, group="tables", job_type="report", tags=config.tags)
        artifact = wandb.Artifact(name, type="report")
        for file, text in files.items():
            with artifact.new_file(file, encoding="utf-8") as written:
                written.write(text)
        run.log_artifact(artifact)
        _finish(run, 0)
    except Exception as error:
        _forget()
        log.warning("W&B did not take the artifact %s (%s)", name, first_line(error))


def run_name(run: Run) -> str:
    """The experiment, what is not its default, and the seed; a config that no experiment is like has its hash."""
    differing = differences(run.config)
    told = run.hash if differing is None else in_short(differing)
    if len(told) > _LONGEST:
        told = f"{told[:_LONGEST].rstrip()}... {run.hash}"
    return " ".join(filter(None, (run.config.name, told, f"seed={run.config.seed}")))


def _facts(run: Run) -> dict[str, Any]:
    """The config with the names it has in a command, W&B joining them by dots; beside it, what else a reader needs."""
    origin = run.folder.read_provenance()
    plan = {
        "steps": run.plan.max_steps, "rotations": sorted(run.plan.rotate), "follows": run.plan.follows,
        "passes": run.passes,
    }  # fmt: skip
    return {
        **run.config.model_dump(mode="json"),
        "config_hash": run.hash,
        "plan": plan,
        "provenance": {} if origin is None else origin.model_dump(include={"fingerprints", "environment"}),
    }


class _Known(NamedTuple):
    """What W&B knows a run by; it stays in the run's folder."""

    id: str
    sweep: str = ""


def adopt(run: Run, *, resumed: bool) -> None:
    """Have a run be the W&B run that the environment names, as `wandb agent` does for each run of a sweep.

    Args:
        run: the run.
        resumed: whether it goes on from a checkpoint, and so is a W&B run already.

    Raises:
        UserError: it is another W&B run already, or that one is another run's.
    """
    named = os.environ.get("WANDB_RUN_ID")
    kept = _kept(run.folder)
    if not named or (kept is not None and kept.id == named):
        return
    if kept is not None and resumed:
        raise UserError(
            f"{run.folder} is the W&B run {kept.id}, and WANDB_RUN_ID={named} names another: unset WANDB_RUN_ID to go "
            "on with it, or start anew with fresh=true"
        )
    for other in find_runs(Path(run.config.paths.runs)):
        if (known := _kept(other)) is not None and known.id == named:
            raise UserError(f"WANDB_RUN_ID={named} is the W&B run of {other} already: unset it, or give another")
    _keep(run, _Known(named, os.environ.get("WANDB_SWEEP_ID", "")))


def _known(run: Run) -> _Known:
    """What a run's folder says, the id drawn once: the same config trained elsewhere is another run."""
    if (kept := _kept(run.folder)) is not None:
        return kept
    drawn = f"{run.hash}-s{run.config.seed}-{secrets.token_hex(4)}"
    return _keep(run, _Known(drawn, os.environ.get("WANDB_SWEEP_ID", "")))


def _kept(folder: RunFolder) -> _Known | None:
    path = folder.logger_id_file("wandb")
    return _Known(*path.read_text(encoding="utf-8").splitlines()) if path.is_file() else None


def _keep(run: Run, known: _Known) -> _Known:
    write_text(run.folder.logger_id_file("wandb"), "\n".join(filter(None, known)))
    return known


def _tags(run: Run) -> list[str]:
    config = run.config
    backbone = [Path(config.model.path).name] if run_of(run.model) is None else []
    found = (config.name, *backbone, config.data.source, config.schedule.trigger, *config.logger.tags)
    return [tag[:64] for tag in dict.fromkeys(found)]  # W&B takes no longer ones, and none twice


def _open(logger: LoggerConfig, folder: Path, sweep: str = "", **facts: Any) -> Any:
    """A new W&B run, perhaps of a sweep; one that should be online is kept offline where W&B cannot be reached."""
    folder.mkdir(parents=True, exist_ok=True)
    if not logger.offline:
        try:
            run = _init(logger, folder, sweep, "online", **facts)
            log.info("W&B: %s", run.url)
            return run
        except Exception as error:
            log.warning("W&B cannot be reached (%s), so the run is kept offline", first_line(error))
    run = _init(logger, folder, sweep, "offline", **facts)
    log.info("W&B, offline: `wandb sync %s` sends it", Path(run.dir).parent)
    return run


def _init(logger: LoggerConfig, folder: Path, sweep: str, mode: Literal["online", "offline"], **facts: Any) -> Any:
    import wandb

    settings = wandb.Settings(
        silent=True, console="off", init_timeout=_PATIENCE, finish_timeout=_PATIENCE, finish_timeout_raises=True,
        **({"sweep_id": sweep} if sweep else {}),
    )  # fmt: skip
    try:
        # A new one, whatever runs this process has: the next job of a sweep must not continue this one.
        return wandb.init(
            project=logger.project, dir=folder, mode=mode, reinit="create_new", settings=settings, **facts
        )
    except Exception:
        _forget()
        raise


def _finish(run: Any, exit_code: int) -> None:
    kept = Path(run.dir).parent
    try:
        run.finish(exit_code)
    except TimeoutError:
        raise TimeoutError(f"not all was sent in {_PATIENCE:g} s, `wandb sync {kept}` sends the rest") from None
    except Exception:
        _forget()
        raise


def _forget() -> None:
    """End W&B's service, which may be dead and may hold an id that it failed to open: the next run starts another."""
    import wandb

    with contextlib.suppress(ConnectionError):
        wandb.teardown()
