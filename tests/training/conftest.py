from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.models import make_model


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two teachers that read other tokens than the student, of another width."""
    folder = tmp_path_factory.mktemp("teachers")
    return [
        make_model(folder / "a", width=48, words=["the", "cat"], seed=3),
        make_model(folder / "b", width=16, words=["moon"], seed=4),
    ]


@pytest.fixture
def command(teachers: list[Path]) -> Callable[..., tuple[str, ...]]:
    """Overrides of a variant of an on-the-fly run, `{a}` and `{b}` being two teachers."""
    return lambda *more: (
        "experiment=otfkd",
        *(() if any(text.startswith("schedule=") for text in more) else ("schedule.every=4",)),
        *(text.format(a=teachers[0], b=teachers[1]) for text in more),
    )
