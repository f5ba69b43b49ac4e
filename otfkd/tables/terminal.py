"""Scores as text for a terminal or a log."""

from collections.abc import Sequence

from otfkd.runs.rows import Row
from otfkd.tables.table import MISSING

# What a line of scores is called and how many decimals it has; the first that a row has is its headline.
_LINES = {
    "all": ("all pairs", 2),
    "mean": ("mean of subsets", 2),
    "wmean": ("weighted mean", 2),
    "pearson": ("Pearson", 2),
    "spearman": ("Spearman", 2),
    "mse": ("squared error", 3),
    "dev_pearson": ("Pearson on dev", 2),
    "accuracy": ("accuracy", 2),
    "f1": ("F1", 2),
    "dev_accuracy": ("accuracy on dev", 2),
    "ndcg@10": ("nDCG@10", 2),
    "mrr@10": ("MRR@10", 2),
    "recall@100": ("Recall@100", 2),
    "main": ("main score", 2),
    "queries": ("queries", 0),
    "documents": ("documents", 0),
    "pairs": ("pairs", 0),
    "n": ("test examples", 0),
    "blank": ("blank sentences", 0),
}


def scores(rows: Sequence[Row]) -> str:
    """One block a row: where the model comes from, then its tasks, a line a measure."""
    return "\n\n".join(_block(row) for row in rows)


def _block(row: Row) -> str:
    measured = [key for key in _LINES if any(key in scores for scores in row.scores.values())]
    lines = [_title(row), *_grid(row, measured)]
    if len(row.scores) > 1:
        undefined = [task for task, scores in row.scores.items() if scores.get(measured[0], 0.0) is None]
        told = f"undefined, as {', '.join(undefined)}" if row.average is None else f"{row.average:.2f}"
        lines.append(f"average of '{measured[0]}': {told}")
    if row.geometry is not None:
        lines.append(_geometry(row.geometry))
    return "\n".join(lines)


def _title(row: Row) -> str:
    where = f"{row.name}, {row.checkpoint} checkpoint" if row.seed is not None else row.name
    at = f", step {row.step}, teacher generation {row.generation}" if row.step is not None else ""
    tuned = row.fine_tuned
    of = f", fine-tuned from {tuned.model} on {tuned.data} ({tuned.data_sha256[:8]})" if tuned is not None else ""
    return f"{row.split}: {where}{at}{of}, pooler {row.pooler}, weights {row.weights_sha256[:8]} ({row.protocol})"


def _grid(row: Row, measured: Sequence[str]) -> list[str]:
    """The tasks beside each other, a line a measure."""
    width = 2 + max(7, *(len(task) for task in row.scores))
    lines = [" " * 16 + "".join(f"{task:>{width}}" for task in row.scores)]
    for key in measured:
        label, decimals = _LINES[key]
        found = [scores.get(key) for scores in row.scores.values()]
        cells = [MISSING if score is None else f"{score:.{decimals}f}" for score in found]
        lines.append(f"{label:<16}" + "".join(f"{cell:>{width}}" for cell in cells))
    return lines


def _geometry(found: dict[str, float]) -> str:
    return (
        f"geometry of {found['sentences']:.0f} sentences, {found['positives']:.0f} pairs above 4: "
        f"alignment {found['alignment']:.4f}, uniformity {found['uniformity']:.4f}, "
        f"anisotropy {found['anisotropy']:.4f}, effective rank {found['effective_rank']:.1f}"
    )
