"""What a run's models read: the batches of its corpus or examples, and the initial teacher with what it reads."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from otfkd.base.processes import own_rows
from otfkd.data.corpus import Corpus
from otfkd.data.datamodule import CorpusData, LabelledData, Source, TeacherInput
from otfkd.data.labelled import Examples
from otfkd.distill.teacher import Precomputed
from otfkd.models.encoder import Encoder
from otfkd.training.run import Run
from otfkd.training.teacher_embeddings import precomputed
from otfkd.training.tokens import read_tokens

log = logging.getLogger("otfkd")


def _source(run: Run, corpus: Corpus, encoder: Encoder) -> Source:
    return Source(read_tokens(run, corpus, encoder), encoder.pad_id)


def labelled_data(run: Run, examples: Examples, student: Encoder, done: int) -> LabelledData:
    """The batches of examples after the first `done` optimizer steps."""
    config = run.config
    return LabelledData(
        _source(run, examples.corpus(run.cache), student),
        examples,
        batch_size=config.data.batch_size,
        seed=config.seed,
        total_batches=config.total_batches,
        only=config.trainer.overfit_batches,
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
        only=config.trainer.overfit_batches,
        start=done * config.trainer.accumulate,
        share=own_rows(config.data.batch_size),
    )
    tokens = data.batches.student.tokens
    skipped = "blank or repeated" if config.data.unique else "blank"
    log.info("corpus: %d sentences, %d %s lines skipped", len(tokens), tokens.blank, skipped)
    return data


@dataclass(frozen=True)
class InitialTeacher:
    """Who teaches from the start.

    Attributes:
        members: in order; none where the slot starts empty.
        inputs: what some of them read instead of the student's tokens.
        reads: for each member the position of its own among the inputs; None where it reads as the student does.
    """

    members: Sequence[nn.Module]
    inputs: Sequence[TeacherInput]
    reads: Sequence[int | None]


def initial_teacher(run: Run, corpus: Corpus, student: Encoder, teachers: Sequence[Encoder]) -> InitialTeacher:
    """Make the initial teacher of its encoders, or of their precomputed embeddings.

    Args:
        run: the run.
        corpus: its text.
        student: a teacher that reads alike needs no tokens of its own.
        teachers: the encoders.
    """
    if run.config.precomputes:
        files = precomputed(run, corpus, teachers)
        return InitialTeacher([Precomputed(file.width) for file in files], files, range(len(files)))
    readers = {teacher.input_hash: teacher for teacher in teachers}
    own = [name for name in readers if name != student.input_hash]
    reads = [None if one.input_hash == student.input_hash else own.index(one.input_hash) for one in teachers]
    return InitialTeacher(teachers, [_source(run, corpus, readers[name]) for name in own], reads)
