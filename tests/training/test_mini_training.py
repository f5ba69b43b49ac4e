"""The embedded default is worth training on: SimCSE learns something in a short run."""

from pathlib import Path

import pytest
import torch

from otfkd.base.errors import UserError
from otfkd.config.composition import compose, load_config
from otfkd.config.schema import EvaluateConfig
from otfkd.evaluation.scoring import score_model
from otfkd.models.registry import find_model
from otfkd.training.train import train
from tests.support.rows import defined


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_simcse_beats_the_untrained_encoder_on_mini_dev(tmp_path: Path, seed: int) -> None:
    try:
        find_model("minilm")
    except UserError:
        pytest.skip("the embedded model is not installed")
    torch.set_num_threads(2)
    untrained = score_model(EvaluateConfig.from_hydra(compose(["model=minilm"], "evaluate")))[0]
    config = load_config(["experiment=simcse", "profile=mini", f"seed={seed}", f"paths.runs={tmp_path}"])
    selected = next(row for row in train(config).rows if row.split == "dev" and row.checkpoint == "selected")
    torch.set_num_threads(1)
    assert selected.suite_sha256 == untrained.suite_sha256
    assert defined(selected.average) > defined(untrained.average) + 1.0
