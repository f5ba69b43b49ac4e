"""The file of a corpus' embeddings: what is written is read, and nothing else is taken for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from otfkd.data.embedded import Embedded


def rows(count: int, width: int = 3) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


@pytest.fixture
def file(tmp_path: Path) -> Embedded:
    """Of seven sentences, written in two parts."""
    file = Embedded(tmp_path / "new" / "file.npy", 7, 3)
    with file.writing() as write:
        write(rows(5))
        write(rows(2))
    return file


def test_what_is_written_is_read_in_the_order_asked_for(file: Embedded) -> None:
    whole = torch.cat([rows(5), rows(2)])
    chosen = np.array([6, 0, 4, 0])
    assert file.whole
    assert torch.equal(file.batch(chosen), whole[chosen])
    assert (np.load(file.path) == whole.numpy()).all()  # any program may read it
    assert file.size == whole.nbytes


def test_a_batch_is_a_copy(file: Embedded) -> None:
    file.batch(np.array([0])).zero_()
    assert torch.equal(file.batch(np.arange(5)), rows(5))


def test_a_file_whose_writing_fails_is_not_there(tmp_path: Path) -> None:
    file = Embedded(tmp_path / "file.npy", 7, 3)

    def fail() -> None:
        with file.writing() as write:
            write(rows(5))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert not file.whole
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no array"),
        lambda path: np.save(path, np.zeros((7, 3))),
        lambda path: np.save(path, np.zeros((7, 3), np.int32)),
        lambda path: np.save(path, np.zeros((7, 4), np.float32)),
        lambda path: np.save(path, np.zeros((8, 3), np.float32)),
        lambda path: np.save(path, np.zeros(21, np.float32)),
    ],
    ids=["missing", "truncated", "too long", "empty", "no array", "float64", "int32", "too wide", "too many", "flat"],
)
def test_another_file_is_not_whole(file: Embedded, spoil: Callable[[Path], object]) -> None:
    assert file.whole
    spoil(file.path)
    assert not file.whole
