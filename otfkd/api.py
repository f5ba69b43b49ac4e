"""The public way to use a model: `otfkd.load(path).encode(sentences)`."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from otfkd.config.schema import Pooler
from otfkd.evaluation.encode import encode
from otfkd.evaluation.scoring import announce_override
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, load_encoder


class SentenceEncoder:
    """A loaded model.

    Args:
        encoder: backbone, tokenizer and pooler.
    """

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        batch_size: int = 64,
        max_length: int = 128,
        normalize: bool = False,
        progress: bool = False,
        device: str | None = None,
    ) -> NDArray[np.float32]:
        """Embed sentences.

        Args:
            sentences: n of them, or one.
            batch_size: sentences a batch; it does not change the result.
            max_length: tokens read of a sentence.
            normalize: scale to unit length.
            progress: show a bar on stderr.
            device: for instance "cuda": move the model there first, to stay; where it is by default.

        Returns:
            (n, d) float32; (d,) for one.

        Raises:
            DivergenceError: an embedding is not finite.
        """
        texts = [sentences] if isinstance(sentences, str) else sentences
        if device is not None:
            self.encoder.to(device)
        with Progress(console=Console(stderr=True), disable=not progress) as bar:
            task = bar.add_task("encoding", total=len(set(texts)))
            vectors = encode(
                self.encoder,
                texts,
                batch_size=batch_size,
                max_length=max_length,
                advance=lambda done: bar.advance(task, done),
            )
        if normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        embeddings: NDArray[np.float32] = vectors.numpy()
        return embeddings[0] if isinstance(sentences, str) else embeddings


def load(path_or_id: str, *, pooler: Pooler | None = None, device: str | None = None) -> SentenceEncoder:
    """Load a run's folder, a model's folder, a hub id or the embedded `minilm`.

    Args:
        path_or_id: the model.
        pooler: instead of the one saved with it, which a warning then names.
        device: for instance "cuda"; the CPU by default.

    Raises:
        UserError: there is no such model, it says nothing of its pooler, or the pooler has no trained weights.
    """
    folder = find_model(path_or_id)
    announce_override(folder, pooler)
    encoder = load_encoder(folder, pooler)
    return SentenceEncoder(encoder if device is None else encoder.to(device))
