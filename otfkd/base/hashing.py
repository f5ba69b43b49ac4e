"""Hashes of bytes, files, folders and weights, and the seeds drawn from a hash."""

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def sha256_bytes(chunks: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """A file's sha256; asked again of a file that has not changed since, as a table's many jobs do, it is not read."""
    stat = path.stat()
    return _sha256(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, version: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_folder(folder: Path, patterns: Iterable[str]) -> str:
    """sha256 over the names and contents of the files in a folder that match."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return sha256_bytes(f"{path.relative_to(folder)}:{sha256_file(path)}\n".encode() for path in files)


def derived_seed(*parts: int | str) -> int:
    """A seed for one purpose, well mixed in its low 32 bits too, which are all that torch's CPU generator reads."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7])


def hash_weights(module: "nn.Module") -> str:
    """sha256 over a module's tensors, the same in whatever file or on whatever device they lie."""
    return sha256_bytes(
        chunk
        for name, tensor in sorted(module.state_dict().items())
        for chunk in (
            f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode(),
            tensor.detach().cpu().contiguous().numpy().data,
        )
    )
