"""What a run's folder knows of the model it made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from otfkd.base.errors import UserError
from otfkd.base.files import read_json_lines
from otfkd.models.encoder import Encoder
from otfkd.runs.folder import RESULTS, read_provenance
from otfkd.runs.rows import Row, read_rows


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
    run = model.parent
    provenance = read_provenance(run)
    if model.name != "model" or provenance is None:
        return None
    plan, config, rotations = run / "plan.txt", run / "config.yaml", run / "rotations.jsonl"
    return History(
        provenance,
        cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(config))) if config.is_file() else {},
        plan.read_text(encoding="utf-8") if plan.is_file() else "",
        read_json_lines(rotations) if rotations.is_file() else [],
        read_rows(run / RESULTS) if (run / RESULTS).is_file() else [],
    )


def check_history(history: History, encoder: Encoder, weights_sha256: str) -> None:
    """Raise a UserError where a run's scores are of another model than the one beside them."""
    for row in history.rows:
        if row.checkpoint == "selected" and (row.weights_sha256, row.pooler) != (weights_sha256, encoder.pooler):
            raise UserError(
                f"the run's {RESULTS} scores weights {row.weights_sha256[:8]} by {row.pooler}, and its model is "
                f"{weights_sha256[:8]} by {encoder.pooler}: export the model as the run left it"
            )
