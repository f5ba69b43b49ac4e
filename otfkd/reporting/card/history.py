"""What a run's folder knows of the model it made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from otfkd.base.errors import UserError
from otfkd.config.parts import with_sha256
from otfkd.config.schema import named_parts
from otfkd.config.sections import StudentConfig
from otfkd.config.stored import StoredConfig
from otfkd.models.encoder import Encoder
from otfkd.runs.folder import RunFolder, run_of
from otfkd.runs.origin import Provenance
from otfkd.runs.rotations import Follows, Refused, Rotated
from otfkd.runs.rows import Row

UNKNOWN = "unknown"


@dataclass(frozen=True)
class History:
    """What a run's folder knows; a file that is not there leaves its part empty.

    Attributes:
        folder: the run's.
        provenance: what its numbers came from.
        config: what it was told, as far as this version reads it.
        plan: in words, with the folders that models were found in.
        rotations: what happened to the teacher, in order; None where the folder does not say.
        rows: scores of the selected and of the last step's model.
    """

    folder: RunFolder
    provenance: Provenance
    config: StoredConfig
    plan: str
    rotations: Sequence[Rotated | Refused | Follows] | None
    rows: Sequence[Row]

    def row(self, split: Literal["dev", "test"], checkpoint: Literal["selected", "last"]) -> Row | None:
        return next((row for row in self.rows if (row.split, row.checkpoint) == (split, checkpoint)), None)

    @property
    def selected(self) -> Row | None:
        """A row of the exported model."""
        return self.row("test", "selected") or self.row("dev", "selected")

    @property
    def distils(self) -> bool | None:
        """Whether the run learns from a teacher; None where that is unknown."""
        objective, teacher = self.config.objective, self.config.teacher
        return None if objective is None else objective.learns_from(None if teacher is None else teacher.source)

    @property
    def taught(self) -> bool | None:
        """Whether the exported model has learnt from a teacher: dev may have chosen one from before the first."""
        teacher, selected = self.config.teacher, self.selected
        begins_empty = teacher is not None and teacher.source == "self"
        if self.distils and begins_empty and selected is not None and selected.generation == 0:
            return False
        return self.distils

    @property
    def parts(self) -> dict[str, str]:
        """The author's own parts in the run, as a command names them, with the sha256 of their sources."""
        config = self.config
        named = named_parts(config.objective, config.trainer, config.data, config.evaluation)
        return with_sha256(named, self.provenance.fingerprints)

    @property
    def teacher_sha256s(self) -> list[str]:
        """Of the files of the initial teacher's members, in order; none where it had none or they are unknown."""
        joined = self.provenance.fingerprints.get("teacher")
        return joined.split("+") if joined else []

    @property
    def initial_members(self) -> int:
        """How many taught together at first."""
        teacher = self.config.teacher
        return len(self.teacher_sha256s) or (0 if teacher is None else len(teacher.paths))

    @property
    def base(self) -> tuple[str | None, str | None]:
        """Where the student's weights came from: what the config calls that model, and the sha256 of its files."""
        config = self.config
        match config.student:
            case None:
                return None, None
            case StudentConfig(init="base"):
                path = None if config.model is None else config.model.path
                return path, self.provenance.fingerprints.get("model")
            case _:
                paths = [] if config.teacher is None else config.teacher.paths
                return next(iter(paths), None), next(iter(self.teacher_sha256s), None)


def read_history(model: Path) -> History | None:
    """What is known of where a model's folder comes from; None for one that is no run's.

    Raises:
        UserError: its provenance cannot be read.
    """
    run = run_of(model)
    provenance = None if run is None else run.read_provenance()
    if run is None or provenance is None:
        return None
    return History(
        folder=run,
        provenance=provenance,
        config=run.read_stored_config(),
        plan=run.read_plan(),
        rotations=run.read_rotations() if run.rotations_file.is_file() else None,
        rows=run.read_rows(),
    )


def check_history(history: History, encoder: Encoder, weights_sha256: str) -> None:
    """Raise a UserError where a run's scores are of another model than the one beside them."""
    for row in history.rows:
        if row.checkpoint == "selected" and (row.weights_sha256, row.pooler) != (weights_sha256, encoder.pooler):
            raise UserError(
                f"the run's {history.folder.results_file.name} scores weights {row.weights_sha256[:8]} by "
                f"{row.pooler}, and its model is {weights_sha256[:8]} by {encoder.pooler}: export the model as the run "
                "left it"
            )
