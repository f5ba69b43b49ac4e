"""Field reports about training, as in docs/field-reports.md; what other tests hold already is not repeated here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, DistilBertConfig, DistilBertModel

from otfkd.base.errors import Interrupted, UserError
from otfkd.config.schema import Config
from otfkd.distill.checkpoints import Checkpoints
from otfkd.distill.module import Distillation
from otfkd.models.registry import load_encoder
from otfkd.training.train import train
from tests.support.callbacks import joined_by
from tests.support.json_lines import json_lines
from tests.support.models import make_model, make_tokenizer
from tests.support.recording import Recorder
from tests.support.resuming import final, stop_after
from tests.support.texts import make_corpus
from tests.support.weights import same

Watch = Callable[[Callable[[L.Trainer, Distillation, Any], None]], None]


class Look(L.Callback):
    """Does something before each micro-batch."""

    def __init__(self) -> None:
        self.looks: list[Callable[[L.Trainer, Distillation, Any], None]] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, Distillation)
        for look in self.looks:
            look(trainer, module, batch)


@pytest.fixture
def each_batch() -> Iterator[Watch]:
    """Do something before each micro-batch of the runs that a test makes."""
    watching = Look()
    with joined_by(first=[watching]):
        yield watching.looks.append


def test_b01_a_frozen_teacher_wakes_up_after_validation(configure: Callable[..., Config], each_batch: Watch) -> None:
    """What is frozen is put back into training mode by someone else, and nobody notices but the scores."""
    found = []

    def look(trainer: L.Trainer, module: Distillation, batch: Any) -> None:
        module.train()  # as a trainer does after its validation, or a user anywhere
        slot = module.teacher
        trained = {id(weight) for group in trainer.optimizers[0].param_groups for weight in group["params"]}
        if slot.filled:
            found.append(torch.equal(*(slot(batch.student)[0] for _ in range(2))))
        assert not any(part.training for part in slot.modules())
        assert not trained & {id(weight) for weight in slot.parameters()}
        assert all(weight.grad is None and not weight.requires_grad for weight in slot.parameters())

    each_batch(look)
    train(configure("experiment=otfkd", "schedule.every=3", "evaluation.every=2"))
    assert found == [True] * 9  # steps 4 to 12: after evaluations and after each of three rotations


def test_b02_a_checkpoint_loads_though_its_names_are_foreign(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading is made lenient so that the teacher may be left out, and then takes anything, as random weights."""
    config = configure("experiment=otfkd", "schedule.every=2")
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        with pytest.raises(Interrupted):
            train(config)
    (folder,) = tmp_path.glob("runs/otfkd/*/s0")
    last = folder / "checkpoints" / "last.ckpt"
    whole, lost = last.read_bytes(), "student.backbone.embeddings.LayerNorm.bias"
    checkpoint = torch.load(last, weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if name.startswith("teacher")]
    checkpoint["state_dict"]["foreign.bias"] = checkpoint["state_dict"].pop(lost)
    torch.save(checkpoint, last)
    with pytest.raises(UserError, match=rf"last\.ckpt lacks {lost}: restore it"):
        train(config)
    last.write_bytes(whole)
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["state_dict"]["foreign.bias"] = checkpoint["state_dict"][lost]
    torch.save(checkpoint, last)
    with pytest.raises(UserError, match=r"last\.ckpt has foreign\.bias, which the model has not"):
        train(config)
    last.write_bytes(whole)
    best = folder / "checkpoints" / "best.safetensors"
    with monkeypatch.context() as patched:  # the same of the checkpoint that is exported
        patched.setattr(Checkpoints, "load_best", lambda self: (prefixed(load_file(best)), {"step": 12}))
        with pytest.raises(UserError, match=r"best\.safetensors lacks backbone\."):
            train(config)


def prefixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"foreign.{name}": tensor for name, tensor in weights.items()}


