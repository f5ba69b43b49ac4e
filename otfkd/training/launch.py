"""How a run's processes come to be: started by torchrun or Slurm, or else here, as torchrun would."""

import atexit
import contextlib
import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed
from torch.multiprocessing.spawn import ProcessException, start_processes

from otfkd.base.errors import Interrupted, UserError, first_line
from otfkd.base.launchers import slurm_tasks, torchrun_processes
from otfkd.base.logs import log_to_terminal
from otfkd.base.processes import rank
from otfkd.base.signals import stop_flag
from otfkd.config.schema import Config

T = TypeVar("T")

# How long a process waits for the others, as while the first prepares data or evaluates.
_PATIENCE = timedelta(hours=1)
_GRACE = 10.0  # seconds the others have to end by themselves when one has failed


def cluster(config: Config) -> ClusterEnvironment:
    """Who started this process and what its place is.

    Raises:
        UserError: the processes there are do not fit the config, or nobody started those of several nodes.
    """
    devices, nodes = config.trainer.devices, config.trainer.nodes
    if config.data.batch_size % config.processes:
        raise UserError(
            f"data.batch_size={config.data.batch_size} cannot be shared out equally among {config.processes} processes "
            "(trainer.devices x trainer.nodes): make it a multiple of their number"
        )
    if config.trainer.accelerator != "cpu" and torch.cuda.is_available() and torch.cuda.device_count() < devices:
        raise UserError(
            f"trainer.devices={devices}, but {torch.cuda.device_count()} GPUs are to be seen here: lower it, "
            "or give every process all GPUs of its node"
        )
    if config.trainer.accelerator == "gpu" and not (config.dry_run or torch.accelerator.is_available()):
        raise UserError("trainer.accelerator=gpu, but no GPU is to be seen here: leave it at auto, or go where one is")
    started: ClusterEnvironment = LightningEnvironment()
    if (count := torchrun_processes()) is not None:
        if count != config.processes:
            raise UserError(
                f"torchrun started {count} processes, but trainer.devices={devices} trainer.nodes={nodes} asks for "
                f"{config.processes}: make them its --nproc-per-node and --nnodes, or unset RANK, LOCAL_RANK and "
                "WORLD_SIZE to have nothing to do with it"
            )
        started = TorchElasticEnvironment()
    elif (tasks := slurm_tasks()) > 1:
        _check_tasks(tasks, devices, nodes)
        # Requeueing is the launcher's: a run saves itself when a signal comes.
        started = SLURMEnvironment(auto_requeue=False)
    try:
        started.validate_settings(devices, nodes)
    except ValueError as error:
        raise UserError(f"trainer.devices={devices} trainer.nodes={nodes}: {first_line(error)}") from None
    if nodes > 1 and isinstance(started, LightningEnvironment):
        raise UserError(
            f"trainer.nodes={nodes} needs its processes started on every node: begin the command with srun or torchrun"
        )
    return started


def _check_tasks(tasks: int, devices: int, nodes: int) -> None:
    """Whether the tasks of a Slurm step are the processes of a run; each of them must come to the same answer.

    Raises:
        UserError: they are not.
    """
    known = "SLURM_NTASKS_PER_NODE" in os.environ
    if tasks != devices * nodes or (nodes > 1 and not known):
        raise UserError(
            f"Slurm started this command {tasks} times{'' if known else ' without --ntasks-per-node'}, but "
            f"trainer.devices={devices} trainer.nodes={nodes} asks for {devices * nodes}: give srun --nodes and "
            "--ntasks-per-node and the command trainer=slurm, or unset SLURM_PROCID if each is to be a run of its own"
        )
    if not known:
        os.environ["SLURM_NTASKS_PER_NODE"] = str(tasks)  # on one node --ntasks says as much, but not to Lightning


def join(config: Config) -> bool:
    """Become one of the run's processes; False where they have yet to be started.

    Raises:
        UserError: as `cluster`.
    """
    place = cluster(config)
    if config.processes == 1 or config.dry_run or distributed.is_initialized():
        return True
    if isinstance(place, LightningEnvironment):
        return False
    cuda = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(place.local_rank())
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=f"tcp://{place.main_address}:{place.main_port}",
        rank=place.global_rank(), world_size=place.world_size(), timeout=_PATIENCE,
    )  # fmt: skip
    atexit.register(_leave)
    return True


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextlib.contextmanager
def first_process_speaks() -> Iterator[None]:
    """Let only the first process speak on the terminal."""
    if rank() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield


class Answers(Protocol):
    """Brings what became of a process to the one that started it."""

    def put(self, answer: Any) -> None: ...
    def get(self) -> Any: ...
    def empty(self) -> bool: ...


def launch(task: Callable[[Config], T], config: Config) -> T:
    """Do a task in processes of this machine, one a device, and give what the first of them gives.

    A signal that comes here is passed on to them. When one fails, the others are ended.

    Args:
        task: a function of a module, for every process imports it.
        config: its argument.

    Raises:
        UserError: a process raised it.
        Interrupted: a signal came.
        RuntimeError: a process failed otherwise.
    """
    answers: Answers = multiprocessing.get_context("spawn").SimpleQueue()
    shown = bool(logging.getLogger("otfkd").handlers)
    arguments = (task, config, _free_port(), shown, answers)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns that it finds no unused parameters, as it should
    given: list[tuple[int, Any]] = []
    failure: ProcessException | None = None
    with stop_flag() as stopping:
        running = start_processes(_process, arguments, config.trainer.devices, join=False)  # type: ignore[no-untyped-call]
        told = ended = False
        try:
            while not ended:
                if stopping() and not told:
                    told = True
                    for process in running.processes:
                        process.terminate()
                ended = running.join(0.2, grace_period=_GRACE)
                given += _drained(answers)
        except ProcessException as error:
            failure = error
            given += _drained(answers)
        finally:
            for process in running.processes:
                process.kill()
    errors = [answer for _, answer in given if isinstance(answer, BaseException)]
    if errors:
        raise errors[0] from failure
    if failure is not None:
        if told:
            raise Interrupted("stopped outside of training, where there is nothing to save")
        raise RuntimeError(first_line(failure)) from failure
    result: T = dict(given)[0]
    return result


def _drained(answers: Answers) -> Iterator[tuple[int, Any]]:
    while not answers.empty():
        yield answers.get()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _process(
    number: int, task: Callable[[Config], Any], config: Config, port: int, shown: bool, answers: Answers
) -> None:
    """What runs in each process that `launch` starts."""
    devices = config.trainer.devices
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "otfkd", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0",
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices),
    }  # fmt: skip
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    if shown:
        log_to_terminal()
    try:
        answers.put((number, task(config)))
    except KeyboardInterrupt as error:  # torch ends the process without a word
        answers.put((number, Interrupted(str(error) or "interrupted")))
    except (UserError, Interrupted) as error:
        answers.put((number, error))
        if isinstance(error, UserError):
            sys.exit(1)
    except Exception as error:
        answers.put((number, RuntimeError(f"process {number}: {type(error).__name__}: {first_line(error)}")))
        raise
    finally:
        _leave()
