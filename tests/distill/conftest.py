import lightning as L
import pytest

import otfkd.runs
from otfkd.config import Config
from tests.distill.recording import Before, Recorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Records the weights of the runs a test makes, step by step."""
    recorder, original = Recorder(), otfkd.runs._trainer

    def recorded(config: Config, callbacks: list[L.Callback]) -> L.Trainer:
        return original(config, [Before(recorder), *callbacks, recorder])

    monkeypatch.setattr(otfkd.runs, "_trainer", recorded)
    return recorder
