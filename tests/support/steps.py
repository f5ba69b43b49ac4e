"""One step of distillation outside of a run."""

from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import torch

from otfkd.base.processes import own_rows
from otfkd.config.schema import Config
from otfkd.data.corpus import Corpus
from otfkd.data.datamodule import OrderedBatches
from otfkd.distill.module import Distillation
from otfkd.distill.teacher import TeacherSlot
from otfkd.models.encoder import Head
from otfkd.training.run import prepare


def make_step(config: Config) -> tuple[Distillation, Any]:
    """A module whose teacher is another encoder, and the first batch, or this process's share of it."""
    from otfkd.data.datamodule import Source
    from otfkd.data.order import Order
    from otfkd.data.tokens import token_cache

    run = prepare(config)
    student = run.load_student()
    assert isinstance(run.data, Corpus)
    tokens = token_cache(run.data, student.tokenizer, config.data.max_length, run.cache)
    source = Source(tokens, student.pad_id)
    slot = TeacherSlot()
    slot.install(run.load_teachers())
    torch.manual_seed(1)
    module = Distillation(student, Head(student.width), slot, config, run.plan)
    module.trainer = cast(L.Trainer, SimpleNamespace(global_step=0))
    module.on_fit_start()
    order = Order(len(tokens), config.data.batch_size, config.seed)
    return module, OrderedBatches(order, source, [], 1, own_rows(config.data.batch_size))[0]


def step(module: Any, own: Distillation, batch: Any) -> dict[str, Any]:
    """One backward pass: the loss and every gradient."""
    own.training_step = lambda batch, _: Distillation.training_step(own, batch, 0)  # type: ignore[assignment, method-assign]
    own.forward = own.training_step  # type: ignore[method-assign]
    loss = module(batch, 0)
    loss.backward()
    return {"loss": loss.item()} | {name: p.grad.tolist() for name, p in own.named_parameters() if p.grad is not None}
