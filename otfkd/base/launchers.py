"""What torchrun and Slurm say of a process in its environment: who started it, and with how many others."""

import os
from collections.abc import Iterable

from otfkd.base.errors import UserError

_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_SLURM = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
_NUMBERS = (*_TORCHRUN, "GROUP_RANK", *_SLURM, "SLURM_NODEID", "SLURM_STEP_NUM_TASKS")


def check_environment() -> None:
    """Refuse what is no number where one belongs: Lightning reads some of these when it is imported.

    Raises:
        UserError: a variable that launchers set has another value.
    """
    for name in _NUMBERS:
        if not os.environ.get(name, "0").isdecimal():
            raise UserError(
                f"the environment has {name}={os.environ[name]}, which is no number: unset it, or start the command "
                "with torchrun or srun, which set it"
            )


def torchrun_processes() -> int | None:
    """How many processes torchrun, or what sets the same, started with this one; None where it did not.

    A run id alone is left over from a job outside of this one.

    Raises:
        UserError: not all that torchrun sets is there, or it contradicts itself.
    """
    check_environment()
    if not any(name in os.environ for name in _TORCHRUN):
        return None
    _require(_TORCHRUN, "torchrun")
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank >= processes:
        raise UserError(f"the environment has RANK={rank} and WORLD_SIZE={processes}: {_mend(_TORCHRUN, 'torchrun')}")
    return processes


def slurm_tasks() -> int:
    """How many processes Slurm started with this one, itself among them; 1 where srun did not start it.

    Raises:
        UserError: not all that srun sets is there.
    """
    check_environment()
    if "SLURM_PROCID" not in os.environ:
        return 1  # in a shell of an allocation
    step = os.environ.get("SLURM_STEP_NUM_TASKS")
    if step is None and os.environ.get("ENVIRONMENT") == "BATCH":
        return 1  # in a batch script, whose own process is the first task's
    tasks = int(step or os.environ.get("SLURM_NTASKS", "1"))
    if tasks > 1:
        _require(_SLURM, "srun")
    return tasks


def is_first() -> bool:
    """Whether this is the first process that a launcher started, or no launcher did."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "SLURM_PROCID"))


def _require(names: Iterable[str], launcher: str) -> None:
    if missing := [name for name in names if name not in os.environ]:
        there = next(name for name in names if name in os.environ)
        raise UserError(
            f"the environment has {there}={os.environ[there]} but no {' and no '.join(missing)}: "
            f"{_mend(names, launcher)}"
        )


def _mend(names: Iterable[str], launcher: str) -> str:
    there = [name for name in names if name in os.environ]
    return f"unset {' and '.join(there)} to train in one process, or start the command with {launcher}"
