"""Exporting: one whole folder that both libraries read, and a push that fails without taking it along."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import ModelCard

import otfkd
import otfkd.reporting.export
from otfkd.base.errors import UserError
from otfkd.config.schema import Config
from otfkd.reporting.export import check_repository, export, push
from otfkd.training.train import train
from tests.support.models import WORDS
from tests.support.rows import defined

SENTENCES = [" ".join(WORDS[:length]) for length in (1, 30, 2, 9)]


def test_a_run_goes_out_as_it_was_scored(configure: Callable[..., Config], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    result = train(configure("experiment=otfkd", "schedule.every=4"))
    export(str(result.folder), tmp_path / "out", licence="Apache-2.0")
    data = ModelCard.load(tmp_path / "out/README.md").data
    scores = {(row.split, task): round(defined(score["all"]), 2) for row in result.rows if row.checkpoint == "selected"
              for task, score in row.scores.items()}  # fmt: skip
    assert {(each.dataset_split, each.dataset_name): each.metric_value for each in data.eval_results} == scores
    assert data.license == "apache-2.0"
    expected = otfkd.load(str(result.folder)).encode(SENTENCES)
    np.testing.assert_array_equal(otfkd.load(str(tmp_path / "out")).encode(SENTENCES), expected)
    theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(theirs, expected, atol=1e-5, rtol=0)
    assert {path.suffix for path in (tmp_path / "out").rglob("*.*")} == {".json", ".safetensors", ".md"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "out").rglob("*"))
    (result.folder / "model/otfkd.json").write_text('{"pooler": "mean"}')
    with pytest.raises(
        UserError, match=r"results.jsonl scores .* by cls, and its model is .* by mean: export the model"
    ):
        export(str(result.folder), tmp_path / "other")


def test_a_prompt_that_is_no_default_goes_along(tiny_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "cat "}}')
    export(str(folder), tmp_path / "out", pooler="mean")
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert model.prompts["query"] == "cat " and model.default_prompt_name is None
    assert model.max_seq_length == 128


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_is_left_alone(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "out"
    output.write_text("mine") if kind == "file" else (output / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"^{output} is there already: name a new or an empty folder$"):
        export(str(tiny_model), output, pooler="cls")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(str(tiny_model), tmp_path / "out", pooler="cls")
    assert (tmp_path / "out/model.safetensors").is_file()


@pytest.mark.parametrize(("error", "raised"), [(OSError("no space"), UserError), (RuntimeError("x"), RuntimeError)])
def test_a_failure_leaves_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(otfkd.reporting.export, "write_text", fail)  # the card comes after the weights
    with pytest.raises(raised, match=str(error)):
        export(str(tiny_model), tmp_path / "out", pooler="cls")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_pooler_is_told_how_to_name_one(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--pooler mean"):
        export(str(tiny_model), tmp_path / "out")


class Hub:
    """Stands in for the hub: records what it is asked."""

    def __init__(self, error: Exception | None = None):
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def __call__(self) -> "Hub":
        return self

    def create_repo(self, repository: str, **settings: Any) -> None:
        self.calls.append(("create", {"repo_id": repository, **settings}))

    def upload_folder(self, **settings: Any) -> SimpleNamespace:
        self.calls.append(("upload", settings))
        if self.error is not None:
            raise self.error
        return SimpleNamespace(commit_url="https://hub/commit/1")


@pytest.mark.parametrize("private", [True, False])
def test_a_push_makes_the_repository_and_uploads_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", hub := Hub())
    assert push(tmp_path, "me/tiny", private=private) == "https://hub/commit/1"
    assert hub.calls == [
        ("create", {"repo_id": "me/tiny", "private": private, "exist_ok": True}),
        ("upload", {"repo_id": "me/tiny", "folder_path": tmp_path, "commit_message": "Exported by otfkd"}),
    ]


def test_a_refused_push_is_one_sentence_and_leaves_the_folder(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import LocalTokenNotFoundError

    export(str(tiny_model), tmp_path / "out", pooler="cls")
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub(LocalTokenNotFoundError("Token is required.")))
    with pytest.raises(UserError, match=r"^\S+/out is written but was not pushed to me/tiny \(Token is required.\): "):
        push(tmp_path / "out", "me/tiny", private=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


def test_without_a_network_a_push_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="is written but was not pushed to me/tiny"):
        push(tmp_path, "me/tiny", private=False)


@pytest.mark.parametrize("name", ["a/b/c", "bad--..name", "sp ace/x"])
def test_a_name_that_the_hub_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^{name} is no name for a repository .*: give OWNER/NAME$"):
        check_repository(name)
