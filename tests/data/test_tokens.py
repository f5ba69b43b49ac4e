"""The token cache: whole, true to the tokenizer, and made anew exactly when something that matters changed."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerBase

from otfkd.base.errors import UserError
from otfkd.base.hashing import sha256_file
from otfkd.data import tokens
from otfkd.data.corpus import Corpus
from otfkd.data.tokens import TokenCache, fingerprint_tokenizer, prompt_length, token_cache
from tests.support.models import WORDS, make_tokenizer

LINES = ["the cat sat on the mat", "", "a dog", "the big red house stood over the old road and the river"]
SENTENCES = [line for line in LINES if line]


def corpus_of(folder: Path, lines: list[str]) -> Corpus:
    path = folder / "corpus.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return Corpus(path, sha256_file(path))


def all_ids(cache: TokenCache) -> list[list[int]]:
    return [row.tolist() for row in cache.read(np.arange(len(cache)))[1]]


def made(folder: Path) -> list[str]:
    """What lies beside the locks."""
    return sorted(path.name for path in (folder / "tokens").iterdir() if path.suffix != ".lock")


def raise_tokenized(*_: object) -> None:
    raise AssertionError("tokenised again")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer()


def test_ids_are_the_tokenizers_own(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    cache = token_cache(corpus_of(tmp_path, LINES), tokenizer, 32, tmp_path)
    assert all_ids(cache) == tokenizer(SENTENCES)["input_ids"]


def test_sentences_are_cut_at_max_length_with_their_special_tokens(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    cut = all_ids(token_cache(corpus_of(tmp_path, LINES), tokenizer, 5, tmp_path))
    assert [len(row) for row in cut] == [5, 4, 5]
    assert cut[0] == tokenizer("the cat sat")["input_ids"]


def test_blank_lines_are_counted_and_keep_their_line_numbers(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    cache = token_cache(corpus_of(tmp_path, LINES), tokenizer, 32, tmp_path)
    assert (len(cache), cache.blank, cache.read(np.arange(3))[0]) == (3, 1, [0, 2, 3])


def test_rows_come_in_the_order_asked_for_repeats_too(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    lines, ids = token_cache(corpus_of(tmp_path, LINES), tokenizer, 32, tmp_path).read(np.array([2, 0, 2]))
    expected = tokenizer([SENTENCES[i] for i in (2, 0, 2)])["input_ids"]
    assert (lines, [row.tolist() for row in ids]) == ([3, 0, 3], expected)


def test_chunks_join_without_seam(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_CHUNK", 2)
    cache = token_cache(corpus_of(tmp_path, LINES), tokenizer, 32, tmp_path)
    assert all_ids(cache) == tokenizer(SENTENCES)["input_ids"]


def test_the_same_content_is_tokenised_once_even_at_another_path(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = token_cache(corpus_of(tmp_path, LINES), tokenizer, 32, tmp_path)
    monkeypatch.setattr(tokens, "tokenize_and_count", raise_tokenized)
    (tmp_path / "elsewhere").mkdir()
    again = token_cache(corpus_of(tmp_path / "elsewhere", LINES), tokenizer, 32, tmp_path)
    assert (all_ids(again), again.blank) == (all_ids(first), first.blank)


def test_a_changed_line_at_the_same_path_is_read_anew(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    token_cache(corpus_of(tmp_path, ["the cat", "a dog"]), tokenizer, 32, tmp_path)
    changed = token_cache(corpus_of(tmp_path, ["the cat", "a bird"]), tokenizer, 32, tmp_path)
    assert all_ids(changed)[1] == tokenizer("a bird")["input_ids"]


def test_another_length_is_another_cache(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    corpus = corpus_of(tmp_path, LINES)
    lengths = [max(map(len, all_ids(token_cache(corpus, tokenizer, length, tmp_path)))) for length in (5, 6)]
    assert lengths == [5, 6]


def test_another_vocabulary_is_another_cache(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    corpus, other = corpus_of(tmp_path, LINES), make_tokenizer(WORDS[::-1])
    token_cache(corpus, tokenizer, 32, tmp_path)
    assert all_ids(token_cache(corpus, other, 32, tmp_path)) == other(SENTENCES)["input_ids"]


def test_a_tokenizer_that_reads_otherwise_with_the_same_vocabulary_is_told_apart() -> None:
    from tokenizers import normalizers

    other = make_tokenizer()
    other.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    assert other.get_vocab() == make_tokenizer().get_vocab()
    assert fingerprint_tokenizer(other) != fingerprint_tokenizer(make_tokenizer())


def test_a_tokenizers_fingerprint_does_not_depend_on_what_it_read_before() -> None:
    used = make_tokenizer()
    tokens.tokenize(used, SENTENCES, 4)
    assert fingerprint_tokenizer(used) == fingerprint_tokenizer(make_tokenizer())


def test_the_table_is_mapped_not_read(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    before = pa.total_allocated_bytes()
    cache = token_cache(corpus_of(tmp_path, [f"the cat {i}" for i in range(5000)]), tokenizer, 32, tmp_path)
    assert cache.table.nbytes > 100_000
    assert pa.total_allocated_bytes() - before < 10_000


def test_reading_takes_no_memory_in_proportion_to_the_table(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_CHUNK", 100)
    cache = token_cache(corpus_of(tmp_path, [f"the cat {i}" for i in range(5000)]), tokenizer, 32, tmp_path)
    pool = pa.proxy_memory_pool(before := pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        lines, _ = cache.read(np.arange(4999, 0, -50))
    finally:
        pa.set_memory_pool(before)
    assert lines == list(range(4999, 0, -50))
    assert cache.table.nbytes > 200_000
    assert pool.max_memory() < 10_000


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_nothing_and_the_next_is_whole(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    corpus, real, calls = corpus_of(tmp_path, LINES), tokens.tokenize_and_count, iter([False, True])

    def fail_at_second_chunk(*arguments: object) -> object:
        assert not gc.isenabled()
        if next(calls):
            raise error
        return real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(tokens, "_CHUNK", 2)
        patch.setattr(tokens, "tokenize_and_count", fail_at_second_chunk)
        with pytest.raises(error):
            token_cache(corpus, tokenizer, 32, tmp_path)
    assert made(tmp_path) == []
    assert gc.isenabled()
    assert len(token_cache(corpus, tokenizer, 32, tmp_path)) == 3
    assert gc.isenabled()


def test_what_a_killed_writer_left_goes_with_the_next_and_that_of_others_stays(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    corpus = corpus_of(tmp_path, LINES)
    token_cache(corpus, tokenizer, 32, tmp_path)
    whole = made(tmp_path)
    arrow = next((tmp_path / "tokens").glob("*.arrow"))
    arrow.unlink()
    for name in (f".{arrow.name}.abcd_123.unfinished", ".another.arrow.abcd_123.unfinished"):
        (tmp_path / "tokens" / name).mkdir()
        (tmp_path / "tokens" / name / "half").touch()
    token_cache(corpus, tokenizer, 32, tmp_path)
    assert made(tmp_path) == sorted([*whole, ".another.arrow.abcd_123.unfinished"])


def test_of_two_jobs_one_makes_a_cache_and_the_other_waits_for_it(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, real, calls, second = corpus_of(tmp_path, LINES), tokens._make, [], threading.Event()

    def make(*arguments: Any) -> None:
        calls.append(arguments)
        second.wait(20)
        real(*arguments)

    def is_whole(arrow: Path, counts: Path) -> bool:
        if calls:
            second.set()
        return whole(arrow, counts)

    whole = tokens._whole
    monkeypatch.setattr(tokens, "_make", make)
    monkeypatch.setattr(tokens, "_whole", is_whole)
    with ThreadPoolExecutor(2) as jobs:
        caches = [jobs.submit(token_cache, corpus, tokenizer, 32, tmp_path) for _ in range(2)]
        assert [len(cache.result()) for cache in caches] == [3, 3]
    assert len(calls) == 1


@pytest.mark.parametrize("gone", ["arrow", "json"])
def test_half_a_cache_is_made_anew(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, gone: str) -> None:
    corpus = corpus_of(tmp_path, LINES)
    token_cache(corpus, tokenizer, 32, tmp_path)
    next((tmp_path / "tokens").glob(f"*.{gone}")).unlink()
    assert all_ids(token_cache(corpus, tokenizer, 32, tmp_path)) == tokenizer(SENTENCES)["input_ids"]


@pytest.mark.parametrize("lines", [[], ["", "  "]], ids=["empty", "blank"])
def test_a_corpus_without_sentences_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, lines: list[str]
) -> None:
    corpus = corpus_of(tmp_path, lines)
    with pytest.raises(UserError, match=f"{corpus.path} has no sentence"):
        token_cache(corpus, tokenizer, 32, tmp_path)
    assert made(tmp_path) == []


def test_a_prompt_comes_before_every_sentence_and_has_a_cache_of_its_own(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    corpus = corpus_of(tmp_path, LINES)
    plain = all_ids(token_cache(corpus, tokenizer, 32, tmp_path))
    for prompt in ("the dog: ", "the bird: "):
        prompted = all_ids(token_cache(corpus, tokenizer, 32, tmp_path, prompt))
        assert prompted == tokenizer([prompt + sentence for sentence in SENTENCES])["input_ids"]
        before = prompt_length(tokenizer, prompt)
        assert [row[before:] for row in prompted] == [row[1:] for row in plain]


@pytest.mark.parametrize(("prompt", "length"), [("", 1), ("the dog", 3), ("the dog: ", 4)])
def test_a_prompts_length_counts_the_special_token_before_it_alone(
    tokenizer: PreTrainedTokenizerBase, prompt: str, length: int
) -> None:
    assert prompt_length(tokenizer, prompt) == length


def test_a_tokenizer_without_the_library_beneath_is_asked_itself(tokenizer: PreTrainedTokenizerBase) -> None:
    class Slow:
        def __call__(self, *given: Any, **named: Any) -> Any:
            return tokenizer(*given, **named)

    slow = cast(PreTrainedTokenizerBase, Slow())
    expected = tokenizer([f"a {line}" for line in SENTENCES], truncation=True, max_length=6)["input_ids"]
    assert tokens.tokenize(slow, SENTENCES, 6, "a ") == tokens.tokenize(tokenizer, SENTENCES, 6, "a ") == expected


def test_sentences_that_are_cut_and_those_that_repeat_are_counted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_CHUNK", 3)
    corpus = corpus_of(tmp_path, [*LINES, *LINES, "a dog"])
    whole = [len(ids) for ids in tokenizer([*SENTENCES, *SENTENCES, "a dog"])["input_ids"]]
    for length in (3, 4, 5, 8, 9, 32):
        cache = token_cache(corpus, tokenizer, length, tmp_path)
        assert (cache.cut, cache.repeats, cache.blank) == (sum(size > length for size in whole), 4, 2)


def test_a_tokenizer_without_the_library_beneath_counts_alike(tokenizer: PreTrainedTokenizerBase) -> None:
    class Slow:
        def __call__(self, *given: Any, **named: Any) -> Any:
            return tokenizer(*given, **named)

    slow = cast(PreTrainedTokenizerBase, Slow())
    for length in (4, 5, 8, 32):
        expected = tokens.tokenize_and_count(tokenizer, SENTENCES, length, "a ")
        assert tokens.tokenize_and_count(slow, SENTENCES, length, "a ") == expected


def test_a_cache_of_before_there_were_counts_is_made_anew_once(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_of(tmp_path, LINES)
    first = token_cache(corpus, tokenizer, 5, tmp_path)
    (counts,) = (tmp_path / "tokens").glob("*.json")
    counts.write_text('{"rows": 3, "blank": 1}')
    again = token_cache(corpus, tokenizer, 5, tmp_path)
    assert again.table.equals(first.table)
    assert (again.cut, again.repeats) == (2, 0)
    monkeypatch.setattr(tokens, "tokenize_and_count", raise_tokenized)
    token_cache(corpus, tokenizer, 5, tmp_path)
