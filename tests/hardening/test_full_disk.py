"""A disk that fills up: at whatever file, the command ends with exit code 2 and one sentence that names it."""

import ast
import builtins
import errno
import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import tokenizers
import torch
import transformers.modeling_utils
from safetensors import SafetensorError

import otfkd
from otfkd.base import files
from otfkd.base.errors import UserError, refusals_as_user_errors
from otfkd.distill import checkpoints, snapshots
from tests.support.commands import Command

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is always full")

FULL = "No space left on device"
RUST = f"I/O error: {FULL} (os error 28)"


def fill_up(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    """Give every file that Python opens for writing, if its path matches, a disk without room."""
    original = io.open

    def opened(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        full = set(mode) & set("wax+") and re.search(pattern, str(file))
        return original("/dev/full" if full else file, mode, *more, **named)

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", opened)


def fail(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception) -> None:
    """Have a library's writer say what it says of a full disk."""

    def failing(*_: Any, **__: Any) -> None:
        free = shutil.disk_usage("/")._replace(free=0)
        monkeypatch.setattr(shutil, "disk_usage", lambda *_: free)
        raise error

    monkeypatch.setattr(owner, name, failing)


# By what the sentence names: what of a run's files, and of those in the cache, is full.
OPENED = {
    r"s0": r"untrained.*/config\.json$",
    r"s0/config\.yaml": r"config\.yaml$",
    r"s0/plan\.txt": r"plan\.txt$",
    r"s0/provenance\.json": r"provenance\.json$",
    r"s0/metrics\.jsonl": r"/metrics\.jsonl$",
    r"s0/timings\.jsonl": r"timings\.jsonl$",
    r"s0/rotations\.jsonl": r"rotations\.jsonl$",
    r"s0/model": r"s0/\.model\..*/modules\.json$",
    r"s0/model\.sha256": r"model\.sha256$",
    r"s0/results\.jsonl": r"results\.jsonl$",
    r"cache/tokens/\w+\.json": r"tokens/.*\.json$",
}  # fmt: skip
LIBRARIES: dict[str, tuple[Any, str, Exception]] = {
    r"cache/tokens/\w+\.arrow": (pyarrow, "OSFile", OSError(errno.ENOSPC, FULL)),
    r"s0": (transformers.modeling_utils, "safe_save_file", SafetensorError(RUST)),
    r"s0/": (tokenizers.Tokenizer, "save", Exception(f"{FULL} (os error 28)")),
    r"s0/snapshots/step-00000004\.safetensors": (snapshots, "save_file", SafetensorError(RUST)),
    r"s0/checkpoints/best\.next\.safetensors": (checkpoints, "save_file", SafetensorError(RUST)),
    r"s0/checkpoints/last\.ckpt": (torch, "save", RuntimeError("PytorchStreamWriter failed writing file data/3")),
}
QUICK = {
    r"s0/model\.sha256",
    r"s0/rotations\.jsonl",
    r"s0/checkpoints/best\.next\.safetensors",
    r"cache/tokens/\w+\.arrow",
}


def cases(names: dict[str, Any]) -> list[Any]:
    return [pytest.param(*pair, marks=[] if pair[0] in QUICK else pytest.mark.slow) for pair in names.items()]


def assert_named(command: Command, run: list[str], named: str) -> None:
    stopped = command(*run)
    assert stopped.code == 2, stopped.err
    assert "Traceback" not in stopped.err
    told = stopped.err.splitlines()[-1]
    assert re.match(rf"otfkd: /\S+/{named.rstrip('/')} c[a-z ]+ \({FULL}\): make room", told), told


@pytest.fixture
def run(overrides: list[str]) -> list[str]:
    return ["train", *overrides, "experiment=otfkd", "schedule.every=4"]


@pytest.mark.parametrize(("named", "pattern"), cases(OPENED))
def test_a_file_that_python_writes(
    otfkd_command: Command, run: list[str], monkeypatch: pytest.MonkeyPatch, named: str, pattern: str
) -> None:
    with monkeypatch.context() as patched:
        fill_up(patched, pattern)
        assert_named(otfkd_command, run, named)
    assert otfkd_command(*run).code == 0


@pytest.mark.parametrize(("named", "writer"), cases(LIBRARIES))
def test_a_file_that_a_library_writes(
    otfkd_command: Command, run: list[str], monkeypatch: pytest.MonkeyPatch, named: str, writer: Any
) -> None:
    with monkeypatch.context() as patched:
        fail(patched, *writer)
        assert_named(otfkd_command, run, named)
    assert otfkd_command(*run).code == 0


@pytest.mark.parametrize("logger", ["csv"])
def test_a_loggers_file_stops_no_run(
    otfkd_command: Command, run: list[str], monkeypatch: pytest.MonkeyPatch, logger: str
) -> None:
    fill_up(monkeypatch, rf"/{logger}/")
    ended = otfkd_command(*run, f"logger={logger}")
    assert ended.code == 0
    assert f"failed ([Errno 28] {FULL}" in ended.err


WRITERS: list[Callable[[Path], object]] = [
    lambda path: files.write_text(path, "text"),
    lambda path: files.write_bytes(path, b"bytes"),
    lambda path: files.append_text(path, "text"),
    lambda path: files.JsonLines(path).append({"step": 1}),
]


@pytest.mark.parametrize("writer", WRITERS)
def test_every_way_to_write_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Callable[[Path], object]
) -> None:
    path = tmp_path / "kept"
    fill_up(monkeypatch, "kept$")
    told = rf"^{path} cannot be read or written \({FULL}\): make room"
    with pytest.raises(UserError, match=told), refusals_as_user_errors():
        writer(path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(
    "error",
    [
        lambda number: OSError(number, os.strerror(number)),
        lambda number: SafetensorError(
            f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"
        ),
        lambda number: shutil.Error([("a", "b", f"[Errno {number}] {os.strerror(number)}: 'b'")]),
    ],
)
def test_whichever_way_a_library_says_it(number: int, error: Callable[[int], Exception]) -> None:
    with pytest.raises(UserError, match=re.escape(os.strerror(number))), refusals_as_user_errors():
        raise error(number)


def test_an_error_that_is_about_something_else_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError), refusals_as_user_errors(), files.atomic_file(tmp_path / "a"):
        raise SafetensorError("invalid header (os error 2)")


# Who writes without these functions, and where to: to files that they give, or to nothing that lasts.
OWN = {
    "base/files.py", "base/memory.py", "base/logs.py", "cli/common.py", "data/joined.py", "data/embedded.py",
    "data/mapped.py", "data/senteval.py", "data/tokens.py", "models/export.py", "training/launch.py",
    "training/wandb_run.py",
}  # fmt: skip
WRITING = {"write_text", "write_bytes", "save_file", "touch", "OSFile"}


def writes(tree: ast.AST) -> bool:
    """Whether a module has a call that opens a file for writing, by itself and not by our functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            method = isinstance(node.func, ast.Attribute)
            modes = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            if (name in WRITING and method) or (name == "open" and any(set(mode) <= set("wabx+t") for mode in modes)):
                return True
    return False


def test_no_other_module_writes_by_itself() -> None:
    root = Path(otfkd.__file__).parent
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if writes(ast.parse(path.read_text()))}
    assert found - OWN == set()
