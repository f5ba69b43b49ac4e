"""The callback's promises, on real training runs of the tiny BERT."""

import errno
import itertools
import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

import otfkd.distill.module
import otfkd.models.encoder
import otfkd.training.train
from otfkd.base.errors import UserError
from otfkd.base.hashing import sha256_file
from otfkd.config.schema import Config
from otfkd.data.tokens import fingerprint_tokenizer
from otfkd.distill import snapshots
from otfkd.distill.checkpoints import WholeFiles
from otfkd.distill.gradcache import taught_in_chunks
from otfkd.distill.module import Distillation
from otfkd.distill.objective import Student, Terms, objective
from otfkd.distill.teacher import TeacherSlot
from otfkd.models.registry import load_encoder
from otfkd.training.train import train
from tests.support.callbacks import joined_by
from tests.support.models import make_model
from tests.support.recording import Recorder
from tests.support.resuming import final
from tests.support.weights import Weights, same

Script = Callable[[dict[int, float]], None]


def rotations(folder: Path, event: str = "rotated") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "rotations.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == event]


def steps(folder: Path) -> list[int]:
    return [row["step"] for row in rotations(folder)]


@pytest.fixture
def dev_says(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> Script:
    """Write dev scores instead of computing them: by the optimizer step, 0 before the first."""
    return lambda scores: monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: scores[recorder.now])


@pytest.fixture
def other(tmp_path: Path) -> str:
    """A teacher of another width, vocabulary and initialisation than the student."""
    return str(make_model(tmp_path / "other", width=48, words=["the", "cat"], seed=3))


def assert_taught(run: Recorder, since: dict[int, list[Weights]]) -> None:
    """The slot holds these members, in this order, from a step until the next that is named."""
    members: list[Weights] = []
    for step in range(13):
        members = since.get(step, members)
        assert len(run.members[step]) == len(members), step
        assert all(same(one, other) for one, other in zip(run.members[step], members, strict=True)), step


