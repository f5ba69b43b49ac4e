"""What a run needs of the machine, refused before anything is read: a logger's package, folders to write to."""

import importlib.util
import os
from pathlib import Path

from otfkd.base.errors import UserError
from otfkd.config.logger import LoggerConfig

# What loggers need besides what otfkd does; each has an extra of its name.
_PACKAGES = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}


def check_logger(config: LoggerConfig) -> None:
    """Raise a UserError where a package of a chosen logger is not installed."""
    for name in config.names:
        for package in _PACKAGES.get(name, ()):
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"logger={name} needs the package {package}: run pip install 'otfkd[{name}]', or take logger=csv"
                )


def check_writable(key: str, folder: Path) -> None:
    """Raise a UserError where a folder cannot be made or written to."""
    reason: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"cannot be made ({error.strerror})"
    else:
        if not os.access(folder, os.W_OK | os.X_OK):
            reason = "may not be written to"
    if reason is not None:
        raise UserError(f"{key}={folder} {reason}: name a folder you may write to")
