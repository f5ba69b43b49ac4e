"""Files are whole or not there."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from otfkd.base.files import (
    JsonLines,
    atomic_file,
    atomic_folder,
    clear_unfinished,
    read_json_lines,
    write_bytes,
    write_text,
)


def test_a_file_appears_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_bytes(path, b"content")
    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failed_write_leaves_what_was_there_and_no_litter(
    tmp_path: Path, error: type[BaseException], old: bytes | None
) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)

    def fail() -> None:
        with atomic_file(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == ({} if old is None else {"file": old})


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_the_content_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("sync"))
    monkeypatch.setattr(Path, "replace", lambda old, new: calls.append("rename"))
    write_bytes(tmp_path / "file", b"content")
    assert calls == ["sync", "rename"]


def test_others_may_read_the_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "é\n")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "file").read_bytes() == "é\n".encode()


def test_json_lines_grow_row_by_row(tmp_path: Path) -> None:
    rows = JsonLines(tmp_path / "new" / "rows.jsonl")
    assert read_json_lines(rows.path) == []
    rows.append({"step": 1, "text": "a\u2028b\nc"})
    rows.append({"step": 2})
    assert read_json_lines(rows.path) == [{"step": 1, "text": "a\u2028b\nc"}, {"step": 2}]


def test_json_lines_are_cut_back_to_an_earlier_size(tmp_path: Path) -> None:
    rows = JsonLines(tmp_path / "rows.jsonl")
    rows.append({"step": 1})
    size = rows.size()
    rows.append({"step": 2})
    rows.truncate(size)
    rows.append({"step": 3})
    assert read_json_lines(rows.path) == [{"step": 1}, {"step": 3}]


def test_opening_json_lines_again_keeps_them(tmp_path: Path) -> None:
    JsonLines(tmp_path / "rows.jsonl").append({"step": 1})
    assert read_json_lines(JsonLines(tmp_path / "rows.jsonl").path) == [{"step": 1}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_a_value_that_json_has_not_is_refused_without_a_trace(tmp_path: Path, value: object) -> None:
    rows = JsonLines(tmp_path / "rows.jsonl")
    with pytest.raises((ValueError, TypeError)):
        rows.append({"step": 1, "dev": value})
    assert rows.size() == 0


def test_a_folder_appears_whole_in_the_place_of_the_old_one_and_others_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "folder"
    (folder / "old").mkdir(parents=True)
    with atomic_folder(folder) as temporary:
        (temporary / "inner").mkdir(mode=0o700)
        (temporary / "inner/file").touch(mode=0o600)
        assert (folder / "old").is_dir()
    modes = {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert modes == {"inner": 0o755, "inner/file": 0o644}
    assert folder.stat().st_mode & 0o777 == 0o755
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_folder_leaves_the_old_one_and_no_litter(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "folder/old").mkdir(parents=True)

    def fail() -> None:
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "half").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "old"]


def write_and_die(path: Path) -> None:
    """What safetensors leaves when it is killed: the file it was asked for is not there, its own beside it is."""
    with atomic_file(path) as temporary:
        (temporary.parent / ".tmpXRPGTJ").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def export_and_die(path: Path) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("action", [write_and_die, export_and_die])
def test_what_killed_writers_left_is_cleared_and_nothing_else(tmp_path: Path, action: Callable[[Path], None]) -> None:
    kept = {".hidden", ".a.lock", ".file.abcdefgh", "file", "below/file"}
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    users = tmp_path / ".notes.20241129"
    users.mkdir()
    for place in (tmp_path, tmp_path / "below"):
        if (child := os.fork()) == 0:
            action(place / "new")
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert len([*tmp_path.rglob(".new.*")]) == 2
    clear_unfinished(tmp_path, "other")
    assert len([*tmp_path.rglob(".new.*")]) == 2
    clear_unfinished(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == kept
    assert users.is_dir()
    assert not [*tmp_path.rglob(".new.*")]


def test_a_folder_that_is_not_there_has_nothing_to_clear(tmp_path: Path) -> None:
    clear_unfinished(tmp_path / "none")
    assert not (tmp_path / "none").exists()
