"""A run that was stopped goes on as if it had not been."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import otfkd.runs
from otfkd.config import Config
from otfkd.errors import Interrupted, UserError
from otfkd.runs import train


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Make the next run find a signal after so many optimizer steps."""
    calls = iter(range(1, 1000))

    @contextlib.contextmanager
    def flag() -> Iterator[Callable[[], bool]]:
        yield lambda: next(calls) >= steps

    monkeypatch.setattr(otfkd.runs, "stop_flag", flag)


def final(folder: Path) -> dict[str, Any]:
    """All that must be the same bits after a resume."""
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {
        "weights": {name: tensor.tolist() for name, tensor in last["state_dict"].items()},
        "optimizer": {
            index: {key: value.tolist() for key, value in state.items()}
            for index, state in last["optimizer_states"][0]["state"].items()
        },
        "metrics": (folder / "metrics.jsonl").read_text(),
        "rotations": (folder / "rotations.jsonl").read_text(),
        "model": (folder / "model" / "model.safetensors").read_bytes(),
        "snapshots": sorted((path.name, path.read_bytes()) for path in (folder / "snapshots").glob("*")),
    }


@pytest.mark.parametrize(
    ("step", "extra"),
    [
        (1, ()),
        (4, ()),
        (5, ("objective=distill_group_p",)),
        (8, ("trainer.accumulate=3",)),
        (6, ("trainer.accumulate=3", "precision=bfloat16")),
        (7, ("schedule.source=best", "schedule.cache_every=1")),
        (11, ("precision=bfloat16",)),
    ],
)
def test_a_stopped_run_ends_with_the_same_bits(
    configure: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    extra: tuple[str, ...],
) -> None:
    run = ("experiment=otfkd", "schedule.every=4", *extra)
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}"))
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        with pytest.raises(Interrupted, match=f"after step {step}"):
            train(configure(*run))
    resumed = train(configure(*run))
    assert resumed.folder != straight.folder
    assert final(resumed.folder) == final(straight.folder)
    assert resumed.rows == straight.rows


def test_an_initial_teacher_of_another_vocabulary_survives_a_resume(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.conftest import make_model

    other = make_model(tmp_path / "other", width=48, words=["the", "cat"], seed=3)
    run = ("experiment=distill_static", f"teacher={other}", "teacher.pooler=mean")
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}"))
    with monkeypatch.context() as patched:
        stop_after(patched, 5)
        with pytest.raises(Interrupted):
            train(configure(*run))
    assert final(train(configure(*run)).folder) == final(straight.folder)


@pytest.fixture
def stopped(configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Path]:
    """A run that was stopped after step 6, its teacher the snapshot of step 4."""
    config = configure("experiment=otfkd", "schedule.every=4")
    with monkeypatch.context() as patched:
        stop_after(patched, 6)
        with pytest.raises(Interrupted):
            train(config)
    return config, next(Path(config.paths.runs).glob("otfkd/*/s0"))


def test_a_missing_teacher_stops_the_resume_with_its_name(stopped: tuple[Config, Path]) -> None:
    config, folder = stopped
    (folder / "snapshots" / "step-00000004.safetensors").unlink()
    with pytest.raises(UserError, match=r"step-00000004\.safetensors.*missing"):
        train(config)


def test_an_altered_teacher_stops_the_resume_with_its_name(stopped: tuple[Config, Path]) -> None:
    config, folder = stopped
    path = folder / "snapshots" / "step-00000004.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"step-00000004\.safetensors was altered"):
        train(config)


def test_a_truncated_checkpoint_stops_the_resume_with_its_name(stopped: tuple[Config, Path]) -> None:
    config, folder = stopped
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last\.ckpt cannot be read"):
        train(config)


def test_a_foreign_key_in_the_checkpoint_stops_the_resume_with_its_name(stopped: tuple[Config, Path]) -> None:
    config, folder = stopped
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["student.foreign"] = checkpoint["state_dict"].pop(
        "student.backbone.embeddings.LayerNorm.bias"
    )
    torch.save(checkpoint, path)
    with pytest.raises(Exception, match=r"LayerNorm\.bias"):
        train(config)


def test_other_threads_stop_the_resume_unless_forced(
    stopped: tuple[Config, Path], configure: Callable[..., Config]
) -> None:
    with pytest.raises(UserError, match="other threads"):
        train(configure("experiment=otfkd", "schedule.every=4", "trainer.threads=2"))
    forced = train(configure("experiment=otfkd", "schedule.every=4", "trainer.threads=2", "resume=force"))
    assert torch.get_num_threads() == 1
    assert forced.folder == stopped[1]


def test_a_run_killed_before_its_first_checkpoint_starts_anew(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("experiment=otfkd", "schedule.every=4")
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}"))

    class Kill(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == 7:
                raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        original = otfkd.runs._trainer
        patched.setattr(otfkd.runs, "_trainer", lambda config, callbacks: original(config, [*callbacks, Kill()]))
        with pytest.raises(RuntimeError, match="killed"):
            train(configure(*run))
    assert final(train(configure(*run)).folder) == final(straight.folder)


def test_a_signal_sets_the_flag_and_handlers_come_back() -> None:
    from otfkd.signals import stop_flag

    before = signal.getsignal(signal.SIGTERM)
    with stop_flag() as came:
        assert not came()
        signal.raise_signal(signal.SIGTERM)
        assert came()
    assert signal.getsignal(signal.SIGTERM) == before
