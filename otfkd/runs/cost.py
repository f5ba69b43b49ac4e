"""What a run cost: clock, encoder passes and memory, read from the files it leaves."""

import math

from otfkd.config.schema import Config
from otfkd.runs.folder import RunFolder
from otfkd.runs.origin import Timing
from otfkd.runs.rotations import Refused
from otfkd.runs.rows import Cost, DevPoint

_VIEW = 3  # forward, and a backward pass counted as two (Kaplan et al. 2020, sec. 2.1)


def read_cost(folder: RunFolder, config: Config, initial_members: int, sentences: int, steps: int) -> Cost:
    """The cost of a finished run.

    Args:
        folder: the run's.
        config: the run's.
        initial_members: of the teacher that filled its slot at step 0.
        sentences: of the corpus.
        steps: optimizer steps that it had.
    """
    rotations = folder.read_rotations()
    generations = [record for record in rotations if not isinstance(record, Refused)]
    refused = tuple(record.step for record in rotations if isinstance(record, Refused))
    members = [(0, initial_members), *((one.step, one.members) for one in generations)]
    seconds, at_step, peak = clock(folder.read_timings())
    return Cost(
        seconds=seconds,
        forwards=forwards(config, members, steps, sentences),
        peak_bytes=peak,
        curve=tuple(
            DevPoint(step=step, dev=dev, seconds=at_step[step], forwards=forwards(config, members, step, sentences))
            for step, dev in folder.read_dev_scores().items()
        ),
        rotations=tuple((one.step, one.sha256) for one in generations),
        refused=len(refused),
        refused_at=refused,
    )


def forwards(config: Config, members: list[tuple[int, int]], step: int, sentences: int = 0) -> int:
    """Encoder passes over one view of a micro-batch up to a step.

    A teacher whose embeddings are precomputed passes once over the corpus. Every run counts that in full, whether it
    made the embeddings or found them: what a run cost must not depend on what ran before it.

    Args:
        config: the run's.
        members: (step, how many teach from then on), in order, from step 0.
        step: optimizer steps done.
        sentences: of the corpus, where precomputing is to be counted.
    """
    views = config.read_at_once // config.data.batch_size
    if config.objective.predicts_tokens:
        views += 1  # the masked one
    passes = (_VIEW + config.chunked) * views * step
    if config.precomputes:
        ((_, count),) = members
        return passes * config.trainer.accumulate + count * math.ceil(sentences / config.data.batch_size)
    ends = [begin for begin, _ in members[1:]] + [config.trainer.max_steps]
    for (begin, count), end in zip(members, ends, strict=True):
        asked = min(count, 1) if config.schedule.aggregate == "sample" else count
        passes += asked * max(0, min(end, step) - begin) if config.distils else 0
    return passes * config.trainer.accumulate


def clock(events: list[Timing]) -> tuple[float, dict[int, float], int | None]:
    """Seconds in all and until each dev score, over every attempt at a run, and the highest peak of memory."""
    earlier = last = 0.0
    until: dict[int, float] = {}
    peaks: list[int] = []
    for event in events:
        if event.event == "start":
            earlier, last = earlier + last, 0.0
        last = event.seconds
        if event.event == "dev" and event.step is not None:
            until[event.step] = earlier + last
        if event.peak_bytes is not None:
            peaks.append(event.peak_bytes)
    return earlier + last, until, max(peaks, default=None)
