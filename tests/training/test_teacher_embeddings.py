"""Precomputed embeddings: those of the live teacher, computed once for whoever would compute the same."""

import contextlib
import gc
import logging
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

import otfkd.training.teacher_embeddings
from otfkd.base.errors import Interrupted, UserError
from otfkd.base.processes import rank
from otfkd.config.composition import load_config
from otfkd.config.schema import Config
from otfkd.data.collate import Tokens
from otfkd.data.corpus import Corpus
from otfkd.data.datamodule import CorpusData
from otfkd.data.sts import Suite
from otfkd.distill.gradcache import taught_in_chunks
from otfkd.distill.module import Distillation, diagnose
from otfkd.distill.teacher import Precomputed, TeacherSlot
from otfkd.evaluation.encode import encode_tokens
from otfkd.models.encoder import Head
from otfkd.runs.rotations import Comparison
from otfkd.training.batches import corpus_data, initial_teacher
from otfkd.training.launch import join
from otfkd.training.plan_text import describe
from otfkd.training.run import Run, prepare
from otfkd.training.teacher_embeddings import embedding_files, precomputed
from otfkd.training.train import train
from tests.support.json_lines import metrics
from tests.support.models import make_model
from tests.support.processes import in_processes
from tests.support.resuming import final, stop_after
from tests.support.texts import make_corpus

Small = Callable[..., Config]
Part = TypeVar("Part", bound=BaseModel)
THREE: dict[str, Any] = {"trainer.max_steps": 3, "evaluation.every": None}
LIVE = {"teacher.precomputed": False}
BFLOAT16 = {"precision.compute": "bfloat16"}


def changed(node: Part, key: str, value: Any) -> Part:
    """A config, or a section of one, with another value at one key."""
    name, _, rest = key.partition(".")
    return node.model_copy(update={name: changed(getattr(node, name), rest, value) if rest else value})


@pytest.fixture(scope="module")
def composed(tiny_model: Path, corpus_file: Path, teachers: list[Path]) -> Config:
    """A run with two teachers of other tokenizers and widths, precomputed."""
    return load_config([
        "experiment=distill_static", f"model={tiny_model}", "model.pooler=cls",
        f"teacher=[{teachers[0]},{teachers[1]}]", "teacher.pooler=mean", "teacher.precomputed=true",
        "data=text", f"data.path={corpus_file}", "data.batch_size=4", "data.max_length=16", "trainer.max_steps=12",
        "trainer.accelerator=cpu", "evaluation.every=3", "optimizer.lr=1e-3",
    ])  # fmt: skip


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and batches that 60 sentences do not fill evenly."""
    monkeypatch.setattr(otfkd.training.teacher_embeddings, "_BLOCK", 16)
    monkeypatch.setattr(otfkd.training.teacher_embeddings, "_BATCH", 5)


@pytest.fixture
def run(composed: Config, tmp_path: Path, tiny_suite: Suite) -> Small:
    """That run, with other values at some keys."""

    def config(*updates: dict[str, Any]) -> Config:
        paths = {"paths.runs": str(tmp_path / "runs"), "paths.cache": str(tmp_path / "cache")}
        found = composed
        for key, value in (paths | {key: value for update in updates for key, value in update.items()}).items():
            found = changed(found, key, value)
        return found

    return config


def ready(config: Config) -> tuple[Run, Corpus]:
    run = prepare(config)
    assert isinstance(run.data, Corpus)
    return run, run.data


def fed(config: Config) -> tuple[TeacherSlot, CorpusData]:
    """What a run's teacher is, and its batches."""
    run, corpus = ready(config)
    models = run.load_models()
    encoders = [weakref.ref(encoder) for encoder in models.teachers]
    teacher = initial_teacher(run, corpus, models.student, models.hand_over_teachers())
    gc.collect()
    assert [encoder() is None for encoder in encoders] == [config.precomputes] * 2  # files are read, nobody is held
    slot = TeacherSlot()
    slot.install(teacher.members, reads=teacher.reads)
    return slot, corpus_data(run, corpus, models.student, teacher.inputs, 0)


