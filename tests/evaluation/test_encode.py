"""An embedding depends on its sentence alone, and encoding leaves no trace."""

import random
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from otfkd.base.errors import DivergenceError
from otfkd.config.sections import Pooler
from otfkd.data.collate import pad
from otfkd.evaluation.encode import encode
from otfkd.models.encoder import Encoder
from otfkd.models.registry import load_encoder
from tests.support.models import WORDS, make_model

POOLERS: tuple[Pooler, ...] = get_args(Pooler)
RNG = random.Random(0)
SENTENCES = [" ".join(RNG.choices(WORDS, k=1 + 59 * i // 49)) for i in range(50)]
SORTED = list(range(50))  # SENTENCES grow longer
SHUFFLED = RNG.sample(SORTED, 50)


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("deep"), layers=3)


def embed(encoder: Encoder, sentences: list[str], batch_size: int = 7) -> Tensor:
    return encode(encoder, sentences, batch_size=batch_size, max_length=128)


def count_forwards(encoder: Encoder) -> list[int]:
    """The number of sentences of every forward from now on."""
    sizes: list[int] = []
    encoder.register_forward_hook(lambda module, args, output: sizes.append(len(args[0].input_ids)))
    return sizes


@pytest.mark.parametrize("pooler", POOLERS)
def test_an_embedding_depends_neither_on_batch_nor_on_order(deep_model: Path, pooler: Pooler) -> None:
    encoder = load_encoder(deep_model, pooler, train=True)
    alone = torch.cat([embed(encoder, [sentence]) for sentence in SENTENCES])
    assert torch.pdist(alone).min() > 1e-4
    for order in (SORTED, SORTED[::-1], SHUFFLED):
        for batch_size in (7, 64):
            vectors = embed(encoder, [SENTENCES[i] for i in order], batch_size)
            assert (vectors - alone[order]).abs().max() < 1e-5
    assert torch.equal(embed(encoder, [SENTENCES[i] for i in SHUFFLED], batch_size=1), alone[SHUFFLED])


def test_a_repeated_sentence_is_encoded_once(tiny_encoder: Encoder) -> None:
    sizes = count_forwards(tiny_encoder)
    vectors = embed(tiny_encoder, ["the cat", "a dog", "the cat", "the cat"])
    assert sizes == [2]
    assert torch.equal(vectors, embed(tiny_encoder, ["the cat", "a dog"])[[0, 1, 0, 0]])


def test_no_batch_is_larger_than_asked(tiny_encoder: Encoder) -> None:
    sizes = count_forwards(tiny_encoder)
    embed(tiny_encoder, SENTENCES, batch_size=20)
    assert sizes == [20, 20, 10]


def test_batches_hold_sentences_of_like_length(tiny_encoder: Encoder) -> None:
    tokens: list[int] = []
    tiny_encoder.register_forward_hook(lambda module, args, output: tokens.append(args[0].input_ids.numel()))
    embed(tiny_encoder, [SENTENCES[i] for i in SHUFFLED], batch_size=5)
    real = sum(map(len, tiny_encoder.tokenizer(SENTENCES)["input_ids"]))
    assert sum(tokens) < 1.15 * real


def test_sentences_are_cut_at_max_length(tiny_encoder: Encoder) -> None:
    longer, cut = "the cat sat on the mat", "the cat sat"
    vectors = encode(tiny_encoder, [longer, cut], batch_size=2, max_length=5)
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(*embed(tiny_encoder, [longer, cut]))


def test_progress_counts_distinct_sentences(tiny_encoder: Encoder) -> None:
    done: list[int] = []
    sentences = [*SENTENCES[:10], *SENTENCES[:3]]
    encode(tiny_encoder, sentences, batch_size=4, max_length=32, advance=done.append)
    assert done == [4, 4, 2]


def test_no_sentence_gives_no_row(tiny_encoder: Encoder) -> None:
    assert embed(tiny_encoder, []).shape == (0, 32)


def test_an_empty_sentence_has_an_embedding(tiny_encoder: Encoder) -> None:
    assert embed(tiny_encoder, ["", "the cat"]).isfinite().all()


def test_dropout_is_off_and_the_mode_comes_back(tiny_encoder: Encoder) -> None:
    expected = embed(tiny_encoder, SENTENCES[:5])
    tiny_encoder.train()
    tiny_encoder.get_submodule("backbone.embeddings").eval()
    before = [part.training for part in tiny_encoder.modules()]
    assert torch.equal(embed(tiny_encoder, SENTENCES[:5]), expected)
    assert [part.training for part in tiny_encoder.modules()] == before


def test_the_random_streams_are_left_alone(tiny_encoder: Encoder) -> None:
    tiny_encoder.train()
    ours, pythons = torch.get_rng_state(), random.getstate()
    embed(tiny_encoder, SENTENCES[:5])
    assert torch.equal(torch.get_rng_state(), ours)
    assert random.getstate() == pythons


def test_embeddings_are_float32_under_autocast(tiny_encoder: Encoder) -> None:
    expected = embed(tiny_encoder, SENTENCES[:5])
    tokens = pad([[2, 7, 8, 3]], 0)
    exact = tiny_encoder(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(tiny_encoder(tokens), exact)
        inside = embed(tiny_encoder, SENTENCES[:5])
    assert inside.dtype == torch.float32
    assert torch.equal(inside, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_told(tiny_encoder: Encoder, value: float) -> None:
    with torch.no_grad():
        tiny_encoder.get_parameter("backbone.encoder.layer.0.output.dense.weight")[0, 0] = value
    with pytest.raises(DivergenceError, match="not finite"):
        embed(tiny_encoder, SENTENCES[:5])


def test_bfloat16_is_asked_for_and_never_inherited(tiny_encoder: Encoder) -> None:
    exact = embed(tiny_encoder, SENTENCES)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embed(tiny_encoder, SENTENCES), exact)
    coarse = encode(tiny_encoder, SENTENCES, batch_size=7, max_length=128, compute="bfloat16")
    assert coarse.dtype == torch.float32
    assert 0 < (coarse - exact).abs().max() < 0.1
