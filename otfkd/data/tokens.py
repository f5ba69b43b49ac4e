"""Token ids of a corpus: made once, then memory-mapped from Arrow."""

import contextlib
import gc
import json
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from otfkd.base.errors import UserError
from otfkd.base.files import atomic_file, clear_unfinished, write_text
from otfkd.base.hashing import sha256_bytes, sha256_file
from otfkd.data.corpus import Corpus, repeat_key

log = logging.getLogger("otfkd")

FORMAT = 1
_COUNTS = {"rows", "blank", "cut", "repeats"}
_CHUNK = 10_000
_SCHEMA = pa.schema([("line", pa.int64()), ("input_ids", pa.list_(pa.int32()))])


@dataclass(frozen=True)
class TokenCache:
    """The tokenised sentences of one corpus for one tokenizer.

    Attributes:
        table: an Arrow table with `line` and `input_ids`, memory-mapped.
        blank: how many blank lines of the corpus were skipped.
        cut: how many sentences are longer than what is read of them.
        repeats: how many sentences came before.
    """

    table: pa.Table
    blank: int
    cut: int
    repeats: int

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def read(self, rows: NDArray[np.int64]) -> tuple[list[int], list[NDArray[np.int32]]]:
        """Line numbers and token ids of some rows, in their order."""
        # Row by row from the part it lies in: `take` joins all parts in memory first.
        starts, lines, ids = self._parts
        parts = np.searchsorted(starts, rows, side="right") - 1
        places = [(int(part), int(place)) for part, place in zip(parts, rows - starts[parts], strict=True)]
        return (
            [lines[part][place].as_py() for part, place in places],
            [ids[part][place].values.to_numpy() for part, place in places],
        )

    @cached_property
    def _parts(self) -> tuple[NDArray[np.int64], list[pa.Array], list[pa.Array]]:
        """Where the table's parts begin, and their columns."""
        lines, ids = self.table.column("line").chunks, self.table.column("input_ids").chunks
        return np.cumsum([0, *map(len, lines[:-1])]), lines, ids


def tokenize(
    tokenizer: PreTrainedTokenizerBase, sentences: list[str], max_length: int, prompt: str = ""
) -> list[list[int]]:
    """Token ids of each sentence after the prompt, with special tokens, at most `max_length` of them, unpadded.

    Raises:
        UserError: the prompt alone takes them all.
    """
    return tokenize_and_count(tokenizer, sentences, max_length, prompt)[0]


def tokenize_and_count(
    tokenizer: PreTrainedTokenizerBase, sentences: list[str], max_length: int, prompt: str
) -> tuple[list[list[int]], int]:
    """What `tokenize` gives, and how many sentences are cut.

    Raises:
        UserError: the prompt alone takes all tokens.
    """
    if prompt and len(tokenizer(prompt)["input_ids"]) >= max_length:
        raise UserError(
            f"the model's prompt {prompt!r} leaves no room for a sentence within max_length={max_length}: raise it"
        )
    texts = [prompt + sentence for sentence in sentences]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        slow: list[list[int]] = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
        full = [text for text, ids in zip(texts, slow, strict=True) if len(ids) == max_length]
        longer = tokenizer(full, truncation=True, max_length=max_length + 1)["input_ids"] if full else []
        return slow, sum(len(ids) > max_length for ids in longer)
    # The library itself: what transformers wraps around it takes a third of the time.
    backend.no_padding()
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    try:
        encodings = backend.encode_batch_fast(texts)
        return [encoding.ids for encoding in encodings], sum(bool(encoding.overflowing) for encoding in encodings)
    finally:
        backend.no_truncation()


def prompt_length(tokenizer: PreTrainedTokenizerBase, prompt: str) -> int:
    """How many tokens a prompt puts before a sentence's own, special ones at the start included."""
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - len({*ids[-1:]}.intersection(tokenizer.all_special_ids))


def fingerprint_tokenizer(tokenizer: PreTrainedTokenizerBase, prompt: str = "") -> str:
    """A hash of how a tokenizer reads a few telling sentences, of its whole vocabulary and of the prompt."""
    probe = tokenizer(["Hello, WORLD! naïve café", "a\u2028b \x0c\ufeffc", "unaffable 12,345.67 😀"])["input_ids"]
    vocabulary = sorted(tokenizer.get_vocab().items())
    cut = [] if tokenizer.truncation_side == "right" else [b"cut on the left"]
    return sha256_bytes(
        [type(tokenizer).__name__.encode(), json.dumps([probe, vocabulary]).encode(), prompt.encode(), *cut]
    )


