"""The field's own benchmark gives an exported model the number that we give it."""

from pathlib import Path

import pytest

from otfkd.config.composition import load_config
from otfkd.data.sts import DevTask, Task, load_suite
from otfkd.evaluation.sts import evaluate
from otfkd.models.registry import load_encoder
from otfkd.reporting.export import export


def mteb_score(folder: Path, task: Task) -> float:
    """What mteb's own STS-B task says of a folder on a task's pairs."""
    mteb = pytest.importorskip("mteb")
    from datasets import Dataset, DatasetDict
    from sentence_transformers import SentenceTransformer

    pairs = [pair for subset in task.subsets for pair in subset.pairs]
    left, right, gold = zip(*pairs, strict=True)
    benchmark = mteb.get_task("STSBenchmark")
    benchmark.dataset = DatasetDict(
        test=Dataset.from_dict({"sentence1": left, "sentence2": right, "score": gold}),
    )
    benchmark.data_loaded = True
    model = SentenceTransformer(str(folder), device="cpu")
    result = mteb.evaluate(model, benchmark, cache=None, co2_tracker=False, encode_kwargs={"batch_size": 64})
    return 100 * float(result.task_results[0].scores["test"][0]["cosine_spearman"])


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(("split", "expected"), [("dev", 86.72), ("test", 82.03)])
def test_sts_b_of_the_embedded_model(real_data: Path, tmp_path: Path, split: str, expected: float) -> None:
    config = load_config(["evaluation=sts", f"paths.data_root={real_data}"]).evaluation
    suite = load_suite(config, str(real_data), tmp_path)
    tasks: list[Task] = [suite.dev, *suite.test]
    task = next(task for task in tasks if "STS-B" in task.name and isinstance(task, DevTask) == (split == "dev"))
    export("minilm", tmp_path / "out")
    ours = evaluate(load_encoder(tmp_path / "out"), (task,), batch_size=64, max_length=256)[task.name].all
    theirs = mteb_score(tmp_path / "out", task)
    assert ours == pytest.approx(expected, abs=0.02)
    assert theirs == pytest.approx(ours, abs=0.01)