@pytest.mark.parametrize(
    ("accumulate", "precision"),
    [
        (1, "float32"),
        pytest.param(1, "bfloat16", marks=pytest.mark.slow),
        pytest.param(3, "float32", marks=pytest.mark.slow),
        (3, "bfloat16"),
    ],
)
def test_the_teacher_is_the_student_of_the_last_rotation_bit_for_bit_and_does_not_move(
    configure: Callable[..., Config], recorder: Recorder, accumulate: int, precision: str
) -> None:
    train(
        configure("experiment=otfkd", "schedule.every=4", f"trainer.accumulate={accumulate}", f"precision={precision}")
    )
    assert sorted(recorder.student) == list(range(13))
    for step in range(1, 13):
        teacher = recorder.teacher(step)
        rotated_at = min(step // 4 * 4, 8)  # 12 is the last step: no rotation there
        if rotated_at == 0:
            assert teacher is None
        else:
            assert teacher is not None
            assert same(teacher, recorder.trained[rotated_at])
            assert not same(recorder.trained[step], recorder.trained[step - 1])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_rotations_facts_are_of_the_teacher_that_the_distillation_had(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    given: list[list[Tensor]] = []

    def record(*arguments: Any) -> list[Tensor]:
        given.append(taught_in_chunks(*arguments))
        return given[-1]

    monkeypatch.setattr(otfkd.distill.module, "taught_in_chunks", record)
    train(configure("experiment=otfkd", "schedule.every=2", "trainer.max_steps=5", f"precision={precision}"))
    # Of the first rotation the facts before and after, of the third step the loss; of the fourth the loss and both.
    empty, _, _, loss, before, after, _ = given
    assert empty == []
    assert torch.equal(loss[0], before[0]) and not torch.equal(before[0], after[0])


def test_a_rotation_keeps_the_slots_addresses(configure: Callable[..., Config], recorder: Recorder) -> None:
    train(configure("experiment=otfkd", "schedule.every=3"))
    assert recorder.addresses[3] == recorder.addresses[6] == recorder.addresses[9] != []


def test_dropout_is_on_for_the_student_and_off_for_the_teacher_at_every_step(
    configure: Callable[..., Config], recorder: Recorder
) -> None:
    train(configure("experiment=otfkd", "schedule.every=3", "evaluation.every=2"))
    assert recorder.modes == [(True, False)] * 12
    assert recorder.repeats == [True] * 9


def test_no_teacher_weight_is_trained(configure: Callable[..., Config], recorder: Recorder, tiny_model: Any) -> None:
    train(configure("experiment=distill_static", f"teacher={tiny_model}", "teacher.pooler=mean"))
    first, last = recorder.teacher(1), recorder.teacher(12)
    assert first is not None
    assert last is not None
    assert same(first, last)


def test_best_rotates_in_the_best_snapshot_since_the_last_rotation(
    configure: Callable[..., Config], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([10.0, 30.0, 20.0, 5.0, 1.0, 2.0, 9.0, 9.0])  # after steps 1, 2, ... with a tie of two
    monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: next(scores, 0.0))
    result = train(
        configure(
            "experiment=otfkd",
            "schedule.every=4",
            "schedule.cache_every=1",
            "schedule.source=best",
            "evaluation.every=null",
        )
    )
    rows = rotations(result.folder)
    assert [(row["step"], row["snapshot_step"], row["dev"]) for row in rows] == [(4, 2, 30.0), (8, 8, 9.0)]
    teacher = recorder.teacher(5)
    assert teacher is not None
    assert same(teacher, recorder.student[2])


NOT_ASKING_DEV = {
    "every": ["schedule.every=4"],
    "ema, pool": ["schedule.every=3", "schedule.source=ema", "schedule.ema.decay=0.5", "schedule.retain=pool"],
    "geometric, average, sample, restart": [
        "schedule=geometric", "schedule.first=2", "teacher.warmup_steps=1", "schedule.cache_every=1",
        "schedule.source=average", "schedule.retain=pool_initial", "schedule.aggregate=sample",
        "schedule.on_rotation.lr=restart", "schedule.on_rotation.optimizer=reset",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "policy", [name if name == "every" else pytest.param(name, marks=pytest.mark.slow) for name in NOT_ASKING_DEV]
)
def test_evaluation_does_not_touch_training(configure: Callable[..., Config], recorder: Recorder, policy: str) -> None:
    finals = []
    for cadence in ("3", "6", "null"):
        train(configure("experiment=otfkd", *NOT_ASKING_DEV[policy], f"evaluation.every={cadence}"))
        finals.append(recorder.student[12])
    assert same(finals[0], finals[1])
    assert same(finals[0], finals[2])


POLICIES = {
    "pool, sample": ["experiment=otfkd_pool", "schedule.every=2", "schedule.aggregate=sample"],
    "average": ["experiment=otfkd_average", "schedule.every=2"],
    "follow": ["experiment=mean_teacher", "teacher.warmup_steps=2"],
    "ema, gated": ["experiment=otfkd", "schedule.every=3", "schedule.source=ema", "schedule.gate=1.0"],
}


@pytest.mark.parametrize(
    "policy", [name if name == "pool, sample" else pytest.param(name, marks=pytest.mark.slow) for name in POLICIES]
)
def test_with_weight_zero_no_policy_changes_anything(
    configure: Callable[..., Config], recorder: Recorder, policy: str
) -> None:
    train(configure("experiment=simcse"))
    plain = recorder.student[12]
    train(configure(*POLICIES[policy], "objective.kd_weight=0.0"))
    assert recorder.members[11]
    assert same(recorder.student[12], plain)
    train(configure(*POLICIES[policy]))
    assert not same(recorder.student[12], plain)


def test_snapshots_are_pruned_to_those_kept_and_the_teachers(configure: Callable[..., Config]) -> None:
    result = train(configure("experiment=otfkd", "schedule.every=1", "schedule.keep_snapshots=2"))
    left = sorted(path.stem for path in (result.folder / "snapshots").iterdir())
    assert left == ["step-00000010", "step-00000011"]


def test_each_step_sees_the_planned_lines_once(configure: Callable[..., Config], recorder: Recorder) -> None:
    train(configure("experiment=simcse", "trainer.accumulate=2", "trainer.max_steps=7"))
    assert len(recorder.lines) == 14
    assert len({line for lines in recorder.lines for line in lines}) == 56  # of 60: not yet a second pass


@pytest.mark.parametrize("killed", [False, True], ids=["whole", "killed after its checkpoint"])
def test_what_the_last_checkpoint_names_is_never_pruned(
    configure: Callable[..., Config], tmp_path: Path, killed: bool
) -> None:
    class Look(L.Callback):
        """Comes last, and reads the checkpoint there is as a resume would."""

        named: ClassVar[list[set[str]]] = []

        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            for last in (tmp_path / "runs").rglob("last.ckpt"):
                state = torch.load(last, weights_only=True)["callbacks"]["TeacherRotation"]
                places = [*state["pool"]["places"], *state["candidates"]["taken"]]
                named = {place["id"] for place in places} | set(state["candidates"]["recent"])
                there = {path.stem for path in (last.parents[1] / "snapshots").glob("*.safetensors")}
                assert named <= there, f"after step {trainer.global_step}"
                self.named.append(named)

    class Die(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == 5:
                raise RuntimeError("killed")

    few = ("schedule.every=2", "schedule.keep_snapshots=1", "trainer.checkpoint_every=5")
    config = configure("experiment=otfkd", *few)
    if killed:
        with joined_by(Die()), pytest.raises(RuntimeError, match="killed"):
            train(config)
    with joined_by(Look()):
        train(config)
    # The checkpoint of step 5 still names what the run was done with at step 8.
    assert {"step-00000004"} in Look.named and len(Look.named) >= 7


# Files beside the training

BESIDE = ("experiment=otfkd", "schedule.every=4", "trainer.checkpoint_every=7")


@pytest.mark.parametrize("waits", [7, 8], ids=["a checkpoint that names it", "the next snapshot"])
def test_no_step_waits_for_a_snapshots_file_but_one_does(
    configure: Callable[..., Config], recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: int
) -> None:
    run = (*BESIDE, f"trainer.checkpoint_every={7 if waits == 7 else 'null'}")
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}")).folder
    go, write, record, save = (
        threading.Event(), save_file, Recorder.on_train_batch_end, WholeFiles.save_checkpoint,
    )  # fmt: skip
    untold: list[int] = []
    named: list[bool] = []

    def held(tensors: Weights, path: Path) -> None:
        assert go.wait(30)
        write(tensors, path)

    def each_step(recorder: Recorder, trainer: L.Trainer, *given: Any) -> None:
        record(recorder, trainer, *given)
        if 4 <= trainer.global_step < waits and not go.is_set():
            (lines,) = (tmp_path / "runs").rglob("rotations.jsonl")
            untold.append(lines.stat().st_size)
        if trainer.global_step == waits - 1:
            threading.Timer(0.2, go.set).start()

    def checked(files: WholeFiles, checkpoint: dict[str, Any], path: Path, **_: Any) -> None:
        (teacher,) = checkpoint["callbacks"]["TeacherRotation"]["pool"]["places"]
        named.append(sha256_file(path.parents[1] / "snapshots" / f"{teacher['id']}.safetensors") == teacher["sha256"])
        save(files, checkpoint, path)

    monkeypatch.setattr(snapshots, "save_file", held)
    monkeypatch.setattr(Recorder, "on_train_batch_end", each_step)
    monkeypatch.setattr(WholeFiles, "save_checkpoint", checked)
    folder = train(configure(*run)).folder
    teacher = recorder.teacher(5)
    assert teacher is not None
    assert same(teacher, recorder.trained[4])
    assert untold == [0] * (waits - 4)
    assert named == [True] * (2 if waits == 7 else 1)
    assert final(folder) == final(straight)


def test_a_snapshot_that_cannot_be_written_stops_the_run_and_the_same_command_goes_on(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(configure(*BESIDE, f"paths.runs={tmp_path / 'straight'}")).folder
    original, written = save_file, itertools.count(1)

    def full(tensors: Weights, path: Path) -> None:
        original(tensors, path)
        if next(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "save_file", full)
        with pytest.raises(UserError, match=r"step-00000008.* could not be written \(.*No space left.*\): make room"):
            train(configure(*BESIDE))
    (checkpoint,) = (tmp_path / "runs").rglob("last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 7
    assert final(train(configure(*BESIDE)).folder) == final(straight)


# Triggers


def test_on_improvement_rotates_where_dev_is_the_runs_best(
    configure: Callable[..., Config], recorder: Recorder, dev_says: Script
) -> None:
    dev_says({2: 10, 4: 9, 6: 12, 8: 12, 10: 13, 12: 14})
    run = ["experiment=otfkd", "teacher.warmup_steps=2", "schedule=on_improvement", "evaluation.every=2"]
    folder = train(configure(*run)).folder
    assert steps(folder) == [2, 6, 10]  # the first because the slot is empty; a tie is no improvement
    assert_taught(recorder, {step: [recorder.trained[step]] for step in (2, 6, 10)})


def test_plateau_rotates_after_patience_without_a_better_score_since_the_last_rotation(
    configure: Callable[..., Config], recorder: Recorder, dev_says: Script
) -> None:
    dev_says({1: 5, 2: 6, 3: 7, 4: 7, 5: 6, 6: 1, 7: 1, 8: 2, 9: 1, 10: 2, 11: 3, 12: 0})
    run = ["experiment=otfkd", "teacher.warmup_steps=2", "schedule=plateau", "schedule.patience=2"]
    folder = train(configure(*run, "evaluation.every=1")).folder
    assert steps(folder) == [2, 5, 10]
    assert_taught(recorder, {step: [recorder.trained[step]] for step in (2, 5, 10)})


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        (["schedule=geometric", "schedule.first=1", "schedule.ratio=2.0"], [1, 2, 4, 8]),
        (["schedule=at", "schedule.at=[7,2]"], [2, 7]),
        (["schedule=every", "schedule.every=2", "schedule.start=5", "schedule.max_rotations=2"], [6, 8]),
    ],
    ids=["geometric", "at", "every, from step 5, twice"],
)
def test_a_given_teacher_stays_until_the_first_rotation(
    configure: Callable[..., Config], recorder: Recorder, other: str, schedule: list[str], due: list[int]
) -> None:
    run = ["experiment=otfkd", f"teacher={other}", "teacher.pooler=mean", *schedule]
    folder = train(configure(*run)).folder
    assert steps(folder) == due
    first = dict(load_encoder(Path(other), "mean").state_dict())
    assert_taught(recorder, {0: [first], **{step: [recorder.trained[step]] for step in due}})


def test_refused_rotations_are_counted_but_not_towards_the_most_and_diagnose_nothing(
    configure: Callable[..., Config], recorder: Recorder, dev_says: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def diagnose(*given: Any) -> dict[str, float | None]:
        asked.append(given)
        return {}

    monkeypatch.setattr(otfkd.training.train, "diagnose", diagnose)
    dev_says({2: 20, 4: 18.5, 6: 19, 8: 30, 10: 40, 12: 50, 3: 0, 9: 0})
    limits = ["schedule.gate=1.0", "schedule.max_rotations=2"]
    result = train(configure("experiment=otfkd", "schedule.every=2", *limits))
    folder = result.folder
    assert steps(folder) == [2, 6]
    assert {row.cost.refused for row in result.rows if row.cost is not None} == {1}
    assert len(asked) == 4  # before and after each of the two
    assert [(row["step"], row["reason"]) for row in rotations(folder, "refused")] == [
        (4, "dev 18.50 is more than 1 below the teacher's 20.00")
    ]
    assert_taught(recorder, {step: [recorder.trained[step]] for step in (2, 6)})


UNREAD = "backbone.embeddings.word_embeddings.weight"  # its row 4 is [MASK]


class Poison(L.Callback):
    """Before step 6 makes a weight infinite that no sentence reads, so that the losses stay finite."""

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, Distillation)
        if trainer.global_step == 5:
            with torch.no_grad():
                module.student.get_parameter(UNREAD)[4, 0] = math.inf


@pytest.mark.parametrize(
    "source",
    [
        ["schedule.source=current"],
        pytest.param(["schedule.source=ema"], marks=pytest.mark.slow),
        pytest.param(["schedule.source=average"], marks=pytest.mark.slow),
        ["schedule.source=best", "schedule.cache_every=1", "evaluation.every=1"],
    ],
)
def test_weights_that_are_not_finite_never_teach(
    configure: Callable[..., Config], recorder: Recorder, monkeypatch: pytest.MonkeyPatch, source: list[str]
) -> None:
    monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: float(recorder.now))
    with joined_by(first=[Poison()]):
        folder = train(configure("experiment=otfkd", "schedule.every=3", *source)).folder
    best = "best" in source[0]  # of steps 4 to 6 it takes the last that was finite
    assert steps(folder) == ([3, 6] if best else [3])
    refused = rotations(folder, "refused")
    assert [row["step"] for row in refused] == ([9] if best else [6, 9])
    assert {row["reason"] for row in refused} == {"the student's weights are not finite"}
    last = recorder.teacher(12)
    assert last is not None
    assert same(last, recorder.trained[5] if best else recorder.members[3][0])
    assert all(bool(tensor.isfinite().all()) for tensor in last.values())


def test_a_run_that_diverges_stops_and_says_so(configure: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"diverged after step 1: the .* is (nan|inf) at step 2 .*lower optimizer\.lr"):
        train(configure("experiment=otfkd", "schedule.every=3", "optimizer.lr=1e30", "evaluation.every=null"))


# Several members


def test_a_pool_keeps_an_initial_teacher_of_another_width_and_vocabulary(
    configure: Callable[..., Config], recorder: Recorder, other: str
) -> None:
    pool = ["schedule.retain=pool_initial", "schedule.pool_size=2", "schedule.every=2"]
    train(configure("experiment=otfkd", f"teacher={other}", "teacher.pooler=mean", *pool))
    first = dict(load_encoder(Path(other), "mean").state_dict())
    s = recorder.trained
    after = {0: [], 2: [2], 4: [2, 4], 6: [6, 4], 8: [6, 8], 10: [10, 8]}
    assert_taught(recorder, {at: [first, *(s[one] for one in taken)] for at, taken in after.items()})
    assert recorder.shares[12] == pytest.approx([1 / 3] * 3)
    # A snapshot that stays is not moved, and the one that leaves gives its place away.
    assert recorder.addresses[4] == recorder.addresses[12]


@pytest.mark.parametrize("given", [True, False])
def test_shares_follow_dev_scores_where_they_are_asked(
    configure: Callable[..., Config], recorder: Recorder, dev_says: Script, other: str, given: bool
) -> None:
    dev = {0: 20.0, 4: 20.5, 8: 19.0, 12: 30.0, 6: 0.0}
    dev_says(dev)
    first = [f"teacher={other}", "teacher.pooler=mean"] if given else []
    pool = ["schedule.retain=pool_initial", "schedule.aggregate=dev_weighted", "schedule.every=4"]
    train(configure("experiment=otfkd", *first, *pool, "evaluation.every=6"))
    for since, scored in {0: [0] * given, 4: [0] * given + [4], 8: [0] * given + [4, 8]}.items():
        weights = [math.exp(dev[step]) for step in scored]
        assert recorder.shares[since] == pytest.approx([weight / sum(weights) for weight in weights])


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int | None]]:
    """What the slot is asked in training: its input, and the one member, where it is one."""
    asked: list[tuple[Any, int | None]] = []
    forward = TeacherSlot.forward

    def spy(slot: TeacherSlot, inputs: Any, own: Any = (), only: int | None = None) -> list[Tensor]:
        asked.append((inputs, only))
        return forward(slot, inputs, own, only)

    monkeypatch.setattr(TeacherSlot, "forward", spy)
    monkeypatch.setattr(otfkd.training.train, "diagnose", lambda *_: {})
    return asked