def token_cache(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, max_length: int, cache: Path, prompt: str = ""
) -> TokenCache:
    """Open the token cache of a corpus, making it first if this content was never read so.

    Raises:
        UserError: a corpus without sentences, one that changes, a line that is not UTF-8, or a prompt that leaves no
            room.
    """
    key = sha256_bytes([f"{FORMAT}|{corpus.sha256}|{fingerprint_tokenizer(tokenizer, prompt)}|{max_length}".encode()])[
        :24
    ]
    arrow, counts = cache / "tokens" / f"{key}.arrow", cache / "tokens" / f"{key}.json"
    if not _whole(arrow, counts):
        arrow.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(arrow.with_name(f".{key}.lock")):  # the next job of a sweep waits, and then finds it made
            if not _whole(arrow, counts):
                _make(arrow, counts, corpus, tokenizer, max_length, prompt)
    made = json.loads(counts.read_text())
    return TokenCache(_open(arrow), made["blank"], made["cut"], made["repeats"])


def _whole(arrow: Path, counts: Path) -> bool:
    # Caches of before there were all of these counts are made anew.
    return arrow.is_file() and counts.is_file() and json.loads(counts.read_text()).keys() >= _COUNTS


def _make(
    arrow: Path, counts: Path, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str
) -> None:
    log.info("corpus: %s is tokenised", corpus.name)
    clear_unfinished(arrow.parent, arrow.name)
    with atomic_file(arrow) as temporary:
        counted = _write(temporary, corpus, tokenizer, max_length, prompt)
        if sha256_file(corpus.path) != corpus.sha256:
            raise UserError(f"{corpus.name} was changed while it was read: give the command again")
    # The counts come last: with them there, the table is whole.
    write_text(counts, json.dumps(counted))


def _open(path: Path) -> pa.Table:
    # Memory-mapped: random access costs a few pages, whatever the corpus' size.
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
        return stream.read_all()


def _write(
    path: Path, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str
) -> dict[str, int]:
    """Write the table; gives what was counted meanwhile."""
    cut, keys = 0, bytearray()
    chunks = _chunks(_noted(corpus.sentences(), keys))
    with _uncollected(), pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        for lines, (ids, cut_here) in _tokenized(chunks, tokenizer, max_length, prompt):
            ends = pa.array(np.cumsum([0, *map(len, ids)], dtype=np.int32))
            flat = pa.array(np.fromiter(chain.from_iterable(ids), np.int32))
            writer.write_batch(pa.record_batch([pa.array(lines), pa.ListArray.from_arrays(ends, flat)], _SCHEMA))
            cut += cut_here
    rows = len(keys) // 8
    if rows == 0:
        raise UserError(f"{corpus.name} has no sentence: give text with one sentence a line")
    numbers = np.frombuffer(keys, np.uint64)
    numbers.sort()
    repeats = int(np.count_nonzero(numbers[1:] == numbers[:-1]))
    return {"rows": rows, "blank": _line_count(corpus.path) - rows, "cut": cut, "repeats": repeats}


def _noted(sentences: Iterator[tuple[int, str]], keys: bytearray) -> Iterator[tuple[int, str]]:
    """The same, each sentence's key written down."""
    for line, sentence in sentences:
        keys += repeat_key(sentence)
        yield line, sentence


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Do without the garbage collector, whose search of all these lists for cycles takes a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _tokenized(
    chunks: Iterator[list[tuple[int, str]]], tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str
) -> Iterator[tuple[list[int], tuple[list[list[int]], int]]]:
    """Lines, token ids and cut sentences of each chunk; the next one is tokenised while this one is in use."""
    with ThreadPoolExecutor(1) as beside:

        def begin() -> tuple[list[int], Future[tuple[list[list[int]], int]]] | None:
            if not (chunk := next(chunks, [])):
                return None
            lines, sentences = zip(*chunk, strict=True)
            return list(lines), beside.submit(tokenize_and_count, tokenizer, list(sentences), max_length, prompt)

        ahead = begin()
        while ahead is not None:
            (lines, tokenized), ahead = ahead, begin()
            yield lines, tokenized.result()


def _line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _chunks(sentences: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    while chunk := list(islice(sentences, _CHUNK)):
        yield chunk
