"""A run on encoders of a few weights, which takes milliseconds: its loading, modules and callback are the real ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import otfkd.training.run
import otfkd.training.train
from otfkd.base.hashing import derived_seed
from otfkd.config.schema import Config
from otfkd.config.sections import Node
from otfkd.data.collate import Batch, LabelledBatch, Tokens
from otfkd.data.corpus import Corpus
from otfkd.data.labelled import LEARNS_FROM, Examples
from otfkd.distill.schedule import Plan
from otfkd.runs.rotations import Comparison
from otfkd.training.run import Run
from tests.support.texts import make_suite

SENTENCES, WORDS = 6, 9


class TinyEncoder(nn.Module):
    """Stands for an encoder: the mean of its words' vectors, under dropout."""

    width, positions, head, input_hash = 4, 512, None, "words"

    def __init__(self, *origin: object):
        super().__init__()
        torch.manual_seed(derived_seed(0, *map(str, origin)))
        self.words = nn.Embedding(WORDS, self.width)
        self.dropout = nn.Dropout(0.2)

    def forward(self, tokens: Tokens) -> Tensor:
        pooled: Tensor = self.dropout(self.words(tokens.input_ids)).mean(1)
        return pooled


class TinyMaskedLanguage(nn.Module):
    """Stands for the masked-language head."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, tokens: Tokens, generator: torch.Generator) -> Tensor:
        return self.scale * self.probability


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the tiny encoders in the place of loaded ones, whatever they are loaded from and with."""
    run, train = otfkd.training.run, otfkd.training.train
    monkeypatch.setattr(run, "find_model", lambda path, _: Path(path))
    monkeypatch.setattr(
        "otfkd.models.registry.load_encoder", lambda folder, pooler, layers, **_: TinyEncoder(folder, pooler, layers)
    )
    monkeypatch.setattr(
        "otfkd.distill.mlm.load_masked_language",
        lambda folder, student, probability: TinyMaskedLanguage(probability),
    )
    monkeypatch.setattr(run, "config_hash", lambda *_: "0123456789")
    monkeypatch.setattr(train, "corpus_data", lambda *_: None)
    monkeypatch.setattr(train, "labelled_data", lambda *_: None)
    monkeypatch.setattr(train, "dev_score", lambda student, *_: float(student.words.weight.detach().sum()))
    monkeypatch.setattr(train, "dev_scores", lambda student, *_: (float(student.words.weight.detach().sum()), {}))
    monkeypatch.setattr(train, "diagnose", lambda *_: Comparison())
    # torch's own seeds every device that there may be, which takes longer than a step.
    monkeypatch.setattr(torch, "manual_seed", torch.default_generator.manual_seed)


def outcome(config: Config, plan: Plan, folder: Path) -> dict[str, Any]:
    """What a run of a plan comes to: what is due when, its weights after every step, what it logs, and the
    snapshots that it leaves."""
    config = config.model_copy(update={"paths": config.paths.model_copy(update={"runs": str(folder)})})
    supervised = config.objective.supervised
    teachers = otfkd.training.run._find_teachers(config) if config.teacher.source == "model" else ()
    data: Any = Corpus(folder, "") if supervised is None else Examples("", LEARNS_FROM[supervised], (), ())
    run = Run(config, plan, Path(config.model.path), teachers, data, SENTENCES, make_suite(), {"model": ""})
    module: Any = otfkd.training.train._learning(run, run.load_models(), 0)[0]
    driver = otfkd.training.train._driver(run, None, lambda: False)
    optimizer = module.configure_optimizers()
    trainer: Any = SimpleNamespace(global_step=0, optimizers=[optimizer], save_checkpoint=lambda path: None)
    module.trainer = trainer
    driver.setup(trainer, module, "fit")
    driver.on_train_start(trainer, module)
    module.on_fit_start()
    steps = []
    for number in range(config.trainer.max_steps):
        batch = _batch(number, supervised)
        module.on_train_batch_start(batch, number)
        loss = module.training_step(batch, number)
        module.on_before_backward(loss)
        loss.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        trainer.global_step += 1
        steps.append((module.step_metrics(), module.student.words.weight.tolist()))
        driver.on_train_batch_end(trainer, module, None, batch, number)
    driver.on_train_end(trainer, module)
    written = {path.name: path.read_text() for path in run.folder.path.glob("*.jsonl") if "timings" not in path.name}
    kept = sorted(path.name for path in run.folder.path.rglob("*.safetensors"))
    due = (plan.evaluate, plan.rotate, plan.checkpoint, plan.skipped, plan.fills, plan.anew, plan.follows)
    return {"steps": steps, "written": written, "kept": kept, "due": due}


def _batch(number: int, supervised: str | None) -> Any:
    torch.manual_seed(number)
    columns = 3 if supervised == "simcse" else 2
    many = SENTENCES if supervised is None else columns * SENTENCES
    ids = torch.randint(1, WORDS, (many, 5))
    ids[1] = ids[0]  # a sentence that is there twice
    tokens = Tokens(ids, torch.ones_like(ids))
    if supervised is None:
        return Batch(tuple(range(SENTENCES)), tokens)
    labels = torch.arange(SENTENCES) % 3
    graded = supervised in ("cosent", "cosine_regression")
    return LabelledBatch(tuple(range(SENTENCES)), tokens, columns, labels / 5 if graded else labels)


@contextmanager
def reads() -> Iterator[set[str]]:
    """The keys of a config that are read meanwhile."""
    names = dict(_sections(Config))
    seen: set[str] = set()

    def read(self: Node, name: str) -> Any:
        if name in type(self).model_fields:
            seen.add(f"{names.get(type(self), '')}{name}")
        return super(Node, self).__getattribute__(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Node, "__getattribute__", read, raising=False)
        yield seen


def _sections(node: type[Node], at: str = "") -> Iterator[tuple[type[Node], str]]:
    yield node, at
    for name, field in node.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Node):
            yield from _sections(field.annotation, f"{at}{name}.")
