"""What is done with a model from Python: load it, score it."""

from otfkd.config.composition import load_evaluate_config
from otfkd.config.messages import quoted
from otfkd.config.sections import Pooler
from otfkd.evaluation.scoring import announce_override, score_model
from otfkd.evaluation.sentences import SentenceEncoder
from otfkd.models.registry import find_model, load_encoder
from otfkd.models.saved import saved_length
from otfkd.runs.rows import Row


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
