"""From a command line to a config: overrides are checked first, and Hydra's groups put together."""

import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from otfkd.base.errors import UserError, first_line
from otfkd.config.foreign import answer_to_value, find
from otfkd.config.given import useless
from otfkd.config.groups import also_in, check_own_dirs, conf_dir, folder_of, groups, options, own_dirs
from otfkd.config.messages import all_keys, quoted, shown, to_paste, unknown_key
from otfkd.config.schema import Config, EvaluateConfig, Root

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# Groups whose value may also be a folder or a hub id: `model=FOLDER` means `model=custom model.path=FOLDER`.
OPEN_GROUPS = ("model", "teacher")
# Groups of which a list may be given: the choice that it is given to, and the key.
_LISTED = {"teacher": ("custom", "path"), "logger": ("none", "name")}
# Groups of which several choices may be given at once: each sets keys of all sections.
_STACKED = ("experiment", "profile", "debug")

Composed = TypeVar("Composed", bound=Root)


def prepare_overrides(overrides: Sequence[str], schema: type[Root]) -> list[str]:
    """Check overrides against the schema and expand `model=FOLDER`, before Hydra sees them.

    Raises:
        UserError: an override that does not parse, an unknown key (with or without '+') or choice of a group, several
            choices where one counts, or a folder of a user's own configs that cannot be used.
    """
    check_own_dirs()
    valid = valid_keys(schema)
    expanded: list[str] = []
    for given in overrides:
        text = _from_home(_named(given, schema))
        override = _parsed(text)
        key, value = override.key_or_group, override.value()
        if key.split(".")[0].split("/")[0] == "hydra":
            expanded.append(text)
        elif key not in valid:
            raise _unknown(key, valid, text, schema)
        elif value == "":
            raise UserError(f"{text} is empty: give {key} a value, or leave it out")
        elif key in groups():
            expanded += _swept(key, override, text) if override.is_choice_sweep() else _chosen(key, value, text)
        else:
            expanded.append(text)
    return expanded


def valid_keys(schema: type[Root]) -> list[str]:
    """The keys and the groups of a command."""
    own = schema.model_fields.keys() | (_STACKED if schema is Config else ())
    return [*all_keys(schema), *(group for group in groups() if group in own)]


def _unknown(key: str, valid: Sequence[str], text: str, schema: type[Root]) -> UserError:
    """The error of a key that a command does not have; another command may."""
    if schema is not Config:
        of_training = valid_keys(Config)
        meant = find(key, text.partition("=")[2])
        taken = [] if meant is None else re.findall(r"([a-z_.]+)=", meant.take)
        if key in of_training or (taken and not {*taken} <= {*valid}):
            return UserError(f"{text.lstrip('+')} is read by {Config.command} alone: leave it out")
    return unknown_key(key, valid, text, schema.command)


def _named(given: str, schema: type[Root]) -> str:
    """An argument that is no override, as a model's folder may be given by itself, with its key."""
    group = schema.unnamed
    if not group or "=" in given or given.lstrip("~") in valid_keys(schema):
        return given
    return f"{group}={given if given in options(group) or given.startswith('~') else quoted(given)}"


def _swept(group: str, sweep: "Override", text: str) -> list[str]:
    """The overrides of a sweep over choices of a group, or over folders: all of one kind, for Hydra has no mixture."""
    parsed: Any = sweep.value()
    values = _plain(parsed.list)
    jobs = [_chosen(group, value, f"{group}={shown(value)}") for value in values]
    if all(len(job) == 1 for job in jobs):
        return [text]
    if any(len(job) == 1 for job in jobs):
        named = next(str(value) for value, job in zip(values, jobs, strict=True) if len(job) == 1)
        others = "folders" if group in OPEN_GROUPS else "lists"
        raise UserError(
            f"{text} sweeps over the choice {named} and over {others}: sweep over them in two commands, or over "
            f"{others} alone"
        )
    key = jobs[0][1].partition("=")[0]
    return [jobs[0][0], f"{key}={','.join(given.partition('=')[2] for _, given in jobs)}"]


def _plain(value: Any) -> Any:
    """A parsed value without the marks of its quotes."""
    return [_plain(one) for one in value] if isinstance(value, list) else getattr(value, "text", value)


def _chosen(group: str, value: object, text: str) -> list[str]:
    """The overrides that an override of a group stands for."""
    if value is None and group not in ("profile", "debug"):
        raise UserError(f"{group} needs a choice: take one of {', '.join(options(group))}")
    if isinstance(value, list) and group in _LISTED:
        choice, key = _LISTED[group]
        return [f"{group}={choice}", f"{group}.{key}=[{','.join(quoted(str(one)) for one in value)}]"]
    if isinstance(value, list) and group not in _STACKED:
        raise UserError(
            f"{text} names {len(value)} choices, and {group} has one: take one of {', '.join(options(group))}"
        )
    if not isinstance(value, str) or value in options(group):
        return [text]
    if group in OPEN_GROUPS:
        return [f"{group}=custom", f"{group}.path={quoted(value)}"]
    advice = answer_to_value(group, value) or f"take one of {', '.join(options(group))}"
    raise UserError(f"{group}={value} is not a choice: {advice}")


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


