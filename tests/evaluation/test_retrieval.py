"""Retrieval scores against closed forms and sentence-transformers, and what a chunk or a tie may not change."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator, NanoBEIREvaluator

import otfkd
import otfkd.evaluation.retrieval
from otfkd.base.errors import UserError
from otfkd.evaluation.retrieval import score
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from otfkd.runs.rows import Row
from otfkd.tables.terminal import scores
from tests.support.beir import given, random_task, write_beir


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retrieval") / "model"
    save_encoder(load_encoder(tiny_model, "mean"), folder, 64)
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Path:
    write_beir(tmp_path / "own", *random_task())
    return tmp_path / "own"


def evaluated(model: Path, task: Path, *more: str) -> Row:
    (row,) = otfkd.evaluate(str(model), *given(task), "evaluation.max_length=64", *more)
    return row


def by_sentence_transformers(model: Path) -> dict[str, float]:
    queries, corpus, answers = random_task()
    relevant = {query: {name for name, grade in judged.items() if grade} for query, judged in answers.items()}
    evaluator = InformationRetrievalEvaluator(
        queries, {name: f"{title} {text}".strip() for name, title, text in corpus}, relevant,
        mrr_at_k=[10], ndcg_at_k=[10], precision_recall_at_k=[100], write_csv=False,
    )  # fmt: skip
    theirs = evaluator(SentenceTransformer(str(model), device="cpu"))
    return {name: 100 * theirs[f"cosine_{name}"] for name in ("ndcg@10", "mrr@10", "recall@100")}


def test_scores_by_hand() -> None:
    answers = frozenset({"a", "b", "c"})
    found = score([["x", "a", "y", "b"], ["x", "y"], ["x"] * 10 + ["b"]], [answers, frozenset({"a"}), answers], 20)
    ideal = 1 + 0.6309297535714575 + 0.5
    assert found.ndcg == pytest.approx(100 * (0.6309297535714575 + 0.43067655807339306) / ideal / 3)
    assert found.mrr == pytest.approx(100 * 0.5 / 3)
    assert found.recall == pytest.approx(100 * (2 / 3 + 1 / 3) / 3)
    assert (found.queries, found.documents) == (3, 20)
    many = frozenset(map(str, range(12)))
    assert score([sorted(many)], [many], 12).ndcg == pytest.approx(100)  # no more than ten can be had


def test_scores_are_those_of_sentence_transformers(model: Path, task: Path) -> None:
    row = evaluated(model, task)
    found = row.scores["own"]
    theirs = by_sentence_transformers(model)
    assert {name: found[name] for name in theirs} == pytest.approx(theirs, abs=0.01)
    assert 0 < theirs["ndcg@10"] < theirs["recall@100"] < 100
    assert (found["queries"], found["documents"]) == (30, 260)
    assert (row.split, row.suite, row.average) == ("test", "retrieval", round(theirs["ndcg@10"], 2))
    assert "nDCG@10" in scores([row]) and "documents" in scores([row])
    assert evaluated(model, task, "evaluation.split=dev").split == "dev"


def test_prompts_are_those_that_sentence_transformers_puts(model: Path, task: Path, tmp_path: Path) -> None:
    plain = evaluated(model, task)
    settings = model / "config_sentence_transformers.json"
    before = settings.read_text()
    prompts = {"query": "where is ", "document": "old song ", "other": "the moon "}
    settings.write_text(json.dumps({**json.loads(before), "prompts": prompts, "default_prompt_name": "other"}))
    try:
        found, theirs = evaluated(model, task).scores["own"], by_sentence_transformers(model)
    finally:
        settings.write_text(before)
    assert {name: found[name] for name in theirs} == pytest.approx(theirs, abs=0.01)
    assert found != plain.scores["own"]


def test_chunks_and_the_order_of_the_file_change_nothing(
    model: Path, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluated(model, task).scores
    lines = (task / "corpus.jsonl").read_text().splitlines(keepends=True)
    monkeypatch.setattr(otfkd.evaluation.retrieval, "_CHUNK", 37)
    monkeypatch.setattr(otfkd.evaluation.retrieval, "_QUERIES", 7)
    assert evaluated(model, task).scores == whole
    (task / "corpus.jsonl").write_text("".join(reversed(lines)))
    assert evaluated(model, task).scores == whole


def test_of_equals_the_smallest_id_comes_first(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otfkd.evaluation.retrieval, "_TOP", 2)
    monkeypatch.setattr(otfkd.evaluation.retrieval, "_DEEP", 2)
    names = ["d4", "d2", "d3", "d1"]
    for turn, chunk in ((0, 5), (1, 5), (2, 5), (3, 5), (0, 2)):
        copies = [(name, "", "the cat sat") for name in names[turn:] + names[:turn]]
        answers = {f"q{place}": {f"d{place}": 1} for place in (1, 2, 3)}
        corpus = [*copies, ("a0", "", "moon moon moon")]
        write_beir(tmp_path / "own", dict.fromkeys(answers, "the cat"), corpus, answers)
        monkeypatch.setattr(otfkd.evaluation.retrieval, "_CHUNK", chunk)
        found = evaluated(model, tmp_path / "own").scores["own"]
        assert (found["mrr@2"], found["recall@2"]) == pytest.approx((100 * (1 + 1 / 2 + 0) / 3, 100 * 2 / 3))


def test_a_model_to_which_all_is_alike_has_no_score(model: Path, tmp_path: Path) -> None:
    write_beir(tmp_path / "own", {"q": "the cat"}, [(f"d{n}", "", "a dog") for n in range(3)], {"q": {"d1": 1}})
    with pytest.raises(UserError, match="no document is nearer to a query than another"):
        evaluated(model, tmp_path / "own")


def write_nano(folder: Path, name: str, seed: int) -> None:
    """Add a task to a copy of NanoBEIR's data set; its answers have no score, and one row may hold several."""
    queries, corpus, answers = random_task(seed)
    judged = [
        {"query-id": query, "corpus-id": document}
        for query, documents in answers.items()
        for document, grade in documents.items()
        if grade
    ]
    tables = {
        "queries": [{"_id": query, "text": text} for query, text in queries.items()],
        "corpus": [{"_id": document, "text": f"{title} {text}".strip()} for document, title, text in corpus],
        "qrels": judged,
    }
    for subset, rows in tables.items():
        (folder / subset).mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(rows), folder / subset / f"{name}.parquet")


