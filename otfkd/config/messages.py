"""The keys of a config, and what is said of a wrong one; values as Hydra and a shell read them."""

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from otfkd.base.errors import UserError
from otfkd.config.foreign import answer_to_value, find
from otfkd.config.parts import PATTERN
from otfkd.config.terms import TermConfig

_NEAR = 0.6  # how alike two names are that may be meant for each other
# What pydantic calls by the names of Python.
_WANTED = {
    "bool_type": "true or false", "int_type": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "list_type": "a list, as [1,2]", "string_type": "text", "dict_type": "a section of keys",
    "model_type": "a section of keys", "model_attributes_type": "a section of keys",
}  # fmt: skip

# Keys by the names they had; the schema marks each with `HashedAs`, so that published rows and users' finished runs
# keep their names.
RENAMED = {
    "schedule.average": "schedule.average_last",
    "schedule.pool": "schedule.pool_size",
    "schedule.keep": "schedule.keep_snapshots",
}


def present_names(stored: Any, at: str = "") -> Any:
    """What a stored config says under the names that its keys have now."""
    if not isinstance(stored, dict):
        return stored
    return {
        RENAMED.get(f"{at}{key}", f"{at}{key}").removeprefix(at): present_names(value, f"{at}{key}.")
        for key, value in stored.items()
    }


def all_keys(schema: type[BaseModel], prefix: str = "") -> tuple[str, ...]:
    """Every dotted key of a schema, sections included."""

    def walk(node: type[BaseModel], at: str) -> Iterator[str]:
        for name, field in node.model_fields.items():
            yield at + name
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from walk(field.annotation, f"{at}{name}.")

    return tuple(walk(schema, prefix))


def nearest(key: str, valid: Sequence[str]) -> str | None:
    """The valid key a mistyped one was most likely meant to be, None where none is near."""
    leaves = {known: known.rpartition(".")[2] for known in valid}
    leaf = key.rpartition(".")[2]
    found = [known for known in valid if leaves[known] == leaf]
    for tried, among in ((key, valid), (leaf, [*leaves.values()])):
        if not found:
            close = difflib.get_close_matches(tried, among, n=1, cutoff=_NEAR)
            found = [known for known in valid if close and close[0] in (known, leaves[known])]
    return min(found, key=lambda known: known.count("."), default=None)


def near(key: str, valid: Sequence[str], command: str) -> str:
    """What to say of the keys there are, as the end of a sentence."""
    found = nearest(key, valid)
    return f"the nearest valid key is '{found}'" if found else f"{command} --explain lists the keys"


def shown(value: object) -> str:
    """A value as a user gives it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, BaseModel):
        return shown(value.model_dump(exclude_defaults=True))
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{shown(one)}" for key, one in value.items()) + "}"
    return str(value)


def quoted(value: str, mark: str = "'") -> str:
    """A value as an override gives it, whatever characters it has.

    Args:
        value: the value.
        mark: the quotation mark, single or double.
    """
    # In Hydra's grammar a backslash is one unless a quote follows.
    escaped = re.sub(rf"(\\*){mark}", rf"\1\1\\{mark}", value)
    return mark + re.sub(r"(\\+)$", r"\1\1", escaped) + mark


def to_paste(given: str) -> str:
    """An override whose value is plain text, quoted for Hydra and for a shell; of a list, each entry."""
    key, _, value = given.partition("=")
    listed = re.fullmatch(r"\[(.*)\]", value)
    entries = [value] if listed is None else [entry.strip() for entry in listed[1].split(",")]
    texts = [quoted(re.sub(r"^(['\"])(.*)\1$", r"\2", entry), '"') for entry in entries]
    return shlex.quote(f"{key}={texts[0]}" if listed is None else f"{key}=[{','.join(texts)}]")


def unknown_key(key: str, valid: Sequence[str], given: str, command: str) -> UserError:
    """The error of a key that is not there, or no longer by this name.

    Args:
        key: the dotted key.
        valid: all keys there are.
        given: the override it comes from.
        command: whose keys they are.
    """
    if key in RENAMED:
        meant = given.lstrip("+").replace(key, RENAMED[key], 1)
        return UserError(f"{key} is now {RENAMED[key]}: write {meant}")
    foreign = find(key, given.partition("=")[2])
    if foreign is not None and foreign.name not in {known.rpartition(".")[2] for known in valid}:
        return UserError(f"unknown key '{key}': {foreign.answer}")
    return UserError(f"unknown key '{key}': {near(key, valid, command)}")


def unknown_flag(flag: str, valid: Sequence[str], command: str) -> UserError:
    """The error of a flag that Hydra's commands do not have, as other tools' have for their settings."""
    name, _, value = flag.partition("=")
    foreign = find(name, value)
    if foreign is not None:
        return UserError(f"{flag} is no flag: {foreign.answer}")
    told = near(name.lstrip("-").replace("-", "_"), valid, command)
    return UserError(f"{flag} is no flag: write KEY=VALUE without dashes; {told}")


def _wanted(error: ErrorDetails, key: str) -> str:
    """What a value must be, in words."""
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] == PATTERN:
        return "an import path, package.module:name"
    message = _WANTED.get(error["type"]) or error["msg"].removeprefix("Input should be ").replace("'", "")
    if re.fullmatch(r"objective\.(kd|terms\.\d+\.what)", key):
        message += ", or the import path of a function of your own, package.module:name"
    return message


def _missing(key: str, *, of_terms: bool) -> str:
    if of_terms:
        return f"{key.rpartition('.')[0]} says not what it is: write it as {{what: ce}}"
    return f"{key} must be given: add {key}=VALUE to the command"


def explain(error: ErrorDetails, valid: Sequence[str], command: str) -> str:
    """What a schema has against a value, in one sentence."""
    # Where a value may be of several kinds, pydantic names the kind too.
    key = ".".join(part for part in map(str, error["loc"]) if re.fullmatch(r"\w+", part)).removesuffix(".str")
    of_terms = key.startswith("objective.terms.")
    if of_terms:
        valid = [f"{key.rpartition('.')[0]}.{name}" for name in TermConfig.model_fields]
    if error["type"] == "extra_forbidden":
        return str(unknown_key(key, valid, f"{key}={error['input']}", command))
    if error["type"] == "missing" or error["input"] == "":
        return _missing(key, of_terms=of_terms)
    if error["type"] == "value_error":  # keys that contradict each other: the validator says it all
        return error["msg"].removeprefix("Value error, ")
    if foreign := answer_to_value(key, error["input"]):
        return f"{key}={shown(error['input'])} is not valid: {foreign}"
    message = _wanted(error, key)
    if error["type"] == "string_type" and isinstance(given := error["input"], int | float):
        message += f", as in {to_paste(f'{key}={given}')}"
    return f"{key}={shown(error['input'])} is not valid: it must be {message}"
