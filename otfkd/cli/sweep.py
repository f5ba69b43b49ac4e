"""A sweep's jobs in whatever processes a launcher starts: one that fails is noted, and the others go on."""

import contextlib
import functools
import importlib.metadata
import json
import logging
import multiprocessing
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from otfkd.base.errors import Interrupted, UserError, exits_as_errors, first_line, refusals_as_user_errors
from otfkd.base.files import write_text
from otfkd.base.logs import log_to_terminal
from otfkd.base.progress import Pace
from otfkd.base.signals import stop_flag
from otfkd.config.composition import usable
from otfkd.config.schema import Root
from otfkd.runs.failure import Failure, jobs_failed, told

log = logging.getLogger("otfkd")

# A launcher's package and the extra of otfkd that brings it.
_SLURM = ("hydra-submitit-launcher", "slurm")
_PACKAGES = {
    "joblib": ("hydra-joblib-launcher", "joblib"), "slurm": _SLURM, "submitit_slurm": _SLURM, "submitit_local": _SLURM
}  # fmt: skip
_NAMED = 5  # of the jobs that a sentence counts

# For the name of a sweep's folder; Hydra hands what was drawn on to the jobs.
OmegaConf.register_new_resolver("otfkd.draw", lambda: secrets.token_hex(3), use_cache=True, replace=True)


def check_launcher(overrides: Sequence[str], *, multirun: bool) -> None:
    """Refuse a launcher that cannot start anything here.

    Raises:
        UserError: there is no sweep, the launcher's package is not installed, or there is no Slurm.
    """
    launcher = _launcher(overrides)
    if launcher not in _PACKAGES:
        return
    package, extra = _PACKAGES[launcher]
    if not multirun:
        raise UserError(f"hydra/launcher={launcher} starts the jobs of a sweep: add -m, or leave it out")
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"hydra/launcher={launcher} needs {package}: install the extra with pip install 'otfkd[{extra}]'"
        ) from None
    if launcher in ("slurm", "submitit_slurm") and shutil.which("srun") is None:
        raise UserError(f"hydra/launcher={launcher} finds no srun: give the command on a machine that has Slurm")


def _launcher(overrides: Sequence[str]) -> str:
    named = [value for key, _, value in (text.partition("=") for text in overrides) if key == "hydra/launcher"]
    return named[-1] if named else "basic"


@contextlib.contextmanager
def frozen(groups: Sequence[Path], overrides: Sequence[str]) -> Iterator[Sequence[Path]]:
    """Copies of folders of config groups: Hydra reads them anew for each job of a sweep, and edits must not reach it.

    Slurm's jobs read the groups themselves, since what this machine copies is not there on another.
    """
    if _launcher(overrides) not in ("basic", "joblib"):
        yield groups
        return
    with tempfile.TemporaryDirectory() as copies:
        yield [Path(shutil.copytree(folder, Path(copies, str(number)))) for number, folder in enumerate(groups)]


class Sweep(Callback):
    """Learns from Hydra which folder a sweep has, which nobody else is told before a job begins, and which jobs.

    Attributes:
        jobs: the overrides of each job, in order; unknown where a sweeper thinks of them one after the other.
    """

    folder: ClassVar[Path | None] = None
    jobs: ClassVar[Sequence[Sequence[str]]] = ()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        Sweep.folder = Path(config.hydra.sweep.dir)
        sweeper = config.hydra.sweeper
        if sweeper._target_.endswith(".BasicSweeper"):
            parser = OverridesParser.create(GlobalHydra.instance().config_loader())
            given = [*(f"{key}={value}" for key, value in (sweeper.params or {}).items()), *config.hydra.overrides.task]
            (Sweep.jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(given), None)
        if "submitit_folder" in config.hydra.launcher:
            log.info("what the jobs say is in %s", Path(config.hydra.launcher.submitit_folder).parent)