def kept(config: Config) -> list[Path]:
    return sorted((Path(config.paths.cache) / "embeddings").glob("*.npy"))


def raise_embedded(*_: object, **__: object) -> None:
    raise AssertionError("embedded again")


def test_a_batch_brings_what_the_live_teachers_make_of_it(run: Small) -> None:
    live, live_data = fed(run(LIVE))
    slot, data = fed(run())
    assert [type(member) for member in slot.members] == [Precomputed, Precomputed]
    for number in (0, 7, 22):
        expected_batch, batch = live_data.batches[number], data.batches[number].to("cpu")
        assert batch.lines == expected_batch.lines
        assert all(isinstance(read, Tokens) for read in expected_batch.teachers)
        assert all(isinstance(read, Tensor) for read in batch.teachers)
        for only, chunk in ((None, None), (None, 3), (1, 3)):
            found = taught_in_chunks(slot, batch, chunk, only)
            expected = taught_in_chunks(live, expected_batch, None, only)
            assert [one.shape for one in found] == ([(4, 48), (4, 16)] if only is None else [(4, 16)])
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "more",
    [
        {"trainer.chunk": 3, "trainer.accumulate": 2},
        pytest.param({"schedule.aggregate": "sample"}, marks=pytest.mark.slow),
        pytest.param({"objective.kd": "mse"}, marks=pytest.mark.slow),
    ],
)
def test_three_steps_have_the_losses_of_the_live_teacher(run: Small, more: dict[str, Any]) -> None:
    live, found = train(run(LIVE, THREE, more)), train(run(THREE, more))
    assert found.folder.parent != live.folder.parent
    rows, expected = metrics(found.folder), metrics(live.folder)
    assert len(rows) == 3
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
        assert row["kd"] > 1e-3
    # What the rows say of the teacher is the same, but for what asking it took.
    assert {row.teacher_sha256 for row in found.rows} == {row.teacher_sha256 for row in live.rows}
    cost, live_cost = found.rows[0].cost, live.rows[0].cost
    assert cost is not None and live_cost is not None
    steps = 3 * (2 if "trainer.accumulate" in more else 1)
    asked = steps * (1 if "schedule.aggregate" in more else 2)
    assert cost.forwards - live_cost.forwards == 2 * 15 - asked  # 60 sentences, 4 a batch


