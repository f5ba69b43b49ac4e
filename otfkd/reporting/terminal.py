"""Scores as text for a terminal or a log."""

from collections.abc import Sequence

from otfkd.results import Row

_AGGREGATIONS = {"all": "all pairs", "mean": "mean of subsets", "wmean": "weighted mean"}


def scores(rows: Sequence[Row]) -> str:
    """One block a row: where the model comes from, then its tasks under each aggregation, 'all' being the headline."""
    return "\n\n".join(_block(row) for row in rows)


def _block(row: Row) -> str:
    where = f"{row.name}, {row.checkpoint} checkpoint" if row.seed is not None else row.name
    at = f", step {row.step}, teacher generation {row.generation}" if row.step is not None else ""
    title = f"{row.split}: {where}{at}, pooler {row.pooler}, weights {row.weights_sha256[:8]} ({row.protocol})"
    tasks = list(row.scores)
    width = max(7, *(len(task) for task in tasks))
    lines = [" " * 16 + "".join(f"{task:>{width + 2}}" for task in tasks)]
    for key, label in _AGGREGATIONS.items():
        lines.append(f"{label:<16}" + "".join(f"{row.scores[task][key]:>{width + 2}.2f}" for task in tasks))
    lines.append(f"{'pairs':<16}" + "".join(f"{row.scores[task]['pairs']:>{width + 2}.0f}" for task in tasks))
    if len(tasks) > 1:
        lines.append(f"average of 'all': {row.average:.2f}")
    return "\n".join([title, *lines])
