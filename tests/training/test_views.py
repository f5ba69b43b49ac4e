"""What a plan says of the two views of a sentence, and that nobody trains on identical ones unawares."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from otfkd.base.errors import UserError
from otfkd.config.schema import Config
from otfkd.data.collate import pad
from otfkd.data.tokens import tokenize
from otfkd.models.encoder import training
from otfkd.models.registry import load_encoder
from otfkd.training.run import prepare
from otfkd.training.train import train
from tests.support.zoo import make_zoo_model

Configure = Callable[..., Config]
SHORT = ("trainer.max_steps=2", "evaluation.every=null")


@pytest.fixture
def decoder(tmp_path: Path) -> str:
    return f"model={make_zoo_model(tmp_path / 'qwen3', 'qwen3')}"


def plan(config: Config) -> dict[str, str]:
    lines = train(config.model_copy(update={"dry_run": True})).plan.splitlines()
    return {line[:11].strip(): line[11:] for line in lines}


def cosine(config: Config) -> float:
    return float(plan(config)["dropout"].rpartition(" ")[2])


def test_the_plan_says_the_rates_and_how_far_apart_views_are(
    configure: Configure, tiny_model: Path, corpus_file: Path
) -> None:
    said = plan(configure("model.dropout=0.2", "data.batch_size=60"))["dropout"]
    assert said.startswith("hidden_dropout_prob 0.2, attention_probs_dropout_prob 0.1; the two views of a sentence ")
    # Over all sentences and many masks, what the plan says of a few.
    encoder = load_encoder(tiny_model, "cls", rates=(0.2, None))
    tokens = pad(tokenize(encoder.tokenizer, corpus_file.read_text().splitlines(), 16), encoder.pad_id).twice()
    torch.manual_seed(0)
    with training(encoder), torch.no_grad():
        expected = torch.stack([torch.cosine_similarity(*encoder(tokens).chunk(2)).mean() for _ in range(20)]).mean()
    assert float(said.rpartition(" ")[2]) == pytest.approx(float(expected), abs=0.1)


def test_more_dropout_takes_views_apart(configure: Configure, decoder: str) -> None:
    cosines = [cosine(configure(decoder, "model.pooler=last", f"model.dropout={rate}")) for rate in (0, 0.02, 0.1, 0.4)]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] == 1
    assert cosines[0] > cosines[1] + 0.01
    assert cosines[2] > cosines[3] + 0.1


@pytest.mark.parametrize("dry_run", [True, False])
def test_identical_views_are_refused_before_a_run_has_a_folder(
    configure: Configure, decoder: str, tmp_path: Path, dry_run: bool
) -> None:
    config = configure(decoder, "model.pooler=last", f"dry_run={dry_run}")
    with pytest.raises(UserError, match=r"the two views of a sentence are identical, [^\n]*: add model\.dropout=0\.1"):
        train(config)
    assert list((tmp_path / "runs").rglob("*")) == []


def test_identical_views_may_be_asked_for(configure: Configure, decoder: str) -> None:
    result = train(configure(decoder, "model.pooler=last", "model.dropout=0", *SHORT))
    assert result.status == "finished"
    assert "attention_dropout 0; the two views of a sentence have a mean cosine of 1.000" in result.plan


def test_pairs_of_texts_need_no_dropout(configure: Configure, decoder: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2,score\n" + "the cat sat,a dog ran,2\nthe moon,a red moon,4\n" * 4)
    given = ("objective=cosent", "data=labelled", f"data.path={path}", *SHORT)
    result = train(configure(decoder, "model.pooler=last", *given))
    assert result.status == "finished"
    assert "\ndropout    attention_dropout 0\n" in result.plan


def test_dropout_is_part_of_what_a_run_is_called(configure: Configure, decoder: str) -> None:
    def name(*more: str) -> str:
        return prepare(configure(decoder, "model.pooler=last", *more)).hash

    given = ("model.dropout=0.1", "model.dropout=0.2", "model.attention_dropout=0.1", "model.dropout=0")
    assert len({name(), *map(name, given)}) == 5
    assert name("model.dropout=null", "model.attention_dropout=null") == name()
