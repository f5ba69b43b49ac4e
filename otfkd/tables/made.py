"""What made a report: commands that give its rows again, and what they were made from."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import OmegaConf

from otfkd.config.groups import conf_dir, own_dirs
from otfkd.tables.definition import RowSpec, TableSpec
from otfkd.tables.published import Published


def commands(specs: Mapping[str, TableSpec], profile: str, published: Sequence[Published]) -> list[str]:
    """The commands that make these tables; one for all whose rows had the same further keys and seeds."""
    asked: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for name, spec in specs.items():
        own = [one for one in published if one.table == name]
        asked.setdefault((_seeds(spec, profile, own), _further(spec, profile, own)), []).append(name)
    return [
        shlex.join(
            ["otfkd-reproduce", *_own_configs(), "--profile", profile, "--tables", ",".join(names), *seeds, *keys]
        )
        for (seeds, keys), names in asked.items()
    ]


def _seeds(spec: TableSpec, profile: str, published: Sequence[Published]) -> tuple[str, ...]:
    """The seeds that there are, where the definition asks for others."""
    found = sorted({one.result.seed for one in published if one.result.seed is not None})
    asked = sorted(spec.profiles[profile].seeds)
    return () if found == asked or not found else ("--seeds", ",".join(map(str, found)))


def _further(spec: TableSpec, profile: str, published: Sequence[Published]) -> tuple[str, ...]:
    """The keys that were given beside the definition, in their order; a row has those that it reads."""
    rows = {row.name: row for row in spec.at(profile)}
    keys: dict[str, None] = {}
    for one in published:
        own = _defined(spec, profile, rows[one.row], one)
        keys |= dict.fromkeys(text for text in one.arguments if text not in own)
    return tuple(keys)


def _defined(spec: TableSpec, profile: str, row: RowSpec, one: Published) -> set[str]:
    """The arguments that a row has by its definition."""
    model = () if one.model is None else (f"model={one.model}", *spec.profiles[profile].models[one.model])
    own = {f"experiment={row.experiment or 'simcse'}", f"profile={profile}", f"seed={one.result.seed}"}
    return {*own, *model, *row.overrides}


def _own_configs() -> list[str]:
    return [f"--config-dir={folder}" for folder in own_dirs()]


def row_command(spec: TableSpec, row: RowSpec, runs: Sequence[Published], others: Sequence[Published]) -> str:
    """What makes a row's runs again, in a shell, once those that they start from are there.

    Args:
        spec: the table's definition.
        row: the row.
        runs: its own, of one backbone.
        others: of the same table and backbone.
    """
    first, seeds = runs[0], [str(one.result.seed) for one in runs]
    if first.result.seed is None:
        return shlex.join([
            "otfkd-eval", f"model={first.result.name}", f"model.pooler={first.result.pooler}",
            f"evaluation={'transfer' if spec.kind == 'transfer' else first.result.suite}",
        ])  # fmt: skip
    arguments = [shlex.quote(one) for one in first.arguments if not one.startswith("seed=")]
    starts = [f"{group}={_folder(other, others)}/s$seed" for group, other in row.starts.items()]
    command = ["otfkd-train", *map(shlex.quote, _own_configs()), *arguments]
    if not starts:
        sweep = ["-m"] if len(seeds) > 1 else []
        return " ".join([command[0], *sweep, *command[1:], f"seed={','.join(seeds)}"])
    loop = " ".join([*command, *starts, "seed=$seed"])
    return f"for seed in {' '.join(seeds)}; do {loop}; done"


def _folder(row: str, others: Sequence[Published]) -> str:
    """Where the runs of another row lie once they are made again: in the folder of their config."""
    found = next((one for one in others if one.row == row), None)
    return "runs/MISSING" if found is None else f"runs/{found.result.name}/{found.hash}"


def encoders(profile: str, published: Sequence[Published]) -> list[str]:
    """The encoders that were trained, by the names that they have on a command line, and how they are read."""
    of_profile = _choices(profile).get("model", "the profile's own")
    named = {
        (
            one.model or next((text[6:] for text in one.arguments if text.startswith("model=")), of_profile),
            one.result.pooler,
        )
        for one in published
    }
    return [f"{model}, pooler {pooler}" for model, pooler in sorted(named)]


def corpora(profile: str, published: Sequence[Published]) -> list[tuple[str, str]]:
    """The texts that were learnt from: what names each, and its hash."""
    choices = _choices(profile)
    found = set()
    for one in published:
        if one.result.corpus_sha256 is not None:
            given = dict(text.split("=", 1) for text in one.arguments if text.startswith(("data=", "data.path=")))
            kind = given.get("data") or choices.get("data", "the profile's own")
            path = given.get("data.path", choices.get("data.path", "") if "data" not in given else "")
            found.add((kind if path in ("", "null") else f"{kind}, {path}", one.result.corpus_sha256))
    return sorted(found)


def _choices(profile: str) -> dict[str, str]:
    """The groups and the corpus that a profile chooses, by key."""
    files = [folder / "profile" / f"{profile}.yaml" for folder in (conf_dir(), *own_dirs())]
    values: Any = {}
    for path in filter(Path.is_file, files):
        values = OmegaConf.to_container(OmegaConf.load(path))
    chosen = [item for item in values.get("defaults", []) if isinstance(item, dict)]
    found = {key.removeprefix("override /"): str(value) for item in chosen for key, value in item.items()}
    text = (values.get("data") or {}).get("path")
    return found if text is None else {**found, "data.path": str(text)}


def days(published: Sequence[Published]) -> str:
    """When the runs ended, as far as their rows say."""
    known = sorted({one.made for one in published if one.made is not None})
    lacking = sum(one.made is None for one in published)
    said = " to ".join(dict.fromkeys([known[0], known[-1]])) if known else ""
    unknown = f"not recorded for {lacking} of the {len(published)} rows" if lacking else ""
    return "; ".join(filter(None, [said, unknown]))


def run_folders(runs: Sequence[Published]) -> tuple[str, list[tuple[str, str | None]]]:
    """The folder that the seeds of a row share, and each run's name with its address as seen from the report.

    The address is None where a run lies outside the folder that holds experiments/: no other machine has it there.
    """
    shared = "/".join(PurePosixPath(runs[0].folder).parts[-3:-1])
    named = [(PurePosixPath(one.folder).name, _address(one.folder)) for one in runs]
    return shared, named


def _address(folder: str) -> str | None:
    # Folders are told from results/, which lies in experiments/; the page lies one folder deeper.
    parts = PurePosixPath(folder).parts
    inside = parts[:2] == ("..", "..") and ".." not in parts[2:]
    return f"../{folder}" if inside else None