def test_sample_asks_one_member_a_step_drawn_by_the_seed(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = spied(monkeypatch)
    run = ["experiment=otfkd", "schedule.every=1", "schedule.retain=pool", "schedule.pool_size=3"]

    def drawn(seed: int, folder: str) -> list[int | None]:
        asked.clear()
        more = ["schedule.aggregate=sample", f"seed={seed}", f"paths.runs={tmp_path / folder}"]
        train(configure(*run, "trainer.max_steps=16", "evaluation.every=null", *more))
        return [only for _, only in asked]

    first = drawn(0, "a")
    assert len(first) == 15
    assert first[:1] == [0]
    assert set(first[:2]) <= {0, 1}
    assert set(first) == {0, 1, 2}
    assert drawn(0, "b") == first
    assert drawn(1, "c") != first


def test_several_given_teachers_teach_the_weighted_mean_of_their_similarities(
    configure: Callable[..., Config], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Terms]] = []

    def kept(config: Any, sizes: list[Student], *rest: Any, **more: Any) -> Terms:
        terms = objective(config, sizes, *rest, **more)
        seen.append((sizes[0].view1.detach(), terms))
        return terms

    asked = spied(monkeypatch)
    monkeypatch.setattr("otfkd.distill.module.objective", kept)
    folders = [make_model(tmp_path / str(width), width=width, seed=width) for width in (32, 48)]
    given = [f"teacher=[{folders[0]},{folders[1]}]", "teacher.weights=[3,1]", "teacher.pooler=mean"]
    sharp = ["objective.temperature_student=0.025", "objective.temperature_teacher=0.0125"]
    train(configure("experiment=distill_static", *given, *sharp, "trainer.max_steps=2"))

    def cosines(vectors: Tensor) -> Tensor:
        unit = normalize(vectors.double())
        return (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)].view(len(unit), -1)

    with torch.no_grad():
        first, second = (cosines(load_encoder(folder, "mean")(asked[0][0])) for folder in folders)
    target = ((0.75 * first + 0.25 * second) / 0.0125).softmax(-1)
    view, terms = seen[0]
    by_hand = -(target * (cosines(view) / 0.025).log_softmax(-1)).sum(-1).mean()
    assert terms.added["kd"].item() == pytest.approx(float(by_hand), rel=1e-4)


