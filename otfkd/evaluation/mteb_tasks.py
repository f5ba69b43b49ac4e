"""Any task of mteb by its name, scored by mteb itself (Muennighoff et al. 2023)."""

import importlib.metadata
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otfkd.base.errors import UserError, first_line
from otfkd.base.hashing import sha256_bytes
from otfkd.models.export import save_encoder

if TYPE_CHECKING:
    from otfkd.models.encoder import Encoder


@dataclass(frozen=True)
class MtebTasks:
    """Tasks of mteb.

    Attributes:
        tasks: as mteb has them.
    """

    tasks: Sequence[Any]

    @property
    def checksum(self) -> str:
        """The sha256 over their names and the revisions of their data."""
        told = ((task.metadata.name, task.metadata.dataset) for task in self.tasks)
        return sha256_bytes(f"{name}\t{sorted(data.items())!r}\n".encode() for name, data in told)


def protocol() -> str:
    """How the scores are made."""
    return f"mteb {importlib.metadata.version('mteb')}, main score of each task x 100"


def find_tasks(names: Sequence[str]) -> MtebTasks:
    """The tasks of some names.

    Raises:
        UserError: mteb is not installed, or has no such task.
    """
    try:
        import mteb
    except ModuleNotFoundError as error:
        if error.name != "mteb":
            raise
        raise UserError("evaluation.tasks needs mteb: install the extra with pip install 'otfkd[mteb]'") from None
    try:
        return MtebTasks([mteb.get_task(name) for name in names])
    except KeyError as error:
        raise UserError(f"evaluation.tasks cannot be had ({first_line(error)}): name tasks of mteb") from None


def evaluate_mteb(
    encoder: "Encoder", found: MtebTasks, prompts: Mapping[str, str], *, batch_size: int, max_length: int
) -> dict[str, float]:
    """The main score of each task x 100, by name: the mean over its test splits and subsets.

    Args:
        encoder: the encoder; mteb gets it as sentence-transformers loads it.
        found: from `find_tasks`.
        prompts: of the model by name.
        batch_size: texts embedded at a time.
        max_length: tokens read of a text.

    Raises:
        UserError: the data of a task cannot be had.
    """
    import mteb
    from sentence_transformers import SentenceTransformer

    scores: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(encoder, Path(folder, "model"), max_length)
        device = str(next(encoder.parameters()).device)
        model = SentenceTransformer(str(Path(folder, "model")), device=device, prompts=dict(prompts))
        for task in found.tasks:
            name = task.metadata.name
            try:
                result = mteb.evaluate(
                    model, task, cache=None, co2_tracker=False, encode_kwargs={"batch_size": batch_size}
                )
            except (OSError, ConnectionError) as error:
                raise UserError(
                    f"the data of mteb's {name} cannot be had ({first_line(error)}): give the command where the hub is "
                    "reached, or leave the task out"
                ) from error
            scores[name] = 100 * float(result.task_results[0].get_score())
    return scores
