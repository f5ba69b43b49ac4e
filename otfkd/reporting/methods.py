"""What runs wrote while they trained, read back and put together: seeds of one config are one method."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from otfkd.base.errors import UserError, first_line
from otfkd.base.files import read_json_lines
from otfkd.config.messages import present_names

Moment = tuple[int, int]  # an optimizer step, and whether before (0) or after (1) the rotation due there


@dataclass(frozen=True)
class TrainedRun:
    """One run, finished or not.

    Attributes:
        folder: its folder.
        settings: its config as written, whatever version of otfkd wrote it, under the keys' present names.
        config_hash: what all its seeds share.
        seed: its seed.
        fingerprints: content hashes of its inputs.
        dev: optimizer step to dev score.
        rotations: the lines of rotations.jsonl.
    """

    folder: Path
    settings: dict[str, Any]
    config_hash: str
    seed: int
    fingerprints: dict[str, str]
    dev: dict[int, float]
    rotations: tuple[dict[str, Any], ...]

    @property
    def rotated(self) -> tuple[int, ...]:
        """The steps after which a new teacher came."""
        return tuple(row["step"] for row in self.rotations if row.get("event", "rotated") == "rotated")

    @property
    def refused(self) -> tuple[int, ...]:
        """The steps after which a due rotation was refused."""
        return tuple(row["step"] for row in self.rotations if row.get("event") == "refused")

    @property
    def last(self) -> int:
        """The last step that its files speak of."""
        return max([*self.dev, *self.rotated, *self.refused])

    @property
    def selected(self) -> tuple[int, float]:
        """The step that dev chose, so far where the run goes on, and its score: the first of equals."""
        step = max(self.dev, key=lambda step: (self.dev[step], -step))
        return step, self.dev[step]


@dataclass(frozen=True)
class Method:
    """The seeds of one config."""

    label: str
    runs: tuple[TrainedRun, ...]

    @property
    def legend(self) -> str:
        return f"{self.label} ({seeds(len(self.runs))})"


def seeds(number: int) -> str:
    return f"{number} seed{'s' * (number != 1)}"


def shared_moments(series: Sequence[Mapping[Moment, float]]) -> list[Moment]:
    """The moments up to the first that not all seeds have: a mean over some of them would jump there."""
    return [moments[0] for moments in takewhile(lambda moments: len(set(moments)) == 1, zip(*series, strict=False))]


def read_methods(paths: Iterable[Path]) -> list[Method]:
    """Every run at or below some folders, by method, in the order found.

    Raises:
        UserError: a folder holds no run, a run's files cannot be used, or runs that cannot be compared.
    """
    folders = dict.fromkeys(folder.absolute() for path in paths for folder in _find(path))
    groups: dict[tuple[str, str], list[TrainedRun]] = {}
    for run in map(_read, folders):
        groups.setdefault((run.settings["name"], run.config_hash), []).append(run)
    runs = [run for group in groups.values() for run in group]
    for run in runs:
        if run.fingerprints["suite"] != runs[0].fingerprints["suite"]:
            raise UserError(f"{runs[0].folder} and {run.folder} have different dev tasks: draw them apart")
    for group in groups.values():
        group.sort(key=lambda run: run.seed)
        for one, other in pairwise(group):
            if one.seed == other.seed:
                raise UserError(f"{one.folder} and {other.folder} are the same run: name one of them")
    labels = _labels([group[0] for group in groups.values()])
    return [Method(label, tuple(group)) for label, group in zip(labels, groups.values(), strict=True)]


def _find(path: Path) -> list[Path]:
    found = [file.parent for file in sorted(path.rglob("provenance.json"))]
    kept = [run for run in found if ".kept-" not in str(run.relative_to(path))]  # set aside by fresh=true
    if not kept:
        raise UserError(f"{path} holds no run: name a run's folder, or one with runs in it")
    return kept


def _read(folder: Path) -> TrainedRun:
    try:
        settings = present_names(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
        facts = json.loads((folder / "provenance.json").read_text())
        metrics, rotations = (read_json_lines(folder / f"{name}.jsonl") for name in ("metrics", "rotations"))
    except (OSError, ValueError) as error:
        raise UserError(f"the run in {folder} cannot be read ({first_line(error)}): train it again") from None
    dev = {row["step"]: row["dev"] for row in metrics if "dev" in row}
    if not dev:
        raise UserError(f"{folder}/metrics.jsonl has no dev score yet: let the run go on, or leave it out")
    return TrainedRun(
        folder, settings, facts["config_hash"], settings["seed"], facts["fingerprints"], dev, tuple(rotations)
    )


def _labels(firsts: Sequence[TrainedRun]) -> list[str]:
    """Names of methods; where two have one name, with the settings they differ in, or else their hashes."""
    labels = []
    for run in firsts:
        name = run.settings["name"]
        alike = [_flat(other.settings) for other in firsts if other.settings["name"] == name]
        own = _flat(run.settings)
        differing = [key for key in own if any(other.get(key) != own[key] for other in alike)]
        said = [f"{key.rpartition('.')[2]} {own[key]}" for key in differing]
        labels.append(", ".join([name, *(said if 0 < len(said) < 3 else [run.config_hash] * (len(alike) > 1))]))
    return labels


def _flat(settings: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{at}{key}."))
        elif not f"{at}{key}".startswith(("seed", "dry_run", "fresh", "resume", "paths.", "logger.")):
            flat[f"{at}{key}"] = value
    return flat
