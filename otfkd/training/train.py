"""A run from start to finish: train the student, then score what was exported."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import lightning as L
import torch

from otfkd.base.errors import UserError, exits_as_errors, refusals_as_user_errors
from otfkd.base.hashing import derived_seed
from otfkd.base.logs import logging_to
from otfkd.base.memory import release_memory
from otfkd.base.processes import any_process, broadcast, rank, rank_zero_only, world_size
from otfkd.base.progress import waiting
from otfkd.base.provenance import environment
from otfkd.base.signals import stop_flag
from otfkd.config.schema import Config
from otfkd.data.labelled import Examples
from otfkd.distill.checkpoints import Checkpoints, check_names
from otfkd.distill.divergence import explain_divergence
from otfkd.distill.driver import RunDriver
from otfkd.distill.module import Distillation, diagnose
from otfkd.distill.rotation import TeacherRotation
from otfkd.distill.teacher import TeacherSlot
from otfkd.distill.training import TrainingModule
from otfkd.evaluation.also import score_also
from otfkd.evaluation.extra import Evaluator, check_selects, extra_scores
from otfkd.evaluation.rows import Origin, dev_score, dev_scores, score_rows
from otfkd.finetune.module import FineTuning
from otfkd.models.encoder import Encoder, Head
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from otfkd.runs.cost import read_cost
from otfkd.runs.failure import failure_kept
from otfkd.runs.log import PointReceiver, Several
from otfkd.runs.origin import Provenance
from otfkd.runs.rows import Row
from otfkd.runs.whole import seal_model
from otfkd.training.batches import corpus_data, initial_teacher, labelled_data
from otfkd.training.finished import mended
from otfkd.training.launch import first_process_speaks, join, launch
from otfkd.training.loggers import final_scores, make_mirrors
from otfkd.training.needs import check_room
from otfkd.training.parts import Parts, make_parts
from otfkd.training.plan_text import describe, planned
from otfkd.training.progress import StepReport
from otfkd.training.result import TrainResult as TrainResult
from otfkd.training.run import Models, Run, prepare
from otfkd.training.trainer import make_trainer, process_settings
from otfkd.training.trial import small_run, told
from otfkd.training.untrained import check_saved
from otfkd.training.wandb_run import adopt

log = logging.getLogger("otfkd")


def train(config: Config, found: Run | None = None, watch: PointReceiver | None = None) -> TrainResult:
    """Train one run and score it; resume it if it was interrupted, skip it if it is finished.

    Args:
        config: of the run, as `otfkd.load_config` makes it of overrides.
        found: what `prepare` found for it, if it was asked already.
        watch: gets every point of metrics.jsonl, as loggers do; of a run whose processes are not launched from here.

    Returns:
        The run's folder, its plan in words and its scores.

    Raises:
        UserError: something the user can mend, found before training wherever that is possible.
        Interrupted: a signal came; the run saved and can be resumed.

    Example::

        >>> import otfkd
        >>> config = otfkd.load_config(["experiment=otfkd", "profile=mini", "trainer.max_steps=4", "schedule.every=2"])
        >>> result = otfkd.train(config)
        >>> result.status, [row.split for row in result.rows if row.checkpoint == "selected"]
        ('finished', ['dev', 'test'])
        >>> otfkd.train(config).status
        'skipped'
    """
    if not join(config):
        return launch(train, config)
    with process_settings(config), first_process_speaks(), refusals_as_user_errors(), exits_as_errors():
        try:
            if config.trainer.fast_dev_run and not config.dry_run:
                return _try(config, watch)
            return _plan_and_train(config, found, watch)
        finally:
            # Trainer, loops and module hold each other, so their memory would be the next job's only some time later.
            release_memory()


def _try(config: Config, watch: PointReceiver | None) -> TrainResult:
    with small_run(config) as run:
        _plan_and_train(run.config, run, watch)
        return TrainResult(run.folder.path, "tried", broadcast(lambda: told(run)), [])


def _plan_and_train(config: Config, found: Run | None, watch: PointReceiver | None) -> TrainResult:
    run = broadcast(lambda: found or prepare(config))
    models = run.load_models()
    if config.dry_run:
        return planned(run, models)
    plan = describe(run, models)
    with contextlib.ExitStack() as held:
        broadcast(lambda: held.enter_context(run.folder.held(fresh=config.fresh)))
        held.enter_context(failure_kept(run.folder.failure_file))
        broadcast(run.check_inputs)
        with logging_to(run.folder.log_file(rank())):
            if run.folder.finished and broadcast(lambda: mended(run, models.student)):
                also = broadcast(lambda: score_also(config, run.folder, run.device))
                return TrainResult(run.folder.path, "skipped", plan, run.folder.read_rows(), also)
            log.info("%s", plan)
            rows = _train(run, models, plan, watch)
            also = broadcast(lambda: score_also(config, run.folder, run.device))
    return TrainResult(run.folder.path, "finished", plan, rows, also)


def _train(run: Run, models: Models, plan: str, watch: PointReceiver | None) -> list[Row]:
    config = run.config
    parts = make_parts(config, run.fingerprints)
    broadcast(lambda: check_room(run, models.student, models.teachers))
    done = broadcast(lambda: _resume_step(run))
    if "wandb" in config.logger.names:
        broadcast(lambda: adopt(run, resumed=done > 0))
    if not done:
        broadcast(lambda: _check_end(run, models.student, parts.evaluators))
        _describe_run(run, plan)
    module, data = _learning(run, models, done, parts)
    mirrors = make_mirrors(run, resumed=done > 0) if rank() == 0 else []
    with contextlib.ExitStack() as opened:
        for mirror in mirrors:
            opened.enter_context(mirror)
        with stop_flag() as stopping:
            receiver = Several(mirrors if watch is None else [*mirrors, watch])
            driver = _driver(run, receiver, lambda: any_process(stopping()), parts.evaluators)
            report = StepReport(driver, config.logger.every, config.trainer.max_steps)
            # The user's come before the driver, whose checkpoint of a step so has what they made of it.
            trainer = make_trainer(config, [report, *parts.callbacks, driver])
            with explain_divergence(driver):
                resumed = run.folder.last_checkpoint if done else None
                trainer.fit(module, data, ckpt_path=resumed, weights_only=True)
        if not driver.ended:  # Lightning takes any StopIteration for the end of the data
            raise RuntimeError(f"training ended by itself after step {driver.step} of {run.plan.max_steps}")
        if driver.stopped:
            log.info("stopped early after step %d of %d (trainer.patience=%d)", *driver.stopped, run.plan.patience)
        if module.skipped:
            log.warning("%d optimizer steps were left out", module.skipped)
        tasks = ", ".join(task.name for task in (run.suite.dev, *run.suite.test))
        with explain_divergence(driver), waiting(f"scoring on {tasks}"):
            rows = broadcast(lambda: _test(run, models.student, driver, module.skipped, parts.evaluators))
        Several(mirrors).log(driver.step, final_scores(rows))
    return rows


def _check_end(run: Run, student: Encoder, evaluators: Sequence[Evaluator]) -> None:
    """Do once, with the student as it is, what else would fail only after training."""
    length = run.config.evaluation.max_length
    check_saved(student, run.folder.path, length)
    check_selects(run.config.evaluation.select, extra_scores(evaluators, student, length))


def _learning(
    run: Run, models: Models, done: int, parts: Parts | None = None
) -> tuple[TrainingModule, L.LightningDataModule]:
    """How the student learns, and from what: by itself and from teachers, or from labelled examples."""
    config, student = run.config, models.student
    torch.manual_seed(derived_seed(config.seed, "head"))
    head = Head(student.width) if config.model.head and student.head is None else None
    if isinstance(run.data, Examples):
        return FineTuning(student, head, config, run.plan), labelled_data(run, run.data, student, done)
    teacher = initial_teacher(run, run.data, student, models.hand_over_teachers())
    slot = TeacherSlot()
    if teacher.members:
        slot.install(teacher.members, config.teacher.weights, teacher.reads)
    data = corpus_data(run, run.data, student, teacher.inputs, done)
    losses, whole = ({}, None) if parts is None else (parts.losses, parts.objective)
    return Distillation(student, head, slot, config, run.plan, models.mlm, losses, whole), data


def _driver(
    run: Run, mirror: PointReceiver | None, stopping: Callable[[], bool], evaluators: Sequence[Evaluator] = ()
) -> RunDriver:
    """What happens after each step: with labels alone nothing rotates."""
    config = run.config

    select = config.evaluation.select
    said: dict[str, float] = {}  # by the evaluators, of the student whose dev score was asked for last
    at_sizes: dict[str, float] = {}  # its scores where embeddings are cut, of the same embeddings

    def ask(student: Encoder) -> dict[str, float]:
        return broadcast(lambda: extra_scores(evaluators, student, config.evaluation.max_length))

    def evaluate(student: Encoder) -> float:
        with waiting(f"scoring on {select or run.suite.dev.name}"):
            if select is not None:
                said.update(ask(student))
                return said[select]
            if not config.objective.dims:
                return broadcast(lambda: dev_score(student, run.suite, config.evaluation))
            dev, smaller = broadcast(lambda: dev_scores(student, run.suite, config.evaluation))
        at_sizes.clear()
        at_sizes.update({f"dev/{size}": score for size, score in smaller.items()})
        return dev

    def extra(student: Encoder) -> dict[str, float]:
        found = ask(student) if select is None else said
        return {**at_sizes, **{f"extra/{name}": value for name, value in found.items()}}

    told: dict[str, Any] = {"stopping": stopping, "mirror": mirror, "run": run.hash, "extra": extra}
    if isinstance(run.data, Examples):
        return RunDriver(run.folder.path, run.plan, evaluate=evaluate, **told)
    return TeacherRotation(run.folder.path, run.plan, evaluate=evaluate, diagnose=diagnose, **told)


@rank_zero_only
def _describe_run(run: Run, plan: str) -> None:
    origin = Provenance(
        config_hash=run.hash, seed=run.config.seed, fingerprints=run.fingerprints, environment=environment()
    )
    run.folder.describe(run.config, plan, origin)


def _resume_step(run: Run) -> int:
    """The optimizer step to go on from; 0 for a run that has no checkpoint yet.

    Raises:
        UserError: the run was started under other versions or threads, and the resume is not forced, or nothing says
            under which.
    """
    checkpoints = Checkpoints(run.folder, run.hash)
    if not checkpoints.last.is_file():
        return 0
    step = int(checkpoints.read_last()["global_step"])
    origin = run.folder.read_provenance()
    before, now = {} if origin is None else origin.environment, environment()
    # In another number of processes each has another share of the machine's threads.
    processes = before.get("processes", 1)
    kept = ("versions", "threads", "device") if processes == world_size() else ("versions", "device")
    if unknown := [key for key in kept if key not in before]:
        raise UserError(
            f"{run.folder.provenance_file} does not say under which {unknown[0]} the run was started: restore it, "
            "or start anew with fresh=true"
        )
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


def _test(
    run: Run, student: Encoder, driver: RunDriver, skipped: int, evaluators: Sequence[Evaluator] = ()
) -> list[Row]:
    """Score the exported, selected model on dev and test, and the last step's beside it: the run is then finished."""
    config, steps, checkpoints = run.config, driver.step, driver.checkpoints
    cost = read_cost(run.folder, config, len(run.teachers), run.size, steps)

    def score(encoder: Encoder, checkpoint: Literal["selected", "last"], step: int, generation: int) -> list[Row]:
        origin = Origin(
            config.name, checkpoint, config.seed, step, generation, run.hash, run.fingerprints.get("teacher"),
            run.fingerprints["corpus"], cost, run.fine_tuned, skipped, run.own_parts or None, driver.stopped,
        )  # fmt: skip
        return score_rows(encoder.to(run.device), run.suite, config.evaluation, origin, evaluators)

    weights, facts = checkpoints.load_best()
    last = [] if facts["step"] == steps else score(student, "last", steps, driver.generation)
    check_names(weights, student.state_dict(), str(checkpoints.best))
    student.load_state_dict(weights)
    save_encoder(student, run.folder.model, config.evaluation.max_length)
    seal_model(run.folder)
    selected = score(load_encoder(run.folder.model), "selected", facts["step"], facts["generation"])
    rows = [*selected, *(last or [row.model_copy(update={"checkpoint": "last"}) for row in selected])]
    run.folder.finish(rows)
    return rows
