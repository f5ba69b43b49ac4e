"""A run's folder: every file name in it, its lock, the state it is in, and what its files say.

No other module spells a file name of a run.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from pydantic import ValidationError

from otfkd.base.errors import UserError, first_line
from otfkd.base.files import clear_unfinished, whole_lines, write_text
from otfkd.base.locks import is_held
from otfkd.config.schema import Config
from otfkd.config.stored import StoredConfig, read_settings
from otfkd.runs.origin import Provenance, Timing
from otfkd.runs.rotations import Follows, Refused, Rotated, read_record
from otfkd.runs.rows import Row, read_rows, write_rows

State = Literal["new", "training", "interrupted", "failed", "finished", "kept aside"]

METRICS = "metrics.jsonl"
ROTATIONS = "rotations.jsonl"
_KEPT = ".kept-"
_PROVENANCE = "provenance.json"
_PATIENCE = 0.5  # seconds for a lock: whoever asks for a run's state holds it for a moment


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; it need not be there yet.

    Attributes:
        path: where it is.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    # What is written once, before the first step.

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def plan_file(self) -> Path:
        return self.path / "plan.txt"

    @property
    def provenance_file(self) -> Path:
        return self.path / _PROVENANCE

    # What grows while a run goes on.

    @property
    def metrics_file(self) -> Path:
        return self.path / METRICS

    @property
    def rotations_file(self) -> Path:
        return self.path / ROTATIONS

    @property
    def timings_file(self) -> Path:
        return self.path / "timings.jsonl"

    def log_file(self, rank: int = 0) -> Path:
        """The messages of one process."""
        return self.path / (f"run.{rank}.log" if rank else "run.log")

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def last_checkpoint(self) -> Path:
        """What the run resumes from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best_student(self) -> Path:
        """The weights that dev prefers up to the last checkpoint."""
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def next_best_student(self) -> Path:
        """The weights that dev prefers since then, until a checkpoint names them."""
        return self.path / "checkpoints" / "best.next.safetensors"

    def logger(self, name: str) -> Path:
        """The files of a logger."""
        return self.path / name

    def logger_id_file(self, name: str) -> Path:
        """What a logger calls the run that keeps runs elsewhere too."""
        return self.logger(name) / "id"

    @property
    def failure_file(self) -> Path:
        """Why the last attempt failed; there until the next one begins."""
        return self.path / "failure.json"

    # What a finished run leaves.

    @property
    def model(self) -> Path:
        """The exported model that dev chose."""
        return self.path / "model"

    @property
    def checksums_file(self) -> Path:
        """The sha256 of each file of the exported model."""
        return self.path / "model.sha256"

    @property
    def results_file(self) -> Path:
        """The scores, written last: a run that has them is finished."""
        return self.path / "results.jsonl"

    @property
    def transfer_file(self) -> Path:
        """Transfer scores of the model, made when a table asks for them."""
        return self.path / "transfer.jsonl"

    def also_file(self, name: str, settings: str) -> Path:
        """Scores of the model on a further suite, by the suite's name and the hash of its settings."""
        return self.path / "also" / f"{name}-{settings}.jsonl"

    @property
    def finished(self) -> bool:
        return self.results_file.is_file()

    @property
    def state(self) -> State:
        """Where the run stands: `training` while a process holds its lock, `new` while there is nothing to resume."""
        if _KEPT in self.path.name:
            return "kept aside"
        if self.finished:
            return "finished"
        if is_held(self._lock_file):
            return "training"
        if self.failure_file.is_file():
            return "failed"
        return "interrupted" if self.last_checkpoint.is_file() else "new"

    @property
    def _lock_file(self) -> Path:
        return self.path.parent / f".{self.path.name}.lock"

    @contextlib.contextmanager
    def held(self, *, fresh: bool = False) -> Iterator[None]:
        """Hold the folder for one process, and clear what a killed one left half written in it.

        Args:
            fresh: move what an earlier run left to a name of its own first.

        Raises:
            UserError: another process holds it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._lock_file, timeout=_PATIENCE):
                if fresh:
                    self._set_aside()
                clear_unfinished(self.path)
                self.failure_file.unlink(missing_ok=True)
                yield
        except Timeout:
            raise UserError(
                f"another process is training in {self}: wait for it, or change the config or the seed"
            ) from None

    def _set_aside(self) -> None:
        if self.path.exists():
            kept = f"{self.path.name}{_KEPT}"
            numbers = [path.name.removeprefix(kept) for path in self.path.parent.glob(f"{kept}*")]
            # Above all there are rather than their count: some may have been deleted.
            number = 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
            self.path.rename(self.path.with_name(f"{kept}{number}"))

    # Writing.

    def describe(self, config: Config, plan: str, provenance: Provenance) -> None:
        """Write what is known of a run before its first step."""
        write_text(self.config_file, OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json"))))
        write_text(self.plan_file, plan + "\n")
        self._write(provenance)

    def _write(self, provenance: Provenance) -> None:
        write_text(self.provenance_file, json.dumps(provenance.model_dump(), indent=2) + "\n")

    def finish(self, rows: list[Row]) -> None:
        """Write a run's scores, and that it was stopped early: with its scores there, it is finished."""
        if rows[0].stopped is not None and (origin := self.read_provenance()) is not None:
            self._write(origin.model_copy(update={"stopped": rows[0].stopped}))
        write_rows(self.results_file, rows)

    # Reading.

    def read_config(self) -> Config:
        """The config.

        Raises:
            UserError: there is none, or another version of otfkd wrote it.
        """
        try:
            return Config.model_validate(self._settings())
        except ValidationError as error:
            key = ".".join(map(str, error.errors()[0]["loc"])) or "sections"
            raise UserError(
                f"{self.config_file} is of another version of otfkd (its {key}): train the run again with this one"
            ) from None

    def read_stored_config(self) -> StoredConfig:
        """The config as far as this version can read it; nothing of it where there is none."""
        return StoredConfig.model_validate(self._settings() if self.config_file.is_file() else {})

    def _settings(self) -> dict[str, Any]:
        if not self.config_file.is_file():
            raise UserError(f"{self.config_file} is missing: give a run's own folder")
        return read_settings(self.config_file)

    def read_plan(self) -> str:
        """The plan in words, with the folders that models were found in; empty where there is none."""
        return self.plan_file.read_text(encoding="utf-8") if self.plan_file.is_file() else ""

    def read_provenance(self) -> Provenance | None:
        """What the run's numbers came from; None for a folder that is no run's.

        Raises:
            UserError: it cannot be read.
        """
        if not self.provenance_file.is_file():
            return None
        try:
            return Provenance.model_validate_json(self.provenance_file.read_bytes())
        except (OSError, ValueError):
            raise UserError(
                f"{self.provenance_file} is not what a run writes there: restore it, or start anew with fresh=true"
            ) from None

    def read_metrics(self) -> list[tuple[int, dict[str, float]]]:
        """The lines of metrics.jsonl: each an optimizer step and its numbers."""
        return [(row.pop("step"), row) for row in _lines(self.metrics_file)]

    def read_dev_scores(self) -> dict[int, float]:
        """The dev score after each step that has one."""
        return {step: values["dev"] for step, values in self.read_metrics() if "dev" in values}

    def read_rotations(self) -> list[Rotated | Refused | Follows]:
        """What happened to the teacher, in order."""
        return [read_record(line) for line in _lines(self.rotations_file)]

    def read_timings(self) -> list[Timing]:
        """When something happened."""
        return [Timing.model_validate(line) for line in _lines(self.timings_file)]

    def read_rows(self) -> list[Row]:
        """The scores; none before the run is finished.

        Raises:
            UserError: they cannot be read.
        """
        try:
            return read_rows(self.results_file) if self.finished else []
        except ValueError as error:
            raise UserError(
                f"{self.results_file} cannot be read ({first_line(error)}): give the command that wrote it again"
            ) from None


def _lines(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(b"[" + b",".join(whole_lines(path)) + b"]")
    return rows


def run_of(model: Path) -> RunFolder | None:
    """The run whose exported model a folder is; None for any other model."""
    run = RunFolder(model.parent)
    return run if run.model == model and run.provenance_file.is_file() else None


def find_runs(below: Path, *, kept_aside: bool = False) -> list[RunFolder]:
    """Every run at or below a folder, in order; those that `fresh=true` kept aside only where they are asked for."""
    found = [RunFolder(file.parent) for file in sorted(below.rglob(_PROVENANCE))]
    return [run for run in found if kept_aside or not is_kept_aside(run.path.relative_to(below))]


def is_kept_aside(path: Path) -> bool:
    """Whether a path leads into a run that `fresh=true` kept aside."""
    return any(_KEPT in part for part in path.parts)