def test_the_second_seed_computes_nothing_and_reads_no_tokens_of_the_teachers(
    run: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed(run())
    files = {path: path.read_bytes() for path in kept(run())}
    shutil.rmtree(Path(run().paths.cache) / "tokens")
    monkeypatch.setattr(otfkd.training.teacher_embeddings, "encode_tokens", raise_embedded)
    fed(run({"seed": 1, "objective.temperature": 0.1}))
    assert len(files) == 2
    assert {path: path.read_bytes() for path in kept(run())} == files
    assert len(list(Path(run().paths.cache).glob("tokens/*.arrow"))) == 1  # the student's


def test_a_file_has_the_same_bits_whichever_run_fills_it(run: Small, tmp_path: Path) -> None:
    contents: list[dict[str, bytes]] = []
    for more in ({}, {"seed": 5, "data.batch_size": 7, "trainer.chunk": 2}):
        config = run(more, {"paths.cache": str(tmp_path / str(len(contents)))})
        torch.manual_seed(len(contents))
        fed(config)
        contents.append({path.name: path.read_bytes() for path in kept(config)})
    assert contents[0] == contents[1]


def test_what_changes_an_embedding_makes_another_file(run: Small, tmp_path: Path) -> None:
    other = make_model(tmp_path / "model", width=48, words=["the", "cat"], seed=9)  # of the same shape and words
    changes: list[dict[str, Any]] = [
        {},
        {"data.path": str(make_corpus(tmp_path / "other.txt", seed=1))},
        {"teacher.path": str(other)},
        {"teacher.pooler": "cls"},
        {"teacher.layers": 1},
        {"data.max_length": 12},
        BFLOAT16,
        {"precision.tf32": True},
        {"precision.deterministic": False},
    ]

    def path(change: dict[str, Any]) -> Path:
        found = prepare(run({"teacher.path": run().teacher.paths[0]}, change))
        return embedding_files(found, found.load_teachers())[0].path

    assert len({path(change) for change in changes}) == len(changes)
    same = {"seed": 3, "data.batch_size": 5, "objective.kd": "mse", "model.pooler": "mean", "trainer.max_steps": 2}
    assert path(same) == path({})


def test_another_number_of_threads_or_version_makes_another_file(run: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    found = prepare(run())
    encoders = found.load_teachers()

    def path() -> Path:
        return embedding_files(found, encoders)[0].path

    paths = [path()]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 17)
    paths.append(path())
    monkeypatch.setattr(torch, "__version__", "0")
    paths.append(path())
    encoders[0].normalize = True
    paths.append(path())
    encoders[0].prompt = "old moon "
    paths.append(path())
    assert len(set(paths)) == 5


def test_bfloat16_computes_as_training_would(run: Small) -> None:
    """Under autocast, as Lightning has it: nearer to the live teacher's bfloat16 than that is to float32."""
    live, live_data = fed(run(LIVE))
    slot, data = fed(run(BFLOAT16))
    (found, _), (exact, _) = slot((), data.batches[0].teachers), live((), live_data.batches[0].teachers)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = live((), live_data.batches[0].teachers)
    assert (found - rounded).norm() < 0.5 * (rounded - exact).norm()


def test_a_truncated_file_is_named_and_made_again(run: Small, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "otfkd")
    fed(run())
    path, _ = kept(run())
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    assert caplog.messages == []
    fed(run())
    assert caplog.messages == [f"{path} is not what it should be: it is made again"]
    assert path.read_bytes() == content


def test_a_stopped_run_ends_with_the_same_bits_even_if_the_file_is_lost(
    run: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"objective.kd": "mse", "trainer.chunk": 3, **THREE}
    straight = train(run(more, {"paths.runs": str(tmp_path / "straight")}))
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        with pytest.raises(Interrupted, match="after step 2"):
            train(run(more))
    for path in kept(run()):
        path.unlink()
    assert final(train(run(more)).folder) == final(straight.folder)


def test_a_weight_of_nought_computes_nothing(run: Small) -> None:
    config = run({"objective.kd_weight": 0.0})
    assert "embeddings" not in told(config)
    slot, _ = fed(config)
    assert not any(isinstance(member, Precomputed) for member in slot.members)
    assert kept(config) == []


def told(config: Config) -> dict[str, str]:
    found = prepare(config)
    plan = describe(found, found.load_models())
    return {line[:11].strip(): line[11:] for line in plan.splitlines()}


def test_the_plan_says_what_is_computed_first_and_what_it_takes(run: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otfkd.training.plan_text.in_words", lambda size: f"{size:.0f} bytes")
    folder = Path(run().paths.cache) / "embeddings"
    expected = f"the teacher's of all sentences, {60 * (48 + 16) * 4} bytes in {folder}, "
    assert told(run())["embeddings"] == f"{expected}computed before the first step, for all runs"
    fed(run())
    assert told(run())["embeddings"] == f"{expected}there already"
    live = told(run(LIVE))
    assert "embeddings" not in live
    weights = sum(parameter.numel() for teacher in prepare(run()).load_teachers() for parameter in teacher.parameters())
    taken = [int(lines["memory"].split()[1]) for lines in (live, told(run()))]
    assert taken[0] - taken[1] == 4 * weights


def test_where_there_is_no_room_nothing_is_begun(run: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otfkd.training.teacher_embeddings, "encode_tokens", raise_embedded)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"embeddings take 0\.00 GiB and .*embeddings has 0\.00 GiB left: make room, "):
        fed(run())


def test_a_teacher_that_is_not_finite_is_refused_by_name(
    run: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, corpus = ready(run())
    encoders = found.load_teachers()
    with torch.no_grad():
        next(encoders[1].parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=rf"^{found.teachers[1]} cannot teach, for its embeddings are not finite: take"):
        precomputed(found, corpus, encoders)
    assert len(kept(found.config)) == 1
    assert not [path for path in kept(found.config)[0].parent.glob(".*") if path.suffix != ".lock"]


def test_of_two_jobs_one_fills_and_the_other_waits(run: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    found, corpus = ready(run())
    teacher, *_ = found.load_teachers()
    file, *_ = embedding_files(found, found.load_teachers())

    def job() -> otfkd.training.teacher_embeddings.Work:
        return otfkd.training.teacher_embeddings._filled(found, corpus, teacher, file)

    def sizes() -> list[int]:
        """Of the files there are, whole or not."""
        return [path.stat().st_size for path in file.path.parent.iterdir() if path.suffix != ".lock"]

    killed, waiting = job(), job()
    next(killed)
    next(killed)
    next(waiting)
    assert sizes() and not file.whole
    killed.close()
    assert sizes() == []
    first, second = waiting, job()
    next(first)
    next(second)
    assert len(sizes()) == 1  # only the first is at work
    assert list(first) and file.whole
    with monkeypatch.context() as patched:
        patched.setattr(otfkd.training.teacher_embeddings, "encode_tokens", raise_embedded)
        assert list(second) == []
        assert list(job()) == []


def test_a_signal_stops_the_filling_and_leaves_nothing(run: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def flag() -> Iterator[Callable[[], bool]]:
        asked = iter(range(100))
        yield lambda: next(asked) >= 2

    with monkeypatch.context() as patched:
        patched.setattr(otfkd.training.teacher_embeddings, "stop_flag", flag)
        with pytest.raises(Interrupted, match="same command begins with them again"):
            fed(run())
    folder = Path(run().paths.cache) / "embeddings"
    assert [path for path in folder.iterdir() if path.suffix != ".lock"] == []
    fed(run())
    assert len(kept(run())) == 2


def test_of_two_processes_the_first_fills_and_each_reads_its_share(
    run: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run({"trainer.devices": 2})
    whole = fed(run({"paths.cache": str(tmp_path / "alone")}))[1].batches[3].teachers

    def part() -> tuple[int, list[Any]]:
        join(config)
        calls: list[int] = []

        def counting(*args: Any, **more: Any) -> Tensor:
            calls.append(rank())
            return encode_tokens(*args, **more)

        monkeypatch.setattr(otfkd.training.teacher_embeddings, "encode_tokens", counting)
        batch = fed(config)[1].batches[3]
        return len(calls), [read.numpy() for read in batch.teachers if isinstance(read, Tensor)]

    (first, left), (second, right) = in_processes(2, tmp_path / "answers", part)
    assert (first, second) == (2 * 4, 0)
    for one, other, both in zip(left, right, whole, strict=True):
        np.testing.assert_array_equal(np.concatenate([one, other]), both)


@pytest.mark.slow
def test_the_diagnostics_read_the_embeddings_too(run: Small) -> None:
    def facts(*more: dict[str, Any]) -> Comparison:
        found, _ = ready(config := run(*more))
        slot, data = fed(config)
        student = found.load_student()
        torch.manual_seed(1)
        module = Distillation(student, Head(student.width), slot, config, found.plan)
        return diagnose(module, data.batches[0])

    found = facts()
    assert found["teacher_variance"] is not None and found["teacher_variance"] > 1e-5
    assert found == pytest.approx(facts(LIVE), rel=1e-3)
