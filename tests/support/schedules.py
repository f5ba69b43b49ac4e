"""Schedules for tests, from values of any type."""

from typing import Any

from otfkd.config.sections import Schedule


def make_schedule(trigger: str = "never", **changes: Any) -> Schedule:
    """A validated schedule."""
    return Schedule.model_validate({"trigger": trigger, **changes})
