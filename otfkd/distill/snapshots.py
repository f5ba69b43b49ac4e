"""The snapshot cache: immutable files of the student's past, each known by its step and its sha256."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from otfkd.data.files import replacing
from otfkd.errors import UserError
from otfkd.processes import first_only, shared
from otfkd.provenance import sha256_file


@dataclass(frozen=True)
class Snapshot:
    """One cached student.

    Attributes:
        id: names the file in the cache.
        step: the optimizer step after which it was taken.
        sha256: of the file.
        dev: its dev score, where it has one.
    """

    id: str
    step: int
    sha256: str
    dev: float | None

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, "step": self.step, "sha256": self.sha256, "dev": self.dev}


class SnapshotCache:
    """Snapshots of one run, in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, snapshot_id: str) -> Path:
        return self.folder / f"{snapshot_id}.safetensors"

    def save(self, weights: Mapping[str, Tensor], step: int, dev: float | None, kind: str = "step") -> Snapshot:
        """Write weights; a copy, so training on cannot reach it.

        Args:
            weights: the student's, or made of them.
            step: the optimizer step after which they were taken.
            dev: their dev score, where it is known.
            kind: what they are, the first part of the snapshot's id.
        """
        name = f"{kind}-{step:08d}"

        def write() -> str:
            with replacing(self.path(name)) as temporary:
                save_file({key: tensor.contiguous() for key, tensor in weights.items()}, temporary)
            return sha256_file(self.path(name))

        return Snapshot(name, step, shared(write), dev)

    def load(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """Read a snapshot's weights.

        Raises:
            UserError: the file is gone or is no longer what was written.
        """
        path = self.path(snapshot.id)
        try:
            if sha256_file(path) != snapshot.sha256:
                raise UserError(f"{path} was altered since it was cached: restore it, or start anew with fresh=true")
            return load_file(path)
        except FileNotFoundError:
            raise UserError(
                f"{path}, the teacher of the run, is missing: restore it, or start anew with fresh=true"
            ) from None
        except SafetensorError as error:
            raise UserError(f"{path} cannot be read ({error}): restore it, or start anew with fresh=true") from None

    @first_only
    def prune(self, keep: Collection[str]) -> None:
        """Delete every snapshot that is not to be kept, and what a killed writer left."""
        unfinished = list(self.folder.glob(".*.safetensors.*"))
        for path in [*unfinished, *self.folder.glob("*.safetensors")]:
            if path in unfinished or path.stem not in keep:
                path.unlink()
