"""A run from start to finish, as plain functions: train, then score what was exported."""

import contextlib
import gc
import json
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import OmegaConf

from otfkd.base.errors import UserError, refusals_as_user_errors
from otfkd.base.files import clear_unfinished, write_text
from otfkd.base.hashing import derived_seed
from otfkd.base.logs import logging_to
from otfkd.base.processes import any_process, broadcast, rank, rank_zero_only, world_size
from otfkd.base.provenance import environment
from otfkd.base.signals import stop_flag
from otfkd.config.schema import Config
from otfkd.data.labelled import Examples
from otfkd.distill.checkpoints import Checkpoints, WholeFiles, check_names
from otfkd.distill.divergence import explain_divergence
from otfkd.distill.mlm import MaskedLanguage
from otfkd.distill.module import Distillation, diagnose
from otfkd.distill.rotation import TeacherRotation
from otfkd.distill.snapshots import SnapshotCache
from otfkd.distill.teacher import TeacherSlot
from otfkd.distill.training import TrainingModule
from otfkd.evaluation.scoring import Origin, dev_score, score_rows
from otfkd.finetune.module import FineTuning
from otfkd.models.encoder import Encoder, Head
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from otfkd.runs.cost import read_cost
from otfkd.runs.folder import PROVENANCE, RESULTS, locked, read_provenance, set_aside
from otfkd.runs.log import RunLog
from otfkd.runs.rows import Row, read_rows, write_rows
from otfkd.training.batches import corpus_data, initial_teacher, labelled_data
from otfkd.training.launch import cluster, first_process_speaks, join, launch
from otfkd.training.loggers import check_logger, final_scores, make_mirror
from otfkd.training.plan_text import describe
from otfkd.training.progress import StepReport
from otfkd.training.run import Run, prepare

log = logging.getLogger("otfkd")


@dataclass(frozen=True)
class TrainResult:
    """What became of a run.

    Attributes:
        folder: the run's folder.
        status: `planned` after a dry run, `skipped` when it was finished before.
        plan: the plan in words.
        rows: its results; empty after a dry run.
    """

    folder: Path
    status: Literal["planned", "skipped", "finished"]
    plan: str
    rows: list[Row]


def train(config: Config) -> TrainResult:
    """Train one run and score it; resume it if it was interrupted, skip it if it is finished.

    Raises:
        UserError: something the user can mend, found before training wherever that is possible.
        Interrupted: a signal came; the run saved and can be resumed.
    """
    if not join(config):
        return launch(train, config)
    with _numerics(config), first_process_speaks(), refusals_as_user_errors():
        try:
            return _plan_and_train(config)
        finally:
            # Trainer, loops and module hold each other, so their memory would be the next job's only some time later.
            gc.collect()


def _plan_and_train(config: Config) -> TrainResult:
    check_logger(config.logger)
    run = broadcast(lambda: prepare(config))
    student, teachers = run.load_student(), run.load_teachers()
    mlm = run.load_mlm(student)
    plan = describe(run, student, teachers)
    if config.dry_run:
        return TrainResult(run.folder, "planned", plan, [])
    with contextlib.ExitStack() as held:
        broadcast(lambda: held.enter_context(_held(run)))
        broadcast(lambda: _check_inputs(run))
        if run.finished:
            return TrainResult(run.folder, "skipped", plan, read_rows(run.folder / RESULTS))
        with logging_to(run.folder / (f"run.{rank()}.log" if rank() else "run.log")):
            log.info("%s", plan)
            rows = _train(run, student, teachers, mlm, plan)
    return TrainResult(run.folder, "finished", plan, rows)


@contextlib.contextmanager
def _held(run: Run) -> Iterator[None]:
    with locked(run.folder):
        if run.config.fresh:
            set_aside(run.folder)
        clear_unfinished(run.folder)
        yield


