"""Writes the table of docs/encoders.md, which architectures work and how: `python docs/encoders.py`."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from otfkd.data.collate import pad
from otfkd.data.tokens import tokenize
from otfkd.evaluation.encode import encode
from otfkd.models.dropout_rates import told_rates
from otfkd.models.encoder import Encoder, training
from otfkd.models.export import save_encoder
from otfkd.models.packing import packs
from otfkd.models.registry import load_encoder

PAGE = Path(__file__).with_suffix(".md")
sys.path.append(str(PAGE.parent.parent))
from tests.support.texts import make_corpus  # noqa: E402
from tests.support.zoo import ZOO, make_zoo_model  # noqa: E402

LENGTH, SENTENCES = 16, 60
HEADER = "| architecture | views | views at 0.1 | dropout at 0.1 | padding | export |"


@dataclass(frozen=True)
class Row:
    """What was measured of one architecture.

    Attributes:
        usual: cosine of two views with transformers' default dropout; None where they are identical.
        dropped: the same with `model.dropout=0.1`.
        rates: what that sets.
        packed: whether batches are computed without padding.
        apart: the largest difference of a number between sentence-transformers and otfkd.
    """

    usual: float | None
    dropped: float | None
    rates: str
    packed: bool
    apart: float


def measure(kind: str, folder: Path) -> Row:
    """Measure an architecture in an empty folder."""
    model, pooler = make_zoo_model(folder / "model", kind), ZOO[kind].pooler
    sentences = make_corpus(folder / "sentences.txt", SENTENCES).read_text().splitlines()
    usual = load_encoder(model, pooler)
    dropped = load_encoder(model, pooler, rates=(0.1, None))
    save_encoder(dropped, folder / "saved", LENGTH)
    saved = SentenceTransformer(str(folder / "saved"), device="cpu")
    expected = encode(dropped, sentences, batch_size=SENTENCES, max_length=LENGTH).numpy()
    apart = max(np.abs(saved.encode(sentences, batch_size=size) - expected).max() for size in (SENTENCES, 1))
    cosines = [_views(encoder, sentences) for encoder in (usual, dropped)]
    return Row(*cosines, told_rates(dropped.backbone), packs(dropped.backbone), float(apart))


def _views(encoder: Encoder, sentences: list[str]) -> float | None:
    tokens = pad(tokenize(encoder.tokenizer, sentences, LENGTH), encoder.pad_id)
    torch.manual_seed(0)
    with training(encoder), torch.no_grad():
        one, other = encoder(tokens), encoder(tokens)
    return None if torch.equal(one, other) else float(torch.cosine_similarity(one, other).mean())


def table() -> str:
    """The table in Markdown."""
    lines = [HEADER, "|---|--:|--:|---|---|--:|"]
    for kind, architecture in ZOO.items():
        with tempfile.TemporaryDirectory() as folder:
            row = measure(kind, Path(folder))
        cells = (
            f"{architecture.name} (`{kind}`)", *map(_cosine, (row.usual, row.dropped)), row.rates,
            "packed" if row.packed else "padded", _bound(row.apart),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def printed(text: str) -> str:
    """The table as a page has it."""
    start = text.index(HEADER)
    return text[start : text.index("\n\n", start)]


def _cosine(value: float | None) -> str:
    return "identical" if value is None else f"{value:.2f}"


def _bound(apart: float) -> str:
    """A power of ten that a difference is below: its digits are rounding's."""
    return f"< {next(f'1e-{places}' for places in (5, 4, 3, 2, 1, 0) if apart < 10.0**-places)}"


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(before.replace(printed(before), table()), encoding="utf-8")
