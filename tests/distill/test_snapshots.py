"""The snapshot cache: whole files, known by their content, that nothing reaches later."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Module

from otfkd.base.errors import UserError
from otfkd.distill import snapshots
from otfkd.distill.snapshots import Snapshot, SnapshotCache
from otfkd.models.encoder import Encoder
from tests.support.weights import same


@pytest.fixture
def cache(tmp_path: Path) -> SnapshotCache:
    return SnapshotCache(tmp_path / "snapshots")


def weights(encoder: Encoder) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.state_dict().items()}


def save(cache: SnapshotCache, encoder: Module, step: int, dev: float | None = None, kind: str = "step") -> Snapshot:
    """A snapshot whose file is whole."""
    snapshot = cache.save(encoder.state_dict(), step, dev, kind)
    cache.join()
    return snapshot


def train_on(encoder: Encoder) -> None:
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1)
    for parameter in encoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def break_off_half_way(tensors: dict[str, Tensor], path: Path) -> None:
    path.write_bytes(b"half of a file")
    raise OSError("No space left on device")


def test_a_snapshot_loads_as_it_was_saved(cache: SnapshotCache, tiny_encoder: Encoder) -> None:
    assert same(cache.load(save(cache, tiny_encoder, 5, 0.5)), tiny_encoder.state_dict())


def test_training_on_reaches_neither_the_file_nor_what_was_loaded(cache: SnapshotCache, tiny_encoder: Encoder) -> None:
    before = weights(tiny_encoder)
    snapshot = save(cache, tiny_encoder, 5)
    loaded = cache.load(snapshot)
    train_on(tiny_encoder)
    assert not same(tiny_encoder.state_dict(), before)
    assert same(loaded, before)
    assert same(cache.load(snapshot), before)


def test_loaded_weights_may_be_changed_without_changing_the_file(cache: SnapshotCache, tiny_encoder: Encoder) -> None:
    snapshot = save(cache, tiny_encoder, 5)
    for tensor in cache.load(snapshot).values():
        tensor.zero_()
    assert same(cache.load(snapshot), tiny_encoder.state_dict())


def test_a_snapshot_knows_its_step_its_score_and_its_files_sha256(cache: SnapshotCache, tiny_encoder: Encoder) -> None:
    snapshot = save(cache, tiny_encoder, 5, 0.75)
    content = cache.path(snapshot.id).read_bytes()
    assert (snapshot.step, snapshot.dev) == (5, 0.75)
    assert snapshot.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("kind", "name"), [("step", "step-00000005"), ("ema", "ema-00000005")])
def test_what_a_snapshot_is_and_its_step_name_it(
    cache: SnapshotCache, tiny_encoder: Encoder, kind: str, name: str
) -> None:
    snapshot = save(cache, tiny_encoder, 5, kind=kind)
    assert snapshot.id == name
    assert cache.path(name).is_file()


def test_weights_that_are_views_of_one_tensor_are_written_as_they_are(cache: SnapshotCache) -> None:
    matrix = torch.arange(6.0).view(2, 3)
    snapshot = cache.save({"turned": matrix.T, "row": matrix[1].clone()}, 1, None)
    loaded = cache.load(snapshot)
    assert torch.equal(loaded["turned"], matrix.T)
    assert torch.equal(loaded["row"], matrix[1])


def test_equal_weights_give_equal_files_and_others_others(cache: SnapshotCache, tiny_encoder: Encoder) -> None:
    first, second = save(cache, tiny_encoder, 1), save(cache, tiny_encoder, 2)
    train_on(tiny_encoder)
    third = save(cache, tiny_encoder, 3)
    assert first.sha256 == second.sha256 != third.sha256
    assert len({first.id, second.id, third.id}) == 3


@pytest.mark.parametrize("dev", [None, 0.25])
def test_a_snapshot_survives_json(cache: SnapshotCache, tiny_encoder: Encoder, dev: float | None) -> None:
    snapshot = save(cache, tiny_encoder, 5, dev)
    read = Snapshot.from_dict(json.loads(json.dumps(snapshot.as_dict())))
    assert (read, read.sha256) == (snapshot, snapshot.sha256)


def test_an_altered_file_is_refused_by_name(cache: SnapshotCache, tiny_encoder: Encoder) -> None:
    snapshot = save(cache, tiny_encoder, 5)
    path = cache.path(snapshot.id)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(str(path))} was altered since"):
        cache.load(snapshot)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_truncated_file_is_refused_by_name(cache: SnapshotCache, tiny_encoder: Encoder, length: int) -> None:
    snapshot = save(cache, tiny_encoder, 5)
    path = cache.path(snapshot.id)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=re.escape(str(path))):
        cache.load(snapshot)


def test_a_missing_file_is_refused_by_name(cache: SnapshotCache, tiny_encoder: Encoder) -> None:
    snapshot = save(cache, tiny_encoder, 5)
    path = cache.path(snapshot.id)
    path.unlink()
    with pytest.raises(UserError, match=f"{re.escape(str(path))}, .* is missing: restore it"):
        cache.load(snapshot)


def test_a_file_that_is_no_snapshot_is_refused_by_name(cache: SnapshotCache, tiny_encoder: Encoder) -> None:
    path = cache.path(save(cache, tiny_encoder, 5).id)
    path.write_bytes(b"something else altogether")
    facts = {"id": path.stem, "step": 5, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "dev": None}
    snapshot = Snapshot.from_dict(facts)
    with pytest.raises(UserError, match=f"{re.escape(str(path))} cannot be read"):
        cache.load(snapshot)


def test_a_save_that_breaks_off_leaves_the_file_before_it_and_no_litter(
    cache: SnapshotCache, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, before = save(cache, tiny_encoder, 5), weights(tiny_encoder)
    train_on(tiny_encoder)
    monkeypatch.setattr(snapshots, "save_file", break_off_half_way)
    for step in (5, 6):
        with pytest.raises(UserError, match=rf"step-0000000{step}.safetensors could not be written \(No space left"):
            save(cache, tiny_encoder, step)
    assert [path.name for path in cache.folder.iterdir()] == [cache.path(snapshot.id).name]
    assert same(cache.load(snapshot), before)


@pytest.mark.parametrize("keep", [set(), {2}, {1, 3}, {1, 2, 3}])
def test_prune_leaves_what_is_to_be_kept(cache: SnapshotCache, tiny_encoder: Encoder, keep: set[int]) -> None:
    saved = {step: save(cache, tiny_encoder, step) for step in (1, 2, 3)}
    cache.prune({saved[step].id for step in keep})
    assert {path.stem for path in cache.folder.iterdir()} == {saved[step].id for step in keep}


def test_prune_leaves_files_that_are_no_snapshots(cache: SnapshotCache, tiny_encoder: Encoder) -> None:
    save(cache, tiny_encoder, 1)
    users = {"notes.txt", "step-1.safetensors", "step-00000001-copy.safetensors"}
    for name in users:
        (cache.folder / name).write_text("mine")
    cache.prune(())
    assert {path.name for path in cache.folder.iterdir()} == users


def test_prune_of_a_folder_that_is_not_there_yet_does_nothing(cache: SnapshotCache) -> None:
    cache.prune(())
    assert not cache.folder.exists()


# Beside the training


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A writer that has begun its file and waits for the event before it ends it."""
    go, original = threading.Event(), save_file

    def waiting(tensors: dict[str, Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        assert go.wait(30)
        original(tensors, path)

    monkeypatch.setattr(snapshots, "save_file", waiting)
    yield go
    go.set()


def test_saving_does_not_wait_and_training_on_does_not_reach_what_is_written(
    cache: SnapshotCache, tiny_encoder: Encoder, held: threading.Event
) -> None:
    before = weights(tiny_encoder)
    snapshot = cache.save(tiny_encoder.state_dict(), 5, None)
    train_on(tiny_encoder)
    assert same(dict(cache.weights(snapshot)), before)
    assert not cache.path(snapshot.id).exists()
    assert not snapshot.written.done()
    with pytest.raises(AssertionError):
        snapshot.as_dict()
    held.set()
    cache.join()
    assert same(cache.load(snapshot), before)
    assert snapshot.sha256 == hashlib.sha256(cache.path(snapshot.id).read_bytes()).hexdigest()


@pytest.mark.parametrize("what", ["join", "load", "save"])
def test_who_needs_the_file_waits_for_it(
    cache: SnapshotCache, tiny_encoder: Encoder, held: threading.Event, what: str
) -> None:
    waiting: dict[str, Callable[[], object]] = {
        "join": cache.join,
        "load": lambda: cache.load(snapshot),
        "save": lambda: save(cache, tiny_encoder, 6),
    }
    before = weights(tiny_encoder)
    snapshot = cache.save(tiny_encoder.state_dict(), 5, None)
    train_on(tiny_encoder)
    threading.Timer(0.1, held.set).start()
    waiting[what]()
    assert held.is_set()
    assert same(cache.load(snapshot), before)


def test_prune_leaves_what_is_being_written(cache: SnapshotCache, tiny_encoder: Encoder, held: threading.Event) -> None:
    snapshot = cache.save(tiny_encoder.state_dict(), 5, None)
    while not any(path.stat().st_size for path in cache.folder.glob(".*")):
        time.sleep(0.01)
    cache.prune(())
    held.set()
    cache.join()
    assert same(cache.load(snapshot), tiny_encoder.state_dict())
    cache.prune(())
    assert not list(cache.folder.iterdir())


def test_prune_leaves_what_is_written_until_it_is_joined(cache: SnapshotCache, tiny_encoder: Encoder) -> None:
    """Its line in the rotations' file is not written yet."""
    snapshot = cache.save(tiny_encoder.state_dict(), 5, None)
    snapshot.written.result()
    cache.prune(())
    cache.join()
    assert same(cache.load(snapshot), tiny_encoder.state_dict())


def test_weights_of_another_shape_follow(cache: SnapshotCache) -> None:
    for step, shape in enumerate([(2, 3), (3, 2), (6,)]):
        for dtype in (torch.float32, torch.int64):
            tensors = {f"{shape[0]}": torch.ones(shape, dtype=dtype), "same": torch.arange(3).to(dtype) + step}
            loaded = cache.load(cache.save(tensors, step, None))
            assert same(loaded, tensors)
            assert all(loaded[name].dtype == dtype for name in tensors)


def test_a_writer_that_fails_is_told_once_at_the_next_join(
    cache: SnapshotCache, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "save_file", break_off_half_way)
        snapshot = cache.save(tiny_encoder.state_dict(), 5, None)
        assert same(dict(cache.weights(snapshot)), tiny_encoder.state_dict())
        with pytest.raises(UserError, match="make room, and the same command goes on"):
            cache.save(tiny_encoder.state_dict(), 6, None)
    assert not list(cache.folder.iterdir())
    assert same(cache.load(save(cache, tiny_encoder, 6)), tiny_encoder.state_dict())


def test_a_fault_of_the_writer_is_no_users_error(
    cache: SnapshotCache, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "save_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(cache, tiny_encoder, 5)
