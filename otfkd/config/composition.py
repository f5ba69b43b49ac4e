"""From a command line to a config: Hydra's groups, found wherever otfkd is installed, and overrides checked first."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from otfkd.base.errors import UserError, first_line
from otfkd.config.messages import all_keys, quoted, to_paste, unknown_key
from otfkd.config.schema import Config, EvaluateConfig, Root

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# Groups whose value may also be a folder or a hub id: `model=FOLDER` means `model=custom model.path=FOLDER`.
OPEN_GROUPS = ("model", "teacher")
# What the choices of a group begin with: all its keys in one place, and no choice itself.
_BASE = "base"


@functools.cache
def conf_dir() -> Path:
    """The Hydra groups: inside an installed package, or beside it in a checkout."""
    return _shipped("conf")


@functools.cache
def tables_dir() -> Path:
    """The table definitions: inside an installed package, or in experiments/ of a checkout."""
    return _shipped("experiments/tables")


def _shipped(folder: str) -> Path:
    package = Path(__file__).parents[1]
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def options(group: str) -> list[str]:
    """The named choices of a config group."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml") if path.stem != _BASE)


def groups() -> list[str]:
    """The config groups."""
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir())


def prepare_overrides(overrides: Sequence[str], schema: type[Root]) -> list[str]:
    """Check overrides against the schema and expand `model=FOLDER`, before Hydra sees them.

    Raises:
        UserError: an override that does not parse, an unknown key (with or without '+') or choice of a group.
    """
    valid = [*all_keys(schema), *groups()]
    expanded: list[str] = []
    for given in overrides:
        text = _from_home(given)
        override = _parsed(text)
        key, value = override.key_or_group, override.value()
        if key.split(".")[0].split("/")[0] == "hydra":
            expanded.append(text)
        elif key not in valid:
            raise unknown_key(key, valid, text)
        elif key in groups() and value is None and key != "profile":
            raise UserError(f"{key} needs a choice: take one of {', '.join(options(key))}")
        elif key == "teacher" and isinstance(value, list):
            paths = ",".join(quoted(str(path)) for path in value)
            expanded += ["teacher=custom", f"teacher.path=[{paths}]"]
        elif key in groups() and isinstance(value, str) and value not in options(key):
            if key not in OPEN_GROUPS:
                raise UserError(f"{key}={value} is not a choice: take one of {', '.join(options(key))}")
            expanded += [f"{key}=custom", f"{key}.path={quoted(value)}"]
        else:
            expanded.append(text)
    return expanded


def _parsed(text: str) -> "Override":
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        if "=" not in text:
            raise UserError(f"'{text}' is not an override: write KEY=VALUE") from None
        raise UserError(
            f"'{text}' is not an override: quote its special characters for Hydra and for the shell, as in "
            f"{to_paste(text)}"
        ) from None


def _from_home(given: str) -> str:
    """An override with a path from the home folder, which Hydra's grammar has no place for, quoted."""
    key, _, value = given.partition("=")
    return f"{key}={quoted(value)}" if value.startswith("~") else given


def check_single(overrides: Sequence[str]) -> None:
    """Without a sweep a comma has no meaning.

    Raises:
        UserError: an override has several values.
    """
    for text in overrides:
        if _parsed(text).is_sweep_override():
            raise UserError(f"'{text}' has several values: add -m for a sweep; as one it is {to_paste(text)}")


def compose(overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    """What Hydra composes for these overrides, outside a command.

    Raises:
        UserError: Hydra cannot compose them.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra_compose(config_name, list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"the config cannot be composed: {first_line(error)}") from None


def load_config(overrides: Sequence[str]) -> Config:
    """A validated training config from command-line style overrides.

    Args:
        overrides: as `otfkd-train` takes them.

    Raises:
        UserError: an override that cannot be used, in one sentence.

    Example::

        >>> import otfkd
        >>> config = otfkd.load_config(["experiment=otfkd", "schedule.every=50", "trainer.max_steps=500"])
        >>> config.schedule.trigger, config.schedule.every, config.teacher.warmup_steps
        ('every', 50, 50)
    """
    return Config.from_hydra(compose(prepare_overrides(overrides, Config)))


def load_evaluate_config(overrides: Sequence[str]) -> EvaluateConfig:
    """A validated config of one model to be scored, from overrides as `otfkd-eval` takes them.

    Raises:
        UserError: an override that cannot be used, in one sentence.
    """
    return EvaluateConfig.from_hydra(compose(prepare_overrides(overrides, EvaluateConfig), "evaluate"))
