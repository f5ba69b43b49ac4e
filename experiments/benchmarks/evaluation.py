"""Scoring STS tasks: ours, in float32 and with a bf16 encoder, and the peer's evaluator."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

from experiments.benchmarks.common import Row, ratio
from otfkd.config.composition import compose
from otfkd.config.identity import has_bfloat16
from otfkd.config.schema import EvaluateConfig
from otfkd.config.sections import Compute
from otfkd.data.sts import Task, load_suite
from otfkd.evaluation.sts import evaluate
from otfkd.models.registry import find_model, load_encoder


def measure() -> list[Row]:
    """Seconds for all tasks, and how far scores are apart."""
    suite = "sts" if os.environ.get("OTFKD_DATA") else "mini"
    config = EvaluateConfig.from_hydra(compose([f"evaluation={suite}", "model=minilm"], "evaluate"))
    tasks = load_suite(config.evaluation, config.paths.data_root, Path(config.paths.cache)).test
    batch, length = config.evaluation.batch_size, config.evaluation.max_length
    encoder = load_encoder(find_model("minilm"), "mean")
    model = SentenceTransformer(str(find_model("minilm")), device="cpu", local_files_only=True)
    model.max_seq_length = length

    def ours(compute: Compute) -> dict[str, float]:
        found = evaluate(encoder, tasks, batch_size=batch, max_length=length, compute=compute)
        return {name: score.all for name, score in found.items() if score.all is not None}

    arms: dict[str, Callable[[], dict[str, float]]] = {
        "peer": lambda: peer(model, tasks, batch),
        "float32": lambda: ours("float32"),
    }
    half = has_bfloat16("cpu")
    if half:
        arms["bf16 encoder"] = lambda: ours("bfloat16")
    seconds: dict[str, float] = {}
    scores: dict[str, dict[str, float]] = {}
    for name, arm in arms.items():
        start = time.perf_counter()
        scores[name] = arm()
        seconds[name] = time.perf_counter() - start
    goals = {"float32": 0.65, "bf16 encoder": 0.30} if half else {"float32": 0.65}
    return [
        *(ratio(f"STS scoring, {name} / peer", seconds[name], seconds["peer"], goal) for name, goal in goals.items()),
        *(
            {"what": f"largest difference of a score, {name} and peer", "ours": apart(scores[name], scores["peer"])}
            for name in goals
        ),
    ]


def peer(model: SentenceTransformer, tasks: Sequence[Task], batch: int) -> dict[str, float]:
    """Spearman x 100 over all pairs of each task, task by task as sentence-transformers' evaluator does it."""
    found = {}
    for task in tasks:
        left, right, gold = zip(*(pair for subset in task.subsets for pair in subset.pairs), strict=True)
        evaluator = EmbeddingSimilarityEvaluator(
            list(left), list(right), list(gold), batch_size=batch, main_similarity="cosine", write_csv=False
        )
        found[task.name] = 100 * float(evaluator(model)["spearman_cosine"])
    return found


def apart(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """The largest difference of any task's score."""
    return max(abs(ours[name] - theirs[name]) for name in theirs)
