"""What is done with a model from Python: load it, embed sentences, score it."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from otfkd.base.errors import UserError
from otfkd.config.composition import load_evaluate_config
from otfkd.config.messages import quoted
from otfkd.config.sections import Pooler
from otfkd.evaluation.encode import encode
from otfkd.evaluation.scoring import announce_override, score_model
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, load_encoder
from otfkd.models.saved import saved_length
from otfkd.runs.rows import Row


class SentenceEncoder:
    """A loaded model.

    Args:
        encoder: backbone, tokenizer and pooler.
        length: tokens read of a sentence unless another number is asked for; as many as the model can by default.

    Example::

        >>> import otfkd
        >>> model = otfkd.load("minilm", pooler="mean")
        >>> isinstance(model, otfkd.SentenceEncoder), model.encode("A dog chases a ball.").shape
        (True, (384,))
    """

    def __init__(self, encoder: Encoder, length: int | None = None):
        self.encoder = encoder
        self.length = encoder.reading_length(length)

    def encode(
        self,
        sentences: str | Iterable[str],
        *,
        batch_size: int = 64,
        max_length: int | None = None,
        normalize: bool = False,
        progress: bool = False,
        device: str | None = None,
    ) -> NDArray[np.float32]:
        """Embed sentences.

        Args:
            sentences: n of them, in whatever can be iterated over, or one.
            batch_size: sentences a batch; it does not change the result.
            max_length: tokens read of a sentence; by default as many as are saved with the model (`max_seq_length`),
                or else as its tokenizer says, and never more than the model has positions for.
            normalize: scale to unit length.
            progress: show a bar on stderr.
            device: for instance "cuda": move the model there first, to stay; where it is by default.

        Returns:
            (n, d) float32; (d,) for one.

        Raises:
            DivergenceError: an embedding is not finite.
            UserError: what is given is no text.

        Example::

            >>> import otfkd
            >>> model = otfkd.load("minilm", pooler="mean")
            >>> guitar, market = model.encode(["A man plays the guitar.", "The market fell."], normalize=True)
            >>> music = model.encode("Somebody makes music.", normalize=True)
            >>> bool(guitar @ music > market @ music)
            True
        """
        texts = [sentences] if isinstance(sentences, str) else _checked(sentences)
        if device is not None:
            self.encoder.to(device)
        with Progress(console=Console(stderr=True), disable=not progress) as bar:
            task = bar.add_task("encoding", total=len(set(texts)))
            vectors = encode(
                self.encoder,
                texts,
                batch_size=batch_size,
                max_length=self.length if max_length is None else max_length,
                advance=lambda done: bar.advance(task, done),
            )
        if normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        embeddings: NDArray[np.float32] = vectors.numpy()
        return embeddings[0] if isinstance(sentences, str) else embeddings


def _checked(sentences: Iterable[str]) -> list[str]:
    """All sentences; what is asked for more than once must not be used up by the first."""
    try:
        given = iter(sentences)
    except TypeError:
        raise UserError(
            f"sentences is {sentences!r:.60}, not a string or an iterable of strings: give text, or leave it out"
        ) from None
    texts = list(given)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"sentences[{place}] is {text!r:.60}, not a string: give text, or leave it out")
    return texts


def evaluate(model: str, *overrides: str) -> list[Row]:
    """Score a model on a suite, as `otfkd-eval` does.

    Args:
        model: a run's folder, a model's folder, a hub id or the embedded `minilm`.
        overrides: further keys in command-line style: `evaluation=sts`, `model.pooler=mean`.

    Returns:
        A row for each split.

    Raises:
        UserError: a key, the model or the data cannot be used, or the model's embeddings have no score.

    Example::

        >>> import otfkd
        >>> dev, test = otfkd.evaluate("minilm", "model.pooler=mean", "evaluation=mini")
        >>> dev.split, test.split, test.average > 80
        ('dev', 'test', True)
    """
    return score_model(load_evaluate_config([f"model={quoted(model)}", *overrides]))


def load(path_or_id: str, *, pooler: Pooler | None = None, device: str | None = None) -> SentenceEncoder:
    """Load a run's folder, a model's folder, a hub id or the embedded `minilm`.

    Args:
        path_or_id: the model.
        pooler: instead of the one saved with it, which a warning then names.
        device: for instance "cuda"; the CPU by default.

    Raises:
        UserError: there is no such model, it says nothing of its pooler, or the pooler has no trained weights.

    Example::

        >>> import otfkd
        >>> otfkd.load("minilm", pooler="mean").encode(["A man plays the guitar.", "The market fell."]).shape
        (2, 384)
    """
    folder = find_model(path_or_id)
    announce_override(folder, pooler)
    encoder = load_encoder(folder, pooler)
    return SentenceEncoder(encoder if device is None else encoder.to(device), saved_length(folder))
