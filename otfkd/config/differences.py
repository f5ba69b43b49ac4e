"""What a config says otherwise than its experiment, by the dotted keys of a command."""

import functools
import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

from omegaconf import OmegaConf

from otfkd.config.composition import compose
from otfkd.config.groups import options
from otfkd.config.messages import all_keys
from otfkd.config.schema import Config, first_rotation
from otfkd.config.stored import StoredConfig

UNKNOWN: Final = "unknown"

# Which run it is, or where and how it ran.
_NOT_METHOD = re.compile(
    r"name|seed|dry_run|fresh|resume|(paths|logger)\..*|trainer\.(on_nonfinite|fast_dev_run|devices|nodes|threads)"
)
_ANOTHER_KEY = re.compile(r"\$\{([\w.]+)\}")


def flat(settings: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """A nested config by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return found


def method_settings(config: StoredConfig | Config) -> dict[str, Any]:
    """What a run computes but for its seed, by dotted key; a section that cannot be read is `unknown`."""
    stored = StoredConfig.model_validate(config.model_dump(mode="json")) if isinstance(config, Config) else config
    dumped = flat(stored.model_dump(mode="json"))
    sections = StoredConfig.model_fields.keys()
    return {
        key: UNKNOWN if value is None and key in sections else value
        for key, value in dumped.items()
        if not _NOT_METHOD.fullmatch(key)
    }


def differences(config: StoredConfig | Config) -> dict[str, Any] | None:
    """The settings that are not the experiment's defaults, by dotted key; None where no experiment has its name.

    A default that is another key's value is that of the run, so that what only follows is no difference.
    """
    defaults = _defaults(config.name) if config.name is not None else None
    if defaults is None:
        return None
    given = method_settings(config)

    def default(key: str) -> Any:
        value = defaults.get(key)
        if key == "teacher.warmup_steps" and value is None and given.get(key) is not None:
            schedule = {
                name.removeprefix("schedule."): of for name, of in given.items() if name.startswith("schedule.")
            }
            if not schedule:
                return UNKNOWN
            return first_rotation(schedule, {"every": given.get("evaluation.every")})
        other = _ANOTHER_KEY.fullmatch(value) if isinstance(value, str) else None
        return value if other is None else given.get(other[1], UNKNOWN)

    return {key: value for key, value in given.items() if default(key) not in (value, UNKNOWN)}


@functools.cache
def _defaults(experiment: str) -> dict[str, Any] | None:
    if experiment not in options("experiment"):
        return None
    composed: Any = OmegaConf.to_container(compose([f"experiment={experiment}"]))
    return flat(composed)


def in_short(settings: Mapping[str, Any]) -> str:
    """Settings as `key=value`, paths by their last parts."""
    return " ".join(f"{key}={_short_value(value)}" for key, value in settings.items())


@functools.cache
def setting_keys() -> tuple[str, ...]:
    """Every dotted key that a stored config has."""
    keys = [key for key in all_keys(Config) if key.split(".")[0] in StoredConfig.model_fields]
    return tuple(key for key in keys if not any(other.startswith(f"{key}.") for other in keys))


def _short_value(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, separators=(",", ":"))
    path = PurePath(value)
    return "/".join(path.parts[-3:]) if path.is_absolute() else value
