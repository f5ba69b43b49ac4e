"""Folders that take long to make, made for one test and copied for the others that begin with them."""

import shutil
from collections.abc import Callable
from pathlib import Path


def made_once(kept: Path, folder: Path, make: Callable[[], object]) -> None:
    """Fill a folder: the first time by making what is in it, which is kept elsewhere, then by copying that."""
    if kept.exists():
        shutil.copytree(kept, folder)
    else:
        make()
        shutil.copytree(folder, kept)
