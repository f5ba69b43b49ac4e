"""Checkpoints: whole or absent, of plain content, and no larger with a teacher than without."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import otfkd.training.run
from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.distill.checkpoints import Checkpoints, WholeFiles
from otfkd.models.encoder import Encoder
from otfkd.models.registry import load_encoder
from otfkd.runs.folder import RunFolder
from otfkd.training.train import train
from tests.support.texts import make_suite
from tests.support.weights import same

CHECKPOINT = {
    "state_dict": {"a": torch.arange(6.0), "b": torch.ones(2, 2, dtype=torch.bfloat16)},
    "step": 3,
    "more": {"none": None, "list": [1, "two", 3.0], "true": True},
}

METHODS = {"without a teacher": "simcse", "with a teacher": "otfkd"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, corpus_file: Path) -> dict[str, Path]:
    """The folders of two finished runs that differ in having a teacher."""
    root = tmp_path_factory.mktemp("runs")
    shared = [
        f"model={tiny_model}", "model.pooler=cls", "data=text", f"data.path={corpus_file}", "data.batch_size=4",
        "data.max_length=16", "trainer.max_steps=4", "trainer.accelerator=cpu", "trainer.checkpoint_every=1",
        "evaluation.every=2", "optimizer.lr=1e-3", f"paths.runs={root / 'runs'}", f"paths.cache={root / 'cache'}",
    ]  # fmt: skip
    methods = {"simcse": ["experiment=simcse"], "otfkd": ["experiment=otfkd", "schedule.every=2"]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(otfkd.training.run, "load_suite", lambda *_: make_suite())
        return {name: train(load_config([*shared, *overrides])).folder for name, overrides in methods.items()}


def break_off_half_way(checkpoint: dict[str, Any], path: Path) -> None:
    path.write_bytes(b"half of a file")
    raise OSError("No space left on device")


# Files


def test_a_checkpoint_loads_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    WholeFiles().save_checkpoint(CHECKPOINT, path)
    loaded = WholeFiles().load_checkpoint(path)
    assert same(loaded.pop("state_dict"), CHECKPOINT["state_dict"])  # type: ignore[arg-type]
    assert loaded == {name: CHECKPOINT[name] for name in ("step", "more")}


def test_a_save_that_breaks_off_leaves_the_file_before_it_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, path)
    monkeypatch.setattr(torch, "save", break_off_half_way)
    with pytest.raises(OSError, match="No space left"):
        WholeFiles().save_checkpoint({"step": 2}, path)
    assert WholeFiles().load_checkpoint(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_first_save_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "save", break_off_half_way)
    with pytest.raises(OSError, match="No space left"):
        WholeFiles().save_checkpoint({"step": 2}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_best_that_breaks_off_leaves_the_best_before_it(
    tmp_path: Path, tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(RunFolder(tmp_path))
    checkpoints.save_best(tiny_encoder, {"step": 1})
    checkpoints.settle_best()
    monkeypatch.setattr(
        "otfkd.distill.checkpoints.save_file", lambda tensors, path, metadata: break_off_half_way(tensors, path)
    )
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save_best(tiny_encoder, {"step": 2})
    checkpoints.settle_best()
    assert checkpoints.load_best()[1] == {"step": 1}
    assert list(checkpoints.best.parent.iterdir()) == [checkpoints.best]


def test_best_gives_back_the_student_and_its_facts(tmp_path: Path, tiny_encoder: Encoder) -> None:
    facts = {"step": 250, "dev": 0.1 + 0.2, "generation": 2}
    checkpoints = Checkpoints(RunFolder(tmp_path))
    checkpoints.save_best(tiny_encoder, facts)
    checkpoints.settle_best()
    weights, read = Checkpoints(RunFolder(tmp_path)).load_best()
    assert same(weights, tiny_encoder.state_dict())
    assert read == facts


def test_a_best_is_the_runs_once_the_last_checkpoint_names_it(tmp_path: Path, tiny_encoder: Encoder) -> None:
    """Killed before the checkpoint is written the older best counts; after that, the newer."""
    folder = RunFolder(tmp_path)
    writing = Checkpoints(folder)
    writing.save_best(tiny_encoder, {"step": 1})
    writing.settle_best()
    first = writing.chosen
    writing.save_best(tiny_encoder, {"step": 2})
    for named, step in ((writing.chosen, 2), (first, 1)):
        again = RunFolder(shutil.copytree(tmp_path, tmp_path / "killed" / str(step), ignore=lambda *_: ["killed"]))
        Checkpoints(again).resume_best(named)
        assert Checkpoints(again).load_best()[1] == {"step": step}
        assert list(again.best_student.parent.iterdir()) == [again.best_student]


def test_a_checkpoint_before_the_first_dev_score_goes_with_no_best(tmp_path: Path, tiny_encoder: Encoder) -> None:
    checkpoints = Checkpoints(RunFolder(tmp_path))
    checkpoints.save_best(tiny_encoder, {"step": 1})
    Checkpoints(RunFolder(tmp_path)).resume_best(None)
    assert not list(checkpoints.best.parent.iterdir())


def test_a_removed_checkpoint_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint(CHECKPOINT, path)
    for _ in range(2):
        WholeFiles().remove_checkpoint(path)
        assert not path.exists()


def whole() -> bytes:
    buffer = io.BytesIO()
    torch.save(CHECKPOINT, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"half of a file", whole()[:100], whole()[:-1], None],
    ids=["empty", "zero", "text", "its beginning", "all but its end", "absent"],
)  # fmt: skip
def test_an_unreadable_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    checkpoints = Checkpoints(RunFolder(tmp_path))
    if content is not None:
        checkpoints.last.parent.mkdir()
        checkpoints.last.write_bytes(content)
    with pytest.raises(UserError, match=f"^{re.escape(str(checkpoints.last))} cannot be read .*fresh=true$"):
        checkpoints.read_last()


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(RunFolder(tmp_path))
    checkpoints.last.parent.mkdir()
    torch.save({"config": Path("something that is no plain type")}, checkpoints.last)
    with pytest.raises(UserError, match=r"cannot be read"):
        checkpoints.read_last()


# Of real runs


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_checkpoint_of_a_run_holds_tensors_and_plain_types_only(runs: dict[str, Path], method: str) -> None:
    paths = [path for path in runs[method].rglob("*") if path.suffix in {".ckpt", ".pt", ".bin", ".pth"}]
    assert [path.name for path in paths] == ["last.ckpt"]
    assert torch.load(paths[0], weights_only=True)["global_step"] == 4


def test_a_teacher_does_not_make_the_checkpoint_larger(runs: dict[str, Path]) -> None:
    without, with_teacher = (Checkpoints(RunFolder(runs[method])).last.stat().st_size for method in METHODS.values())
    assert (runs["otfkd"] / "rotations.jsonl").read_text().strip()
    assert with_teacher == pytest.approx(without, rel=0.02)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_best_holds_the_student_only(runs: dict[str, Path], method: str, tiny_encoder: Encoder) -> None:
    weights, _ = Checkpoints(RunFolder(runs[method])).load_best()
    assert weights.keys() == tiny_encoder.state_dict().keys()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_best_has_the_facts_of_the_step_that_dev_preferred(runs: dict[str, Path], method: str) -> None:
    _, facts = Checkpoints(RunFolder(runs[method])).load_best()
    rows = [json.loads(line) for line in (runs[method] / "metrics.jsonl").read_text().splitlines()]
    scored = [(row["dev"], row["step"]) for row in rows if "dev" in row]
    assert len(scored) == 2
    assert facts["dev"] == max(scored)[0]
    assert (facts["dev"], facts["step"]) in scored


def test_best_is_what_was_exported(runs: dict[str, Path]) -> None:
    weights, _ = Checkpoints(RunFolder(runs["otfkd"])).load_best()
    assert same(load_encoder(runs["otfkd"] / "model").state_dict(), weights)


def test_the_resumable_checkpoint_holds_the_student_and_its_head(runs: dict[str, Path]) -> None:
    names = torch.load(runs["otfkd"] / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in names} == {"student", "head"}
