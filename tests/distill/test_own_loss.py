"""A loss of the user's own: what it gets, and which functions are refused before a run."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.config.objective import ObjectiveConfig
from otfkd.distill.losses import cosine, off_diagonal
from otfkd.distill.objective import Student, objective
from otfkd.distill.own_loss import check_own_loss, own_loss
from otfkd.distill.weighting import Weighting

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a function's body into a module; gives the import path."""
    monkeypatch.chdir(tmp_path)

    def written(body: str, head: str = "import torch\nOWN = torch.ones((), requires_grad=True)\n") -> str:
        (tmp_path / "own_loss_of_mine.py").write_text(f"{head}def f(student, teacher):\n    {body}\n")
        return "own_loss_of_mine:f"

    yield written
    sys.modules.pop("own_loss_of_mine", None)


@pytest.mark.parametrize(
    "body",
    [
        "return (student - teacher).square().mean()",
        "return torch.relu(0.1 - student * teacher.sign()).sum()",
        "return (student.softmax(-1) * teacher).sum().double()",
    ],
)
def test_an_ordinary_function_is_taken(write: Write, body: str) -> None:
    random = torch.get_rng_state()
    check_own_loss(write(body))
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return (student - teacher).square()", "gives a tensor (6, 5) of torch.float32"),
        ("return 0.5", "gives 0.5"),
        ("return None", "gives None"),
        ("return student.argmax().sum()", "gives a tensor () of torch.int64"),
        ("return student.log().sum()", "gives nan for ordinary cosines"),
        ("return student.sum() / 0", "for ordinary cosines"),
        ("return teacher.square().mean()", "gives no finite gradient to the student"),
        ("return student.detach().mean()", "gives no finite gradient to the student"),
        ("return (student * 0).sum()", "gives no finite gradient to the student"),
        ("return (student * OWN).mean()", "sends a gradient to a tensor of its own"),
        ("return student.mean() * torch.rand(())", "draws random numbers"),
        ("torch.rand(1); return student.mean()", "draws random numbers"),
        ("teacher += 1; return (student - teacher).square().mean()", "writes into the tensors"),
        ("return student.no_such_thing()", "fails on two tensors (6, 5) (AttributeError: "),
        ("return (student - teacher.T).mean()", "fails on two tensors (6, 5) (RuntimeError: "),
    ],
)
def test_what_is_no_loss_is_refused_with_the_signature(write: Write, body: str, words: str) -> None:
    random = torch.get_rng_state()
    with pytest.raises(UserError) as refused:
        check_own_loss(write(body))
    told = str(refused.value)
    assert told.startswith("objective.kd=own_loss_of_mine:f ") and words in told and "\n" not in told
    assert "(student, teacher), two float32 tensors of cosines (B, B-1), whose value is a finite scalar" in told
    assert torch.equal(torch.get_rng_state(), random)


def test_what_is_no_function_is_refused(write: Write) -> None:
    path = write("return student.mean()").replace(":f", ":OWN")
    with pytest.raises(UserError, match="is no function: give a pure function"):
        check_own_loss(path)


def test_it_is_told_where_a_loss_fails_in_a_run(write: Write) -> None:
    loss = own_loss(write("return student.no_such_thing()"))
    with pytest.raises(UserError, match=r"mine:f failed \(AttributeError: .*own_loss_of_mine\.py, line 4\)"):
        loss(torch.rand(3, 2), torch.rand(3, 2))
    with pytest.raises(UserError, match=r"gave a tensor \(3, 2\)"):
        own_loss(write("return student"))(torch.rand(3, 2), torch.rand(3, 2))


def test_the_loss_gets_the_lists_that_otfkds_own_get(write: Write) -> None:
    """The closed form, for two teachers of shares 1/4 and 3/4 and lists between two views."""
    values: dict[str, Any] = load_config(["objective=distill", "teacher=minilm"]).objective.model_dump()
    path = write("return (2 * student - 3 * teacher).square().mean()")
    config = ObjectiveConfig(**(values | {"kd": path, "lists": "two_views"}))
    view1, view2, taught, taught2 = (torch.randn(5, 7, generator=torch.Generator().manual_seed(n)) for n in range(4))
    now = {"kd": Weighting(weight=0.5, temperature_student=1.0, temperature_teacher=1.0)}
    terms = objective(
        config, [Student(view1, view2, view1)], [taught, taught2], [0.25, 0.75], now, torch.Generator(),
        own={path: own_loss(path)},
    )  # fmt: skip
    own = off_diagonal(cosine(view1, view2))
    target = 0.25 * off_diagonal(cosine(taught, taught)) + 0.75 * off_diagonal(cosine(taught2, taught2))
    expected = (2 * own - 3 * target).square().mean()
    torch.testing.assert_close(terms.added["kd"], expected)
    torch.testing.assert_close(terms.total, terms.contrastive + 0.5 * expected)


def test_a_loss_is_computed_in_float32_under_autocast(write: Write) -> None:
    loss = own_loss(write("return (student @ teacher.T).trace()"))
    student, teacher = torch.rand(4, 3), torch.rand(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher)
    torch.testing.assert_close(value, (student * teacher).sum(), rtol=1e-6, atol=0)
