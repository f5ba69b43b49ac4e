"""Where a user's own parts are found, which bytes run, and what is said of those that cannot be used."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.base.hashing import sha256_bytes
from otfkd.config.composition import load_config
from otfkd.config.groups import also_in
from otfkd.config.parts import fingerprints, resolve, with_sha256

KEY = "objective.kd"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module; Python's path and modules are put back."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "mine.py").write_text("def one(): return 1\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_bytes_that_run_are_those_that_are_hashed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of the same length within the same second, which Python's own cache would not notice."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = resolve(KEY, "mine:one")
    assert (first.value(), first.sha256) == (1, sha256_bytes([b"def one(): return 1\n"]))
    assert resolve(KEY, "mine:one").value is first.value
    stat = (here / "mine.py").stat()
    (here / "mine.py").write_text("def one(): return 2\n")
    os.utime(here / "mine.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = resolve(KEY, "mine:one")
    assert (second.value(), second.sha256) == (2, sha256_bytes([b"def one(): return 2\n"]))
    assert first.value() == 1


def test_a_module_is_looked_for_where_the_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the current folder first, and in folders of configs after it; none stays on Python's path for others."""
    configs, other = tmp_path / "configs", tmp_path / "other"
    for folder, number in ((configs, 3), (other, 4)):
        (folder / "package").mkdir(parents=True)
        (folder / "package/__init__.py").touch()
        (folder / "package/deep.py").write_text(f"def one(): return {number}\n")
        (folder / "mine.py").write_text(f"def one(): return {number}\n")
    with also_in([configs]):
        assert resolve(KEY, "mine:one").value() == 1
        assert resolve(KEY, "package.deep:one").value() == 3
        monkeypatch.chdir(other)
        assert resolve(KEY, "mine:one").value() == 4
        assert str(tmp_path / "here") not in sys.path and str(configs) in sys.path
    resolve(KEY, "mine:one")
    assert str(configs) not in sys.path


def test_a_module_that_is_installed_is_not_replaced(here: Path) -> None:
    """One of Python's own that nothing has imported yet."""
    assert "tabnanny" not in sys.modules
    (here / "tabnanny.py").write_text("def one(): return 1\n")
    with pytest.raises(UserError, match=r"lib/python3\.\d+/tabnanny\.py has no one: correct the name"):
        resolve(KEY, "tabnanny:one")


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("nothing:one", None, ["no module nothing is installed or in ", "correct the name"]),
        ("mine.deep:one", None, ["no module mine.deep is installed"]),
        ("mine:two", None, ["mine.py has no two: correct the name"]),
        ("two", None, ["is no import path: write package.module:name"]),
        ("mine:one.two", None, ["is no import path"]),
        ("math:fsum", None, ["has no source in Python"]),
        ("broken:one", "x = 1\n\ny = 1 / 0\n", ["fails on import (ZeroDivisionError: division by zero,", "line 3"]),
        ("broken:one", "x = 1\ndef one(:\n", ["fails on import (SyntaxError: ", "broken.py, line 2"]),
        (
            "broken:one",
            "import not_there_at_all\n",
            ["fails on import (ModuleNotFoundError: No module", "line 1"],
        ),
        ("broken:one", "raise SystemError\n", ["fails on import (SystemError: SystemError"]),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_sentence(
    here: Path, path: str, source: str | None, words: list[str]
) -> None:
    if source is not None:
        (here / "broken.py").write_text(source)
    with pytest.raises(UserError) as refused:
        resolve(KEY, path)
    told = str(refused.value)
    assert told.startswith(f"objective.kd={path} ") and "\n" not in told
    for word in words:
        assert word in told
    assert "broken" not in sys.modules


def test_sources_are_hashed_by_the_keys_that_name_them(here: Path) -> None:
    (here / "other.py").write_text("two = 2\n")
    named = {"evaluation.extra": ["mine:one", "other:two"], KEY: ["other:two"]}
    known = fingerprints(named)
    one, two = (sha256_bytes([(here / name).read_bytes()]) for name in ("mine.py", "other.py"))
    assert known == {"evaluation.extra": f"{one}+{two}", KEY: two}
    assert with_sha256(named, known) == {
        "evaluation.extra=mine:one": one, "evaluation.extra=other:two": two, "objective.kd=other:two": two
    }  # fmt: skip
    assert with_sha256(named, {}) == {}


def test_a_config_names_the_parts_that_it_uses() -> None:
    run = ["experiment=otfkd", "objective.kd=mine:one", "trainer.callbacks=[mine:A,mine:B]", "evaluation.extra=[a.b:C]"]
    config = load_config([*run, "data=custom", "data.path=mine:Text"])
    assert config.parts == {
        "objective.kd": ["mine:one"], "trainer.callbacks": ["mine:A", "mine:B"], "data.path": ["mine:Text"],
        "evaluation.extra": ["a.b:C"],
    }  # fmt: skip
    assert load_config(["experiment=otfkd", "data=text", "data.path=mine:Text"]).parts == {}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objective.kd=mine:"], "objective.kd=mine: is not valid: it must be ce, kl"),
        (["objective.kd=hinge"], "or the import path of a function of your own, package.module:name"),
        (["trainer.callbacks=[mine]"], "trainer.callbacks.0=mine is not valid: it must be an import path"),
        (["trainer.callbacks=[a:B,a:B]"], "trainer.callbacks names a:B twice: name it once"),
        (["evaluation.extra=[a:B,a:B]"], "evaluation.extra names a:B twice: name it once"),
        (["objective.kd=a:b", "objective.mask_repeats=true"], "is not told: leave one of them out"),
        (["objective.kd=a:b", "objective.temperature_student=0.1"], "is not read with objective.kd=a:b"),
        (["objective.kd=a:b", "objective.temperature_teacher_final=0.1"], "has no meaning with objective.kd=a:b"),
        (["data=custom"], "data.path must be given"),
        (["data=custom", "data.path=[a:B,a:C]"], "names several files, and data.source=custom reads one"),
        (["data=custom", "data.path=a:B", "data.column=c"], "data.column=c is not read with"),
    ],
)
def test_a_config_that_names_them_wrongly_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config(["experiment=otfkd", *overrides])
    assert words in str(refused.value)


def test_lists_and_group_p_are_made_for_a_loss_of_ones_own() -> None:
    config = load_config(["experiment=otfkd", "objective.kd=a:b", "objective.lists=two_views", "objective.group_p=0.1"])
    assert config.objective.own_losses == ["a:b"] and not config.objective.compares_embeddings
