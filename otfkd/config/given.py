"""What a user gives is used or refused: an override that changes nothing that is read is found here."""

from collections.abc import Callable, Iterator, Sequence

from pydantic import BaseModel

from otfkd.base.errors import UserError
from otfkd.config.groups import options
from otfkd.config.messages import all_keys, shown
from otfkd.config.schema import Root
from otfkd.config.uses import Needs, value_of

# The key of a section that says which choice of its group was made, where values and choices have the same names.
_CHOSEN_BY = {
    "data.source": "data", "teacher.source": "teacher", "schedule.trigger": "schedule",
    "evaluation.suite": "evaluation", "logger.name": "logger",
}  # fmt: skip
_GROUP_KEYS = {group: key for key, group in _CHOSEN_BY.items()}


def useless(config: Root, overrides: Sequence[str], without: Callable[[list[str]], Root]) -> dict[str, str]:
    """The overrides that change nothing that is read, each with the sentence that refuses it.

    An override is harmless if the config is the same without it, and used if it changes another key that is read, as
    an interpolation may.

    Args:
        config: what all overrides together compose.
        overrides: those that a user gave.
        without: the config of fewer overrides; a UserError says that there is none.
    """
    found = {}
    for text in dict.fromkeys(overrides):
        leaves = _leaves(config, text)
        needs = [unmet(config, leaf) for leaf in leaves]
        if leaves and all(needs) and not _counts(config, _without(overrides, leaves, config), without):
            assert needs[0] is not None
            found[text] = _refusal(config, text, needs[0])
    return found


def _without(overrides: Sequence[str], leaves: Sequence[str], config: Root) -> list[str]:
    """The overrides of other keys: of one key the last counts, whatever was given before."""
    return [one for one in overrides if not set(leaves) & set(_leaves(config, one))]


def unmet(config: Root, key: str) -> Needs | None:
    """What a key lacks to be read; None where it is read."""
    return next((need for need in config.uses.get(key, ()) if not need.holds(config)), None)


def _leaves(config: Root, text: str) -> list[str]:
    """The keys that an override gives a value; of a group, the one that says what was chosen."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(text)
    if override.is_delete():
        return []
    key = _GROUP_KEYS.get(override.key_or_group, override.key_or_group)
    value = override.value()
    given = [f"{key}.{name}" for name in value] if isinstance(value, dict) else [key]
    return [leaf for leaf in given if leaf in all_keys(type(config))]


def _counts(config: Root, rest: list[str], without: Callable[[list[str]], Root]) -> bool:
    """Whether the config would be another one with the rest of the overrides only, or the same to the last key."""
    try:
        other = without(rest)
    except UserError:
        return True
    changed = [key for key in _flat(config) if value_of(config, key) != value_of(other, key)]
    return not changed or any(unmet(config, key) is None for key in changed)


def _flat(config: Root) -> Iterator[str]:
    return (key for key in all_keys(type(config)) if not isinstance(value_of(config, key), BaseModel))


def _refusal(config: Root, text: str, need: Needs) -> str:
    group, _, choice = text.lstrip("+").partition("=")
    given = f"{group}={value_of(config, f'{group}.path')}" if choice == "custom" else text.lstrip("+")
    if not need.blame:
        return f"{given} is read by {need.take} alone: leave it out"
    blame, take = need.told(config)
    return f"{given} is not read with {_shown(config, blame)}: leave it out, or take {take}"


def _shown(config: Root, key: str) -> str:
    """A key with its value as a user gives it, by a choice of its group where that has the value's name."""
    value = value_of(config, key)
    if key in _CHOSEN_BY and value in options(_CHOSEN_BY[key]):
        return f"{_CHOSEN_BY[key]}={value}"
    return f"{key}={shown(value)}"
