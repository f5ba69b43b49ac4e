"""Whole runs on the tiny BERT."""

import gc
import json
import logging
import shutil
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import otfkd.training.train
from otfkd.base.errors import UserError
from otfkd.base.hashing import hash_weights
from otfkd.config.schema import Config
from otfkd.data.sts import Suite
from otfkd.distill.teacher import TeacherSlot
from otfkd.evaluation.rows import Origin, score_rows
from otfkd.models.registry import load_encoder
from otfkd.runs.rows import read_rows
from otfkd.training.run import Run, prepare
from otfkd.training.train import TrainResult, train
from tests.support.json_lines import json_lines
from tests.support.models import make_model
from tests.support.texts import make_corpus

SHORT = ("trainer.max_steps=2", "evaluation.every=null")


@pytest.fixture
def finished(configure: Callable[..., Config]) -> TrainResult:
    """A finished run of 12 steps, evaluated every 3, with the teacher rotated after 4 and 8."""
    return train(configure("experiment=otfkd", "schedule.every=4"))


@pytest.fixture
def early_best(configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> TrainResult:
    """A run whose dev score was best after step 3, so that `selected` is not `last`."""
    dev = iter([9.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: next(dev))
    return train(configure("experiment=otfkd", "schedule.every=2"))


def test_a_run_finishes_and_is_then_skipped(configure: Callable[..., Config]) -> None:
    config = configure("experiment=otfkd", "schedule.every=3")
    result = train(config)
    assert result.status == "finished"
    steps = [json.loads(line)["step"] for line in (result.folder / "rotations.jsonl").read_text().splitlines()]
    assert steps == [3, 6, 9]
    again = train(config)
    assert again.status == "skipped"
    assert again.rows == result.rows


def test_a_runs_folder_holds_what_the_design_lists(finished: TrainResult) -> None:
    assert {path.name for path in finished.folder.iterdir()} == {
        "config.yaml", "plan.txt", "provenance.json", "run.log", "metrics.jsonl", "rotations.jsonl", "timings.jsonl",
        "snapshots", "checkpoints", "model", "model.sha256", "results.jsonl",
    }  # fmt: skip
    held = {path.name for path in (finished.folder / "checkpoints").iterdir()}
    assert held == {"last.ckpt", "best.safetensors"}


def test_a_runs_folder_is_named_by_experiment_hash_and_seed(configure: Callable[..., Config]) -> None:
    config = configure("seed=7", *SHORT)
    folder = train(config).folder
    assert folder.relative_to(config.paths.runs).parts == ("simcse", prepare(config).hash, "s7")


def test_the_stored_config_loads_back_as_it_was(configure: Callable[..., Config]) -> None:
    config = configure("experiment=otfkd_group_p", "schedule=at", "schedule.at=[1]", "teacher.warmup_steps=1", *SHORT)
    stored = OmegaConf.to_container(OmegaConf.load(train(config).folder / "config.yaml"))
    assert Config.model_validate(stored) == config


def test_the_stored_rows_plan_and_hash_are_those_returned(finished: TrainResult) -> None:
    assert read_rows(finished.folder / "results.jsonl") == finished.rows
    assert (finished.folder / "plan.txt").read_text() == finished.plan + "\n"
    facts = json.loads((finished.folder / "provenance.json").read_text())
    assert {row.config_hash for row in finished.rows} == {facts["config_hash"]} == {finished.folder.parent.name}
    assert facts["fingerprints"].keys() == {"model", "corpus", "suite"}


def test_metrics_have_each_step_and_each_dev_score_once(finished: TrainResult) -> None:
    rows = json_lines(finished.folder / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
    assert [row["step"] for row in rows if "dev" in row] == [3, 6, 9, 12]
    assert len(rows) == 12 + 4


def test_metrics_name_the_teacher_their_step_learnt_from(finished: TrainResult) -> None:
    rows = [row for row in json_lines(finished.folder / "metrics.jsonl") if "loss" in row]
    assert [row["generation"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 4
    assert ["kd" in row for row in rows] == [False] * 4 + [True] * 8


def test_the_rate_decays_linearly_to_nought_in_the_warm_up_and_after_it(finished: TrainResult) -> None:
    rates = [row["lr"] for row in json_lines(finished.folder / "metrics.jsonl") if "loss" in row]
    shares = [(end - done) / end for end in (4, 8) for done in range(end)]
    assert rates == pytest.approx([1e-3 * share for share in shares])


def test_a_dry_run_plans_and_writes_no_run(configure: Callable[..., Config]) -> None:
    config = configure("experiment=otfkd", "schedule.every=4", "dry_run=true", "trainer.accumulate=3")
    result = train(config)
    assert (result.status, result.rows) == ("planned", [])
    assert list(Path(config.paths.runs).iterdir()) == []
    plan = {line[:11].strip(): line[11:] for line in result.plan.splitlines()}
    assert plan["run"] == f"{result.folder} (new)"
    assert plan["steps"] == "12 optimizer steps of 3 x 4 sentences"
    assert plan["rotate"].startswith("after 4, 8 (the one due at the last step, 12, is skipped")
    assert plan["evaluate"] == "tiny dev after 3, 6, 9, 12"
    assert plan["negatives"].startswith("3 per anchor")
    assert "60 sentences, read 2.40 times" in plan["corpus"]
    for what in ("memory", "disk"):
        about, number, unit = plan[what].split()
        assert (about, float(number) >= 0) == ("about", True) and unit in ("GiB", "MiB")


def test_a_plan_says_whether_its_run_is_finished(configure: Callable[..., Config], finished: TrainResult) -> None:
    planned = train(configure("experiment=otfkd", "schedule.every=4", "dry_run=true"))
    assert planned.plan.splitlines()[0].endswith(f"{finished.folder} (finished)")


def test_fresh_keeps_the_old_runs_aside(configure: Callable[..., Config]) -> None:
    first = train(configure(*SHORT))
    old = (first.folder / "run.log").read_bytes()
    for _ in range(2):
        assert train(configure("fresh=true", *SHORT)).status == "finished"
    kept = sorted(path.name for path in first.folder.parent.iterdir() if not path.name.startswith("."))
    assert kept == ["s0", "s0.kept-1", "s0.kept-2"]
    assert (first.folder.with_name("s0.kept-1") / "run.log").read_bytes() == old


def test_two_processes_cannot_hold_one_folder(configure: Callable[..., Config]) -> None:
    config = configure(*SHORT)
    folder = prepare(config).folder
    with folder.held(), pytest.raises(UserError, match=f"another process is training in {folder}"):
        train(config)
    assert not folder.path.exists()
    assert train(config).status == "finished"


@pytest.mark.parametrize(
    "more", ["trainer.max_steps=3", "optimizer.lr=2e-3", "precision=bfloat16", "data.max_length=12"]
)
def test_another_config_has_another_folder(configure: Callable[..., Config], more: str) -> None:
    assert prepare(configure(*SHORT, more)).folder.path.parent != prepare(configure(*SHORT)).folder.path.parent


def test_one_changed_line_of_the_corpus_has_another_folder(configure: Callable[..., Config], tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus.txt")
    config = configure(f"data.path={corpus}")
    before = prepare(config).folder
    corpus.write_text(corpus.read_text() + "the cat sat on the moon\n")
    assert prepare(config).folder != before


def test_one_changed_weight_of_the_model_has_another_folder(configure: Callable[..., Config], tmp_path: Path) -> None:
    first, second = (make_model(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert prepare(configure(f"model={first}")).hash != prepare(configure(f"model={second}")).hash


def test_the_same_model_elsewhere_has_the_same_hash(configure: Callable[..., Config], tmp_path: Path) -> None:
    first, second = (make_model(tmp_path / name, seed=1) for name in ("a", "b, with = signs"))
    hashes = {prepare(configure(f"model='{path}'", "model.pooler=cls")).hash for path in (first, second)}
    assert len(hashes) == 1


def test_selected_scores_are_those_of_the_saved_model(
    configure: Callable[..., Config], early_best: TrainResult, tiny_suite: Suite
) -> None:
    saved = load_encoder(early_best.folder / "model")
    again = score_rows(saved, tiny_suite, configure().evaluation, Origin("again"))
    selected = [row for row in early_best.rows if row.checkpoint == "selected"]
    assert [(row.split, row.scores, row.average) for row in selected] == [
        (row.split, row.scores, row.average) for row in again
    ]
    assert {row.weights_sha256 for row in selected} == {hash_weights(saved)}


def test_the_selected_step_is_the_best_by_dev_and_last_is_beside_it(early_best: TrainResult) -> None:
    found = {(row.checkpoint, row.split): (row.step, row.generation) for row in early_best.rows}
    assert found == {
        ("selected", "dev"): (3, 1), ("selected", "test"): (3, 1), ("last", "dev"): (12, 5), ("last", "test"): (12, 5),
    }  # fmt: skip
    selected, last = (
        {row.weights_sha256 for row in early_best.rows if row.checkpoint == c} for c in ("selected", "last")
    )
    assert selected != last
    assert [row.scores for row in early_best.rows[:2]] != [row.scores for row in early_best.rows[2:]]


def test_last_is_the_final_student(early_best: TrainResult, configure: Callable[..., Config]) -> None:
    student = prepare(configure()).load_student()
    state = torch.load(early_best.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    student.load_state_dict(
        {key.removeprefix("student."): value for key, value in state.items() if key.startswith("student.")}
    )
    assert early_best.rows[-1].checkpoint == "last"
    assert early_best.rows[-1].weights_sha256 == hash_weights(student)


def test_a_best_last_step_is_selected_and_last_at_once(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    dev = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: next(dev))
    rows = train(configure("experiment=simcse")).rows
    assert [row.checkpoint for row in rows] == ["selected", "selected", "last", "last"]
    assert {row.step for row in rows} == {12}
    assert len({row.weights_sha256 for row in rows}) == 1


@pytest.mark.parametrize("init", ["teacher", "base"])
def test_the_student_starts_from_what_init_names(
    configure: Callable[..., Config], tmp_path: Path, tiny_model: Path, init: str
) -> None:
    teacher = make_model(tmp_path / "teacher", seed=5)
    still = (f"student.init={init}", "optimizer.lr=1e-12", *SHORT)
    result = train(configure("experiment=distill_static", f"teacher={teacher}", "teacher.pooler=cls", *still))
    start = load_encoder({"teacher": teacher, "base": tiny_model}[init], "cls")
    ended = load_encoder(result.folder / "model").state_dict()
    assert all(torch.allclose(value, ended[name], atol=1e-6) for name, value in start.state_dict().items())


def test_two_runs_of_one_config_are_the_same_bits(configure: Callable[..., Config], tmp_path: Path) -> None:
    def bits(runs: str, seed: int = 0) -> tuple[bytes, str]:
        run = configure("experiment=otfkd_group_p", "schedule.every=3", f"seed={seed}", f"paths.runs={tmp_path / runs}")
        folder = train(run).folder
        return (folder / "model" / "model.safetensors").read_bytes(), (folder / "metrics.jsonl").read_text()

    first = bits("a")
    torch.manual_seed(99)  # what ran before must not matter
    assert bits("b") == first
    assert bits("c", seed=1)[0] != first[0]


def test_a_failure_leaves_its_traceback_in_its_own_log_only(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "otfkd")

    def broken(*_: Any) -> None:
        raise RuntimeError("boom")

    with monkeypatch.context() as patched:
        patched.setattr(otfkd.training.train, "score_rows", broken)
        with pytest.raises(RuntimeError, match="boom"):
            train(configure(*SHORT))
    first = prepare(configure(*SHORT)).folder.path
    second = train(configure("seed=1", *SHORT)).folder
    told, other = ((folder / "run.log").read_text() for folder in (first, second))
    assert "Traceback" in told and told.rstrip().endswith("RuntimeError: boom")
    assert "boom" not in other and str(first) not in other
    assert [log.count("blank lines skipped") for log in (told, other)] == [1, 1]


def test_a_failed_run_goes_on_when_asked_again(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(otfkd.training.train, "score_rows", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(configure(*SHORT))
    assert not prepare(configure(*SHORT)).folder.finished
    assert train(configure(*SHORT)).status == "finished"


def test_a_run_that_ends_early_is_not_finished(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([1.0])  # Lightning takes what comes after the last one for the end of the data
    monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: next(scores))
    with pytest.raises(RuntimeError, match="ended by itself after step 6 of 12"):
        train(configure())
    assert not prepare(configure()).folder.finished


def test_a_run_leaves_the_process_as_it_found_it(configure: Callable[..., Config]) -> None:
    def settings() -> list[object]:
        lightning = logging.getLogger("lightning.pytorch")
        return [
            lightning.level, list(warnings.filters), torch.get_num_threads(), torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
        ]  # fmt: skip

    before = settings()
    train(configure(*SHORT, "trainer.threads=2"))
    assert settings() == before


def test_a_run_leaves_no_log_handler_behind(configure: Callable[..., Config]) -> None:
    before = list(logging.getLogger("otfkd").handlers)
    train(configure(*SHORT))
    assert logging.getLogger("otfkd").handlers == before


def test_no_model_outlives_its_run(configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of a sweep share a process, and its memory."""
    slots: list[weakref.ref[TeacherSlot]] = []

    def watched() -> TeacherSlot:
        slots.append(weakref.ref(slot := TeacherSlot()))
        return slot

    monkeypatch.setattr(otfkd.training.train, "TeacherSlot", watched)
    gc.disable()
    try:
        train(configure("experiment=otfkd", "schedule.every=4"))
        assert [slot() for slot in slots] == [None]
    finally:
        gc.enable()


def test_the_rows_name_the_teacher_a_run_began_with(configure: Callable[..., Config], tmp_path: Path) -> None:
    teacher = make_model(tmp_path / "teacher", seed=5)
    config = configure("experiment=distill_static", f"teacher={teacher}", "teacher.pooler=mean", *SHORT)
    assert {row.teacher_sha256 for row in train(config).rows} == {prepare(config).fingerprints["teacher"]}


def test_tf32_is_as_the_config_says_while_the_run_lasts(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look(config: Config) -> Run:
        seen.append(torch.get_float32_matmul_precision())
        return prepare(config)

    monkeypatch.setattr(otfkd.training.train, "prepare", look)
    for tf32 in ("true", "false"):
        train(configure(f"precision.tf32={tf32}", "dry_run=true"))
    assert seen == ["high", "highest"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_kernels_are_deterministic_as_the_config_says_from_the_start_and_for_the_run_alone(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def look(config: Config) -> Run:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return prepare(config)

    monkeypatch.setattr(otfkd.training.train, "prepare", look)
    for deterministic in ("false", "true"):
        train(configure(f"precision.deterministic={deterministic}", *SHORT))
    assert seen == [False, True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_log_has_the_plan_without_a_command_too(configure: Callable[..., Config]) -> None:
    result = train(configure(*SHORT))
    assert result.plan in (result.folder / "run.log").read_text()


def test_an_untrained_pooling_head_starts_the_same_whatever_ran_before(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    models = []
    for number, noise in enumerate((0, 99)):
        torch.manual_seed(noise)
        result = train(configure(*SHORT, "model.pooler=cls_head", f"paths.runs={tmp_path / str(number)}"))
        models.append((result.folder / "model" / "2_Dense" / "model.safetensors").read_bytes())
    assert models[0] == models[1]


def test_seeds_that_start_from_their_own_teacher_share_a_folder(configure: Callable[..., Config]) -> None:
    folders = []
    for seed in (0, 1):
        teacher = train(configure("experiment=simcse", *SHORT, f"seed={seed}")).folder
        folders.append(
            train(configure("experiment=distill_static", *SHORT, f"seed={seed}", f"teacher={teacher}")).folder
        )
    assert folders[0].parent == folders[1].parent
    other = prepare(configure("experiment=distill_static", *SHORT, "seed=1", f"teacher={folders[0]}"))
    assert other.folder.path.parent != folders[0].parent


def test_a_teacher_that_was_trained_anew_is_noticed(configure: Callable[..., Config]) -> None:
    teacher = train(configure("experiment=simcse", *SHORT)).folder
    student = configure("experiment=distill_static", *SHORT, f"teacher={teacher}")
    train(student)
    weights = teacher / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="another teacher than there is now"):
        train(student)
    assert train(student.model_copy(update={"fresh": True})).status == "finished"


def test_a_teachers_prompt_comes_before_what_it_reads_and_stays_its_own(
    configure: Callable[..., Config], tiny_model: Path, tmp_path: Path
) -> None:
    from datasets import Dataset

    teacher = Path(shutil.copytree(tiny_model, tmp_path / "teacher"))
    note = {"prompts": {"any": "old moon "}, "default_prompt_name": "any"}
    (teacher / "config_sentence_transformers.json").write_text(json.dumps(note))
    result = train(configure("experiment=distill_static", f"teacher={teacher}", "teacher.pooler=cls", *SHORT))
    caches = [Dataset.from_file(str(path))["input_ids"] for path in (tmp_path / "cache/tokens").glob("*.arrow")]
    student, read = sorted(([*rows] for rows in caches), key=lambda rows: len(rows[0]))
    prompt = load_encoder(teacher, "cls").tokenizer("old moon")["input_ids"]
    assert [row[:14] for row in read] == [[*prompt[:-1], *row[1:]][:14] for row in student]
    assert (load_encoder(teacher, "cls").prompt, load_encoder(result.folder / "model").prompt) == ("old moon ", "")


def test_a_students_prompt_is_saved_with_it(configure: Callable[..., Config], tiny_model: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    note = {"prompts": {"any": "old moon "}, "default_prompt_name": "any"}
    (base / "config_sentence_transformers.json").write_text(json.dumps(note))
    result = train(configure("experiment=simcse", f"model={base}", "model.pooler=cls", *SHORT))
    assert load_encoder(result.folder / "model").prompt == "old moon "
