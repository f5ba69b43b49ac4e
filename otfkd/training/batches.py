"""What a run's models are fed: the corpus or the examples as each of them reads it."""

import logging
from collections.abc import Sequence

from torch import nn

from otfkd.base.processes import own_rows, rank_zero_first
from otfkd.data.corpus import Corpus
from otfkd.data.datamodule import CorpusData, LabelledData, Source, TeacherInput
from otfkd.data.labelled import Examples
from otfkd.data.tokens import token_cache
from otfkd.distill.teacher import Precomputed
from otfkd.models.encoder import Encoder
from otfkd.training.run import Run
from otfkd.training.teacher_embeddings import precomputed

log = logging.getLogger("otfkd")


def _source(run: Run, corpus: Corpus, encoder: Encoder) -> Source:
    length = run.config.data.max_length
    tokens = rank_zero_first(lambda: token_cache(corpus, encoder.tokenizer, length, run.cache, encoder.prompt))
    return Source(tokens, encoder.pad_id)


def labelled_data(run: Run, examples: Examples, student: Encoder, done: int) -> LabelledData:
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


def corpus_data(run: Run, corpus: Corpus, student: Encoder, teachers: Sequence[TeacherInput], done: int) -> CorpusData:
    """The batches of sentences after the first `done` optimizer steps."""
    config = run.config
    data = CorpusData(
        _source(run, corpus, student),
        teachers,
        batch_size=config.data.batch_size,
        seed=config.seed,
        total_batches=config.total_batches,
        start=done * config.trainer.accumulate,
        share=own_rows(config.data.batch_size),
    )
    tokens = data.batches.student.tokens
    log.info("corpus: %d sentences, %d blank lines skipped", len(tokens), tokens.blank)
    return data


def initial_teacher(
    run: Run, corpus: Corpus, student: Encoder, teachers: list[Encoder]
) -> tuple[list[nn.Module], list[TeacherInput], list[int | None]]:
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
