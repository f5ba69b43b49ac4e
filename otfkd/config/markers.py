"""How a key counts in a run's hash where not simply by its name; the schema annotates its fields with these."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AddedLater:
    """The key came when runs already had their names: it stays out of the hash while it has its default."""


@dataclass(frozen=True)
class HashedAs:
    """The key was renamed when runs already had their names: in the hash it keeps its former one.

    Attributes:
        name: the former name, without its section.
    """

    name: str
