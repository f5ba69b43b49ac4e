"""A run from start to finish, as plain functions: train, then score what was exported."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from otfkd.config import Config, EvaluateConfig
from otfkd.data.datamodule import CorpusData, Source
from otfkd.data.files import write_text
from otfkd.data.sts import Suite, Task, load_suite
from otfkd.data.tokens import fingerprint_tokenizer, token_cache
from otfkd.distill.checkpoints import Checkpoints, WholeFiles
from otfkd.distill.module import Distillation
from otfkd.distill.rotation import TeacherRotation
from otfkd.distill.snapshots import SnapshotCache
from otfkd.distill.teacher import TeacherSlot
from otfkd.errors import UserError
from otfkd.evaluation.sts import PROTOCOL, StsScore, average, evaluate
from otfkd.models.encoder import Encoder, Head
from otfkd.models.export import save_encoder
from otfkd.models.registry import find_model, load_encoder, saved_pooler
from otfkd.prepare import RESULTS, Prepared, describe, prepare
from otfkd.progress import StepReport
from otfkd.provenance import derived_seed, environment, hash_weights
from otfkd.results import Row, append_row, read_rows, write_rows
from otfkd.runfolder import locked, logging_to, set_aside
from otfkd.runlog import RunLog
from otfkd.signals import stop_flag

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
    _set_numerics(config)
    run = prepare(config)
    student, teacher = run.load_student(), run.load_teacher()
    plan = describe(run, student, teacher)
    if config.dry_run:
        return TrainResult(run.folder, "planned", plan, [])
    with locked(run.folder):
        if config.fresh:
            set_aside(run.folder)
        if run.finished:
            return TrainResult(run.folder, "skipped", plan, read_rows(run.folder / RESULTS))
        with logging_to(run.folder / "run.log"):
            log.info("%s", plan)
            rows = _train(run, student, teacher, plan)
            write_rows(run.folder / RESULTS, rows)
    return TrainResult(run.folder, "finished", plan, rows)


def _train(run: Prepared, student: Encoder, teacher: Encoder | None, plan: str) -> list[Row]:
    config, folder = run.config, run.folder
    checkpoints, cache = Checkpoints(folder / "checkpoints"), SnapshotCache(folder / "snapshots")
    done = _resume_step(run, checkpoints)
    if not done:
        _describe_run(run, plan)
        cache.prune(())
    torch.manual_seed(derived_seed(config.seed, "head"))
    head = Head(student.width) if config.model.head and student.head is None else None
    slot, data = TeacherSlot(), _data(run, student, teacher, done)
    if teacher is not None:
        slot.install(teacher, own_tokens=data.batches.teacher is not None)
    module = Distillation(student, head, slot, config)
    mirror = _logger(run)
    run_log = RunLog(folder, mirror)
    if not done:
        run_log.rewind({"metrics": 0, "rotations": 0})
    with stop_flag() as stopping, _finishing(mirror):
        rotation = TeacherRotation(
            run.plan, cache, checkpoints,
            evaluate=lambda encoder: _score(encoder, (run.suite.dev,), config)[run.suite.dev.name].all,
            log=run_log, source=config.schedule.source, keep=config.schedule.keep, stopping=stopping,
        )  # fmt: skip
        report = StepReport(rotation, run_log, config.logger.every, config.trainer.max_steps)
        trainer = _trainer(config, [report, rotation])
        trainer.fit(module, data, ckpt_path=checkpoints.last if done else None, weights_only=True)
    return _test(run, student, checkpoints, rotation)


def _trainer(config: Config, callbacks: list[L.Callback]) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.pytorch")  # about loaders and loggers that are not used here
    return L.Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        precision="bf16-mixed" if config.precision.compute == "bfloat16" else "32-true",
        # Everything is counted in optimizer steps: the run is one epoch, and evaluation and saving are the callback's.
        max_epochs=1,
        max_steps=config.trainer.max_steps,
        accumulate_grad_batches=config.trainer.accumulate,
        gradient_clip_val=config.optimizer.clip_norm,
        deterministic=config.precision.deterministic,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        plugins=[WholeFiles()],
        callbacks=callbacks,
    )


def _set_numerics(config: Config) -> None:
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    torch.set_float32_matmul_precision("high" if config.precision.tf32 else "highest")


def _data(run: Prepared, student: Encoder, teacher: Encoder | None, done: int) -> CorpusData:
    config = run.config

    def source(encoder: Encoder) -> Source:
        return Source(token_cache(run.corpus, encoder.tokenizer, config.data.max_length, run.cache), encoder.pad_id)

    reads_alike = teacher is None or fingerprint_tokenizer(teacher.tokenizer) == fingerprint_tokenizer(
        student.tokenizer
    )
    data = CorpusData(
        source(student),
        None if teacher is None or reads_alike else source(teacher),
        batch_size=config.data.batch_size,
        seed=config.seed,
        total_batches=config.total_batches,
        start=done * config.trainer.accumulate,
    )
    log.info(
        "corpus: %d sentences, %d blank lines skipped",
        len(data.batches.student.tokens),
        data.batches.student.tokens.blank,
    )
    return data


def _describe_run(run: Prepared, plan: str) -> None:
    write_text(run.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(run.config.model_dump(mode="json"))))
    write_text(run.folder / "plan.txt", plan + "\n")
    facts = {"config_hash": run.hash, "fingerprints": run.fingerprints, "environment": environment()}
    write_text(run.folder / "provenance.json", json.dumps(facts, indent=2) + "\n")


def _resume_step(run: Prepared, checkpoints: Checkpoints) -> int:
    """The optimizer step to go on from; 0 for a run that has no checkpoint yet.

    Raises:
        UserError: the run was started under other versions or threads, and the resume is not forced.
    """
    if not checkpoints.last.is_file():
        return 0
    step = int(checkpoints.read_last()["global_step"])
    before = json.loads((run.folder / "provenance.json").read_text())["environment"]
    now = environment()
    changed = [key for key in ("versions", "threads", "device") if before[key] != now[key]]
    if changed and run.config.resume != "force":
        raise UserError(
            f"{run.folder} was started under other {' and '.join(changed)} ({before[changed[0]]}): "
            "use those again, or go on inexactly with resume=force, or start anew with fresh=true"
        )
    log.info("resuming after step %d", step)
    return step


def _logger(run: Prepared) -> Logger | None:
    if run.config.logger.name == "none":
        return None
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(
        project=run.config.logger.project, offline=run.config.logger.offline, save_dir=run.folder,
        name=f"{run.config.name}-{run.hash}-s{run.config.seed}", id=f"{run.hash}-s{run.config.seed}",
        group=run.config.name, config=run.config.model_dump(mode="json"),
    )  # fmt: skip


@contextlib.contextmanager
def _finishing(mirror: Logger | None) -> Iterator[None]:
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        if mirror is not None:
            import wandb

            mirror.finalize(status)
            wandb.finish(
                exit_code=0 if status == "success" else 1
            )  # the next job of a sweep must not continue this run


def _test(run: Prepared, student: Encoder, checkpoints: Checkpoints, rotation: TeacherRotation) -> list[Row]:
    """Score the exported, selected model on dev and test, and the last step's beside it."""
    config, folder = run.config, run.folder
    device = torch.device("cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    last = {"step": run.plan.max_steps, "generation": rotation.generation}
    rows = _rows(run, student.to(device), "last", last)
    weights, facts = checkpoints.load_best()
    student.load_state_dict(weights)
    save_encoder(student, folder / "model", config.evaluation.max_length)
    selected = load_encoder(folder / "model").to(device)
    return [*_rows(run, selected, "selected", facts), *rows]


def _rows(run: Prepared, encoder: Encoder, checkpoint: Literal["selected", "last"], facts: dict[str, Any]) -> list[Row]:
    config, suite = run.config, run.suite
    scores = _score(encoder, (suite.dev, *suite.test), config)
    dev = {suite.dev.name: scores.pop(suite.dev.name)}
    shared = {
        "name": config.name, "seed": config.seed, "checkpoint": checkpoint, "step": facts["step"],
        "generation": facts["generation"], "config_hash": run.hash, "teacher_sha256": run.fingerprints.get("teacher"),
    }  # fmt: skip
    return [
        _row(encoder, suite, split, split_scores, config.evaluation.max_length, shared)
        for split, split_scores in (("dev", dev), ("test", scores))
    ]


def _row(
    encoder: Encoder, suite: Suite, split: str, scores: dict[str, StsScore], max_length: int, facts: dict[str, Any]
) -> Row:
    return Row.model_validate({
        **facts, "split": split, "pooler": encoder.pooler,
        "scores": {task: score.as_dict() for task, score in scores.items()}, "average": average(scores),
        "protocol": f"{PROTOCOL}, {max_length} tokens", "suite": suite.name, "suite_sha256": suite.checksum,
        "weights_sha256": hash_weights(encoder), "environment": environment(),
    })  # fmt: skip


def _score(encoder: Any, tasks: tuple[Task, ...], config: Config | EvaluateConfig) -> dict[str, StsScore]:
    return evaluate(encoder, tasks, batch_size=config.evaluation.batch_size, max_length=config.evaluation.max_length)


def score_model(config: EvaluateConfig) -> list[Row]:
    """Score any model on a suite: its dev row and its test row.

    Raises:
        UserError: the model or the data cannot be used.
    """
    suite = load_suite(config.evaluation, config.paths.data_root, Path(config.paths.cache))
    folder = find_model(config.model.path)
    _announce_override(folder, config)
    encoder = load_encoder(folder, config.model.pooler, config.model.layers)
    scores = _score(encoder, (suite.dev, *suite.test), config)
    dev = {suite.dev.name: scores.pop(suite.dev.name)}
    facts = {
        "name": config.model.path, "seed": None, "checkpoint": "given", "step": None, "generation": None,
        "config_hash": None, "teacher_sha256": None,
    }  # fmt: skip
    rows = [
        _row(encoder, suite, split, split_scores, config.evaluation.max_length, facts)
        for split, split_scores in (("dev", dev), ("test", scores))
    ]
    if config.output is not None:
        for row in rows:
            append_row(Path(config.output), row)
    return rows


def _announce_override(folder: Path, config: EvaluateConfig) -> None:
    try:
        saved = saved_pooler(folder)
    except UserError:
        saved = None  # an unknown pooler is no obstacle where another is named
    if saved is not None and config.model.pooler is not None and config.model.pooler != saved:
        log.warning("pooler %s instead of %s, which was saved with %s", config.model.pooler, saved, folder)
