"""What a run's folder knows of the model it made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from otfkd.base.errors import UserError
from otfkd.models.encoder import Encoder
from otfkd.runs.folder import run_of
from otfkd.runs.rows import Row


@dataclass(frozen=True)
class History:
    """What a run's folder knows; a file that is not there leaves its part empty.

    Attributes:
        provenance: of the run.
        config: as it was resolved.
        plan: in words, with the folders that models were found in.
        rotations: one a generation of the teacher, in order.
        rows: scores of the selected and of the last step's model.
    """

    provenance: Mapping[str, Any]
    config: Mapping[str, Any]
    plan: str
    rotations: Sequence[Mapping[str, Any]]
    rows: Sequence[Row]

    def get(self, *keys: str) -> Any:
        """A value of the config, None where it has none."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def row(self, split: str, checkpoint: str) -> Row | None:
        return next((row for row in self.rows if (row.split, row.checkpoint) == (split, checkpoint)), None)


def read_history(model: Path) -> History | None:
    """What is known of where a model's folder comes from; None for one that is no run's."""
    run = run_of(model)
    provenance = None if run is None else run.read_provenance()
    if run is None or provenance is None:
        return None
    config = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(run.config_file)))
    rotations = [record.line() for record in run.read_rotations()]
    return History(provenance.model_dump(), config, run.read_plan(), rotations, run.read_rows())


def check_history(history: History, encoder: Encoder, weights_sha256: str) -> None:
    """Raise a UserError where a run's scores are of another model than the one beside them."""
    for row in history.rows:
        if row.checkpoint == "selected" and (row.weights_sha256, row.pooler) != (weights_sha256, encoder.pooler):
            raise UserError(
                f"the run's results.jsonl scores weights {row.weights_sha256[:8]} by {row.pooler}, and its model is "
                f"{weights_sha256[:8]} by {encoder.pooler}: export the model as the run left it"
            )
