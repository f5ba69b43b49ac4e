import lightning as L
import pytest

import otfkd.training.train
from otfkd.config.schema import Config
from tests.distill.recording import Before, Recorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Records the weights of the runs a test makes, step by step."""
    recorder, original = Recorder(), otfkd.training.train._trainer

    def recorded(config: Config, callbacks: list[L.Callback]) -> L.Trainer:
        return original(config, [Before(recorder), *callbacks, recorder])

    monkeypatch.setattr(otfkd.training.train, "_trainer", recorded)
    return recorder
