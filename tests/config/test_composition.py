"""Overrides as they are typed: several teachers, and paths of all characters."""

import re
import shlex

import pytest

from otfkd.base.errors import UserError
from otfkd.config.composition import check_single, load_config, prepare_overrides
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
    teacher = load_config(["objective=distill", text]).teacher
    assert (teacher.source, teacher.path, teacher.paths) == ("model", paths, paths)


def test_one_path_is_a_teacher_of_one_member() -> None:
    teacher = load_config(["objective=distill", "teacher='runs/simcse/*/s*'"]).teacher
    assert (teacher.path, teacher.paths) == ("runs/simcse/*/s*", ["runs/simcse/*/s*"])


def test_no_teacher_has_no_path() -> None:
    assert load_config([]).teacher.paths == []


def test_weights_go_with_a_list() -> None:
    assert load_config(["objective=distill", "teacher=[a,b]", "teacher.weights=[1.0,3.0]"]).teacher.weights == [
        1.0,
        3.0,
    ]


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


ODD = [
    "a (1).txt", "a[1].txt", "a#b.txt", "it's.txt", 'a "b".txt', "naïve.txt", "日本.txt", "a=b.txt", "a{b}.txt",
    "a,b.txt",
    "a;b&c|d!.txt", "a`b`.txt", "a\\'b\\.txt", "both ' and \".txt", "<a>.txt", "a#\\",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_path_that_hydra_cannot_read_is_told_as_it_can_be_pasted(name: str) -> None:
    with pytest.raises(UserError) as caught:
        check_single(prepare_overrides([f"data.path=/x/{name}"], Config))
    (pasted,) = re.findall(r"(?:, as in|; as one it is) (.*)", str(caught.value))
    (argument,) = shlex.split(pasted)
    assert load_config(["data=text", argument]).data.path == f"/x/{name}"
    check_single([argument])


def test_a_list_is_told_as_a_list() -> None:
    with pytest.raises(UserError) as caught:
        load_config(["data=text", "data.path=[/x/é.txt, '/x/it (1).txt',/x/c.txt]"])
    (argument,) = shlex.split(str(caught.value).partition(", as in ")[2])
    assert load_config(["data=text", argument]).data.path == ["/x/é.txt", "/x/it (1).txt", "/x/c.txt"]


def test_a_number_for_a_path_is_told_in_quotes() -> None:
    with pytest.raises(UserError, match=r"^data\.path=2024 is not valid: it must be text, as in") as caught:
        load_config(["data=text", "data.path=2024"])
    (argument,) = shlex.split(str(caught.value).partition(", as in ")[2])
    assert str(load_config(["data=text", argument]).data.path).endswith("/2024")


@pytest.mark.parametrize("name", ["corpus.txt", "my (1) corpus.txt"])
def test_a_tilde_needs_no_quotes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert load_config(["data=text", f"data.path=~/{name}"]).data.path == f"/home/someone/{name}"
    assert load_config([f"paths.runs=~/{name}"]).paths.runs == f"/home/someone/{name}"
    # A model's is expanded where models are looked for.
    assert load_config(["objective=distill", f"teacher=~/{name}"]).teacher.path == f"~/{name}"
    several = load_config(["data=text", 'data.path=["~/a.txt",b.txt]']).data.paths
    assert several[0] == "/home/someone/a.txt"


def test_a_comma_without_a_sweep_is_refused() -> None:
    check_single(["seed=1", "schedule.at=[1,2]", "data.path='a,b'"])
    with pytest.raises(UserError, match=r"^'seed=0,1' has several values: add -m for a sweep; as one it is"):
        check_single(["name=x", "seed=0,1"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["data=stsb_train", "data.path=[a,b]", "objective=cosent"], "data.path names several files"),
        (["data=labelled", "data.path=a", "objective=cosent", "data.column=x"], "data.column=x is for text"),
        (["data=labelled", "data.path=a", "objective=cosent", "data.unique=true"], "data.unique=true is for text"),
        (["data=text", "data.path=a", "data.split=train"], "data.split=train is of a data set of the hub"),
        (["data=wiki1m", "data.split=train"], "data.split=train is of a data set of the hub"),
        (["data=text", "data.path=a", "data.subset=x"], "data.subset=x is of a data set of the hub"),
    ],
)
def test_a_key_of_data_without_effect_is_refused(given: list[str], told: str) -> None:
    with pytest.raises(UserError, match=f"^{told}"):
        load_config(given)
