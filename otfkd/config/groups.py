"""Config groups, table definitions and searches: otfkd's, found wherever it is installed, and a user's own."""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from otfkd.base.errors import UserError, first_line

# Names a user's own folders, in the order in which Hydra searches them, as PATH does.
OWN = "OTFKD_CONFIG"
# What the choices of a group begin with: all its keys in one place, and no choice itself.
_BASE = "base"
# Groups whose files set keys of all sections.
_GLOBAL = ("experiment", "profile", "debug")


@functools.cache
def conf_dir() -> Path:
    """The Hydra groups: inside an installed package, or beside it in a checkout."""
    return _shipped("conf")


@functools.cache
def tables_dir() -> Path:
    """The table definitions: inside an installed package, or in experiments/ of a checkout."""
    return _shipped("experiments/tables")


@functools.cache
def searches_dir() -> Path:
    """The presets of a search: inside an installed package, or in experiments/ of a checkout."""
    return _shipped("experiments/searches")


def _shipped(folder: str) -> Path:
    package = Path(__file__).parents[1]
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def own_dirs() -> tuple[Path, ...]:
    """A user's own folders, which hold groups as `conf_dir` does, and tables."""
    return tuple(Path(folder) for folder in os.environ.get(OWN, "").split(os.pathsep) if folder)


@contextlib.contextmanager
def also_in(folders: Sequence[Path]) -> Iterator[None]:
    """Find configs in these folders too, here and in the processes that are started meanwhile."""
    before = os.environ.get(OWN)
    named = dict.fromkeys(str(folder.expanduser().absolute()) for folder in (*own_dirs(), *folders))
    os.environ[OWN] = os.pathsep.join(named)
    try:
        yield
    finally:
        if before is None:
            del os.environ[OWN]
        else:
            os.environ[OWN] = before


def options(group: str) -> list[str]:
    """The named choices of a config group."""
    folders = [folder / group for folder in (conf_dir(), *own_dirs())]
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml") if path.stem != _BASE})


def groups() -> list[str]:
    """The config groups."""
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir())


def table_files() -> dict[str, Path]:
    """The definitions of tables by their names."""
    folders = [tables_dir(), *(folder / "tables" for folder in own_dirs())]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def search_files() -> dict[str, Path]:
    """The presets of a search by their names."""
    folders = [searches_dir(), *(folder / "searches" for folder in own_dirs())]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def profile_files() -> list[Path]:
    """What says of each profile what its numbers can and cannot show."""
    own = [folder / "profiles.yaml" for folder in own_dirs()]
    return [tables_dir().parent / "profiles.yaml", *filter(Path.is_file, own)]


def check_own_dirs() -> None:
    """Refuse folders of a user's that Hydra would pass over or take half of, without a word or with a traceback.

    Raises:
        UserError: there is no such folder, or a file in it is no config or has the name of another.
    """
    seen = {path.relative_to(conf_dir()): path for path in conf_dir().rglob("*.yaml")}
    for shipped in (tables_dir(), searches_dir()):
        seen |= {Path(shipped.name, path.name): path for path in shipped.glob("*.yaml")}
    for folder in own_dirs():
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder} of configs: correct --config-dir, {OWN} or hydra.searchpath")
        for path in sorted(folder.rglob("*.yaml")):
            name = path.relative_to(folder)
            if name in seen:
                raise UserError(f"{path} has the name of {seen[name]}, which would win: rename it")
            seen[name] = path
            _check_file(path, name)


def _check_file(path: Path, name: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        content = OmegaConf.create(text) if text.strip() else OmegaConf.create()
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML ({first_line(error)}): correct it") from None
    if not isinstance(content, DictConfig):
        raise UserError(f"{path} is not a config: write a line 'key: value' for each key")
    if name.parts[0] in _GLOBAL and not text.lstrip().startswith("# @package _global_"):
        raise UserError(f"{path} sets keys of all sections: let its first line be '# @package _global_'")


def folder_of(place: str) -> Path:
    """The folder that an entry of Hydra's search path names, file://FOLDER or pkg://PACKAGE.

    Raises:
        UserError: there is no such package.
    """
    scheme, _, rest = place.rpartition("://")
    if scheme != "pkg":
        return Path(rest)
    try:
        found = importlib.util.find_spec(rest.replace("/", "."))
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise UserError(f"hydra.searchpath names {place}, and there is no such package: install it or leave it out")
    return Path(next(iter(found.submodule_search_locations)))
