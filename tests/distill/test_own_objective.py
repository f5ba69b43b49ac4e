"""A whole objective of the user's own: what it gets, what it is refused for, and that it is a run like any other."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from otfkd.base.errors import Interrupted, UserError
from otfkd.config.composition import load_config
from otfkd.config.schema import Config
from otfkd.distill.objective import Student
from otfkd.distill.own_objective import check_own_objective, own_objective
from otfkd.reporting.export import export
from otfkd.training.run import prepare
from otfkd.training.train import train
from tests.support.models import make_model
from tests.support.resuming import final, stop_after, unclocked

Configure = Callable[..., Config]
Write = Callable[[str], str]

SIMCSE = """
    left, right = (torch.nn.functional.normalize(view, dim=-1) for view in (student.view1, student.view2))
    cosines = left @ right.T
    return torch.nn.functional.cross_entropy(cosines / 0.05, torch.arange(len(cosines)))"""
TAUGHT = """
    loss = (student.view1 - student.view2).square().mean()
    for taught, share in zip(teachers, shares):
        loss = loss + share * (student.embedding - taught[:, :student.embedding.shape[1]]).square().mean()
    return loss"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a function's body into a module; gives the import path."""
    monkeypatch.chdir(tmp_path)

    def written(body: str) -> str:
        head = "import torch\nOWN = torch.ones((), requires_grad=True)\n"
        (tmp_path / "own_objective_of_mine.py").write_text(f"{head}def f(student, teachers, shares):\n    {body}\n")
        return "own_objective_of_mine:f"

    yield written
    sys.modules.pop("own_objective_of_mine", None)


@pytest.mark.parametrize("teacher", ["none", "self", "model"])
@pytest.mark.parametrize("body", [SIMCSE, TAUGHT])
def test_an_ordinary_objective_is_taken(write: Write, body: str, teacher: str) -> None:
    random = torch.get_rng_state()
    check_own_objective(write(body), teacher)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("body", "teacher", "words"),
    [
        ("return 0.5", "none", "gives 0.5"),
        ("return student.view1", "none", "gives a tensor (6, 4) of torch.float32"),
        ("return student.view1.log().sum()", "none", "gives nan for ordinary embeddings"),
        ("return student.view1.detach().sum()", "none", "gives no finite gradient to the student"),
        ("return (student.view1 * OWN).sum()", "none", "sends a gradient to a tensor of its own"),
        ("return student.view2.mean() * torch.rand(())", "none", "draws random numbers"),
        ("teachers[0] += 1; return student.view1.sum()", "model", "writes into the tensors"),
        ("return (student.embedding - teachers[0]).square().sum()", "self",
         "fails on three tensors (6, 4) and no teacher (IndexError: "),
        ("return (student.view1 - teachers[0].T).sum()", "model",
         "fails on three tensors (6, 4) and 1 teacher (RuntimeError: "),
    ],
)  # fmt: skip
def test_what_is_no_objective_is_refused_with_the_signature(write: Write, body: str, teacher: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        check_own_objective(write(body), teacher)
    told = str(refused.value)
    assert told.startswith("objective.fn=own_objective_of_mine:f ") and words in told and "\n" not in told
    assert told.endswith("its value is a finite scalar tensor with a gradient to the student alone")


def test_what_is_no_function_is_refused(write: Write) -> None:
    with pytest.raises(UserError, match="is no function: give a pure function of \\(student, teachers, shares\\)"):
        check_own_objective(write(SIMCSE).replace(":f", ":OWN"), "none")


def test_it_gets_float32_under_autocast_and_it_is_told_where_it_fails(write: Write) -> None:
    given = Student(*(torch.rand(3, 2).bfloat16() for _ in range(3)))
    with torch.autocast("cpu", torch.bfloat16):
        value = own_objective(write("return (student.view1 @ teachers[0].T).sum()"))(given, [torch.rand(3, 2)], [1.0])
    assert value.dtype == torch.float32
    with pytest.raises(UserError, match=r"mine:f failed \(AttributeError: .*own_objective_of_mine\.py, line 4\)"):
        own_objective(write("return student.no_such_thing()"))(given, [], [])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["objective.temperature=0.1"], "objective.temperature=0.1 is not read with objective.fn=a:b: leave it out, or "
                                        "take objective.fn=null"),
        (["objective.kd=kl"], "objective.kd=kl is not read with objective.fn=a:b"),
        (["objective.terms=[{what: ce}]"], "objective.terms=[{what: ce}] is not read with objective.fn=a:b"),
        (["objective.group_p=0.1"], "objective.group_p=0.1 is not read with objective.fn=a:b"),
        (["objective.mlm_weight=0.1"], "objective.mlm_weight=0.1 is not read with objective.fn=a:b"),
        (["objective.dims=[8]"], "objective.fn=a:b is the whole loss, which objective.dims would average over sizes: "),
        (["objective=cosent"], "objective.fn=a:b is not read with objective.supervised=cosent"),
    ],
)  # fmt: skip
def test_no_other_key_of_the_objective_is_read(given: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config(["experiment=simcse", "objective.fn=a:b", *given])
    assert str(refused.value).startswith(sentence)


# Runs

SHORT = ("trainer.max_steps=6", "evaluation.every=2")


def test_simcse_by_hand_has_the_weights_of_simcse(configure: Configure, write: Write) -> None:
    built_in = train(configure("experiment=simcse", *SHORT))
    by_hand = train(configure("experiment=simcse", "objective=custom", f"objective.fn={write(SIMCSE)}", *SHORT))
    assert by_hand.folder != built_in.folder

    def weights(folder: Path) -> dict[str, Tensor]:
        state: dict[str, Tensor] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        return state

    one, other = weights(by_hand.folder), weights(built_in.folder)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4)
    logged = [json.loads(line) for line in (by_hand.folder / "metrics.jsonl").read_text().splitlines()]
    assert all("info_nce" not in line for line in logged) and sum("loss" in line for line in logged) == 6


