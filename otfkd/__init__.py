"""On-the-fly knowledge distillation of sentence embeddings: a student trains while its own cached past teaches it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otfkd.api import load as load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lazy, so that `--help` pays for neither torch nor transformers.
    if name == "load":
        from otfkd.api import load

        return load
    raise AttributeError(f"module 'otfkd' has no attribute {name!r}")