def write_readme(folder: Path, names: Sequence[str]) -> None:
    """What tells `datasets` the subsets and splits, as on the hub."""
    configs = [
        {"config_name": subset, "data_files": [{"split": name, "path": f"{subset}/{name}.parquet"} for name in names]}
        for subset in ("queries", "corpus", "qrels")
    ]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")


def test_nano_beir_is_scored_as_sentence_transformers_scores_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    names = ["NanoMSMARCO", "NanoNQ"]
    for seed, name in enumerate(names):
        write_nano(tmp_path / "nano", name, seed)
    write_readme(tmp_path / "nano", names)
    nano = ["evaluation=beir_nano", f"evaluation.path={tmp_path / 'nano'}", "evaluation.max_length=64"]
    (row,) = otfkd.evaluate(str(model), *nano, "evaluation.tasks=[NanoMSMARCO,NanoNQ]")
    evaluator = NanoBEIREvaluator(
        ["msmarco", "nq"], dataset_id=str(tmp_path / "nano"), precision_recall_at_k=[100], write_csv=False
    )
    theirs = evaluator(SentenceTransformer(str(model), device="cpu"))
    for name in names:
        for measure in ("ndcg@10", "mrr@10", "recall@100"):
            assert row.scores[name][measure] == pytest.approx(100 * theirs[f"{name}_cosine_{measure}"], abs=0.01)
    assert row.average == pytest.approx(100 * theirs["NanoBEIR_mean_cosine_ndcg@10"], abs=0.01)
    assert (row.suite, row.split) == ("beir_nano", "test")
    with pytest.raises(UserError, match="names NanoNope, which NanoBEIR has not"):
        otfkd.evaluate(str(model), *nano, "evaluation.tasks=[NanoNope]")
    with pytest.raises(UserError, match=r"corpus NanoNQ cannot be had|queries NanoFEVER cannot be had"):
        otfkd.evaluate(str(model), *nano, "evaluation.tasks=[NanoFEVER]")
