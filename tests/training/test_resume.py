"""A run that was stopped goes on as if it had not been."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import otfkd.training.train
from otfkd.base.errors import Interrupted, UserError
from otfkd.config.schema import Config
from otfkd.distill.checkpoints import Checkpoints
from otfkd.runs.folder import RunFolder
from otfkd.training.train import train
from tests.support.callbacks import joined_by
from tests.support.copies import made_once
from tests.support.resuming import final, stop_after, unclocked
from tests.support.variants import GIVEN

VARIANTS = {
    "plain": (),
    "group_p": ("objective=distill_group_p",),
    "accumulated": ("trainer.accumulate=3",),
    "accumulated, bfloat16": ("trainer.accumulate=3", "precision=bfloat16"),
    "chunked": (
        "trainer.chunk=3", "trainer.accumulate=2", "precision=bfloat16", "objective=distill_group_p",
    ),
    "terms, sizes": (
        "objective.terms=[{{what: ce, group_p: 0.3, ramp: rotation, ramp_steps: 3}}, {{what: mse, weight: 0.5}},"
        " {{what: consistency, fade_steps: 6}}]", "objective.dims=[32,16,5]",
    ),
    "best": ("schedule.source=best", "schedule.cache_every=1"),
    "ema": ("schedule.source=ema", "schedule.ema.decay=0.7", "schedule.ema.shape=cosine"),
    "ema, bfloat16": ("schedule.source=ema", "precision=bfloat16", "schedule.ema.decay=0.7", "schedule.gate=2.0"),
    "follow": ("schedule=follow", "teacher.after_warmup=continue", "teacher.warmup_steps=3", "schedule.ema.decay=0.7"),
    "average": ("schedule.source=average", "schedule.cache_every=1", "schedule.average_last=3"),
    "pool_initial, sample": (*GIVEN, "schedule.every=2", "schedule.retain=pool_initial", "schedule.aggregate=sample"),
    "plateau": ("schedule=plateau", "teacher.warmup_steps=2", "schedule.patience=2", "evaluation.every=1"),
    "on_improvement": ("schedule=on_improvement", "teacher.warmup_steps=1", "evaluation.every=1"),
    "gated, once": ("schedule.every=2", "schedule.gate=0.0", "schedule.max_rotations=3"),
    "reinit, reset, restart": (
        *GIVEN, "schedule.every=3", "schedule.source=best", "schedule.cache_every=1",
        "schedule.on_rotation.student=reinit", "schedule.on_rotation.optimizer=reset",
        "schedule.on_rotation.lr=restart", "optimizer.decay=cosine",
    ),
    "reinit, ema": ("schedule.every=3", "schedule.source=ema", "schedule.on_rotation.student=reinit"),
    "dev_weighted": (
        *GIVEN, "schedule.every=2", "schedule.retain=pool_initial", "schedule.aggregate=dev_weighted",
        "schedule.source=average", "schedule.average_last=2",
    ),
    "teachers": ("teacher=[{a},{b}]", "teacher.weights=[2,1]", "teacher.pooler=mean", "schedule.start=6"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "variant"),
    [
        pytest.param(4, "plain", marks=pytest.mark.slow),
        (6, "accumulated, bfloat16"),
        (5, "chunked"),
        pytest.param(7, "best", marks=pytest.mark.slow),
        (5, "follow"),
        (9, "pool_initial, sample"),
        (7, "reinit, reset, restart"),
    ],
)
def test_a_stopped_run_ends_with_the_same_bits(
    configure: Callable[..., Config],
    command: Callable[..., tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    variant: str,
) -> None:
    run = command(*VARIANTS[variant])
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}"))
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        with pytest.raises(Interrupted, match=f"after step {step}"):
            train(configure(*run))
    resumed = train(configure(*run))
    assert resumed.folder != straight.folder
    assert final(resumed.folder) == final(straight.folder)
    assert unclocked(resumed.rows) == unclocked(straight.rows)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_stopped_after_every_step_ends_with_the_same_bits(
    configure: Callable[..., Config],
    command: Callable[..., tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variant: str,
) -> None:
    run = command(*VARIANTS[variant])
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}"))
    assert (straight.folder / "rotations.jsonl").stat().st_size
    with monkeypatch.context() as patched:
        for step in range(1, 12):
            stop_after(patched, 1)
            with pytest.raises(Interrupted, match=f"after step {step};"):
                train(configure(*run))
    resumed = train(configure(*run))
    assert final(resumed.folder) == final(straight.folder)
    assert unclocked(resumed.rows) == unclocked(straight.rows)


def test_an_initial_teacher_of_another_vocabulary_survives_a_resume(
    configure: Callable[..., Config], teachers: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("experiment=distill_static", f"teacher={teachers[0]}", "teacher.pooler=mean")
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}"))
    with monkeypatch.context() as patched:
        stop_after(patched, 5)
        with pytest.raises(Interrupted):
            train(configure(*run))
    assert final(train(configure(*run)).folder) == final(straight.folder)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stopped") / "runs"


@pytest.fixture
def stopped(configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, kept: Path) -> tuple[Config, Path]:
    """A run that was stopped after step 6, its teachers the snapshots of steps 2, 4 and 6."""
    config = configure("experiment=otfkd_pool", "schedule.every=2")

    def stop() -> None:
        with monkeypatch.context() as patched:
            stop_after(patched, 6)
            with pytest.raises(Interrupted):
                train(config)

    made_once(kept, Path(config.paths.runs), stop)
    return config, next(Path(config.paths.runs).glob("otfkd_pool/*/s0"))


def altered_bytes(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_a_missing_or_altered_teacher_stops_the_resume_with_its_name(stopped: tuple[Config, Path]) -> None:
    config, folder = stopped
    for step in (2, 4, 6):
        path = folder / "snapshots" / f"step-{step:08d}.safetensors"
        whole, spoilt = path.read_bytes(), altered_bytes(path.read_bytes())
        path.unlink()
        with pytest.raises(UserError, match=rf"{path.name}, the teacher of the run, is missing"):
            train(config)
        path.write_bytes(spoilt)
        with pytest.raises(UserError, match=rf"{path.name} was altered"):
            train(config)
        path.write_bytes(whole)
    assert train(config).status == "finished"


def test_a_missing_snapshot_of_an_average_stops_the_run_with_its_name(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(
        "experiment=otfkd_average", "schedule.every=4", "schedule.cache_every=1", "schedule.keep_snapshots=1"
    )
    with monkeypatch.context() as patched:
        stop_after(patched, 6)
        with pytest.raises(Interrupted):
            train(config)
    path = next(Path(config.paths.runs).glob("otfkd_average/*/s0")) / "snapshots" / "step-00000006.safetensors"
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name}.*missing"):
        train(config)


class Crash(L.Callback):
    """Ends a run after a step, as a kill does: nothing is saved."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