def test_it_learns_from_who_teaches_and_a_stopped_run_ends_with_the_same_bits(
    configure: Configure, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "assert teachers and len(teachers) == len(shares) and abs(sum(shares) - 1) < 1e-6"
    wide, path = make_model(tmp_path / "wide", width=48, seed=3), write(asked + TAUGHT)
    run = (
        "experiment=otfkd", f"teacher={wide}", "teacher.pooler=cls", "schedule.every=2", "schedule.retain=pool",
        "objective=custom", f"objective.fn={path}", "precision=bfloat16", "trainer.accumulate=2", "trainer.chunk=3",
        *SHORT,
    )  # fmt: skip
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}"))
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        with pytest.raises(Interrupted):
            train(configure(*run))
    resumed = train(configure(*run))
    assert resumed.folder != straight.folder
    assert final(resumed.folder) == final(straight.folder)
    assert unclocked(resumed.rows) == unclocked(straight.rows)
    cost = straight.rows[0].cost
    assert cost is not None
    plain = train(configure("experiment=simcse", *SHORT, "trainer.accumulate=2", "trainer.chunk=3")).rows[0].cost
    assert plain is not None and cost.forwards > plain.forwards  # the teachers are asked

    assert list(straight.rows[0].parts or {}) == [f"objective.fn={path}"]
    export(str(straight.folder), tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert f"A whole loss of the author's own, `{path}`" in card and "and of the embeddings of those who teach." in card
    assert "Unsupervised SimCSE" not in card and "On the fly" in card
    assert f"`objective.fn={path}` (sha256 of its source: `" in card
    assert f"own parts  objective.fn={path} (source " in straight.plan and "negatives" not in straight.plan


def test_a_changed_source_is_another_run_and_a_bad_one_is_refused_in_the_plan(
    configure: Configure, write: Write
) -> None:
    config = configure("experiment=simcse", f"objective.fn={write(SIMCSE)}")
    first = prepare(config)
    write(SIMCSE + "  # edited")
    assert prepare(config).folder.path != first.folder.path
    write("return student.view1")
    with pytest.raises(UserError, match=r"^objective\.fn=own_objective_of_mine:f gives a tensor"):
        prepare(config)


def test_it_sees_what_the_students_losses_see(write: Write) -> None:
    """The closed form of InfoNCE on given views."""
    views = [torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    value = own_objective(write(SIMCSE))(Student(*views), [], [])
    cosines = torch.nn.functional.cosine_similarity(views[0][:, None], views[1][None], dim=-1)
    expected: Any = cross_entropy(cosines / 0.05, torch.arange(5))
    torch.testing.assert_close(value, expected)