def _train(run: Run, student: Encoder, teachers: list[Encoder], mlm: MaskedLanguage | None, plan: str) -> list[Row]:
    config, folder = run.config, run.folder
    checkpoints, cache = Checkpoints(folder / "checkpoints", run.hash), SnapshotCache(folder / "snapshots")
    done = broadcast(lambda: _resume_step(run, checkpoints))
    if not done:
        _describe_run(run, plan)
        cache.prune(())
    torch.manual_seed(derived_seed(config.seed, "head"))
    head = Head(student.width) if config.model.head and student.head is None else None
    module, data = _learning(run, student, head, teachers, mlm, done)
    mirror = make_mirror(run, resumed=done > 0) if rank() == 0 else None
    run_log = RunLog(folder, mirror)
    with mirror or contextlib.nullcontext():
        if not done:
            run_log.rewind({"metrics": 0, "rotations": 0})
        with stop_flag() as stopping:
            rotation = TeacherRotation(
                run.plan, config.schedule, cache, checkpoints, run_log,
                evaluate=lambda encoder: broadcast(lambda: dev_score(encoder, run.suite, config.evaluation)),
                diagnose=diagnose, stopping=lambda: any_process(stopping()),
            )  # fmt: skip
            report = StepReport(rotation, run_log, config.logger.every, config.trainer.max_steps)
            trainer = _trainer(config, [report, rotation])
            with explain_divergence(checkpoints, rotation):
                trainer.fit(module, data, ckpt_path=checkpoints.last if done else None, weights_only=True)
        if rotation.step < run.plan.max_steps:  # Lightning takes any StopIteration for the end of the data
            raise RuntimeError(f"training ended by itself after step {rotation.step} of {run.plan.max_steps}")
        if module.skipped:
            log.warning("%d optimizer steps were left out", module.skipped)
        with explain_divergence(checkpoints, rotation):
            rows = broadcast(lambda: _test(run, student, checkpoints, rotation, module.skipped))
        if mirror is not None:
            mirror.log(config.trainer.max_steps, final_scores(rows))
    return rows


def _trainer(config: Config, callbacks: list[L.Callback]) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.pytorch")  # about loaders and loggers that are not used here
    trainer = L.Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        num_nodes=config.trainer.nodes,
        # Looking for unused parameters keeps DDP from regrouping gradients after its first step, which a resume begins
        # anew: with three processes or more their sums would then round otherwise.
        strategy=DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if config.processes > 1 else "auto",
        precision="bf16-mixed" if config.precision.compute == "bfloat16" else "32-true",
        # Everything is counted in optimizer steps: the run is one epoch, and evaluation and saving are the callback's.
        max_epochs=1,
        max_steps=config.trainer.max_steps,
        accumulate_grad_batches=config.trainer.accumulate,
        deterministic=config.precision.deterministic,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        plugins=[WholeFiles(), cluster(config)],
        callbacks=callbacks,
    )
    # Signals are the stop flag's alone. Lightning's handler of SIGTERM ends a run between the micro-batches of a step,
    # and speaks to the other processes from wherever the signal finds it, for which all of them may wait for ever.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


