"""A finished run of which something is gone or broken: the same command makes it whole, or says what to do."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from otfkd.base.errors import UserError
from otfkd.config.schema import Config
from otfkd.training.finished import skipped
from otfkd.training.run import prepare
from otfkd.training.train import train
from tests.support.commands import Command, assert_refused
from tests.support.copies import made_once

MODEL = [
    "model", "model/model.safetensors", "model/modules.json", "model/1_Pooling/config.json", "model/config.json",
    "model/config_sentence_transformers.json", "model/otfkd.json", "model/sentence_bert_config.json",
    "model/tokenizer.json", "model/tokenizer_config.json",
]  # fmt: skip
SCORES = ["results.jsonl"]
OTHERS = [
    "checkpoints/best.safetensors", "checkpoints/last.ckpt", "config.yaml", "metrics.jsonl", "model.sha256", "plan.txt",
    "provenance.json", "rotations.jsonl", "run.log", "snapshots/step-00000004.safetensors",
    "snapshots/step-00000008.safetensors", "timings.jsonl",
]  # fmt: skip


def lose(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def cut(path: Path) -> None:
    if path.is_dir():
        for inner in path.rglob("*.json"):
            cut(inner)
    else:
        os.truncate(path, path.stat().st_size // 2)


def files(folder: Path) -> dict[str, bytes]:
    """All that a run has, but its log and its lock."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "run.log"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished") / "runs"


@pytest.fixture
def config(configure: Callable[..., Config], tmp_path: Path, kept: Path) -> Config:
    """Of a run that is finished, in a copy of its folder."""
    made = configure("experiment=otfkd", "schedule.every=4", "trainer.checkpoint_every=6")
    made_once(kept, tmp_path / "runs", lambda: train(made))
    return made


@pytest.fixture
def run(config: Config) -> Path:
    (folder,) = Path(config.paths.runs).glob("otfkd/*/s0")
    return folder


QUICK = [(lose, "model"), (cut, "model/model.safetensors"), (lose, "model/modules.json"), (cut, "results.jsonl")]


def cases(names: list[str]) -> list[Any]:
    return [
        pytest.param(damage, name, marks=[] if (damage, name) in QUICK else pytest.mark.slow)
        for name in names
        for damage in (lose, cut)
    ]


def test_every_file_of_a_run_is_tried(run: Path) -> None:
    assert {*files(run)} == {*MODEL, *SCORES, *OTHERS} - {"model", "run.log"}


@pytest.mark.parametrize(("damage", "name"), cases([*MODEL, *SCORES]))
def test_a_broken_model_and_broken_scores_are_made_again_with_the_same_bits(
    config: Config, run: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], name: str
) -> None:
    before = files(run)
    damage(run / name)
    assert skipped(prepare(config)) is None
    again = train(config)
    assert again.status == ("finished" if name in SCORES else "skipped")
    assert files(run) == before
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    if name in MODEL:
        assert len(told) == 1
        assert f"{run / name}" in told[0] and "the model is made again from" in told[0]
    assert skipped(prepare(config)) is not None


@pytest.mark.parametrize(
    ("damage", "name"), [case for case in cases(OTHERS) if case.values != (cut, "provenance.json")]
)
def test_what_a_finished_run_does_not_need_may_be_gone(
    config: Config, run: Path, damage: Callable[[Path], None], name: str
) -> None:
    damage(run / name)
    before = files(run)
    assert train(config).status == "skipped"
    assert files(run) == before


