"""Files and folders that are whole or not there: written under a temporary name, synced if files, then renamed."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from otfkd.base.errors import UserError, refusal

_UNFINISHED = ".unfinished"  # ends the names of folders that only writers here make
_FULL = 1 << 16  # bytes left of a disk that is full


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, not there yet; it becomes `path` if the block succeeds and vanishes if not."""
    # In a folder of its own: safetensors writes to a temporary file beside the one it is asked for.
    with _full_disk_named(path), temporary_beside(path) as folder:
        temporary = folder / path.name
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; it becomes `path` if the block succeeds and vanishes if not."""
    with _full_disk_named(path), temporary_beside(path) as temporary:
        yield temporary
        for part in (temporary, *temporary.rglob("*")):
            part.chmod(0o755 if part.is_dir() else 0o644)  # some writers let nobody else read
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)


@contextlib.contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Raise one error for a disk that is full, whichever library finds it so, with the name of what is written."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = refusal(error)
        if number is None and isinstance(error, RuntimeError) and _free(path) < _FULL:
            number = errno.ENOSPC  # torch only says that it could not write
        if number not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _free(path: Path) -> int:
    return shutil.disk_usage(path.parent).free


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a folder beside a path, gone with the block; what a kill leaves of it `clear_unfinished` finds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_UNFINISHED, dir=path.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clear_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of a file, or of any, left in a folder and below; nobody may be writing it now."""
    for left in list(folder.rglob(f".{name}.????????{_UNFINISHED}")):  # mkdtemp's eight characters
        if left.is_dir():
            shutil.rmtree(left)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or leave what was there."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file, with LF on every system, or leave what was there."""
    write_bytes(path, content.encode())


def append_text(path: Path, content: str) -> None:
    """Add to a file's end."""
    with _full_disk_named(path), path.open("a", encoding="utf-8") as file:
        file.write(content)


class JsonLines:
    """A file of one JSON object a line that grows while a run goes on and can be cut back to a checkpoint's length."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def append(self, row: dict[str, Any]) -> None:
        append_text(self.path, json.dumps(row, allow_nan=False) + "\n")

    def size(self) -> int:
        return self.path.stat().st_size

    def truncate(self, size: int) -> None:
        """Cut back to a length that it had.

        Raises:
            UserError: it is shorter, as lines were lost.
        """
        if size > self.size():
            raise UserError(
                f"{self.path} has lost lines since the last checkpoint: restore it, or start anew with fresh=true"
            )
        os.truncate(self.path, size)

    def drop_half_line(self) -> None:
        """Cut off what a killed writer left of its last line."""
        self.truncate(self.path.read_bytes().rfind(b"\n") + 1)


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that grows, none where there is no file; the last is not there until it is ended."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
