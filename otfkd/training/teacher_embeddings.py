"""A fixed teacher's embeddings of the corpus: computed by the first run that needs them, read by all others.

The whole corpus is embedded before training begins, in an order and in batches of the file's own. Embedded only when it
comes up, a sentence would round as in the batch of whichever run came first, and a run's bits would depend on what ran
before it.
"""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Generator, Sequence

import numpy as np
import torch
import transformers
from filelock import FileLock, Timeout

from otfkd.base.errors import DivergenceError, Interrupted, UserError
from otfkd.base.files import clear_unfinished
from otfkd.base.hashing import sha256_bytes
from otfkd.base.processes import any_process, broadcast
from otfkd.base.progress import counted
from otfkd.base.signals import stop_flag
from otfkd.config.sections import Compute
from otfkd.data.corpus import Corpus
from otfkd.data.embedded import Embedded
from otfkd.data.tokens import token_cache
from otfkd.evaluation.encode import encode_tokens
from otfkd.models.encoder import Encoder
from otfkd.models.registry import fingerprint_model
from otfkd.training.run import Run

log = logging.getLogger("otfkd")

Work = Generator[None, None, None]  # done part by part

FORMAT = 1  # of the file, and of what decides its bits here: the two sizes below, and how an encoder computes
_BLOCK = 1024  # sentences that are sorted by length, and written, together
_BATCH = 128  # sentences embedded at once


def embedding_files(run: Run, teachers: Sequence[Encoder]) -> list[Embedded]:
    """Where each teacher's embeddings of the run's corpus are, or will be.

    Two runs share a file if they would compute the same bits: of the same text, read alike, by the same teacher, in the
    same precision, by the same versions and kind of device, and on a CPU by as many threads.
    """
    folder = run.cache / "embeddings"
    keys = [_key(run, fingerprint_model(path), teacher) for path, teacher in zip(run.teachers, teachers, strict=True)]
    return [
        Embedded(folder / f"{key}.npy", run.size, teacher.width) for key, teacher in zip(keys, teachers, strict=True)
    ]


def _key(run: Run, files: str, teacher: Encoder) -> str:
    if run.device.type == "cuda":
        device = torch.cuda.get_device_name(run.device)
    else:
        device = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    facts = [
        FORMAT, run.data.sha256, teacher.input_hash, run.config.data.max_length,
        files, teacher.backbone.config.num_hidden_layers, teacher.pooler, teacher.pool_prompt, teacher.normalize,
        run.config.precision.model_dump(), torch.__version__, transformers.__version__, device,
    ]  # fmt: skip
    return sha256_bytes([json.dumps(facts).encode()])[:24]


def precomputed(run: Run, corpus: Corpus, teachers: Sequence[Encoder]) -> list[Embedded]:
    """Each teacher's embeddings of the corpus, computed here where they are not there yet.

    Raises:
        UserError: there is no room for them, or they are not finite.
        Interrupted: a signal came meanwhile.
    """
    files = broadcast(lambda: embedding_files(run, teachers))
    for file, folder, teacher in zip(files, run.teachers, teachers, strict=True):
        try:
            _first_alone(_filled(run, corpus, teacher, file))
        except DivergenceError:
            raise UserError(f"{folder} cannot teach, for its embeddings are not finite: take another model") from None
        log.info("teacher: embeddings of %s in %s", folder, file.path)
    return files


def _first_alone(work: Work) -> None:
    """Have the first process do long work; the others wait for a part of it at a time, for they do not wait for hours.

    Raises:
        Interrupted: a signal came to any of them.
    """
    over = object()
    with stop_flag() as stopping, contextlib.closing(work):
        while broadcast(lambda: next(work, over) is not over):
            if any_process(stopping()):
                raise Interrupted(
                    "stopped while the teacher's embeddings were computed; the same command begins with them again"
                )


def _filled(run: Run, corpus: Corpus, teacher: Encoder, file: Embedded) -> Work:
    """Fill a file part by part, unless it is whole or another job fills it meanwhile."""
    if file.whole:
        return
    file.path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file.path.with_name(f".{file.path.stem}.lock"))
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            yield
    try:
        if not file.whole:
            clear_unfinished(file.path.parent, file.path.name)
            yield from _filling(run, corpus, teacher, file)
    finally:
        lock.release()


def _filling(run: Run, corpus: Corpus, teacher: Encoder, file: Embedded) -> Work:
    if file.path.exists():
        log.warning("%s is not what it should be: it is made again", file.path)
    needed, free = file.size / 2**30, shutil.disk_usage(file.path.parent).free / 2**30
    if needed > free:
        raise UserError(
            f"the teacher's embeddings take {needed:.2f} GiB and {file.path.parent} has {free:.2f} GiB left: "
            "make room, name another folder by paths.cache, or leave teacher.precomputed=false"
        )
    log.info("teacher: %d sentences are embedded first, %.2f GiB", file.sentences, needed)
    started = time.monotonic()
    tokens = token_cache(corpus, teacher.tokenizer, run.config.data.max_length, run.cache, teacher.prompt)
    teacher.to(run.device)
    compute: Compute = "bfloat16" if run.config.precision.compute == "bfloat16" else "float32"
    with counted("teacher's embeddings", file.sentences) as advance, file.writing() as write:
        for start in range(0, file.sentences, _BLOCK):
            _, ids = tokens.read(np.arange(start, min(start + _BLOCK, file.sentences)))
            write(encode_tokens(teacher, ids, batch_size=_BATCH, compute=compute, advance=advance))
            yield
    teacher.cpu()
    log.info("teacher: embedded in %.0f s", time.monotonic() - started)