@pytest.mark.parametrize("later", [30.0, 50.0], ids=["no better one", "a lesser one"])
def test_a_best_newer_than_the_checkpoint_does_not_outlive_its_timeline(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, later: float
) -> None:
    """As in another number of processes: what was scored 90 after the checkpoint is scored otherwise on resume."""
    config = configure("experiment=otfkd", "schedule.every=4", "evaluation.every=2", "trainer.checkpoint_every=4")
    dev = iter([10.0, 40.0, 90.0])
    monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: next(dev))
    with joined_by(Crash(7)), pytest.raises(RuntimeError, match="killed"):
        train(config)
    monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: later)
    result = train(config)
    rows = [row for row in result.rows if row.checkpoint == "selected"]
    assert {row.step for row in rows} == {4 if later < 40 else 6}
    scored = RunFolder(result.folder).read_dev_scores()
    facts = Checkpoints(RunFolder(result.folder)).load_best()[1]
    assert (facts["step"], facts["dev"]) in scored.items()
    assert facts["dev"] == max(scored.values())
    assert {path.name for path in (result.folder / "checkpoints").iterdir()} == {"last.ckpt", "best.safetensors"}


@pytest.mark.parametrize("what", ["missing", "altered"])
def test_a_missing_or_altered_best_stops_the_resume_before_it_trains(stopped: tuple[Config, Path], what: str) -> None:
    config, folder = stopped
    path, log = folder / "checkpoints" / "best.safetensors", folder / "metrics.jsonl"
    whole, before = path.read_bytes(), log.read_bytes()
    path.unlink()
    if what == "altered":
        path.write_bytes(altered_bytes(whole))
    with pytest.raises(UserError, match=rf"best\.safetensors.* {what}.*: restore it, or start anew with fresh=true$"):
        train(config)
    assert log.read_bytes() == before
    path.write_bytes(whole)
    assert train(config).status == "finished"


