"""The memory and the disk that a run takes, and whether the machine has them."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otfkd.base.errors import UserError
from otfkd.base.memory import available_memory, in_words
from otfkd.config.schema import Config
from otfkd.training.run import Run

if TYPE_CHECKING:
    from otfkd.models.encoder import Encoder

log = logging.getLogger("otfkd")

# Of a process with all that a run imports and no model; a test measures it.
_PROCESS = 670 * 2**20


def memory(run: Run, student: "Encoder", teachers: "Sequence[Encoder]") -> float:
    """Bytes in each process: the GPU's where models compute on one, else all that the process takes.

    That is the process itself; weights, gradients and two moments in float32; the teacher and other copies; activations
    of training and of scoring, which the C library does not give back in between; and the exported model, which is read
    again, and its pages of the file, before the trained one goes.
    """
    own, taught = 4.0 * parameter_count(student), 4.0 * sum(parameter_count(teacher) for teacher in teachers)
    schedule, alone = run.config.schedule, run.device.type == "cpu"
    held = copies(run) + (schedule.on_rotation.student == "reinit" or run.plan.anew is not None)
    training = (4 + held) * own + (0 if run.config.precomputes else taught) + _activations(run, student)
    if not alone:
        return max(training, taught + own)
    snapshots = own if run.plan.cache | run.plan.rotate else 0  # the copy that is being written
    scoring = 2 * own + _scored_at_once(run.config, student)
    return _PROCESS + max(training + snapshots + scoring, taught + own)  # the latter while embeddings are precomputed


def disk(run: Run, student: "Encoder") -> float:
    """Bytes of the run's folder at most: snapshots, and a checkpoint beside the one that it replaces."""
    schedule = run.config.schedule
    candidates = schedule.average_last if schedule.source == "average" else 1
    snapshots = schedule.keep_snapshots + candidates + copies(run) if run.plan.cache | run.plan.rotate else 0
    replaced = _CHECKPOINT if len(run.plan.checkpoint) > 1 else 0
    return 4.0 * parameter_count(student) * (snapshots + replaced + _LEFT)


_CHECKPOINT = 3  # weights and two moments
_LEFT = _CHECKPOINT + 2  # models' sizes that each run leaves: the best and the exported model besides


def check_room(run: Run, student: "Encoder", teachers: "Sequence[Encoder]") -> None:
    """Find out before training that a run has no room.

    Raises:
        UserError: the disk has less than what the run leaves in any case.
    """
    folder = run.folder.path
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free, most, least = free_disk(folder), disk(run, student) - there, 4 * parameter_count(student) * _LEFT - there
    if free < least:
        raise UserError(
            f"{folder} takes at least {in_words(least)} more and its disk has {in_words(free)} left: make room, or "
            "name another folder by paths.runs"
        )
    if free < most:
        log.warning("%s may take %s more, and its disk has %s left", folder, in_words(most), in_words(free))
    needed, left = memory(run, student, teachers) * run.config.trainer.devices, available_memory()
    if run.device.type == "cpu" and left is not None and left < needed - _PROCESS:
        log.warning(
            "the run takes about %s of memory and %s are left: if it is killed, lower data.batch_size or "
            "evaluation.batch_size, or set trainer.chunk", in_words(needed), in_words(left),
        )  # fmt: skip


def free_disk(folder: Path) -> int:
    """Bytes left where a folder is, or will be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def at_once(config: Config) -> int:
    """Sentences embedded at once in each process."""
    whole = config.read_at_once // config.processes
    return min(config.trainer.chunk or whole, whole)


def parameter_count(encoder: "Encoder") -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())


def copies(run: Run) -> int:
    """Copies of the student that are held besides it: snapshots that teach, and its moving average."""
    schedule, plan = run.config.schedule, run.plan
    if not plan.rotate and plan.follows is None:
        return 0
    first = 1 if schedule.retain == "pool_initial" and run.config.teacher.source == "self" else 0
    pool = 1 if schedule.retain == "replace" or schedule.trigger == "never" else first + schedule.pool_size
    return pool + (1 if schedule.source == "ema" else 0)


def _activations(run: Run, student: "Encoder") -> float:
    """Of all that is read at once, to go back through: Korthikanti et al. 2022, eq. 2, s*b*h*(34 + 5*a*s/h) a layer."""
    config, shape = run.config, student.backbone.config
    s, b, h = config.data.max_length, at_once(config), shape.hidden_size
    layer = s * b * h * (34 + 5 * shape.num_attention_heads * s / h)  # at 16 bits
    width = 2 if config.precision.compute == "float32" else 1
    return width * float(layer * shape.num_hidden_layers)


def _scored_at_once(config: Config, student: "Encoder") -> float:
    """Of the one layer that scoring is in: four tensors of the model's width and two of its feed-forward, float32."""
    shape, scoring = student.backbone.config, config.evaluation
    h = int(shape.hidden_size)
    inner = int(getattr(shape, "intermediate_size", None) or 4 * h)  # not all architectures call it so
    return 4.0 * scoring.batch_size * scoring.max_length * (4 * h + 2 * inner)
