"""otfkd-figures on runs made by hand."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Command
from tests.support.run_folders import rotation, write_run


@pytest.fixture
def figures(otfkd_command: Command) -> Command:
    return functools.partial(otfkd_command, "figures")


def test_what_is_named_is_written_and_listed(figures: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", {9: 1.0}, [rotation(3, 1.0, 1.0, 0.0, 0.0)])
    out = tmp_path / "out"
    outcome = figures(tmp_path / "runs", "--out", out, "--what", "agreement,curves")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.split() == [f"{out}/{kind}.{end}" for kind in ("agreement", "curves") for end in ("png", "svg")]
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (out / "agreement.svg").read_bytes()


def test_by_default_what_the_runs_have_no_data_for_is_left_out_and_said(figures: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", {9: 1.0}, [rotation(3)])
    outcome = figures(tmp_path / "runs", "--out", tmp_path / "out")
    assert outcome.code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["curves.png", "curves.svg"]
    reasons = outcome.err.splitlines()
    assert [line.split(":")[0] for line in reasons] == ["no agreement", "no similarity", "no geometry"]
    assert "earlier otfkd" in reasons[0] and "not finished" in reasons[1]


def test_what_is_named_and_cannot_be_drawn_is_an_error(figures: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", {9: 1.0})
    outcome = figures(tmp_path / "runs", "--out", tmp_path / "out", "--what", "agreement")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("otfkd: none of the runs rotated") and outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("what", "said"), [("curve", "--what curve is not a figure"), ("curves,", "--what  is not"), ("", "--what  is not")]
)
def test_an_unknown_figure_is_refused(figures: Command, tmp_path: Path, what: str, said: str) -> None:
    write_run(tmp_path / "runs", {9: 1.0})
    outcome = figures(tmp_path / "runs", "--out", tmp_path / "out", "--what", what)
    assert outcome.code == 2 and said in outcome.err and "geometry" in outcome.err
    assert not (tmp_path / "out").exists()


def test_help_loads_neither_matplotlib_nor_torch() -> None:
    code = "import sys, otfkd.cli.figures; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "torch", "numpy"} & set(loaded)
