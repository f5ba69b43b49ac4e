"""What a card says is what the run's files say, and what they do not say is unknown."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from omegaconf import OmegaConf

from otfkd.base.errors import UserError
from otfkd.base.provenance import environment
from otfkd.config.composition import load_config
from otfkd.config.schema import Config
from otfkd.models.encoder import Encoder
from otfkd.models.registry import fingerprint_model
from otfkd.reporting.card import hub_name, model_card
from otfkd.reporting.citation import BIBTEX
from otfkd.reporting.history import check_history, read_history
from otfkd.runs.rows import Row, write_rows

ROTATIONS = [
    {"step": 4, "generation": 1, "snapshot": "step-4", "snapshot_step": 4, "sha256": "aa11", "dev": None, "lr": 2e-05},
    {
        "step": 8,
        "generation": 2,
        "snapshot": "step-8",
        "snapshot_step": 7,
        "sha256": "bb22",
        "dev": 71.234,
        "lr": 1e-05,
    },
]
ENVIRONMENT = {**environment(), "git_revision": "c0ffee", "threads": 77}


def rows() -> list[Row]:
    def row(split: str, checkpoint: str, step: int, **scores: float) -> Row:
        return Row.model_validate({
            "name": "otfkd", "seed": 5, "split": split, "checkpoint": checkpoint, "step": step, "generation": 1,
            "pooler": "cls", "scores": {task: {"all": score} for task, score in scores.items()}, "average": 44.44,
            "protocol": "the protocol", "suite": "sts", "suite_sha256": "5111e", "weights_sha256": "33aa",
            "config_hash": "cafe", "teacher_sha256": None, "environment": ENVIRONMENT,
        })  # fmt: skip

    return [
        row("dev", "selected", 6, Dev=80.126), row("test", "selected", 6, STS12=60.5, SICK=70.006),
        row("dev", "last", 12, Dev=79.0), row("test", "last", 12, STS12=61.25),
    ]  # fmt: skip


def write_run(folder: Path, config: Config, *, teacher: str | None = None, seed: int = 5) -> Path:
    """A run's folder as training leaves it, weights aside; gives its model's folder."""
    (folder / "model").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config.model_dump(mode="json")), folder / "config.yaml")
    (folder / "plan.txt").write_text("student    /hub/models--org--base/snapshots/1, pooler cls\n")
    facts = {"config_hash": "cafe", "seed": seed, "environment": ENVIRONMENT}
    prints = {"model": "ba5e", "corpus": "c0de", "suite": "5111e", **({"teacher": teacher} if teacher else {})}
    (folder / "provenance.json").write_text(json.dumps({**facts, "fingerprints": prints}))
    (folder / "rotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROTATIONS))
    write_rows(folder / "results.jsonl", rows())
    return folder / "model"


def card(model: Path, encoder: Encoder, **changes: Any) -> ModelCard:
    given = {"base": "org/base", "licence": "mit", "onnx": False, **changes}
    return ModelCard(model_card("me/tiny", encoder, 64, read_history(model), **given))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    overrides = ["experiment=otfkd_group_p", "model=minilm", "data=mini", "schedule.every=4", "trainer.max_steps=12"]
    return write_run(tmp_path / "run", load_config(overrides))


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n\n")[1].split("\n\n## ")[0]


def test_the_hub_reads_the_metadata(model: Path, tiny_encoder: Encoder) -> None:
    data: Any = card(model, tiny_encoder).data
    facts = data.to_dict()
    assert (facts["library_name"], facts["pipeline_tag"], facts["license"]) == (
        "sentence-transformers",
        "sentence-similarity",
        "mit",
    )
    assert (data.base_model, data.model_name) == ("org/base", "me/tiny")
    assert {"otfkd", "simcse", "knowledge-distillation"} < set(data.tags)
    found = [(result.dataset_name, result.dataset_split, result.metric_value) for result in data.eval_results]
    assert found == [("STS12", "test", 60.5), ("SICK", "test", 70.01), ("Dev", "dev", 80.13)]
    assert {result.metric_name for result in data.eval_results} == {"the protocol"}


def test_every_generation_is_named_with_what_it_was(model: Path, tiny_encoder: Encoder) -> None:
    text = section(card(model, tiny_encoder).text, "Teachers")
    assert "| 1 | 4 | 4 | `aa11` | not scored | 2e-05 |\n| 2 | 8 | 7 | `bb22` | 71.23 | 1e-05 |" in text
    assert "the student after step 6; its teacher then was generation 1" in text


def test_scores_stand_in_their_places_and_a_missing_one_is_a_dash(model: Path, tiny_encoder: Encoder) -> None:
    text = section(card(model, tiny_encoder).text, "Scores")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[1:] == [
        "| dev | Dev | 80.13 | 79.00 |", "| test | STS12 | 60.50 | 61.25 |", "| test | SICK | 70.01 | — |",
        "| test | average | 44.44 | — |",
    ]  # fmt: skip
    assert "selected after step 6, last after step 12" in text
    assert "the protocol" in text and "5111e" in text and "33aa" in text


def test_method_data_and_versions_are_the_runs(model: Path, tiny_encoder: Encoder) -> None:
    text = card(model, tiny_encoder).text
    method = section(text, "Method")
    assert "On the fly" in method and "shuffled within groups of rank, p = 0.1" in method
    assert "`otfkd_group_p`, config cafe, seed 5" in method and "`ba5e`" in method
    assert "every: 4" in method and "c0de" in section(text, "Data")
    assert "revision c0ffee" in section(text, "Versions") and "77 threads" in section(text, "Versions")


def test_no_path_of_the_machine_is_told(tmp_path: Path, tiny_encoder: Encoder) -> None:
    paths = [f"{key}={tmp_path}/secret" for key in ("model", "data.path", "paths.runs", "paths.cache", "teacher")]
    config = load_config(["experiment=distillcse", "data=text", "model.pooler=cls", *paths])
    text = str(card(write_run(tmp_path / "run", config), tiny_encoder, base=None))
    assert "secret" not in text and str(tmp_path) not in text


@pytest.mark.parametrize(
    ("experiment", "says", "not_said"),
    [
        ("simcse", "Unsupervised SimCSE", "teacher"), ("distill_static", "The teacher is the same", "On the fly"),
        ("otfkd", "On the fly", "The teacher is the same"),
    ],
)  # fmt: skip
def test_the_method_is_the_configs(
    tmp_path: Path, tiny_encoder: Encoder, tiny_model: Path, experiment: str, says: str, not_said: str
) -> None:
    config = load_config([f"experiment={experiment}", f"teacher={tiny_model}"] if "static" in experiment
                         else [f"experiment={experiment}"])  # fmt: skip
    method = section(card(write_run(tmp_path / "run", config), tiny_encoder).text, "Method").split("\n\n")[0]
    assert says in method and not_said not in method


def test_a_teacher_that_was_a_run_is_named_while_it_is_the_same(
    tmp_path: Path, tiny_encoder: Encoder, tiny_model: Path
) -> None:
    import shutil

    first = write_run(tmp_path / "first", load_config(["experiment=simcse"]), seed=9)
    shutil.copytree(tiny_model, first, dirs_exist_ok=True)
    config = load_config(["experiment=distill_static", f"teacher={tmp_path / 'first'}"])
    second = write_run(tmp_path / "second", config, teacher=fingerprint_model(first))
    named = section(card(second, tiny_encoder).text, "Teachers")
    assert "the model of a run of `simcse`, config cafe, seed 9, sha256 of its files" in named
    (first / "otfkd.json").write_text('{"pooler": "mean"}')
    assert "Initial teacher: a local model, sha256" in section(card(second, tiny_encoder).text, "Teachers")


def test_of_a_bare_model_nothing_is_made_up(tiny_model: Path, tiny_encoder: Encoder) -> None:
    text = str(card(tiny_model, tiny_encoder, base=None, licence=None))
    data: Any = ModelCard(text).data
    assert data.eval_results is None and data.license is None and data.base_model is None and data.model_name is None
    assert "Base model: unknown." in text
    for title in ("Method", "Teachers", "Data", "Scores", "Licence"):
        assert section(text, title).startswith("Unknown"), title
    assert "Trained with: unknown." in text


@pytest.mark.parametrize(
    ("file", "title"), [("config.yaml", "Method"), ("results.jsonl", "Scores"), ("config.yaml", "Teachers")]
)
def test_a_file_that_a_run_lost_leaves_its_part_unknown(
    model: Path, tiny_encoder: Encoder, file: str, title: str
) -> None:
    (model.parent / file).unlink()
    assert section(card(model, tiny_encoder).text, title).startswith("Unknown")


def test_a_prompt_and_unit_length_are_said(tiny_model: Path, tiny_encoder: Encoder) -> None:
    told = Encoder(
        tiny_encoder.backbone, tiny_encoder.tokenizer, "mean", prompt="query: ", pool_prompt=False, normalize=True
    )
    text = card(tiny_model, told).text
    assert "The prompt `query: ` is put before every sentence and does not count in pooling." in text
    assert "Embeddings have unit length" in text


def test_scores_of_another_model_are_not_passed_on(model: Path, tiny_encoder: Encoder) -> None:
    history = read_history(model)
    assert history is not None
    check_history(history, tiny_encoder, "33aa")
    with pytest.raises(UserError, match=r"results.jsonl scores weights 33aa by cls, and its model is 44bb by cls"):
        check_history(history, tiny_encoder, "44bb")


def test_a_hub_name_is_believed_only_where_the_hub_was() -> None:
    assert hub_name("minilm", "") == "sentence-transformers/all-MiniLM-L6-v2"
    assert hub_name("org/base", "/x/models--org--base/snapshots/1/") == "org/base"
    assert hub_name("org/base", "/home/org/base/") is None
    assert hub_name("/home/me/model", "/home/me/model/") is None


def test_the_citations_are_those_of_the_project() -> None:
    cff = OmegaConf.load(Path(__file__).parents[2] / "CITATION.cff")
    for work in cff.references:
        assert f"title = {{{work.title}}}" in BIBTEX and f"year = {{{work.year}}}" in BIBTEX
        assert " and ".join(f"{name['family-names']}, {name['given-names']}" for name in work.authors) in BIBTEX
