"""The snapshot cache: immutable files of the student's past, each known by its step and its sha256."""

import concurrent.futures
import re
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from otfkd.base.errors import UserError, first_line
from otfkd.base.files import atomic_file
from otfkd.base.hashing import sha256_file
from otfkd.base.processes import broadcast, rank, rank_zero_only

_ID = re.compile(r"[a-z]+-\d{8,}")


@dataclass(frozen=True)
class Snapshot:
    """One cached student.

    Attributes:
        id: names the file in the cache.
        step: the optimizer step after which it was taken.
        dev: its dev score, where it has one.
        written: gives the sha256 of the file once that is whole.
    """

    id: str
    step: int
    dev: float | None
    written: "Future[str]" = field(compare=False, repr=False)

    @property
    def sha256(self) -> str:
        """Of the file, which must be whole."""
        assert self.written.done()  # in several processes nobody may wait alone
        return self.written.result()

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, "step": self.step, "sha256": self.sha256, "dev": self.dev}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Self:
        """A snapshot that is whole, as a checkpoint names it."""
        written: Future[str] = Future()
        written.set_result(facts["sha256"])
        return cls(facts["id"], facts["step"], facts["dev"], written)


class SnapshotCache:
    """Snapshots of one run, in one folder. Training goes on while a file is being written, one at a time.

    In several processes each holds the copy that is being written and the first writes it; they save, join and load
    together.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer = ThreadPoolExecutor(1, "snapshots")
        self._writing: Snapshot | None = None
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
        name = f"{kind}-{step:08d}"
        # Where another process writes, the hash comes with the next join.
        written: Future[str] = Future() if rank() else self._writer.submit(self._write, self.path(name))
        self._writing = Snapshot(name, step, dev, written)
        return self._writing

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

    def _write(self, path: Path) -> str:
        try:
            with atomic_file(path) as temporary:
                save_file(self._copy, temporary)
            return sha256_file(path)
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
        written, self._writing = self._writing.written, None
        sha256 = broadcast(written.result)
        if not written.done():
            written.set_result(sha256)

    def let_finish(self) -> None:
        """Wait for the writer, whatever becomes of its file: another error already ends the run."""
        if self._writing is not None and rank() == 0:
            concurrent.futures.wait([self._writing.written])

    def weights(self, snapshot: Snapshot) -> Mapping[str, Tensor]:
        """A snapshot's weights, to be read before the next is saved; no file is waited for.

        Raises:
            UserError: as `load`.
        """
        if self._writing is snapshot:
            return self._copy
        return self.load(snapshot)

    def load(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """Read a snapshot's weights from its file, once that is whole.

        Raises:
            UserError: the file is gone or is no longer what was written.
        """
        path = self.path(snapshot.id)
        if self._writing is snapshot:
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
            keep = {*keep, self._writing.id}
        for path in self.folder.glob("*.safetensors"):
            if _ID.fullmatch(path.stem) and path.stem not in keep:  # others are a user's
                path.unlink()
