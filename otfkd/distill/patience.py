"""When dev scores end a run before its last step."""

import math
from typing import Any


class Patience:
    """Counts dev scores in a row without a new best.

    Args:
        limit: as many end the run; None: none do.

    Attributes:
        best: of those that were counted.
        stale: how many came since.
    """

    def __init__(self, limit: int | None):
        self.limit = limit
        self.begin()

    def begin(self) -> None:
        """Begin to count anew, as the student does: its former scores are no measure of it."""
        self.best, self.stale = -math.inf, 0

    def see(self, dev: float) -> None:
        """Take in a new score."""
        self.stale = 0 if dev > self.best else self.stale + 1
        self.best = max(self.best, dev)

    @property
    def spent(self) -> bool:
        """Whether the run ends here."""
        return self.limit is not None and self.stale >= self.limit

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.stale = state["best"], state["stale"]
