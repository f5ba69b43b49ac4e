"""Who teaches after a rotation and with what share: the slot's places."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from otfkd.config.sections import Schedule
from otfkd.distill.snapshots import Snapshot, SnapshotCache
from otfkd.distill.teacher import TeacherSlot


class Pool:
    """Puts snapshots into the slot's places and knows who sits where.

    Args:
        schedule: who stays beside a new snapshot, and how their similarities are put together.

    Attributes:
        places: a snapshot each, or None for a member of the initial teacher.
        initial: the shares of the initial teacher's members among themselves; beside snapshots they count as one.
        initial_devs: their dev scores, where the schedule asks for them.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.places: list[Snapshot | None] = []
        self.initial: list[float] = []
        self.initial_devs: list[float] = []

    def begin(self, slot: TeacherSlot, evaluate: Callable[[Any], float]) -> None:
        """Take over the initial teacher."""
        self.places, self.initial = [None] * len(slot.members), list(slot.weights)
        if self.schedule.gate is not None or self.schedule.aggregate == "dev_weighted":
            self.initial_devs = [evaluate(member) for member in slot.members]
        slot.weights = self.shares()

    def add(self, slot: TeacherSlot, student: nn.Module, snapshot: Snapshot, cache: SnapshotCache) -> None:
        """Give a snapshot its place in the slot."""
        place, count = self.next_place()
        slot.put(place, student, cache.weights(snapshot))
        slot.keep(count)
        self.places = [*self.places[:place], snapshot, *self.places[place + 1 :]][:count]
        slot.weights = self.shares()

    def restore(self, slot: TeacherSlot, student: nn.Module, cache: SnapshotCache) -> None:
        """Put the snapshots back into a slot that holds the initial teacher again."""
        self.initial = list(slot.weights)
        for place, snapshot in enumerate(self.places):
            if snapshot is not None:
                slot.put(place, student, cache.load(snapshot))
        slot.keep(len(self.places))
        slot.weights = self.shares()

    def next_place(self) -> tuple[int, int]:
        """Where the next snapshot goes, and how many places the slot then has."""
        if self.schedule.retain == "replace":
            return 0, 1
        kept = self._initial_places if self.schedule.retain == "pool_initial" else 0
        pooled = [place for place in self.places[kept:] if place is not None]
        if len(pooled) < self.schedule.pool_size:
            return kept + len(pooled), kept + len(pooled) + 1
        oldest = min(pooled, key=lambda snapshot: snapshot.step)
        return self.places.index(oldest), len(self.places)

    @property
    def _initial_places(self) -> int:
        # Where the slot began empty, the first snapshot is the initial teacher.
        return self.places.count(None) or min(1, len(self.places))

    def shares(self) -> list[float]:
        """Each place's share in the target, adding up to 1."""
        snapshots = [place for place in self.places if place is not None]
        if self.schedule.aggregate != "dev_weighted":
            parts = [1.0] * len(snapshots)
            initial = self.initial
        else:
            devs = [snapshot.dev for snapshot in snapshots if snapshot.dev is not None]
            assert len(devs) == len(snapshots)  # such a schedule's rotations are evaluation steps
            top = max([*devs, *self.initial_devs], default=0.0)
            parts = [math.exp(dev - top) for dev in devs]
            initial = [share * math.exp(dev - top) for share, dev in zip(self.initial, self.initial_devs, strict=True)]
        kept = initial if None in self.places else []
        return _scaled([*kept, *parts])

    @property
    def dev(self) -> float | None:
        """The dev score of the best member; None while the slot is empty."""
        devs = [place.dev for place in self.places if place is not None and place.dev is not None]
        return max([*devs, *(self.initial_devs if None in self.places else [])], default=None)

    @property
    def names(self) -> set[str]:
        return {place.id for place in self.places if place is not None}

    def state_dict(self) -> dict[str, Any]:
        return {"places": [place and place.as_dict() for place in self.places], "initial_devs": self.initial_devs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.places = [place and Snapshot.from_dict(place) for place in state["places"]]
        self.initial_devs = state["initial_devs"]


def _scaled(parts: Sequence[float]) -> list[float]:
    return [part / sum(parts) for part in parts]