def searched(overrides: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Part overrides into those without Hydra's search path, and the folders that it names.

    Raises:
        UserError: it names a package that is not there.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    named = [text for text in overrides if text.lstrip("+").startswith("hydra.searchpath=")]
    values = [override.value() for override in OverridesParser.create().parse_overrides(named)]
    places = [place for value in values for place in (value if isinstance(value, list) else [value])]
    return [text for text in overrides if text not in named], [folder_of(str(place)) for place in places if place]


def searching(folders: Sequence[Path]) -> list[str]:
    """The override by which Hydra finds configs in these folders too."""
    return [f"hydra.searchpath=[{','.join(quoted(f'file://{folder}') for folder in folders)}]"] if folders else []


@contextlib.contextmanager
def _composing() -> Iterator[Callable[[Sequence[str], str], DictConfig]]:
    """What composes a config outside a command.

    Raises:
        UserError: Hydra cannot compose it.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    def composed(overrides: Sequence[str], config_name: str) -> DictConfig:
        try:
            return hydra_compose(config_name, [*searching(own_dirs()), *overrides])
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise UserError(f"the config cannot be composed: {first_line(error)}") from None

    of_command = GlobalHydra.instance().hydra  # which may have more jobs to start
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield composed
    finally:
        GlobalHydra.instance().hydra = of_command


def compose(overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    """What Hydra composes for these overrides, outside a command.

    Raises:
        UserError: Hydra cannot compose them.
    """
    with _composing() as composed:
        return composed(overrides, config_name)


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
    return _used(*loaded(overrides, Config))


def load_evaluate_config(overrides: Sequence[str]) -> EvaluateConfig:
    """A validated config of one model to be scored, from overrides as `otfkd-eval` takes them.

    Raises:
        UserError: an override that cannot be used, in one sentence.
    """
    return _used(*loaded(overrides, EvaluateConfig, "evaluate"))


def loaded(
    overrides: Sequence[str], schema: type[Composed], config_name: str = "train"
) -> tuple[Composed, dict[str, str]]:
    """A config, and which of its overrides are of no use to it, each with the sentence that refuses it.

    Raises:
        UserError: an override that cannot be used for another reason.
    """
    rest, folders = searched(overrides)
    with also_in(folders):
        given = prepare_overrides(rest, schema)
        with _composing() as composed:

            def made(some: Sequence[str]) -> Composed:
                return schema.from_hydra(composed(some, config_name))

            config = made(given)
            return config, useless(config, given, made)


def _used(config: Composed, refusals: dict[str, str]) -> Composed:
    for sentence in refusals.values():
        raise UserError(sentence)
    return config


def usable(composed: DictConfig, schema: type[Root], shared: Collection[str] = ()) -> DictConfig:
    """What the command that Hydra is running composes of the overrides that it has a use for.

    Args:
        composed: of all its overrides; of one job's, in a sweep.
        schema: what it has to be.
        shared: keys that the other jobs were given too. A job that has no use for one leaves it out, so that it is the
            run it would be alone.

    Raises:
        UserError: an override changes nothing that is read, and is no shared one.
    """
    from hydra import compose as hydra_compose
    from hydra.core.hydra_config import HydraConfig

    about = HydraConfig.get()

    def of(overrides: Sequence[str]) -> DictConfig:
        return hydra_compose(about.job.config_name, [*about.overrides.hydra, *overrides])

    config, given = schema.from_hydra(composed), list(about.overrides.task)
    refusals = useless(config, given, lambda rest: schema.from_hydra(of(rest)))
    _used(config, {text: why for text, why in refusals.items() if key_of(text) not in shared})
    return of([text for text in given if text not in refusals]) if refusals else composed


def check_jobs(
    jobs: Sequence[Sequence[str]], schema: type[Root], config_name: str, shared: Collection[str]
) -> list[str | None]:
    """Compose every job of a sweep before the first begins.

    Returns:
        Of each job the sentence that refuses it, None where it can begin.

    Raises:
        UserError: all were given what none has a use for.
    """
    sentences: list[str | None] = []
    idle: list[dict[str, str]] = []
    for job in jobs:
        try:
            _, refusals = loaded(job, schema, config_name)
        except UserError as error:
            sentences.append(str(error))
            continue
        sentences.append(next((why for text, why in refusals.items() if key_of(text) not in shared), None))
        idle.append({key_of(text): why for text, why in refusals.items() if key_of(text) in shared})
    if len(idle) == len(jobs):
        for key, sentence in idle[0].items() if idle else ():
            if all(key in one for one in idle):
                raise UserError(sentence)
    return sentences


def key_of(override: str) -> str:
    """The key that an override is of."""
    return override.lstrip("+~").partition("=")[0]
