"""The run's batches: from any one on, without ragged ones, each model with its own tokens."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from otfkd.base.hashing import sha256_file
from otfkd.data.collate import Batch, Tokens
from otfkd.data.corpus import Corpus
from otfkd.data.datamodule import CorpusData, Source
from otfkd.data.tokens import token_cache
from tests.support.models import WORDS, make_tokenizer


def source(path: Path, cache: Path, tokenizer: PreTrainedTokenizerBase) -> Source:
    corpus = Corpus(path, sha256_file(path))
    return Source(token_cache(corpus, tokenizer, 16, cache), tokenizer.pad_token_id)


@pytest.fixture
def student(corpus_file: Path, tmp_path: Path) -> Source:
    return source(corpus_file, tmp_path, make_tokenizer())


def batches(data: CorpusData) -> list[Batch]:
    return list(data.train_dataloader())


def same(left: Batch, right: Batch) -> bool:
    return left.lines == right.lines and bool((left.student.input_ids == right.student.input_ids).all())


@pytest.mark.parametrize("start", [0, 1, 17, 29, 30])
def test_starting_late_feeds_exactly_the_rest(student: Source, start: int) -> None:
    whole = batches(CorpusData(student, [], batch_size=8, seed=1, total_batches=30))
    rest = batches(CorpusData(student, [], batch_size=8, seed=1, total_batches=30, start=start))
    assert len(whole) == 30
    assert len(rest) == 30 - start
    assert all(same(*pair) for pair in zip(whole[start:], rest, strict=True))


def test_lightning_is_told_the_whole_runs_length(student: Source) -> None:
    data = CorpusData(student, [], batch_size=8, seed=1, total_batches=30, start=17)
    assert len(data.train_dataloader()) == 30


def test_the_ragged_tail_sits_out(student: Source) -> None:
    fed = batches(CorpusData(student, [], batch_size=8, seed=1, total_batches=14))
    assert {len(batch.lines) for batch in fed} == {8}
    for part in (fed[:7], fed[7:]):
        assert len({line for batch in part for line in batch.lines}) == 56  # of 60 sentences


def test_tokens_are_those_of_the_lines(student: Source, corpus_file: Path) -> None:
    sentences, tokenizer = corpus_file.read_text().splitlines(), make_tokenizer()
    (batch,) = batches(CorpusData(student, [], batch_size=4, seed=1, total_batches=1))
    own = tokenizer([sentences[line] for line in batch.lines], padding=True, return_tensors="pt")
    assert batch.student.input_ids.tolist() == own["input_ids"].tolist()
    assert batch.student.attention_mask.tolist() == own["attention_mask"].tolist()


def test_a_teacher_gets_its_own_tokenizers_tokens(student: Source, corpus_file: Path, tmp_path: Path) -> None:
    foreign = make_tokenizer([*(f"word{i}" for i in range(300)), *WORDS[::2]])
    teacher = source(corpus_file, tmp_path, foreign)
    sentences = corpus_file.read_text().splitlines()
    for batch in batches(CorpusData(student, [teacher], batch_size=4, seed=1, total_batches=5)):
        texts = [sentences[line] for line in batch.lines]
        own = foreign(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
        (read,) = batch.teachers
        assert isinstance(read, Tokens)
        assert read.input_ids.tolist() == own["input_ids"].tolist()
        assert read.attention_mask.tolist() == own["attention_mask"].tolist()
        assert read.input_ids.tolist() != batch.student.input_ids.tolist()


def test_without_a_foreign_teacher_there_are_no_teacher_tokens(student: Source) -> None:
    (batch,) = batches(CorpusData(student, [], batch_size=4, seed=1, total_batches=1))
    assert batch.teachers == ()


def test_each_source_is_padded_with_its_own_id(student: Source) -> None:
    other = Source(student.tokens, pad_id=99)
    (batch,) = batches(CorpusData(student, [other], batch_size=8, seed=1, total_batches=1))
    (read,) = batch.teachers
    assert isinstance(read, Tokens)
    padding = read.attention_mask == 0
    assert padding.any()
    assert set(read.input_ids[padding].tolist()) == {99}
    assert set(batch.student.input_ids[padding].tolist()) == {0}


def test_fewer_sentences_than_a_batch_are_refused(student: Source) -> None:
    with pytest.raises(ValueError, match="60 sentences fill no batch of 61"):
        CorpusData(student, [], batch_size=61, seed=1, total_batches=1)


def test_a_batch_of_the_whole_corpus_is_allowed(student: Source) -> None:
    (batch,) = batches(CorpusData(student, [], batch_size=60, seed=1, total_batches=1))
    assert sorted(batch.lines) == list(range(60))
