"""Several teachers on the command line."""

import pytest

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config, prepare_overrides
from otfkd.config.schema import Config


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("teacher=[org/a,org/b]", ["org/a", "org/b"]),
        ("teacher=[org/a]", ["org/a"]),
        ("teacher=['runs/x/*/s*',minilm]", ["runs/x/*/s*", "minilm"]),
        ("teacher=['it is, a folder','a=b','{c}']", ["it is, a folder", "a=b", "{c}"]),
        ("teacher=[\"it's\",'tail\\\\']", ["it's", "tail\\"]),
        ("teacher=[1,2]", ["1", "2"]),
        ("teacher=[]", []),
    ],
)
def test_a_list_of_teachers_is_a_teacher_of_several_members(text: str, paths: list[str]) -> None:
    teacher = load_config([text]).teacher
    assert (teacher.source, teacher.path, teacher.paths) == ("model", paths, paths)


def test_one_path_is_a_teacher_of_one_member() -> None:
    teacher = load_config(["teacher='runs/simcse/*/s*'"]).teacher
    assert (teacher.path, teacher.paths) == ("runs/simcse/*/s*", ["runs/simcse/*/s*"])


def test_no_teacher_has_no_path() -> None:
    assert load_config([]).teacher.paths == []


def test_weights_go_with_a_list() -> None:
    assert load_config(["teacher=[a,b]", "teacher.weights=[1.0,3.0]"]).teacher.weights == [1.0, 3.0]


@pytest.mark.parametrize("weights", ["[0.0,1.0]", "[-1.0,1.0]", "[nan,1.0]", "[a,1.0]", "0.5"])
def test_weights_that_are_no_shares_are_refused(weights: str) -> None:
    with pytest.raises(UserError, match=r"^teacher\.weights"):
        load_config(["teacher=[a,b]", f"teacher.weights={weights}"])


@pytest.mark.parametrize("group", ["model", "schedule", "objective"])
def test_only_teachers_come_several(group: str) -> None:
    with pytest.raises(UserError):
        load_config([f"{group}=[a,b]"])


def test_a_list_expands_before_hydra_sees_it() -> None:
    assert prepare_overrides(["teacher=[a,b]"], Config) == ["teacher=custom", "teacher.path=['a','b']"]
