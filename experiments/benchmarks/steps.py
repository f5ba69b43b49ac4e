"""Training steps: ours, the peer's trainer, and what the machine's matrix products allow."""

import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import mean, median
from typing import Any
from unittest import mock

import lightning as L
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import MultipleNegativesRankingLoss
from torch import Tensor
from transformers import TrainerCallback

from experiments.benchmarks.common import Row, corpus, ratio
from otfkd.config.composition import load_config
from otfkd.config.identity import has_bfloat16
from otfkd.data.tokens import tokenize
from otfkd.distill.shuffling import group_p
from otfkd.models.registry import find_model, load_encoder
from otfkd.training import train
from otfkd.training.trainer import make_trainer

BATCH, LENGTH = 64, 32
SHORT, LONG = 14, 130  # steps of a timed run; the long one has a rotation in it
WARM_UP = 3
ROUNDS = 3
EVERY = 125  # steps between rotations


def measure() -> list[Row]:
    """Times of a step in turn, `ROUNDS` times over; medians, and ratios of medians.

    A processor without bf16 matrix units takes a hundred times as long in bf16: there all is measured in float32.
    """
    half = has_bfloat16("cpu")
    arms: dict[str, Callable[[], list[float]]] = {
        "peer, its defaults": lambda: peer(SHORT),
        "SimCSE, float32": lambda: ours(SHORT, "experiment=simcse", "precision=float32"),
    }
    if half:
        arms["peer, bf16"] = lambda: peer(SHORT, bf16=True)
        arms["SimCSE, bf16"] = lambda: ours(SHORT, "experiment=simcse", "precision=bfloat16")
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, arm in arms.items():
            times[name] += arm()[WARM_UP:]
    step = {name: median(values) for name, values in times.items()}
    name, precision = ("SimCSE, bf16", "bfloat16") if half else ("SimCSE, float32", "float32")
    fastest = step[name]
    simcse, rotating = _rotating(f"precision={precision}")
    floor = work_of_a_step() / matrix_rate(torch.bfloat16 if half else torch.float32)
    against_bf16 = [ratio(f"{name} / peer, bf16", fastest, step["peer, bf16"], 0.68)] if half else []
    return [
        *({"what": f"step: {name}", "ours": seconds} for name, seconds in step.items()),
        ratio(f"{name} / peer, its defaults", fastest, step["peer, its defaults"], 0.28),
        *against_bf16,
        ratio(f"on the fly, a rotation every {EVERY} / SimCSE", rotating, simcse, 1.15),
        ratio(f"floor of a step on real tokens / {name}", floor, fastest, 0.45, at_least=True),
        ratio(f"Group-P / {name}", group_p_time(), fastest, 0.02),
    ]  # fmt: skip


def _rotating(precision: str) -> tuple[float, float]:
    """Seconds of a step of SimCSE, and of one on the fly, rotation included: each measured first and last."""
    simcse = ["experiment=simcse"]
    rotating = ["experiment=otfkd", "teacher=minilm", "teacher.pooler=cls", f"schedule.every={EVERY}"]
    means = [mean(ours(LONG, *arm, precision)[WARM_UP:]) for arm in (simcse, rotating, rotating, simcse)]
    return mean(means[::3]), mean(means[1:3])


class _Clock(L.Callback):
    """When each optimizer step was over, whatever other callbacks do after it included."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        if not self.at:
            self.at.append(time.perf_counter())

    def on_train_batch_end(self, *_: Any) -> None:
        self.at.append(time.perf_counter())


def ours(steps: int, *overrides: str) -> list[float]:
    """Seconds of each step of a run of ours, without evaluation."""
    clock, trainer = _Clock(), make_trainer
    timed: dict[str, Any] = {
        "make_trainer": lambda config, callbacks: trainer(config, [*callbacks, clock]),
        "dev_score": lambda *_: 0.0,
        "_test": lambda *_: [],
    }
    common = [
        "model=minilm", "data=text", f"data.path={corpus()}", f"data.batch_size={BATCH}", f"data.max_length={LENGTH}",
        "evaluation.every=null", f"trainer.max_steps={steps}",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, mock.patch.multiple(train, **timed):
        train.train(load_config([*overrides, *common, f"paths.runs={folder}"]))
    return _between(clock.at)


class _PeerClock(TrainerCallback):
    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if not self.at:
            self.at.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.at.append(time.perf_counter())


def peer(steps: int, *, bf16: bool = False) -> list[float]:
    """Seconds of each step of sentence-transformers' trainer: the same model and sentences, each paired with itself."""
    model = SentenceTransformer(str(find_model("minilm")), device="cpu", local_files_only=True)
    model.max_seq_length = LENGTH
    sentences = corpus().read_text().split("\n")[: steps * BATCH]
    clock = _PeerClock()
    with tempfile.TemporaryDirectory() as folder:
        SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                folder, max_steps=steps, per_device_train_batch_size=BATCH, use_cpu=True, bf16=bf16, report_to="none",
                save_strategy="no", logging_strategy="no", disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"anchor": sentences, "positive": sentences}),
            loss=MultipleNegativesRankingLoss(model),
            callbacks=[clock],
        ).train()  # fmt: skip
    return _between(clock.at)


def _between(at: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(at)]


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of a square matrix product, the best of twenty."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / min(_seconds(lambda: left @ right) for _ in range(20))


def work_of_a_step() -> float:
    """FLOP of a SimCSE step on the real tokens of both views: 6 a token for each weight of a layer, and attention's."""
    encoder = load_encoder(find_model("minilm"), "cls")
    sentences = corpus().read_text().split("\n")[: 20 * BATCH]
    lengths = [len(ids) for ids in tokenize(encoder.tokenizer, sentences, LENGTH)]
    layers = encoder.get_submodule("backbone.encoder.layer")
    weights = sum(parameter.numel() for parameter in layers.parameters() if parameter.dim() == 2)
    tokens, pairs = sum(lengths) / 20, sum(length**2 for length in lengths) / 20
    return 2 * (6 * weights * tokens + 12 * int(encoder.backbone.config.num_hidden_layers) * encoder.width * pairs)


def group_p_time() -> float:
    """Seconds of shuffling one batch's similarities."""
    similarities: Tensor = torch.randn(BATCH, BATCH - 1)
    generator = torch.Generator().manual_seed(0)
    return min(_seconds(lambda: group_p(similarities, 0.1, generator, None)) for _ in range(50))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