def test_b02_a_model_loads_though_all_its_names_are_foreign(tmp_path: Path) -> None:
    """The same of a model's folder, whose weights a library would quietly leave random."""
    folder = make_model(tmp_path / "model")
    save_file(prefixed(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 37 weights, as embeddings\.LayerNorm\.bias: fetch or export it again"):
        load_encoder(folder, "cls")


def test_b03_the_teacher_after_a_resume_is_not_the_one_that_was_in_use(
    configure: Callable[..., Config], recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What teaches is no part of what a resume restores, so that it teaches something else from there on."""
    run = ("experiment=otfkd", "schedule.every=3", "trainer.max_steps=10")
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}")).folder
    taught = {step: recorder.teacher(step) for step in range(5, 11)}
    with monkeypatch.context() as patched:
        stop_after(patched, 5)
        with pytest.raises(Interrupted):
            train(configure(*run))
    recorder.members.clear()
    resumed = train(configure(*run)).folder
    assert sorted(recorder.members) == [5, 6, 7, 8, 9, 10]
    for step, expected in taught.items():
        found = recorder.teacher(step)
        assert expected is not None and found is not None
        assert same(found, expected), step
    for folder in (straight, resumed):
        assert [row["step"] for row in json_lines(folder / "rotations.jsonl")] == [3, 6, 9]


def test_b04_a_resume_amid_an_epoch_repeats_sentences_and_scores(
    configure: Callable[..., Config], each_batch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on reads other sentences, draws other dropout or evaluates at other steps."""
    corpus, seen = make_corpus(tmp_path / "forty.txt", 40), list[tuple[int, ...]]()
    each_batch(lambda trainer, module, batch: seen.append(batch.lines))
    run = ("experiment=otfkd", "schedule.every=4", f"data.path={corpus}", "trainer.max_steps=10")
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}")).folder
    expected = list(seen)
    assert sorted(line for batch in expected for line in batch) == list(range(40))
    seen.clear()
    with monkeypatch.context() as patched:
        stop_after(patched, 5)
        with pytest.raises(Interrupted):
            train(configure(*run))
    assert seen == expected[:5]
    resumed = train(configure(*run)).folder
    assert seen == expected
    scored = [
        [(row["step"], row["dev"]) for row in json_lines(f / "metrics.jsonl") if "dev" in row]
        for f in (straight, resumed)
    ]
    assert [step for step, _ in scored[0]] == [3, 6, 9, 10]
    assert scored[0] == scored[1]
    assert final(resumed) == final(straight)


def test_b06_every_n_steps_counts_batches(configure: Callable[..., Config], tmp_path: Path) -> None:
    """Evaluation counts micro-batches where checkpoints count optimizer steps, and a small corpus has too few."""
    few = ("evaluation.every=2", "schedule.every=3", "trainer.accumulate=4", "trainer.max_steps=8")
    folder = train(configure("experiment=otfkd", *few)).folder
    assert [row["step"] for row in json_lines(folder / "metrics.jsonl") if "dev" in row] == [2, 4, 6, 8]
    assert [row["step"] for row in json_lines(folder / "metrics.jsonl") if "loss" in row] == list(range(1, 9))
    assert [row["step"] for row in json_lines(folder / "rotations.jsonl")] == [3, 6]
    small = make_corpus(tmp_path / "twenty.txt", 20)
    folder = train(configure(f"data.path={small}", "evaluation.every=125", "trainer.max_steps=10")).folder
    assert [row["step"] for row in json_lines(folder / "metrics.jsonl") if "dev" in row] == [10]


def test_b09_half_precision_overflows_in_similarities(
    configure: Callable[..., Config], still: Path, tmp_path: Path
) -> None:
    """Cosines over a small temperature, and divergences of what is nearly equal, do not fit a short format."""
    corpus = make_corpus(tmp_path / "odd.txt", 60)
    corpus.write_text(corpus.read_text() + "the red cat\n" * 3 + "moon\n")
    given = (f"model={still}", "model.dropout=0", f"teacher={still}", "teacher.pooler=cls", f"data.path={corpus}")
    same_twice = ("objective.kd=kl", "objective.temperature_student=0.05", "model.head=false", "optimizer.lr=1e-12")
    run = (
        "experiment=distill_static",
        *given,
        *same_twice,
        "data.batch_size=64",
        "precision=bfloat16",
        "trainer.max_steps=5",
    )
    losses = [row for row in json_lines(train(configure(*run)).folder / "metrics.jsonl") if "loss" in row]
    assert len(losses) == 5
    assert all(-1e-6 <= row["kd"] < 1e-6 for row in losses)  # a student that is its teacher, to the last digit
    assert all(0 < row["info_nce"] < 100 and 0 < row["grad_norm"] < 1e3 for row in losses)


def test_b10_a_last_batch_of_one_and_accumulated_negatives(
    configure: Callable[..., Config], each_batch: Watch, tmp_path: Path
) -> None:
    """A ragged last batch has no negatives, and accumulating batches adds none, though people count on them."""
    seen: list[tuple[int, ...]] = []
    each_batch(lambda trainer, module, batch: seen.append(batch.lines))
    run = (f"data.path={make_corpus(tmp_path / 'nine.txt', 9)}", "trainer.accumulate=4", "trainer.max_steps=3")
    result = train(configure(*run))
    assert len(seen) == 12
    assert all(len(set(lines)) == 4 for lines in seen)
    assert all(row["info_nce"] > 0 for row in json_lines(result.folder / "metrics.jsonl") if "loss" in row)
    assert "negatives  3 per anchor (accumulation adds none)\n" in result.plan


def test_b12_a_teacher_is_given_the_students_tokens(
    configure: Callable[..., Config], each_batch: Watch, corpus_file: Path, tmp_path: Path
) -> None:
    """A teacher of another vocabulary, width or architecture reads ids and inputs that were made for the student."""
    tokenizer = make_tokenizer(["the", "moon", *(f"word{n}" for n in range(400))])
    torch.manual_seed(1)
    shape = DistilBertConfig(vocab_size=len(tokenizer), dim=32, hidden_dim=64, n_layers=2, n_heads=2)
    DistilBertModel(shape).save_pretrained(tmp_path / "student")  # which has no token types
    tokenizer.save_pretrained(tmp_path / "student")
    teacher = make_model(tmp_path / "teacher", width=64, words=[f"other{n}" for n in range(700)], seed=2)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    read = AutoTokenizer.from_pretrained(teacher, model_input_names=inputs)
    alone = AutoModel.from_pretrained(teacher).eval()
    lines, compared = corpus_file.read_text().splitlines(), []

    def look(trainer: L.Trainer, module: Distillation, batch: Any) -> None:
        given = read(
            [lines[line] for line in batch.lines], truncation=True, max_length=16, padding=True, return_tensors="pt"
        )
        assert "token_type_ids" in given
        assert torch.equal(batch.teachers[0].input_ids, given["input_ids"])
        assert batch.student.input_ids.max() < len(tokenizer) < given["input_ids"].max() + 200
        with torch.no_grad():
            expected = alone(**given).last_hidden_state[:, 0]
        (found,) = module.teacher(batch.student, batch.teachers)
        compared.append(torch.allclose(found, expected, atol=1e-5))

    each_batch(look)
    run = ("experiment=distill_static", f"model={tmp_path / 'student'}", "model.pooler=cls", f"teacher={teacher}")
    train(configure(*run, "teacher.pooler=cls", "trainer.max_steps=2", "evaluation.every=null"))
    assert compared == [True, True]
