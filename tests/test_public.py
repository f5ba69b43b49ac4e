"""The public names: their examples run, and asking for one costs no more than it needs."""

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import otfkd

# Their examples score the embedded encoder on the generated suite, which takes a minute.
LONG = ("evaluate", "train")


def examples(name: str) -> list[doctest.DocTest]:
    """The examples in a public name's docstrings, its methods' included."""
    found = doctest.DocTestFinder().find(getattr(otfkd, name), name, globs={})
    return [one for one in found if one.examples]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
        for name in otfkd.__all__
        if name != "__version__"
    ],
)
def test_the_example_of_a_public_name_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert examples(name), f"{name} has no example"
    runner = doctest.DocTestRunner()
    for example in examples(name):
        assert runner.run(example).failed == 0


def test_there_are_ten_public_names_and_each_says_what_it_is() -> None:
    names = [name for name in otfkd.__all__ if name != "__version__"]
    assert len(names) == 10
    assert all(inspect.getdoc(getattr(otfkd, name)) for name in names)
    with pytest.raises(AttributeError, match="has no attribute 'teach'"):
        otfkd.teach  # noqa: B018


def loaded(code: str) -> set[str]:
    """What a fresh process prints, word by word."""
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


# Lightning takes seconds to load, and brings some of transformers by way of torchmetrics; its classes do for this.
WITHOUT_LIGHTNING = """
import sys, types
names = ["lightning", "lightning.pytorch", "lightning.pytorch.plugins", "lightning.pytorch.plugins.io"]
classes = {name: type(name, (), {}) for name in ("Callback", "LightningModule", "Trainer", "CheckpointIO")}
for name in names:
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(classes)
"""


def test_importing_the_callback_loads_no_model_code() -> None:
    callback = "from otfkd import TeacherRotation, Schedule, TeacherSlot"
    modules = loaded(f"{WITHOUT_LIGHTNING}{callback}; print(*sys.modules)")
    assert "otfkd.distill.rotation" in modules
    heavy = {"transformers", "tokenizers", "datasets", "pyarrow"}
    assert not heavy & {name.split(".")[0] for name in modules}
    assert not any(name.startswith(("otfkd.models", "otfkd.data", "otfkd.training")) for name in modules)


def test_a_runs_state_is_told_without_torch() -> None:
    assert "torch" not in loaded("import sys, otfkd.runs.folder; print(*sys.modules)")
