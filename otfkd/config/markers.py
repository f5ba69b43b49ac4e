"""How a key counts in a run's hash where not simply by its name; the schema annotates its fields with these."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AddedLater:
    """The key came when runs already had their names: it stays out of the hash while it has its default."""
