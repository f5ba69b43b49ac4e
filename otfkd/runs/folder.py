"""A run's folder: held by one command at a time, kept aside rather than overwritten, with a log of its own."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from pydantic import ValidationError

from otfkd.base.errors import UserError
from otfkd.config.messages import present_names
from otfkd.config.schema import Config

RESULTS = "results.jsonl"
PROVENANCE = "provenance.json"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder.

    Raises:
        UserError: another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.parent / f".{folder.name}.lock", timeout=0):
            yield
    except Timeout:
        raise UserError(
            f"another process is training in {folder}: wait for it, or change the config or the seed"
        ) from None


def set_aside(folder: Path) -> None:
    """Move what an earlier run left to a name of its own."""
    if folder.exists():
        number = 1 + sum(1 for _ in folder.parent.glob(f"{folder.name}.kept-*"))
        shutil.move(folder, folder.with_name(f"{folder.name}.kept-{number}"))


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """What a run's folder says of its origin; None for a folder that is no run's."""
    path = folder / PROVENANCE
    if not path.is_file():
        return None
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def stored_config(folder: Path) -> Config:
    """The config that a run's folder keeps.

    Raises:
        UserError: there is none, or another version of otfkd wrote it.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} is missing: give a run's own folder")
    try:
        return Config.model_validate(present_names(OmegaConf.to_container(OmegaConf.load(path))))
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(
            f"{path} is of another version of otfkd (its {key}): train the run again with this one"
        ) from None
