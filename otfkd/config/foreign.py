"""What other tools call a setting, and what otfkd has for it; foreign.toml has them all."""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """A setting of another tool.

    Attributes:
        name: there; `NAME=VALUE` for one of its values.
        take: what to write here; empty where there is no such thing.
        why: what is different, or why there is none.
    """

    name: str
    take: str = ""
    why: str = ""

    @property
    def answer(self) -> str:
        """What to do, as the end of a sentence."""
        return (f"take {self.take}" if self.take else "leave it out") + (f" ({self.why})" if self.why else "")


@functools.cache
def tools() -> dict[str, tuple[Setting, ...]]:
    """The settings of each tool, by its name."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return {tool["name"]: tuple(Setting(**one) for one in tool["settings"]) for tool in tomllib.loads(text)["tool"]}


@functools.cache
def _by_name() -> dict[str, Setting]:
    return {setting.name: setting for settings in tools().values() for setting in settings}


def find(key: str, value: object = None) -> Setting | None:
    """A setting by a key, dotted or as a flag, or by one of its values."""
    name = key.lstrip("-+~").rpartition(".")[2].replace("-", "_")
    return _by_name().get(f"{name}={value}") or _by_name().get(name)


def answer_to_value(key: str, value: object) -> str | None:
    """What to do where a value is another tool's; None where it is not known."""
    found = _by_name().get(f"{key.rpartition('.')[2]}={value}")
    return None if found is None else found.answer
