"""otfkd-export as a person starts it."""

import functools
from pathlib import Path

import pytest

import otfkd.reporting.export
from otfkd.base.errors import UserError
from tests.support.commands import Command


@pytest.fixture
def export(otfkd_command: Command) -> Command:
    return functools.partial(otfkd_command, "export")


def test_a_model_is_written_and_said_so(export: Command, tiny_model: Path, tmp_path: Path) -> None:
    outcome = export(tiny_model, tmp_path / "out", "--pooler", "mean", "--licence", "MIT")
    assert (outcome.code, outcome.out) == (0, f"written to {tmp_path / 'out'}\n")
    assert "license: mit" in (tmp_path / "out/README.md").read_text()


def test_the_same_command_again_is_refused_in_one_line(export: Command, tiny_model: Path, tmp_path: Path) -> None:
    export(tiny_model, tmp_path / "out", "--pooler", "mean")
    outcome = export(tiny_model, tmp_path / "out", "--pooler", "mean")
    assert outcome.code == 2
    assert outcome.err == f"otfkd: {tmp_path / 'out'} is there already: name a new or an empty folder\n"


def test_a_push_names_the_card_and_comes_last(
    export: Command, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def push(folder: Path, repository: str, *, private: bool) -> str:
        assert "# me/tiny" in (folder / "README.md").read_text()
        return f"{repository} {private}"

    monkeypatch.setattr(otfkd.reporting.export, "push", push)
    outcome = export(tiny_model, tmp_path / "out", "--pooler", "mean", "--push", "me/tiny", "--private")
    assert outcome.out == f"written to {tmp_path / 'out'}\npushed to me/tiny True\n"


def test_a_refused_push_leaves_the_folder(
    export: Command, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def push(*_: object, **__: object) -> str:
        raise UserError("not pushed")

    monkeypatch.setattr(otfkd.reporting.export, "push", push)
    outcome = export(tiny_model, tmp_path / "out", "--pooler", "mean", "--push", "me/tiny")
    assert (outcome.code, outcome.err) == (2, "otfkd: not pushed\n")
    assert (tmp_path / "out/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("--private",), "name one with --push REPO_ID"), (("--push", "a/b/c"), "is no name for a repository")],
)
def test_a_push_that_cannot_be_is_refused_before_anything_is_written(
    export: Command, tiny_model: Path, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    outcome = export(tiny_model, tmp_path / "out", *arguments)
    assert outcome.code == 2 and says in outcome.err
    assert not (tmp_path / "out").exists()


def test_without_the_extra_onnx_is_one_sentence(
    export: Command, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otfkd.models.onnx._NEEDED", ("otfkd_no_such_package",))
    outcome = export(tiny_model, tmp_path / "out", "--pooler", "mean", "--onnx")
    assert (outcome.code, outcome.err) == (
        2,
        "otfkd: ONNX needs otfkd_no_such_package: install the extra with pip install 'otfkd[onnx]'\n",
    )
    assert not (tmp_path / "out").exists()
