"""Schedules for tests, without Hydra: what conf/schedule/base.yaml says and a few changes."""

from typing import Any, cast

from omegaconf import OmegaConf

from otfkd.config.composition import conf_dir
from otfkd.config.schema import Schedule


def make_schedule(trigger: str = "every", **changes: Any) -> Schedule:
    """A validated schedule."""
    values = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(conf_dir() / "schedule/base.yaml")))
    for name in ("ema", "on_rotation"):
        changes[name] = {**values[name], **changes.get(name, {})}
    return Schedule.model_validate({**values, "trigger": trigger, **changes})
