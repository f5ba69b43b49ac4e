"""What a corpus' size and a snapshot cost: memory that grows, sentences tokenised a second, seconds a rotation waits.

A table of 20 million rows takes 600 MB of disk meanwhile.
"""

import gc
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import BertConfig, BertModel

from experiments.benchmarks.common import Row, ratio
from otfkd.base.hashing import sha256_file
from otfkd.data.corpus import Corpus
from otfkd.data.datamodule import CorpusData, Source
from otfkd.data.mini import corpus as mini_sentences
from otfkd.data.tokens import _SCHEMA, TokenCache, _open, token_cache
from otfkd.distill.candidates import _finite
from otfkd.distill.snapshots import SnapshotCache
from otfkd.distill.teacher import TeacherSlot
from otfkd.models.registry import find_model, load_encoder

SMALL, LARGE = 200_000, 20_000_000
_PART, _LENGTH = 10_000, 4  # rows a record batch, tokens a row


def make_table(path: Path, rows: int) -> Path:
    """Write a token cache's table of short rows, as `token_cache` lays it out."""
    offsets = pa.array(np.arange(0, (_PART + 1) * _LENGTH, _LENGTH, dtype=np.int32))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        for first in range(0, rows, _PART):
            ids = pa.array((np.arange(_PART * _LENGTH) + first).astype(np.int32) % 30_000)
            lines = pa.array(np.arange(first, first + _PART))
            writer.write_batch(pa.record_batch([lines, pa.ListArray.from_arrays(offsets, ids)], _SCHEMA))
    return path


def anonymous() -> int:
    """Bytes of this process' resident memory that no file backs (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("RssAnon")).split()[1])


def peak_while_reading(path: Path, batches: int) -> tuple[int, float]:
    """The most anonymous memory of a process that reads a run's batches from a table, and seconds a batch."""
    data = CorpusData(
        Source(TokenCache(_open(path), 0, 0, 0), 0), [], batch_size=64, seed=0, total_batches=batches
    ).train_dataloader()
    peak, began = anonymous(), time.perf_counter()
    for _ in data:
        peak = max(peak, anonymous())
    return peak, (time.perf_counter() - began) / batches


def corpus_memory(folder: Path, sizes: tuple[int, int] = (SMALL, LARGE), batches: int = 500) -> list[Row]:
    """How anonymous memory grows from a corpus to another, each read by a process of its own."""
    rows: list[Row] = []
    for size in sizes:
        path = make_table(folder / f"{size}.arrow", size)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            peak, seconds = alone.submit(peak_while_reading, path, batches).result()
        rows.append({"sentences": size, "anonymous_mb": peak / 2**20, "ms_a_batch": 1000 * seconds})
        path.unlink()
    rows[-1]["grown_mb"] = rows[-1]["anonymous_mb"] - rows[0]["anonymous_mb"]
    return rows


def tokenising(folder: Path, sentences: int = 200_000) -> list[Row]:
    """Sentences tokenised a second into a cache, and by the tokenizer library alone."""
    encoder = load_encoder(find_model("minilm"), "cls")
    texts = list(_repeated(list(mini_sentences()), sentences))
    path = folder / "corpus.txt"
    path.write_text("".join(f"{text}\n" for text in texts))
    corpus = Corpus(path, sha256_file(path))

    backend = encoder.tokenizer.backend_tokenizer
    backend.enable_truncation(32)
    gc.disable()  # as it is for ours: this is the library's limit, not the collector's
    library = _fastest(lambda: backend.encode_batch_fast(texts))
    gc.enable()
    ours = _fastest(lambda: token_cache(corpus, encoder.tokenizer, 32, Path(tempfile.mkdtemp(dir=folder))))
    return [
        {"what": "token cache", "sentences_a_second": sentences / ours},
        {"what": "tokenizers alone", "sentences_a_second": sentences / library, "share": library / ours},
    ]


def _repeated(texts: list[str], size: int) -> Iterator[str]:
    rng = random.Random(0)
    for _ in range(size):
        yield rng.choice(texts)


def snapshot_wait(folder: Path) -> list[Row]:
    """Seconds a training loop waits for the snapshot and rotation of a BERT-base, and what its file takes beside it."""
    torch.manual_seed(0)
    student = BertModel(BertConfig(), add_pooling_layer=False).requires_grad_(False)
    slot, cache = TeacherSlot(), SnapshotCache(folder / "snapshots")
    slot.install([student])
    waits, writes = [], []
    for step in range(1, 6):
        began = time.perf_counter()
        assert _finite(student.state_dict())
        snapshot = cache.save(student.state_dict(), step, None)
        slot.put(0, student, cache.weights(snapshot))
        waits.append(time.perf_counter() - began)
        cache.join()
        writes.append(time.perf_counter() - began)
        cache.prune(())
    parameters = sum(weight.numel() for weight in student.parameters())
    return [
        {"what": "the loop waits", "parameters": parameters, "first_s": waits[0], "best_s": min(waits[1:])},
        {"what": "the file is whole", "parameters": parameters, "first_s": writes[0], "best_s": min(writes[1:])},
    ]


def _fastest(action: Callable[[], object], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measure() -> list[Row]:
    """What a snapshot and a corpus' size cost, against what they may."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wait, whole = snapshot_wait(folder)
        ours, library = tokenising(folder)
        large = corpus_memory(folder)[-1]
    return [
        ratio("wait for snapshot and rotation of a BERT-base / 0.3 s", wait["best_s"], 0.3, 1.0),
        {"what": "its first one, for which memory is mapped, s", "ours": wait["first_s"]},
        {"what": "until its file is whole, beside the training, s", "ours": whole["best_s"]},
        ratio(
            "sentences tokenised a second / by the library alone", ours["sentences_a_second"],
            library["sentences_a_second"], 0.9, at_least=True,
        ),
        ratio("memory from 200 k to 20 M lines / 50 MB", large["grown_mb"], 50.0, 1.0),
    ]  # fmt: skip
