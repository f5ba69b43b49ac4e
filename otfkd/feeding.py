"""What a run's models are fed: the corpus or the examples as each of them reads it."""

import logging
from collections.abc import Sequence

from torch import nn

from otfkd.data.corpus import Corpus
from otfkd.data.datamodule import CorpusData, LabelledData, Reading, Source
from otfkd.data.labelled import Examples
from otfkd.data.tokens import token_cache
from otfkd.distill.teacher import Precomputed
from otfkd.models.encoder import Encoder
from otfkd.precompute import precomputed
from otfkd.prepare import Prepared
from otfkd.processes import after_first, share

log = logging.getLogger("otfkd")


def _source(run: Prepared, corpus: Corpus, encoder: Encoder) -> Source:
    length = run.config.data.max_length
    tokens = after_first(lambda: token_cache(corpus, encoder.tokenizer, length, run.cache, encoder.prompt))
    return Source(tokens, encoder.pad_id)


def labelled_data(run: Prepared, examples: Examples, student: Encoder, done: int) -> LabelledData:
    """The batches of examples after the first `done` optimizer steps."""
    config = run.config
    return LabelledData(
        _source(run, examples.corpus(run.cache), student),
        examples,
        batch_size=config.data.batch_size,
        seed=config.seed,
        total_batches=config.total_batches,
        start=done * config.trainer.accumulate,
    )


def corpus_data(run: Prepared, corpus: Corpus, student: Encoder, teachers: Sequence[Reading], done: int) -> CorpusData:
    """The batches of sentences after the first `done` optimizer steps."""
    config = run.config
    data = CorpusData(
        _source(run, corpus, student),
        teachers,
        batch_size=config.data.batch_size,
        seed=config.seed,
        total_batches=config.total_batches,
        start=done * config.trainer.accumulate,
        share=share(config.data.batch_size),
    )
    tokens = data.batches.student.tokens
    log.info("corpus: %d sentences, %d blank lines skipped", len(tokens), tokens.blank)
    return data


def initial_teacher(
    run: Prepared, corpus: Corpus, student: Encoder, teachers: list[Encoder]
) -> tuple[list[nn.Module], list[Reading], list[int | None]]:
    """Who is to teach from the start.

    Args:
        run: the run.
        corpus: its text.
        student: what a teacher reads alike needs no tokens of its own.
        teachers: the encoders; dropped where their embeddings will do, for they are as large as the student.

    Returns:
        The members, what some of them read instead of the student's tokens, and which of these each reads, if any.
    """
    if run.config.precomputes:
        files = precomputed(run, corpus, teachers)
        teachers.clear()
        return [Precomputed(file.width) for file in files], [*files], [*range(len(files))]
    readers = {teacher.reading: teacher for teacher in teachers}
    own = [reading for reading in readers if reading != student.reading]
    reads = [None if teacher.reading == student.reading else own.index(teacher.reading) for teacher in teachers]
    return [*teachers], [_source(run, corpus, readers[reading]) for reading in own], reads
