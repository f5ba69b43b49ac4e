"""Sentences, corpora and scored pairs in the words of the tiny models."""

import random
from pathlib import Path

from otfkd.data.sts import DevTask, Subset, Suite, TestTask
from tests.support.models import WORDS


def sentence(rng: random.Random) -> str:
    """Four to ten words of the tiny vocabulary."""
    return " ".join(rng.choices(WORDS, k=rng.randint(4, 10)))


def make_corpus(path: Path, sentences: int = 60, seed: int = 0) -> Path:
    """Write distinct random sentences of the tiny vocabulary, one a line."""
    rng = random.Random(seed)
    lines: dict[str, None] = {}
    while len(lines) < sentences:
        lines[sentence(rng)] = None
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def tied_task(name: str = "tied") -> TestTask:
    """A task that no model can rank: each sentence is paired with itself."""
    return TestTask(name, (Subset("tied", tuple((word, word, float(i)) for i, word in enumerate(WORDS[:6]))),))


def make_suite() -> Suite:
    """Twelve dev and twelve test pairs in the tiny vocabulary."""
    rng = random.Random(7)

    def pairs() -> tuple[tuple[str, str, float], ...]:
        return tuple((sentence(rng), sentence(rng), float(grade)) for grade in (0, 1, 2, 3, 4, 5) * 2)

    return Suite(
        "tiny", DevTask("tiny dev", (Subset("dev", pairs()),)), (TestTask("tiny", (Subset("test", pairs()),)),)
    )