def test_a_provenance_that_cannot_be_read_is_named(config: Config, run: Path) -> None:
    cut(run / "provenance.json")
    with pytest.raises(UserError, match=rf"{run}/provenance.json is not what a run writes there: restore it, or start"):
        train(config)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("checkpoints/best.safetensors", "the student of step 6, is missing"),
        ("metrics.jsonl", "has lost lines since the last checkpoint"),
        ("timings.jsonl", "does not say when the dev score of step 3 came"),
        pytest.param("rotations.jsonl", "has lost lines since the last checkpoint", marks=pytest.mark.slow),
        pytest.param("provenance.json", "does not say under which versions", marks=pytest.mark.slow),
    ],
)
def test_scores_are_not_made_again_of_less_than_they_were_made_of(
    config: Config, run: Path, name: str, told: str
) -> None:
    lose(run / "results.jsonl")
    lose(run / name)
    with pytest.raises(UserError, match=rf"{run / name}.* {told}.*: restore it, or start anew with fresh=true"):
        train(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", *MODEL, "snapshots/step-00000008.safetensors", "plan.txt"])
def test_scores_are_made_again_without_what_they_do_not_need(config: Config, run: Path, name: str) -> None:
    before = files(run)
    lose(run / "results.jsonl")
    lose(run / name)
    assert train(config).status == "finished"  # without a checkpoint by training again
    after = files(run)
    assert {file: after[file] for file in before if file.startswith("model/")} == {
        file: content for file, content in before.items() if file.startswith("model/")
    }


def test_a_model_that_cannot_be_made_again_is_named_with_what_to_remove(
    otfkd_command: Command, overrides: list[str], config: Config, run: Path
) -> None:
    command = ("train", *overrides, "experiment=otfkd", "schedule.every=4", "trainer.checkpoint_every=6")
    (run / "model/modules.json").unlink()
    best = run / "checkpoints/best.safetensors"
    best.unlink()
    refused = otfkd_command(*command)
    assert refused.code == 2 and "Traceback" not in refused.err
    assert refused.err.splitlines()[-1].startswith(f"otfkd: {best} cannot be read (No such file or directory")
    assert refused.err.endswith(f": restore it, or remove {run} and the run is trained again\n")
    shutil.rmtree(run)
    assert otfkd_command(*command).code == 0
    assert (run / "model/modules.json").is_file() and best.is_file()


def test_scores_without_a_checkpoint_are_named_with_what_to_remove(config: Config, run: Path) -> None:
    cut(run / "results.jsonl")
    lose(run / "checkpoints")
    with pytest.raises(UserError, match=rf"results.jsonl cannot be read .*last.ckpt is missing: .* remove {run} and"):
        train(config)


def test_weights_that_are_not_those_that_were_scored_replace_no_model(config: Config, run: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    best = run / "checkpoints/best.safetensors"
    with safe_open(best, "pt") as file:
        facts = file.metadata()
    weights = load_file(best)
    weights["backbone.embeddings.word_embeddings.weight"] += torch.ones(())
    save_file(weights, best, metadata=facts)
    cut(run / "model/model.safetensors")
    before = files(run)
    with pytest.raises(UserError, match=rf"{best} is not the model that was scored: restore it, or remove {run}"):
        train(config)
    assert {**files(run), "failure.json": b""} == {**before, "failure.json": b""}


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_rows_that_are_lost_whole_are_missed(config: Config, run: Path, lines: int) -> None:
    results = run / "results.jsonl"
    whole = results.read_bytes()
    results.write_bytes(b"".join(whole.splitlines(keepends=True)[:lines]))
    assert skipped(prepare(config)) is None
    if lines == 2:
        assert train(config).status == "finished"
        assert results.read_bytes() == whole


def test_a_run_of_before_there_were_checksums_is_whole_if_its_model_is_there(config: Config, run: Path) -> None:
    (run / "model.sha256").unlink()
    assert skipped(prepare(config)) is not None
    (run / "model/model.safetensors").unlink()
    assert skipped(prepare(config)) is None
    assert train(config).status == "skipped"
    assert (run / "model.sha256").is_file()
    assert skipped(prepare(config)) is not None


def test_broken_scores_are_an_error_of_the_users_to_who_reads_them(
    otfkd_command: Command, config: Config, run: Path
) -> None:
    cut(run / "results.jsonl")
    assert_refused(otfkd_command("compare", run, run), f"{run}/results.jsonl")
