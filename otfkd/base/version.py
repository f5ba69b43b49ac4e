"""The version of otfkd, as `--version` tells it."""

__version__ = "0.1.0"
