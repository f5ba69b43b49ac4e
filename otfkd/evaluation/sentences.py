"""A loaded model that embeds sentences, for Python code and for a user's own evaluators."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from otfkd.base.errors import UserError
from otfkd.evaluation.encode import encode
from otfkd.models.encoder import Encoder


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
