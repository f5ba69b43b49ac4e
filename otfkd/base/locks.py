"""Locks of files: whether a process holds one."""

import fcntl
from pathlib import Path


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock; asking takes nothing from whoever wants it next."""
    try:
        with lock.open("rb") as file:
            # Shared, so that of two who ask neither takes the other for the holder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except (FileNotFoundError, PermissionError):
        return False
    except OSError:  # held; or a file system without such locks, where the file is there while it is held
        return True
