"""Runs on a user's own files: what they are split into and packed in changes nothing."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from otfkd.config.schema import Config
from otfkd.training.train import train
from tests.support.commands import Command, assert_refused
from tests.support.resuming import final
from tests.support.tables import write_as

SHORT = ("trainer.max_steps=3", "evaluation.every=null")


@pytest.fixture
def shards(corpus_file: Path, tmp_path: Path) -> str:
    """The small corpus in three files, as `data.path` names them."""
    lines = corpus_file.read_text().splitlines()
    cut = {"a.txt": lines[:20], "b.jsonl.gz": lines[20:50], "c.parquet": lines[50:]}
    return f"data.path=[{','.join(str(write_as(tmp_path / name, part)) for name, part in cut.items())}]"


@pytest.mark.parametrize("precomputed", ["false", "true"])
def test_a_run_on_shards_is_the_run_on_one_file(
    configure: Callable[..., Config], tiny_model: Path, tmp_path: Path, shards: str, precomputed: str
) -> None:
    more = [
        *SHORT,
        "objective=distill",
        f"teacher={tiny_model}",
        "teacher.pooler=cls",
        f"teacher.precomputed={precomputed}",
    ]
    first = train(configure(*more))
    again = train(configure(*more, shards))
    assert (again.status, again.folder) == ("skipped", first.folder)
    assert len(list((tmp_path / "cache" / "embeddings").glob("*.npy"))) == (precomputed == "true")
    anew = train(configure(*more, shards, "fresh=true"))
    kept = next(path for path in first.folder.parent.iterdir() if path.name != first.folder.name)
    assert final(anew.folder) == final(kept)


def test_unique_trains_on_the_distinct_lines_in_a_run_of_its_own(
    configure: Callable[..., Config], corpus_file: Path, tmp_path: Path
) -> None:
    twice = tmp_path / "twice.txt"
    twice.write_text(corpus_file.read_text() * 2)
    once, unique = train(configure(*SHORT)), train(configure(*SHORT, f"data.path={twice}", "data.unique=true"))
    assert once.folder != unique.folder
    assert final(unique.folder)["weights"] == final(once.folder)["weights"]


def test_what_the_message_prints_can_be_pasted(
    otfkd_command: Command, overrides: list[str], corpus_file: Path, tmp_path: Path
) -> None:
    odd = tmp_path / 'it\'s "my" (1), #[2] é=x.txt'
    odd.write_text(corpus_file.read_text())
    refused = otfkd_command("train", *overrides, f"data.path={odd}", "dry_run=true")
    assert_refused(refused, "quote its special characters")
    (argument,) = shlex.split(refused.err.rpartition(", as in ")[2])
    outcome = otfkd_command("train", *overrides, argument, "dry_run=true")
    assert outcome.code == 0, outcome.err
    assert f"{odd}, 60 sentences" in outcome.out


def test_a_comma_without_a_sweep_says_both_ways_out(otfkd_command: Command, overrides: list[str]) -> None:
    refused = otfkd_command("train", *overrides, "data.path=/x/a,b.txt")
    assert_refused(refused, "add -m for a sweep", "'data.path=\"/x/a,b.txt\"'")
