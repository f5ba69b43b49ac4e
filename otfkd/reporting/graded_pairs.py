"""Graded sentence pairs as the models of runs see them, once it is sure that nothing has changed since."""

from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from otfkd.base.errors import UserError
from otfkd.base.hashing import hash_weights
from otfkd.config.schema import Config
from otfkd.data.sts import Suite, Task, load_suite
from otfkd.evaluation.sts import embed, similarities
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, load_encoder
from otfkd.runs.folder import RunFolder

Array = NDArray[np.float64]


def read_suite(config: Config) -> Suite:
    """The suite that a run was selected and tested on, as it is now.

    Raises:
        UserError: as `load_suite`.
    """
    return load_suite(config.evaluation, config.paths.data_root, Path(config.paths.cache))


def scored_model(run: RunFolder, weights: Set[str]) -> Encoder:
    """The model that dev chose in a run.

    Args:
        run: its folder.
        weights: hashes that its scores name; it has one of them, unless there are none.

    Raises:
        UserError: there is no model, or it is another than the one that was scored.
    """
    encoder = load_encoder(find_model(str(run.model.absolute())))
    if weights and hash_weights(encoder) not in weights:
        raise UserError(f"{run.model} is not the model that was scored there: run it again")
    return encoder


def embed_pairs(encoder: Encoder, tasks: Sequence[Task], config: Config) -> dict[str, Tensor]:
    """The embedding of each distinct sentence of some tasks, (d,) each, as a run's config has it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, length = config.evaluation.batch_size, config.evaluation.max_length
    return embed(encoder.to(device), tasks, batch_size=size, max_length=length)


def grades(task: Task) -> Array:
    """The grades of a task's pairs, (pairs,), subset after subset."""
    return np.array([grade for subset in task.subsets for _, _, grade in subset.pairs])


def cosines(task: Task, vectors: dict[str, Tensor]) -> Array:
    """The cosines of a task's pairs, (pairs,), in the order of their grades."""
    left, right, _ = zip(*(pair for subset in task.subsets for pair in subset.pairs), strict=True)
    return similarities(*(torch.stack([vectors[text] for text in side]) for side in (left, right)))
