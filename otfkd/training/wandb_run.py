"""A run in Weights & Biases: one a run's folder, offline unless told otherwise, rebuilt whole when training resumes."""

import contextlib
import logging
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from otfkd.base.errors import first_line
from otfkd.base.files import write_text
from otfkd.config.differences import differences, in_short
from otfkd.config.logger import LoggerConfig
from otfkd.runs.folder import run_of
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
        config, identity = run.config, _identity(run)
        for earlier in run.folder.logger("wandb").glob(f"offline-run-*-{identity}"):
            shutil.rmtree(earlier)
        self._run = _open(
            config.logger, run.folder.path,
            id=identity, name=run_name(run), group=f"{config.name}/{run.hash}",
            job_type="train" if config.objective.supervised is None else "finetune", tags=_tags(run),
            config=_facts(run),
            resume="allow" if resumed else None,
        )  # fmt: skip
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


def _identity(run: Run) -> str:
    """The id of a run's folder, drawn once: the same config trained elsewhere is another run."""
    path = run.folder.logger_id_file("wandb")
    if not path.is_file():
        write_text(path, f"{run.hash}-s{run.config.seed}-{secrets.token_hex(4)}")
    return path.read_text(encoding="utf-8")


def _tags(run: Run) -> list[str]:
    config = run.config
    backbone = [Path(config.model.path).name] if run_of(run.model) is None else []
    found = (config.name, *backbone, config.data.source, config.schedule.trigger, *config.logger.tags)
    return [tag[:64] for tag in dict.fromkeys(found)]  # W&B takes no longer ones, and none twice


def _open(logger: LoggerConfig, folder: Path, **facts: Any) -> Any:
    """A new W&B run; one that should be online is kept offline where W&B cannot be reached."""
    folder.mkdir(parents=True, exist_ok=True)
    if not logger.offline:
        try:
            run = _init(logger, folder, "online", **facts)
            log.info("W&B: %s", run.url)
            return run
        except Exception as error:
            log.warning("W&B cannot be reached (%s), so the run is kept offline", first_line(error))
    run = _init(logger, folder, "offline", **facts)
    log.info("W&B, offline: `wandb sync %s` sends it", Path(run.dir).parent)
    return run


def _init(logger: LoggerConfig, folder: Path, mode: Literal["online", "offline"], **facts: Any) -> Any:
    import wandb

    settings = wandb.Settings(
        silent=True, console="off", init_timeout=_PATIENCE, finish_timeout=_PATIENCE, finish_timeout_raises=True
    )
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