class SweepTask:
    """A task as one job of a sweep, in the command's own process or in another one, on another machine perhaps.

    What ends it is noted in the sweep's folder rather than raised: launchers would give up the other jobs. That it
    began is noted too, for a process may be lost without a word.

    Args:
        task: what a job does.
        schema: what its config has to be.
        overrides: of the command line. A job must have a use for those that the sweep varies, and one of the jobs for
            those that they share.
        total: how many jobs there are, as far as that is known.
    """

    def __init__(self, task: Callable[[DictConfig], Any], schema: type[Root], overrides: Sequence[str], total: int = 0):
        functools.update_wrapper(self, task)
        self.task = task
        self.schema = schema
        self.launcher = _launcher(overrides)
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        self.swept = {override.key_or_group for override in parsed if override.is_sweep_override()}
        self.shared = {override.key_or_group for override in parsed} - self.swept
        self.total = total
        self.pace = Pace(total)
        self.here = True
        self.identity = secrets.token_hex(4)  # in the notes' names: a user may have named another sweep's folder

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "here": False}  # what is unpickled is in another process

    def __call__(self, composed: DictConfig) -> Any:
        write = functools.partial(self._write, composed)
        write("begun")
        try:
            if not self.here:
                log_to_terminal()
                if self.launcher == "joblib" and _told_to_stop()():
                    raise Interrupted("not begun, because a signal came")
            about = HydraConfig.get()
            # Elsewhere nobody knows how long the jobs before took.
            left = self.pace.left(about.job.num) if self.here and about.job.num < self.total else ""
            log.info("%s%s", self._counted(about.job.num, about.overrides.task), left)
            with refusals_as_user_errors(), exits_as_errors():
                used = usable(composed, self.schema, self.shared)
                write = functools.partial(self._write, used)
                result = self.task(used)
            write("done")
            return result
        except (Interrupted, KeyboardInterrupt) as error:
            write("interrupted", "" if self.here else str(error))
            if self.here:
                raise
        except Exception as error:
            failure = Failure.of(error)
            write(failure.kind, failure.reason)
        return None

    def _write(self, composed: DictConfig, kind: str, reason: str = "") -> None:
        about = HydraConfig.get()
        job = self._name(about.overrides.task, about.job.num)
        if reason:
            log.error("%s: %s", job, reason)
        note = Path(about.runtime.output_dir) / f"job-{self.identity}-{about.job.num}.json"
        config = OmegaConf.to_container(composed)
        write_text(note, json.dumps({"job": job, "kind": kind, "reason": reason, "config": config}))

    def _name(self, overrides: Sequence[str], number: int) -> str:
        own = [text for text in overrides if text.partition("=")[0].lstrip("+") in self.swept]
        return " ".join(own) or f"job {number}"

    def _counted(self, number: int, overrides: Sequence[str]) -> str:
        of = f" of {self.total}" if number < self.total else ""
        return f"job {number + 1}{of}: {self._name(overrides, number)}"

    def tell(self, jobs: Sequence[Sequence[str]], refusals: Sequence[str | None]) -> None:
        """Say before the first job begins which ones will fail, and why."""
        for number, (overrides, sentence) in enumerate(zip(jobs, refusals, strict=True)):
            if sentence is not None:
                log.error("%s cannot run: %s", self._counted(number, overrides), sentence)

    def states(self) -> list[dict[str, Any]]:
        """What is known of each job of the sweep, in order."""
        unknown = {
            number: {"job": self._name(overrides, number), "kind": "new"} for number, overrides in enumerate(Sweep.jobs)
        }
        notes = () if Sweep.folder is None else Sweep.folder.rglob(f"job-{self.identity}-*.json")
        noted = {int(note.stem.rpartition("-")[2]): json.loads(note.read_text()) for note in notes}
        return [state for _, state in sorted({**unknown, **noted}.items())]


_for_good = contextlib.ExitStack()


@functools.cache
def _told_to_stop() -> Callable[[], bool]:
    """The flag of a worker of joblib, which has many jobs: once up it stays up."""
    return _for_good.enter_context(stop_flag())


@contextlib.contextmanager
def _passing_on() -> Iterator[None]:
    """Pass a signal on to joblib's workers, which save themselves, rather than have joblib kill them."""
    told: list[int] = []

    def handle(number: int, _: object) -> None:
        workers = multiprocessing.active_children()
        if not workers or (number == signal.SIGINT and told):
            raise KeyboardInterrupt
        told.append(number)
        for worker in workers:
            worker.terminate()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def planned(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job that Hydra's own sweeper makes of a command line."""
    own = [text for text in overrides if not text.startswith(("hydra.", "hydra/"))]
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(own), None)
    return [list(job) for job in jobs]


def run_sweep(
    start: Callable[[SweepTask], None], job: SweepTask, ended: Callable[[Sequence[DictConfig]], None]
) -> None:
    """Let Hydra start every job, and say at the end which ones failed.

    Args:
        start: has Hydra do a job many times.
        job: what each of them does.
        ended: gets the composed configs of the jobs, in order, when every one has been tried.

    Raises:
        UserError: jobs failed, or a job's process was lost.
        RuntimeError: jobs failed, by a fault of ours.
        Interrupted: jobs were interrupted.
    """
    Sweep.folder, Sweep.jobs = None, ()
    try:
        with _passing_on() if job.launcher == "joblib" else contextlib.nullcontext():
            start(job)
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted("; ".join([str(error) or "interrupted", *_unfinished(job.states())])) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("joblib", "submitit"):
            raise
        lost = "; ".join([first_line(error).rstrip("."), *_unfinished(job.states())])
        raise UserError(f"the process of a job was lost ({lost}): give the same command again to go on") from None
    states = job.states()
    ended([OmegaConf.create(state["config"]) for state in states if "config" in state])
    _raise(states)


def _unfinished(states: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which jobs failed or have no end, where the whole sweep was broken off."""
    if failures := _failures(states):
        yield told(failures)
    for kind, what in (("begun", "did not end"), ("new", "were not begun")):
        if names := [state["job"] for state in states if state["kind"] == kind]:
            more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
            yield f"{len(names)} jobs {what} ({'; '.join([*names[:_NAMED], *more])})"


def _failures(states: Sequence[Mapping[str, Any]]) -> list[tuple[str, Failure]]:
    return [
        (state["job"], Failure(kind=state["kind"], reason=state["reason"]))
        for state in states
        if state["kind"] in ("users", "ours")
    ]


def _raise(states: Sequence[Mapping[str, Any]]) -> None:
    """Raise what the ends of the jobs add up to; one without an end is a failure of ours."""
    kinds = [state["kind"] for state in states]
    if interrupted := kinds.count("interrupted"):
        ended = f"{interrupted} jobs were interrupted; the same command goes on from there"
        raise Interrupted("; ".join([ended, *_unfinished(states)]))
    lost = {"begun": "its process was lost", "new": "never begun"}
    ends = [
        {**state, "kind": "ours", "reason": lost[state["kind"]]} if state["kind"] in lost else state for state in states
    ]
    if failures := _failures(ends):
        raise jobs_failed(failures)
