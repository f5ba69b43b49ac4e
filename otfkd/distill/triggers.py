"""What dev scores have said so far, for the triggers that listen to them."""

import math
from typing import Any

from otfkd.config.sections import Schedule


class DevWatch:
    """Follows the student's dev score.

    Args:
        schedule: the trigger, and how patient it is.

    Attributes:
        latest: the newest score; None before the first.
        best: the run's.
        improved: whether the newest is the run's best.
        best_since: the best since the last rotation.
        stale: evaluations in a row without a better one than that.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.latest: float | None = None
        self.best = -math.inf
        self.improved = False
        self.best_since = -math.inf
        self.stale = 0

    def see(self, dev: float) -> None:
        """Take in a new score."""
        self.latest = dev
        self.improved = dev > self.best
        self.best = max(self.best, dev)
        self.stale = 0 if dev > self.best_since else self.stale + 1
        self.best_since = max(self.best_since, dev)

    def rotated(self) -> None:
        """Begin to count anew."""
        self.best_since, self.stale = -math.inf, 0

    @property
    def fires(self) -> bool:
        """Whether the newest score lets a rotation happen; triggers that go by the step alone always do."""
        match self.schedule.trigger:
            case "on_improvement":
                return self.improved
            case "plateau":
                return self.stale >= (self.schedule.patience or 1)
            case _:
                return True

    def state_dict(self) -> dict[str, Any]:
        return {"latest": self.latest, "best": self.best, "best_since": self.best_since, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.latest, self.best = state["latest"], state["best"]
        self.best_since, self.stale = state["best_since"], state["stale"]
