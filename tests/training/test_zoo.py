"""Every architecture of the zoo, from its files to an exported student, by way of a rotation and a kill."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import otfkd
from otfkd.config.schema import Config
from otfkd.distill.module import Distillation
from otfkd.training.train import train
from tests.support.json_lines import json_lines
from tests.support.killing import arm, fork_and_train, killed
from tests.support.models import WORDS
from tests.support.resuming import final
from tests.support.zoo import ZOO, make_zoo_model

# Of different lengths; the last is cut.
SENTENCES = ["the cat sat on the mat", "a dog", "red", " ".join(WORDS)]
FAST = ("modernbert", "t5", "qwen3")
RUN = (
    "experiment=otfkd", "schedule.every=3", "trainer.max_steps=8", "trainer.checkpoint_every=2", "evaluation.every=4",
    "evaluation.max_length=32", "model.dropout=0.1",
)  # fmt: skip


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in ZOO])
def test_it_trains_rotates_survives_a_kill_and_is_read_alike_elsewhere(
    configure: Callable[..., Config], tmp_path: Path, kind: str
) -> None:
    folder = make_zoo_model(tmp_path / kind, kind)
    run = (*RUN, f"model={folder}", f"model.pooler={ZOO[kind].pooler}")
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}")).folder
    logged = json_lines(straight / "metrics.jsonl")
    assert [row["step"] for row in json_lines(straight / "rotations.jsonl")] == [3, 6]
    assert len([row for row in logged if row.get("kd", 0) > 0]) == 5

    # In the sixth step, of which the checkpoint after the fourth knows nothing.
    assert killed(fork_and_train(configure(*run), lambda: arm((Distillation, "training_step", "before"), 6)))
    resumed = train(configure(*run)).folder
    assert final(resumed) == final(straight)

    exported = straight / "model"
    found = otfkd.load(str(exported)).encode(SENTENCES)
    theirs = SentenceTransformer(str(exported), device="cpu")
    np.testing.assert_allclose(theirs.encode(SENTENCES), found, atol=1e-5, rtol=0)
    for sentence, embedding in zip(SENTENCES, found, strict=True):
        np.testing.assert_allclose(theirs.encode(sentence), embedding, atol=1e-5, rtol=0)
        np.testing.assert_allclose(otfkd.load(str(exported)).encode([sentence])[0], embedding, atol=1e-5, rtol=0)
    assert np.abs(found - otfkd.load(str(folder), pooler=ZOO[kind].pooler).encode(SENTENCES)).max() > 1e-3
