"""What a card calls a model: as the hub does, as the model of an earlier run, or local. Never by a folder."""

import glob
from collections.abc import Sequence
from pathlib import Path

from otfkd.base.errors import UserError
from otfkd.models.registry import find_model, fingerprint_model
from otfkd.reporting.card.history import UNKNOWN
from otfkd.runs.folder import run_of

_MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def hub_name(path: str, found: str) -> str | None:
    """What the hub calls a model that was asked for as `path` and found in the folder that `found` mentions."""
    if path == "minilm":
        return _MINILM
    return path if f"models--{path.replace('/', '--')}/" in found.replace("\\", "/") else None


def model_names(paths: Sequence[str], sha256s: Sequence[str], found: str) -> list[str]:
    """What to call each of some models.

    Args:
        paths: as the config has them; a pattern stands for all the folders it matched.
        sha256s: of each model's files, in order; none where they are unknown.
        found: the plan, which mentions the folders they were found in.
    """
    if not sha256s:
        return [_name([path], None, found) for path in paths]
    asked = _asked_for(paths, len(sha256s))
    return [_name(candidates, sha256, found) for candidates, sha256 in zip(asked, sha256s, strict=True)]


def _asked_for(paths: Sequence[str], count: int) -> list[Sequence[str]]:
    """What each of `count` models may have been asked for as; nothing where that cannot be told."""
    if len(paths) == count:
        return [[path] for path in paths]
    patterns = [path for path in paths if glob.has_magic(path)]
    if len(patterns) == len(paths):
        return [patterns] * count
    if len(patterns) > 1:
        return [()] * count
    others = count - len(paths) + 1
    return [[path] for one in paths for path in [one] * (others if one in patterns else 1)]


def _name(candidates: Sequence[str], sha256: str | None, found: str) -> str:
    if not candidates:
        return f"a model of {UNKNOWN} name"
    named = hub_name(candidates[0], found) if len(candidates) == 1 else None
    return named or _earlier_run(candidates, sha256) or "a local model"


def _earlier_run(paths: Sequence[str], sha256: str | None) -> str | None:
    """The run whose model it is, if that is still there and still the same."""
    for path in paths if sha256 is not None else ():
        matched = glob.glob(str(Path(path).expanduser()))  # noqa: PTH207  Path.glob takes no absolute pattern
        for folder in dict.fromkeys([path, *sorted(matched)]):
            name = _run_name(folder, sha256)
            if name is not None:
                return name
    return None


def _run_name(folder: str, sha256: str | None) -> str | None:
    try:
        model = find_model(folder) if Path(folder).expanduser().is_dir() else None
    except UserError:
        return None
    run = None if model is None or fingerprint_model(model) != sha256 else run_of(model)
    origin = None if run is None else run.read_provenance()
    if run is None or origin is None:
        return None
    name, seed = run.read_stored_config().name or UNKNOWN, UNKNOWN if origin.seed is None else origin.seed
    return f"the model of a run of `{name}`, config {origin.config_hash}, seed {seed}"