@pytest.mark.parametrize("lost", ["file", "environment", "threads"])
def test_a_resume_without_provenance_is_one_sentence(stopped: tuple[Config, Path], lost: str) -> None:
    config, folder = stopped
    path = folder / "provenance.json"
    facts = json.loads(path.read_text())
    path.unlink()
    if lost == "environment":
        path.write_text(json.dumps({**facts, "environment": {}}))
    elif lost == "threads":
        del facts["environment"]["threads"]
        path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"provenance\.json .*: restore it, or start anew with fresh=true$"):
        train(config)


@pytest.mark.parametrize("key", ["format", "run"])
def test_a_checkpoint_of_another_format_or_run_stops_the_resume_with_its_name(
    stopped: tuple[Config, Path], key: str
) -> None:
    config, folder = stopped
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["otfkd"][key] = 1
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=rf"last\.ckpt has {key} 1, not .*fresh=true"):
        train(config)


def test_a_checkpoint_of_another_config_stops_the_resume_with_its_name(
    stopped: tuple[Config, Path], configure: Callable[..., Config]
) -> None:
    config, folder = stopped
    other = train(configure("experiment=otfkd", "schedule.every=4", "schedule.source=ema")).folder
    (folder / "checkpoints" / "last.ckpt").write_bytes((other / "checkpoints" / "last.ckpt").read_bytes())
    with pytest.raises(UserError, match=rf"last\.ckpt has run {other.parent.name}, not {folder.parent.name}"):
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
    run = ("experiment=otfkd_pool", "schedule.every=2", "trainer.threads=2")
    with pytest.raises(UserError, match="other threads"):
        train(configure(*run))
    forced = train(configure(*run, "resume=force"))
    assert torch.get_num_threads() == 1
    assert forced.folder == stopped[1]


def test_a_run_killed_before_its_first_checkpoint_starts_anew(configure: Callable[..., Config], tmp_path: Path) -> None:
    run = ("experiment=otfkd", "schedule.every=4")
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}"))

    with joined_by(Crash(7)), pytest.raises(RuntimeError, match="killed"):
        train(configure(*run))
    assert final(train(configure(*run)).folder) == final(straight.folder)


@pytest.mark.parametrize(("batch", "boundary"), [(4, 2), (5, 2), (6, 3), (33, None), (35, None)])
def test_a_signal_in_a_micro_batch_waits_for_the_optimizer_step(
    configure: Callable[..., Config],
    command: Callable[..., tuple[str, ...]],
    kept: Path,
    batch: int,
    boundary: int | None,
) -> None:
    """A run of twelve steps of three micro-batches; a signal in the last step finds it finished."""
    run = command("trainer.accumulate=3")

    class Signal(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, _: Any, batch_idx: int) -> None:
            if batch_idx == batch:
                signal.raise_signal(signal.SIGTERM)

    straight = train(configure(*run, f"paths.runs={kept.with_name('straight')}"))  # trained for the first of these
    with joined_by(Signal()):
        if boundary is None:
            assert train(configure(*run)).status == "finished"
        else:
            with pytest.raises(Interrupted, match=f"after step {boundary};"):
                train(configure(*run))
    assert final(train(configure(*run)).folder) == final(straight.folder)
