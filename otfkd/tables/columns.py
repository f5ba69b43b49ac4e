"""What a table shows of a run: the scores of one seed, by column."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

from otfkd.base.errors import UserError
from otfkd.evaluation.transfer import PROTOCOLS
from otfkd.runs.rows import Cost, Row

AVERAGE = "average"
COSTS = ("minutes", "minutes with teacher", "k forwards", "k forwards with teacher", "GiB", "minutes to teacher's dev")


def score_columns(row: Row, kind: Literal["sts", "transfer"]) -> dict[str, float | None]:
    """A run's scores, task by task, then their average where there are several; None where one is undefined.

    Raises:
        UserError: a row of other tasks, or of a protocol no final table may show.
    """
    metric = {"sts": "all", "transfer": "accuracy"}[kind]
    if any(metric not in scores for scores in row.scores.values()):
        raise UserError(
            f"a table of {kind} scores was given a row of {row.name} with other tasks ({', '.join(row.scores)}): "
            "drop it"
        )
    if row.protocol.startswith(PROTOCOLS["fast"].description):
        raise UserError(f"the row of {row.name} was scored by the fast protocol, for prototypes: score it with full")
    tasks = {task: scores[metric] for task, scores in row.scores.items()}
    return {**tasks, AVERAGE: row.average} if len(tasks) > 1 else tasks


def average_of_scores(row: Row) -> float | None:
    """The mean of a row's own scores, each rounded first as in scoring; None where one is undefined.

    What no table shows is left as it is.
    """
    for metric in ("all", "accuracy"):
        if all(metric in scores for scores in row.scores.values()):
            found = [scores[metric] for scores in row.scores.values()]
            known = [round(score, 2) for score in found if score is not None]
            return fmean(known) if len(known) == len(found) else None
    return row.average


def known_cost(row: Row) -> Cost:
    """What a run cost.

    Raises:
        UserError: its row does not say.
    """
    if row.cost is None:
        raise UserError(f"a row of {row.name} does not say what its training cost: train it again")
    return row.cost


def total_forwards(row: Row, earlier: Sequence[Row]) -> int:
    """Encoder passes of a run and of those it started from.

    Raises:
        UserError: a row that does not say what it cost.
    """
    return sum(known_cost(one).forwards for one in (row, *earlier))


def cost_columns(row: Row, earlier: Sequence[Row], target: float | None) -> Mapping[str, float | None]:
    """What a run cost, the training of what it started from counted too.

    Args:
        row: of the run.
        earlier: of the runs that trained its initial teacher and its student, and what these started from.
        target: the dev score to reach, the initial teacher's; None where nothing is to be reached.

    Raises:
        UserError: a row that does not say what it cost.
    """
    own, before = known_cost(row), sum(known_cost(one).seconds for one in earlier)
    reached = [point.seconds for point in own.curve if target is not None and point.dev >= target]
    return {
        COSTS[0]: own.seconds / 60,
        COSTS[1]: (own.seconds + before) / 60,
        COSTS[2]: own.forwards / 1000,
        COSTS[3]: total_forwards(row, earlier) / 1000,
        COSTS[4]: None if own.peak_bytes is None else own.peak_bytes / 2**30,
        COSTS[5]: (min(reached) + before) / 60 if reached else None,
    }