def test_a_checkpoint_does_not_grow_with_the_teachers(
    configure: Callable[..., Config], tiny_model: Path, tmp_path: Path
) -> None:
    def size(name: str, *more: str) -> int:
        folder = train(configure(*more, "evaluation.every=null", f"paths.runs={tmp_path / name}")).folder
        return (folder / "checkpoints" / "last.ckpt").stat().st_size

    def given(count: int) -> list[str]:
        members = ",".join([str(tiny_model)] * count)
        return ["experiment=distill_static", f"teacher=[{members}]", "teacher.pooler=mean", "trainer.max_steps=2"]

    pool = ["experiment=otfkd", "schedule.every=1", "schedule.retain=pool", "trainer.max_steps=10"]
    assert size("eight", *given(8)) == pytest.approx(size("one", *given(1)), rel=0.02)
    pooled = (size(f"pool of {many}", *pool, f"schedule.pool_size={many}") for many in (8, 1))
    assert next(pooled) == pytest.approx(next(pooled), rel=0.02)


def test_a_teacher_that_follows_compares_no_tokenizers_at_its_steps(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash of a tokenizer takes longer than many a step."""
    hashed: list[int] = []
    original = fingerprint_tokenizer

    def counted(*given: Any) -> str:
        hashed[-1] += 1
        return original(*given)

    monkeypatch.setattr(otfkd.models.encoder, "fingerprint_tokenizer", counted)
    for most in (6, 12):
        hashed.append(0)
        folder = train(
            configure("experiment=mean_teacher", "teacher.warmup_steps=2", f"trainer.max_steps={most}")
        ).folder
        assert [row["step"] for row in rotations(folder, "follows")] == [2]
    assert hashed == [0, 0]
