"""The two views of a sentence that learning from sentences alone compares: whether dropout makes them differ."""

import torch
from torch.nn.functional import cosine_similarity

from otfkd.base.errors import UserError
from otfkd.base.hashing import derived_seed
from otfkd.data.collate import pad
from otfkd.data.order import Order
from otfkd.data.tokens import TokenCache
from otfkd.models.encoder import Encoder, training
from otfkd.training.run import Run

_SENTENCES = 8  # the plan of a large model is not to take long


def views_cosine(run: Run, student: Encoder, tokens: TokenCache) -> float:
    """The mean cosine of both views of the first batch's first sentences.

    Args:
        run: learns from sentences alone.
        student: as it is before training.
        tokens: the run's text as the student reads it.

    Raises:
        UserError: the views are identical, and nobody asked for that by model.dropout=0.
    """
    config = run.config
    rows = Order(len(tokens), config.data.batch_size, config.seed).batch(0)[:_SENTENCES]
    batch = pad(tokens.read(rows)[1], student.pad_id).to(student.device)
    with torch.random.fork_rng(devices=[]), training(student), torch.no_grad():
        torch.default_generator.manual_seed(derived_seed(config.seed, "views"))
        view1, view2 = student(batch), student(batch)
    if torch.equal(view1, view2) and config.model.dropout != 0:
        raise UserError(
            f"the two views of a sentence are identical, because {run.base_folder} has no dropout, and without labels "
            "they are what is compared: add model.dropout=0.1, or model.dropout=0 if that is what you want"
        )
    return float(cosine_similarity(view1.double(), view2.double()).mean())
