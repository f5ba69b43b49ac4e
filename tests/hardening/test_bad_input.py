"""Bad input that takes a hand: a changing corpus, foreign tokenizers, full and sealed disks, a clock set back."""

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import otfkd.distill.snapshots
import otfkd.training.train
from otfkd.base import files
from otfkd.base.errors import UserError, refusals_as_user_errors
from otfkd.config.schema import Config
from otfkd.data import tokens
from otfkd.distill.rotation import TeacherRotation
from otfkd.evaluation.encode import encode
from otfkd.models.encoder import Encoder
from otfkd.models.registry import load_encoder
from otfkd.training.train import train
from tests.support.commands import Command, assert_refused
from tests.support.models import make_model, make_tokenizer
from tests.support.resuming import final
from tests.support.texts import make_corpus

SHORT = ("trainer.max_steps=2", "evaluation.every=null")


# Corpora


def test_a_corpus_that_changes_while_it_is_read_spoils_no_cache(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus(tmp_path / "changing.txt")
    first, original = corpus.read_text(), tokens._write

    def meanwhile(*given: Any) -> Any:
        corpus.write_text(first.replace("cat", "dog"))
        return original(*given)

    config = configure(f"data.path={corpus}", *SHORT)
    with monkeypatch.context() as patched:
        patched.setattr(tokens, "_write", meanwhile)
        with pytest.raises(UserError, match=r"changing\.txt was changed while it was read: give the command again"):
            train(config)
    assert not [path for path in (tmp_path / "cache" / "tokens").iterdir() if path.suffix != ".lock"]
    corpus.write_text(first)  # and what is read of it now is what it holds
    assert train(config).status == "finished"


def test_a_corpus_that_changes_while_a_run_trains_does_not_reach_it(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, other = make_corpus(tmp_path / "a.txt"), make_corpus(tmp_path / "b.txt")
    still = train(configure(f"data.path={other}", f"paths.runs={tmp_path / 'still'}"))
    original = TeacherRotation.on_train_start

    def meanwhile(*given: Any) -> None:
        corpus.write_text("something else\n" * 60)
        original(*given)

    monkeypatch.setattr(TeacherRotation, "on_train_start", meanwhile)
    changed = train(configure(f"data.path={corpus}"))
    assert final(changed.folder) == final(still.folder)


def test_a_corpus_of_one_sentence_over_and_over_trains_or_is_masked(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    corpus = tmp_path / "same.txt"
    corpus.write_text("the cat sat on the mat\n" * 8)
    for masked in ("true", "false"):
        rows = train(configure(f"data.path={corpus}", f"objective.mask_repeats={masked}", *SHORT)).rows
        assert len(rows) == 4


def test_a_gigantic_line_is_cut_like_any_other(configure: Callable[..., Config], tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "long.txt", 8)
    corpus.write_text(corpus.read_text() + "moon " * 400_000 + "\n")
    assert train(configure(f"data.path={corpus}", *SHORT)).status == "finished"


# Models


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    make_tokenizer([f"word{n}" for n in range(300)]).save_pretrained(folder)
    with pytest.raises(UserError, match=r"has ids up to \d+ and the model \d+ embeddings: give it its own"):
        load_encoder(folder, "cls")


def test_a_length_that_the_model_cannot_read_is_refused_before_training(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"data\.max_length=129 is more than the 128 tokens that .*tiny0 reads"):
        train(configure("data.max_length=129", "dry_run=true"))


def test_a_sentence_that_is_longer_than_the_model_reads_is_the_users_to_cut(tiny_encoder: Encoder) -> None:
    long = "moon " * 200
    assert encode(tiny_encoder, [long], batch_size=2, max_length=128).shape == (1, 32)
    with pytest.raises(UserError, match="a sentence has 202 tokens and the model reads 128: lower max_length to it"):
        encode(tiny_encoder, [long], batch_size=2, max_length=512)


def test_positions_that_start_after_the_padding_are_fewer(tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaModel

    tokenizer = make_tokenizer()
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, "mean")
    assert encoder.positions == 32
    assert encode(encoder, ["moon " * 60], batch_size=1, max_length=32).isfinite().all()
    with pytest.raises(UserError, match="the model reads 32"):
        encode(encoder, ["moon " * 60], batch_size=1, max_length=33)


# Disks


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_what_the_machine_refuses_is_a_sentence(number: int) -> None:
    told = rf"/x/y cannot be read or written \({os.strerror(number)}\): make room"
    with pytest.raises(UserError, match=told), refusals_as_user_errors():
        raise OSError(number, os.strerror(number), "/x/y")


def test_what_is_no_refusal_of_the_machine_stays_what_it_is() -> None:
    with pytest.raises(FileNotFoundError), refusals_as_user_errors():
        raise FileNotFoundError(errno.ENOENT, "gone", "/x/y")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run is that was not stopped, trained for the first test that asks."""
    return tmp_path_factory.mktemp("straight")


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        (torch, "save", RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")),
        (otfkd.distill.snapshots, "save_file", SafetensorError("I/O error: No space left on device (os error 28)")),
        (files.JsonLines, "append", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    ],
)
def test_a_disk_that_fills_up_stops_a_run_that_then_goes_on(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    straight: Path, module: Any, name: str, error: Exception,
) -> None:  # fmt: skip
    run = ("train", *overrides, "experiment=otfkd", "schedule.every=4", "trainer.checkpoint_every=2")
    original, calls = getattr(module, name), [0]

    def fills_up(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] > 3 or name == "save_file":
            free = shutil.disk_usage(tmp_path)._replace(free=0)
            patched.setattr(shutil, "disk_usage", lambda *_: free)
            raise error
        return original(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, fills_up)
        stopped = otfkd_command(*run)
    assert stopped.code == 2, stopped
    assert stopped.err.splitlines()[-1].startswith("otfkd: ")
    assert "(No space left on device): make room" in stopped.err.splitlines()[-1]
    assert "Traceback" not in stopped.err
    (folder,) = tmp_path.glob("runs/otfkd/*/s0")
    assert not list(folder.rglob(".*"))
    assert otfkd_command(*run).code == 0
    assert otfkd_command(*run, f"paths.runs={straight}").code == 0
    (other,) = straight.glob("otfkd/*/s0")
    assert final(folder) == final(other)


def test_a_log_on_a_full_disk_prints_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from otfkd.base.logs import logging_to

    with logging_to(tmp_path / "run.log"):
        (handler,) = (one for one in logging.getLogger("otfkd").handlers if isinstance(one, logging.FileHandler))
        handler.stream = open("/dev/full", "w")  # noqa: SIM115, PTH123
        logging.getLogger("otfkd").info("told")
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_that_may_not_be_written_to_is_named(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, access = tmp_path / "sealed", os.access
    sealed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != sealed and access(path, mode))
    for key in ("runs", "cache"):
        with pytest.raises(UserError, match=rf"paths\.{key}={sealed} may not be written to: name a folder"):
            train(configure(f"paths.{key}={sealed}", "dry_run=true"))


# The machine


def test_a_clock_that_is_set_back_changes_no_run(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(configure(f"paths.runs={tmp_path / 'straight'}"))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: 2e9 - now())
    back = train(configure())
    assert final(back.folder) == final(straight.folder)
    cost = back.rows[0].cost
    assert cost is not None
    assert 0 < cost.seconds < 600
    assert all(0 <= point.seconds <= cost.seconds for point in cost.curve)


def test_a_gpu_that_is_not_there_is_refused(otfkd_command: Command, overrides: list[str]) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    assert_refused(otfkd_command("train", *overrides, "trainer.accelerator=gpu"), "no GPU is to be seen here")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["data.source=hub"], "data.source=hub needs data.repo and data.file"),
        (
            ["data.source=stsb", "data.path=null", "objective=cosent"],
            "there is no SentEval data: give data.path=FOLDER",
        ),
        (["trainer.accumulate=1000001"], "trainer.accumulate=1000001 is not valid"),
        (["objective.group_size=99999999999999999999"], "objective.group_size=99999999999999999999 is not valid"),
        (["name=" + "x" * 101], "name="),
    ],
)
def test_keys_that_go_together_in_no_group(
    otfkd_command: Command, overrides: list[str], given: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTFKD_DATA", raising=False)
    assert_refused(otfkd_command("train", *overrides, *given), told)
