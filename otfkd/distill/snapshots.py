"""The snapshot cache: immutable files of the student's past, each known by its step and its sha256."""

import concurrent.futures
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from otfkd.base.errors import UserError, first_line
from otfkd.base.files import atomic_file
from otfkd.base.hashing import sha256_file
from otfkd.base.processes import broadcast, rank_zero_only


@dataclass
class Snapshot:
    """One cached student.

    Attributes:
        id: names the file in the cache.
        step: the optimizer step after which it was taken.
        sha256: of the file; empty until it is whole.
        dev: its dev score, where it has one.
    """

    id: str
    step: int
    sha256: str
    dev: float | None

    def as_dict(self) -> dict[str, Any]:
        assert self.sha256  # what is written down names whole files
        return {"id": self.id, "step": self.step, "sha256": self.sha256, "dev": self.dev}


class SnapshotCache:
    """Snapshots of one run, in one folder. Training goes on while a file is being written, one at a time.

    In several processes each holds the copy that is being written and the first writes it; they save, join and load
    together.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer = ThreadPoolExecutor(1, "snapshots")
        self._writing: tuple[Snapshot, Future[None]] | None = None
        self._copy: dict[str, Tensor] = {}  # of what is being written

    def path(self, snapshot_id: str) -> Path:
        return self.folder / f"{snapshot_id}.safetensors"

    def save(self, weights: Mapping[str, Tensor], step: int, dev: float | None, kind: str = "step") -> Snapshot:
        """Copy weights, so that training on cannot reach them, and begin to write the copy.

        Args:
            weights: the student's, or made of them.
            step: the optimizer step after which they were taken.
            dev: their dev score, where it is known.
            kind: what they are, the first part of the snapshot's id.

        Raises:
            UserError: the snapshot before it could not be written.
        """
        self.join()
        self._take(weights)
        snapshot = Snapshot(f"{kind}-{step:08d}", step, "", dev)
        self._writing = snapshot, self._writer.submit(self._write, snapshot)
        return snapshot

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        # In place where it fits: new memory would have to be mapped first, which takes longer than the copy.
        room = self._copy
        self._copy = {
            name: room[name]
            if name in room and (room[name].shape, room[name].dtype) == (tensor.shape, tensor.dtype)
            else torch.empty(tensor.shape, dtype=tensor.dtype)
            for name, tensor in weights.items()
        }
        for name, tensor in weights.items():
            self._copy[name].copy_(tensor)

    @rank_zero_only
    def _write(self, snapshot: Snapshot) -> None:
        path = self.path(snapshot.id)
        try:
            with atomic_file(path) as temporary:
                save_file(self._copy, temporary)
            snapshot.sha256 = sha256_file(path)
        except (OSError, SafetensorError) as error:
            told = getattr(error, "strerror", None) or first_line(error)
            raise UserError(
                f"{path} could not be written ({told}): make room, and the same command goes on "
                "from the last checkpoint"
            ) from None

    def join(self) -> None:
        """Wait until the file that is being written, if any, is whole.

        Raises:
            UserError: it could not be written.
        """
        if self._writing is None:
            return
        snapshot, written = self._writing
        self._writing = None

        def outcome() -> str:
            written.result()
            return snapshot.sha256

        snapshot.sha256 = broadcast(outcome)

    def let_finish(self) -> None:
        """Wait for the writer, whatever becomes of its file: another error already ends the run."""
        if self._writing is not None:
            concurrent.futures.wait([self._writing[1]])

    def weights(self, snapshot: Snapshot) -> Mapping[str, Tensor]:
        """A snapshot's weights, to be read before the next is saved; no file is waited for.

        Raises:
            UserError: as `load`.
        """
        if self._writing is not None and self._writing[0] is snapshot:
            return self._copy
        return self.load(snapshot)

    def load(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """Read a snapshot's weights from its file, once that is whole.

        Raises:
            UserError: the file is gone or is no longer what was written.
        """
        path = self.path(snapshot.id)
        if self._writing is not None and self._writing[0] is snapshot:
            self.join()
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

    @rank_zero_only
    def prune(self, keep: Collection[str]) -> None:
        """Delete every snapshot that is not to be kept, but never what is being written."""
        if self._writing is not None:
            keep = {*keep, self._writing[0].id}
        for path in self.folder.glob("*.safetensors"):
            if path.stem not in keep:
                path.unlink()