@contextlib.contextmanager
def _numerics(config: Config) -> Iterator[None]:
    """Threads, matrix precision and kernels of this run alone: the next job of a sweep must not inherit them."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministically = torch.are_deterministic_algorithms_enabled()
    deterministic: Any = torch.utils.deterministic  # a module whose one attribute type checkers do not see
    fills = deterministic.fill_uninitialized_memory
    torch.set_num_threads(config.trainer.threads or threads)
    torch.set_float32_matmul_precision("high" if config.precision.tf32 else "highest")
    # As Lightning will say again: what comes before it, as a teacher's embeddings, is to find the same kernels.
    torch.use_deterministic_algorithms(config.precision.deterministic)
    if config.precision.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    # A twentieth of a step, and determinism does not need it: all memory is written before it is read.
    deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministically)
        deterministic.fill_uninitialized_memory = fills


def _learning(
    run: Run,
    student: Encoder,
    head: Head | None,
    teachers: list[Encoder],
    mlm: MaskedLanguage | None,
    done: int,
) -> tuple[TrainingModule, L.LightningDataModule]:
    """How the student learns, and from what: by itself and from teachers, or from labelled examples."""
    config = run.config
    if isinstance(run.data, Examples):
        return FineTuning(student, head, config, run.plan), labelled_data(run, run.data, student, done)
    members, readings, reads = initial_teacher(run, run.data, student, teachers)
    slot = TeacherSlot()
    if members:
        slot.install(members, config.teacher.weights, reads)
    data = corpus_data(run, run.data, student, readings, done)
    return Distillation(student, head, slot, config, run.plan, mlm), data


def _check_inputs(run: Run) -> None:
    """A teacher that is an earlier run is known by its config; it may have been trained anew since.

    Raises:
        UserError: the folder's run was begun with other inputs.
    """
    before = read_provenance(run.folder)
    if before is not None and before["fingerprints"] != run.fingerprints:
        changed = [key for key, value in run.fingerprints.items() if before["fingerprints"].get(key) != value]
        raise UserError(
            f"{run.folder} was begun with another {' and '.join(changed)} than there is now: start anew with fresh=true"
        )


@rank_zero_only
def _describe_run(run: Run, plan: str) -> None:
    write_text(run.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(run.config.model_dump(mode="json"))))
    write_text(run.folder / "plan.txt", plan + "\n")
    facts = {
        "config_hash": run.hash, "seed": run.config.seed, "fingerprints": run.fingerprints,
        "environment": environment(),
    }  # fmt: skip
    write_text(run.folder / PROVENANCE, json.dumps(facts, indent=2) + "\n")


def _resume_step(run: Run, checkpoints: Checkpoints) -> int:
    """The optimizer step to go on from; 0 for a run that has no checkpoint yet.

    Raises:
        UserError: the run was started under other versions or threads, and the resume is not forced.
    """
    if not checkpoints.last.is_file():
        return 0
    step = int(checkpoints.read_last()["global_step"])
    before, now = (read_provenance(run.folder) or {})["environment"], environment()
    # In another number of processes each has another share of the machine's threads.
    processes = before.get("processes", 1)
    kept = ("versions", "threads", "device") if processes == world_size() else ("versions", "device")
    changed = [key for key in kept if before[key] != now[key]]
    if changed and run.config.resume != "force":
        raise UserError(
            f"{run.folder} was started under other {' and '.join(changed)} ({before[changed[0]]}): "
            "use those again, or go on inexactly with resume=force, or start anew with fresh=true"
        )
    if processes != world_size():
        log.warning("%d processes instead of %d: same data, other dropout and rounding", world_size(), processes)
    log.info("resuming after step %d", step)
    return step


def _test(run: Run, student: Encoder, checkpoints: Checkpoints, rotation: TeacherRotation, skipped: int) -> list[Row]:
    """Score the exported, selected model on dev and test, and the last step's beside it: the run is then finished."""
    config, steps = run.config, run.plan.max_steps
    cost = read_cost(run.folder, config, len(run.teachers), run.size)

    def score(encoder: Encoder, checkpoint: Literal["selected", "last"], step: int, generation: int) -> list[Row]:
        origin = Origin(
            config.name, checkpoint, config.seed, step, generation, run.hash, run.fingerprints.get("teacher"),
            run.fingerprints["corpus"], cost, run.fine_tuned, skipped,
        )  # fmt: skip
        return score_rows(encoder.to(run.device), run.suite, config.evaluation, origin)

    weights, facts = checkpoints.load_best()
    last = [] if facts["step"] == steps else score(student, "last", steps, rotation.generation)
    check_names(weights, student.state_dict(), str(checkpoints.best))
    student.load_state_dict(weights)
    save_encoder(student, run.folder / "model", config.evaluation.max_length)
    selected = score(load_encoder(run.folder / "model"), "selected", facts["step"], facts["generation"])
    rows = [*selected, *(last or [row.model_copy(update={"checkpoint": "last"}) for row in selected])]
    write_rows(run.folder / RESULTS, rows)
    return rows
