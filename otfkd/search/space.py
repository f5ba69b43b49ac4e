"""What a search may vary: the sweeps of a command line, as Optuna's distributions."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from otfkd.base.errors import UserError
from otfkd.base.hashing import sha256_bytes
from otfkd.config.groups import search_files
from otfkd.config.keys import keys
from otfkd.config.schema import Config

_DIGITS = 4  # of a number that is tried, so that the best command can be read and typed


@dataclass(frozen=True)
class Space:
    """A command line with free places.

    Attributes:
        fixed: the overrides that all trials share.
        free: what may be tried, by key.
    """

    fixed: tuple[str, ...]
    free: Mapping[str, BaseDistribution]

    def overrides(self, tried: Mapping[str, Any]) -> list[str]:
        """What a trial adds to the fixed overrides."""
        return [f"{key}={_text(tried[key])}" for key in self.free]


def preset(name: str) -> list[str]:
    """The sweeps that a file of searches/ names, as overrides.

    Raises:
        UserError: there is no such file, or it is no list of keys.
    """
    files = search_files()
    if name not in files:
        raise UserError(f"there is no search {name}: take one of {', '.join(sorted(files))}")
    space: Any = OmegaConf.to_container(OmegaConf.load(files[name]))
    if not isinstance(space, dict):
        raise UserError(f"{files[name]} names nothing to try: write a line 'key: interval(LOW, HIGH)' for each key")
    return [f"{key}={values}" for key, values in space.items()]


def make_space(overrides: Sequence[str]) -> Space:
    """Part overrides into what is fixed and what is tried; a later one of the same key wins.

    Raises:
        UserError: nothing is left to try.
    """
    parsed = {override.key_or_group: override for override in OverridesParser.create().parse_overrides(list(overrides))}
    free = {key: _distribution(one) for key, one in parsed.items() if one.is_sweep_override()}
    if not free:
        raise UserError(
            "nothing is left open to search: give a key several values, as in 'schedule.every=interval(20,200)', "
            "or add --space NAME"
        )
    fixed = [one.input_line for one in parsed.values() if not one.is_sweep_override() and one.input_line is not None]
    return Space(tuple(fixed), free)


def _distribution(override: Override) -> BaseDistribution:
    """What Hydra's grammar says of a key; whole numbers in equal steps keep their order."""
    sweep: Any = override.value()
    if isinstance(sweep, IntervalSweep):
        low, high, log = sweep.start, sweep.end, "log" in sweep.tags  # Hydra makes numbers of both ends
        if low is None or high is None or not low < high or (log and low <= 0):
            raise UserError(
                f"{override.input_line} is no interval: give the lower end first, above 0 with tag(log,...)"
            )
        if override.key_or_group in _whole():
            return IntDistribution(math.ceil(low), math.floor(high), log=log)
        return FloatDistribution(low, high, log=log)
    if isinstance(sweep, RangeSweep) and all(isinstance(one, int) for one in (sweep.start, sweep.stop, sweep.step)):
        values = [int(text) for text in override.sweep_string_iterator()]
        return IntDistribution(values[0], values[-1], step=int(sweep.step))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


@functools.cache
def _whole() -> frozenset[str]:
    """The keys that take whole numbers, for an interval says nothing of that."""
    return frozenset(key.name for key in keys(Config) if key.takes.startswith("whole number"))


def _text(value: Any) -> str:
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)


def search_hash(space: Space, seeds: Sequence[int]) -> str:
    """What a search is called on disk: the same command finds it again, and another one does not."""
    free = sorted((key, repr(distribution)) for key, distribution in space.free.items())
    return sha256_bytes([repr((sorted(space.fixed), free, list(seeds))).encode()])[:10]
