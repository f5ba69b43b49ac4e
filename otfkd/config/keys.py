"""What every key means, may be and is by default, as the schema and the comments of `conf/` have it."""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from otfkd.config.composition import compose, valid_keys
from otfkd.config.groups import conf_dir, groups, options, own_dirs
from otfkd.config.messages import shown, unknown_key
from otfkd.config.schema import Config, Root

_LINE = re.compile(r"( *)(\w+):[^#]*(?:#\s*(.*))?$")


@dataclass(frozen=True)
class Key:
    """A key, or a choice of a group.

    Attributes:
        name: dotted; `GROUP=CHOICE` of a choice.
        meaning: in a line.
        takes: the values it may have.
        default: what it is where nothing is given.
        needs: what must be given for it to be read; empty where every run reads it.
    """

    name: str
    meaning: str
    takes: str = ""
    default: str = ""
    needs: str = ""


def explained(schema: type[Root], asked: str) -> tuple[list[Key], list[Key]]:
    """The choices and the keys of a section, a group, a single key, or of all.

    Args:
        schema: the command's.
        asked: a section, a key or a group; empty for all keys.

    Raises:
        UserError: there is no such thing.
    """
    valid = valid_keys(schema)
    if asked and asked not in valid:
        raise unknown_key(asked, valid, asked, schema.command)
    found = [key for key in keys(schema) if not asked or key.name == asked or key.name.startswith(f"{asked}.")]
    return choices(asked) if asked in groups() else [], found


@functools.cache
def keys(schema: type[Root]) -> tuple[Key, ...]:
    """Every key of a command, in the schema's order."""
    command = "train" if schema is Config else "evaluate"
    defaults = compose([], command)
    comments = dict(_comments(command, schema))
    return tuple(
        Key(
            name,
            comments.get(name, ""),
            _takes(field.annotation, field.metadata),
            _default(defaults, name),
            "; ".join(need.take for need in schema.uses.get(name, ())),
        )
        for name, field in _fields(schema)
    )


def choices(group: str) -> list[Key]:
    """The choices of a group, each with the first sentence of its file."""
    return [Key(f"{group}={choice}", _first_sentence(group, choice)) for choice in options(group)]


def _fields(node: type[BaseModel], at: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in node.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{at}{name}.")
        else:
            yield f"{at}{name}", field


def _default(composed: DictConfig, name: str) -> str:
    # As it is written: what an environment variable gives differs from place to place.
    values: Any = OmegaConf.to_container(composed, resolve=False)
    for part in name.split("."):
        values = values[part]
    return shown(values)


def _comments(command: str, schema: type[Root]) -> Iterator[tuple[str, str]]:
    """What the files say of each key: a group's `base.yaml`, or else its default choice."""
    main = (conf_dir() / f"{command}.yaml").read_text(encoding="utf-8")
    yield from _commented(main)
    for group in groups():
        if group in schema.model_fields:
            base = conf_dir() / group / "base.yaml"
            chosen = re.search(rf"^  - {group}: (\w+)", main, re.MULTILINE)
            file = base if base.is_file() or chosen is None else base.with_name(f"{chosen[1]}.yaml")
            yield from _commented(file.read_text(encoding="utf-8"), f"{group}.")


def _commented(text: str, at: str = "") -> Iterator[tuple[str, str]]:
    above: list[str] = []
    for line in text.splitlines():
        if found := _LINE.match(line):
            depth = len(found[1]) // 2
            above = [*above[:depth], found[2]]
            if found[3]:
                yield f"{at}{'.'.join(above)}", found[3]


def _first_sentence(group: str, choice: str) -> str:
    file = next(folder / group / f"{choice}.yaml" for folder in (conf_dir(), *own_dirs())
                if (folder / group / f"{choice}.yaml").is_file())  # fmt: skip
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            lines.append(line.lstrip("# "))
    return re.split(r"(?<=[^.]\.) (?=[A-Z])", " ".join(lines))[0]


def _takes(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The values of a type, in words."""
    parts = get_args(annotation)
    match get_origin(annotation):
        case origin if origin is Annotated:
            return _takes(parts[0], parts[1:])
        case origin if origin in (Union, UnionType):
            return " | ".join(map(_takes, parts))
        case origin if origin is Literal:
            return " | ".join(map(str, parts))
        case origin if origin is list:
            return f"list of {_takes(parts[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(annotation.model_fields)}}}"
    named = {bool: "true | false", int: "whole number", float: "number", str: "text", NoneType: "null"}[annotation]
    return " ".join([named, *_limits(metadata)])


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            yield from _limits(mark.metadata)
        for limit, word in (("gt", "above"), ("ge", "from"), ("lt", "below"), ("le", "to")):
            if (value := getattr(mark, limit, None)) is not None and not isinstance(mark, FieldInfo):
                yield f"{word} {value:,}"
