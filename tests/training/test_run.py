"""The initial teacher's members: patterns, lists, weights, and what they are called in the run's hash."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.config.schema import Config
from otfkd.training.run import Run, prepare
from tests.support.models import make_model


@pytest.fixture
def runs(tmp_path: Path, tiny_model: Path) -> Path:
    """Finished runs of one config with the seeds 0, 1 and 2, and one that was set aside."""
    folder = tmp_path / "earlier" / "simcse" / "0123456789"
    for seed in range(3):
        run = folder / f"s{seed}"
        shutil.copytree(tiny_model, run / "model")
        (run / "provenance.json").write_text(json.dumps({"config_hash": "0123456789", "seed": seed}))
    shutil.copytree(folder / "s0", folder / "s0.kept-1")
    return folder


@pytest.fixture
def ready(configure: Callable[..., Config]) -> Callable[..., Run]:
    return lambda *more: prepare(configure("objective=distill", *more))


def names(run: Run) -> list[str]:
    return [folder.parent.name for folder in run.teachers]


def test_a_pattern_names_each_run_once_in_order_and_none_that_was_set_aside(
    ready: Callable[..., Run], runs: Path
) -> None:
    assert names(ready(f"teacher='{runs}/s*'")) == ["s0", "s1", "s2"]
    assert names(ready(f"teacher='{runs.parent}/*/s[12]'")) == ["s1", "s2"]


def test_a_list_keeps_its_order_and_may_mix_patterns_and_folders(ready: Callable[..., Run], runs: Path) -> None:
    assert names(ready(f"teacher=['{runs}/s2','{runs}/s[01]']")) == ["s2", "s0", "s1"]


def test_a_folder_whose_name_looks_like_a_pattern_is_that_folder(
    ready: Callable[..., Run], tmp_path: Path, tiny_model: Path
) -> None:
    folder = tmp_path / "teacher[1]"
    shutil.copytree(tiny_model, folder)
    assert ready(f"teacher='{folder}'").teachers == (folder,)


def test_a_pattern_may_begin_at_home(ready: Callable[..., Run], runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(runs))
    assert names(ready("teacher='~/s[02]'")) == ["s0", "s2"]


def test_a_pattern_that_matches_nothing_is_refused(ready: Callable[..., Run], runs: Path) -> None:
    with pytest.raises(UserError, match=f"^teacher.path={re.escape(f'{runs}/x*')} matches no folder: correct the p"):
        ready(f"teacher=['{runs}/s0','{runs}/x*']")


def test_a_run_without_a_model_is_refused_by_name(ready: Callable[..., Run], runs: Path) -> None:
    shutil.rmtree(runs / "s1" / "model")
    with pytest.raises(UserError, match=re.escape(str(runs / "s1"))):
        ready(f"teacher='{runs}/s*'")


def test_no_teacher_in_the_list_is_refused(ready: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match=r"^teacher\.path must be given with teacher=custom: add teacher\.path="):
        ready("teacher=[]")


@pytest.mark.parametrize(("weights", "count"), [("[1.0]", 1), ("[1.0,1.0]", 2), ("[1.0,1.0,1.0,1.0]", 4)])
def test_weights_need_one_number_a_teacher(ready: Callable[..., Run], runs: Path, weights: str, count: int) -> None:
    with pytest.raises(UserError, match=rf"^teacher\.weights has {count} numbers for 3 teachers: give one for each$"):
        ready(f"teacher='{runs}/s*'", f"teacher.weights={weights}")
    assert len(ready(f"teacher='{runs}/s*'", "teacher.weights=[1.0,2.0,3.0]").teachers) == 3


def test_every_teachers_content_is_in_the_fingerprint(ready: Callable[..., Run], runs: Path, tmp_path: Path) -> None:
    one, two = ready(f"teacher=['{runs}/s0']"), ready(f"teacher=['{runs}/s0','{runs}/s1']")
    other = make_model(tmp_path / "other", seed=3)
    third = ready(f"teacher=['{runs}/s0','{other}']")
    assert two.fingerprints["teacher"] == "+".join([one.fingerprints["teacher"]] * 2)
    assert len({run.fingerprints["teacher"] for run in (one, two, third)}) == 3
    assert len({run.hash for run in (one, two, third)}) == 3


def test_seeds_share_a_hash_where_each_has_its_own_teacher(ready: Callable[..., Run], runs: Path) -> None:
    hashes = {ready(f"teacher='{runs}/s{seed}'", f"seed={seed}").hash for seed in range(3)}
    assert len(hashes) == 1
    assert ready(f"teacher='{runs}/s1'", "seed=0").hash not in hashes


def test_seeds_share_a_hash_where_all_have_the_same_several_teachers(ready: Callable[..., Run], runs: Path) -> None:
    assert len({ready(f"teacher='{runs}/s*'", f"seed={seed}").hash for seed in range(4)}) == 1
