"""Parts of a user's own by import path, `package.module:name`: a loss, callbacks, text, evaluators.

Only a config names them, which is the user's command and files; whatever a model's folder says is not imported.
"""

import contextlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from otfkd.base.errors import UserError, first_line, refusal
from otfkd.base.hashing import sha256_bytes
from otfkd.config.groups import own_dirs

# What an import path looks like.
PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


@dataclass(frozen=True)
class Part:
    """What an import path leads to.

    Attributes:
        key: the config key that names it.
        path: the import path.
        sha256: of the module's source, from which it was made.
        value: the function or class.
    """

    key: str
    path: str
    sha256: str
    value: Any

    def __str__(self) -> str:
        return f"{self.key}={self.path}"


@dataclass(frozen=True)
class _Loaded:
    file: Path
    sha256: str
    module: ModuleType


_loaded: dict[str, _Loaded] = {}  # the modules that were made here, by name
_files: set[str] = set()  # from which they were made
_searched: list[str] = []  # what was added to Python's path


def resolve(key: str, path: str) -> Part:
    """Import a part.

    It is looked for wherever Python looks, then in the current folder and in a user's folders of configs: a file of the
    user's never takes the place of a library's. The bytes that are hashed are those that run, also where the file was
    changed since it was last imported here.

    Args:
        key: the config key that names it.
        path: `package.module:name`.

    Raises:
        UserError: there is no such module, it fails on import, or it has no such name.
    """
    if re.fullmatch(PATTERN, path) is None:
        raise UserError(f"{key}={path} is no import path: write package.module:name")
    module, _, name = path.partition(":")
    found = _import(f"{key}={path}", module)
    if not hasattr(found.module, name):
        raise UserError(f"{key}={path} is not there, because {found.file} has no {name}: correct the name")
    return Part(key, path, found.sha256, getattr(found.module, name))


def fingerprints(named: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The sha256 of the source of each part, joined by `+`, by the key that names them.

    Args:
        named: import paths by key.

    Raises:
        UserError: as `resolve`.
    """
    return {key: "+".join(resolve(key, path).sha256 for path in paths) for key, paths in named.items()}


def with_sha256(named: Mapping[str, Sequence[str]], known: Mapping[str, str]) -> dict[str, str]:
    """Each part as a command names it, `key=path`, with the sha256 of its source that `fingerprints` gave."""
    return {
        f"{key}={path}": sha256
        for key, paths in named.items()
        for path, sha256 in zip(paths, known.get(key, "").split("+"), strict=False)
        if sha256
    }


@contextlib.contextmanager
def blaming(part: object) -> Iterator[None]:
    """Say of what fails that it is the user's own part.

    Raises:
        UserError: in the place of any other exception but what the machine refuses.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if refusal(error) is not None:  # a full disk is no part's fault
            raise
        raise UserError(f"{part} failed ({_told(error)}): correct it") from error


def _import(what: str, name: str) -> _Loaded:
    _look_in(dict.fromkeys(str(folder.absolute()) for folder in (Path.cwd(), *own_dirs())))
    before = _loaded.pop(name, None)
    if before is not None and sys.modules.get(name) is before.module:
        del sys.modules[name]  # or Python would not look for it again
    spec = _find(what, name)
    file = Path(spec.origin or "")
    try:
        source = file.read_bytes()
    except OSError as error:
        raise UserError(f"{what} cannot be read ({first_line(error)}): correct it") from None
    sha256 = sha256_bytes([source])
    if name in sys.modules:  # imported by another, as a library's
        return _Loaded(file, sha256, sys.modules[name])
    if before is not None and (before.file, before.sha256) == (file, sha256):
        sys.modules[name] = before.module
        _loaded[name] = before
        return before
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _files.add(str(file))
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{what} fails on import ({_told(error)}): correct it") from error
    _loaded[name] = _Loaded(file, sha256, module)
    return _loaded[name]


def _look_in(folders: Mapping[str, None]) -> None:
    """Have Python look in these folders too, after all others."""
    for folder in _searched:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
    _searched[:] = [folder for folder in folders if folder not in sys.path]
    sys.path.extend(_searched)
    importlib.invalidate_caches()


def _find(what: str, name: str) -> ModuleSpec:
    """Where a module's source is.

    Raises:
        UserError: there is none, or a package around it fails on import.
    """
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{what} fails on import ({_told(error)}): correct it") from error
        spec = None
    except Exception as error:
        raise UserError(f"{what} fails on import ({_told(error)}): correct it") from error
    if spec is None:
        places = ", ".join(dict.fromkeys([str(Path.cwd()), *map(str, own_dirs())]))
        raise UserError(
            f"{what} is not there, because no module {name} is installed or in {places}: correct the name, or give the "
            "command in its folder"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise UserError(f"{what} has no source in Python, which a run is named by: put it into a file of your own")
    return spec


def _told(error: Exception) -> str:
    """What an exception says, and of which line."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}, {error.filename}, line {error.lineno}"
    places = traceback.extract_tb(error.__traceback__)
    # The innermost line of the user's own, rather than of a library that it calls.
    own = [place for place in places if place.filename in _files]
    at = (own or places)[-1]
    return f"{type(error).__name__}: {first_line(error)}, {at.filename}, line {at.lineno}"
