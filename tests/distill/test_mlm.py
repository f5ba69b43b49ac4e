"""Masking as BERT does it, and the pretrained head over the student's own backbone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from otfkd.base.errors import UserError
from otfkd.data.collate import pad
from otfkd.distill.mlm import MaskedLanguage, load_masked_language, mask_tokens
from otfkd.models.encoder import Encoder
from otfkd.models.registry import load_encoder
from tests.support.masked_models import KINDS, TOKENIZER, make_masked_model, seeded, words
from tests.support.models import SPECIAL


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, kind: str) -> Path:
    return make_masked_model(tmp_path / "masked", kind)


@pytest.fixture
def student(folder: Path) -> Encoder:
    return load_encoder(folder, "cls")


@pytest.fixture
def mlm(folder: Path, student: Encoder) -> MaskedLanguage:
    return load_masked_language(folder, student, 0.15)


def loss_of(mlm: MaskedLanguage, seed: int = 0) -> Tensor:
    loss: Tensor = mlm(words(seed=seed), seeded(seed))
    return loss


# Masking


def test_shares_are_80_10_10_of_the_probability() -> None:
    ids = torch.full((400, 1000), 60)
    masked, labels = mask_tokens(ids, TOKENIZER, 0.15, seeded())
    chosen = labels != -100
    share = chosen.float().mean().item()
    assert share == pytest.approx(0.15, abs=0.003)
    assert (masked == TOKENIZER.mask_token_id)[chosen].float().mean().item() == pytest.approx(0.8, abs=0.01)
    # One in so many random tokens is the token itself.
    kept = 0.1 + 0.1 / len(TOKENIZER)
    assert (masked == ids)[chosen].float().mean().item() == pytest.approx(kept, abs=0.01)
    assert (masked == ids)[~chosen].all()


def test_random_tokens_are_of_the_whole_vocabulary() -> None:
    masked, labels = mask_tokens(torch.full((400, 1000), 60), TOKENIZER, 0.9, seeded())
    drawn = masked[(labels != -100) & (masked != 60)]
    counts = drawn[drawn != TOKENIZER.mask_token_id].bincount(minlength=len(TOKENIZER))
    usual = [i for i in range(len(TOKENIZER)) if i not in (60, TOKENIZER.mask_token_id)]
    expected = 400_000 * 0.09 / len(TOKENIZER)
    assert (counts[usual] - expected).abs().max() < 6 * expected**0.5


def test_labels_are_the_tokens_and_special_ones_are_never_asked_for() -> None:
    ids = words(200).input_ids
    masked, labels = mask_tokens(ids, TOKENIZER, 0.5, seeded())
    asked = labels != -100
    assert torch.equal(labels[asked], ids[asked])
    special = ids < len(SPECIAL)
    assert not asked[special].any()
    assert torch.equal(masked[special], ids[special])


def test_one_seed_masks_alike_and_another_otherwise_and_the_global_stream_is_left_alone() -> None:
    ids, before = words().input_ids, torch.get_rng_state()
    first, again, other = (mask_tokens(ids, TOKENIZER, 0.3, seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


# The head


def test_the_loss_is_that_of_the_pretrained_model(folder: Path, kind: str, mlm: MaskedLanguage) -> None:
    tokens = words()
    ids, labels = mask_tokens(tokens.input_ids, TOKENIZER, 0.15, seeded(4))
    whole = KINDS[kind][0].from_pretrained(folder).eval()
    expected = whole(input_ids=ids, attention_mask=tokens.attention_mask, labels=labels).loss
    torch.testing.assert_close(mlm.eval()(tokens, seeded(4)), expected)


def test_gradient_reaches_head_and_backbone(student: Encoder, mlm: MaskedLanguage) -> None:
    loss_of(mlm).backward()  # type: ignore[no-untyped-call]
    for part in (student.backbone, mlm.head):
        gradients = [weight.grad for weight in part.parameters()]
        assert all(gradient is not None for gradient in gradients)


def test_the_head_reads_the_students_weights_not_a_copy(student: Encoder, mlm: MaskedLanguage) -> None:
    before = mlm.eval()(words(), seeded())
    embeddings = next(student.backbone.get_input_embeddings().parameters())
    assert any(weight is embeddings for weight in mlm.parameters())  # the tied decoder
    with torch.no_grad():
        embeddings.mul_(1.5)
    assert not torch.equal(mlm(words(), seeded()), before)


def test_the_students_state_has_no_head(student: Encoder, mlm: MaskedLanguage, folder: Path) -> None:
    assert student.state_dict().keys() == load_encoder(folder, "cls").state_dict().keys()
    assert not any("encoder.layer" in name for name in mlm.state_dict())


def test_a_batch_in_which_nothing_is_masked_costs_nothing(mlm: MaskedLanguage) -> None:
    loss = mlm(pad([[2, 3], [2, 3]], 0), seeded())
    assert loss.item() == 0
    loss.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in mlm.parameters())


def test_autocast_leaves_the_loss_in_float32(mlm: MaskedLanguage) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert mlm.eval()(words(), seeded()).dtype == torch.float32


def test_a_cut_student_takes_the_head_too(folder: Path) -> None:
    student = load_encoder(folder, "cls", layers=1)
    assert load_masked_language(folder, student, 0.15)(words(), seeded()).isfinite()


def test_a_model_without_the_head_is_refused(tiny_model: Path, tiny_encoder: Encoder) -> None:
    with pytest.raises(UserError) as caught:
        load_masked_language(tiny_model, tiny_encoder, 0.15)
    assert str(caught.value) == (
        f"{tiny_model} has no pretrained masked-language head, which objective.mlm_weight asks for: "
        "set objective.mlm_weight=0, or give a model that was saved with it, as model=bert_base is"
    )


def test_the_embedded_model_has_no_head() -> None:
    from otfkd.models.registry import find_model

    try:
        folder = find_model("minilm")
    except UserError:
        pytest.skip("the embedded model is not installed")
    with pytest.raises(UserError, match="no pretrained masked-language head"):
        load_masked_language(folder, load_encoder(folder, "cls"), 0.15)


def mean_loss(mlm: MaskedLanguage) -> Tensor:
    return torch.stack([loss_of(mlm, seed) for seed in range(4)]).mean()


def test_training_the_head_lowers_its_loss(student: Encoder, mlm: MaskedLanguage) -> None:
    optimizer = torch.optim.SGD([*{*mlm.parameters(), *student.parameters()}], lr=0.1)
    before = mean_loss(mlm)
    for _ in range(10):
        optimizer.zero_grad()
        mean_loss(mlm).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert mean_loss(mlm) < before - 0.1
