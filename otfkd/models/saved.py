"""What a model's folder says of how it is to be read: pooler, prompt, length and what follows pooling."""

import json
from pathlib import Path
from typing import Any, get_args

from otfkd.base.errors import UserError
from otfkd.config.sections import Pooler

# otfkd's own note comes first: sentence-transformers has no names for some of the poolers.
NOTE, MODULES, PROMPTS, TRANSFORMER = (
    "otfkd.json", "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
)  # fmt: skip
_LEGACY = "pooling_mode_"
_POOLERS: dict[str, Pooler] = {"cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean",
                               "last": "last", "lasttoken": "last"}  # fmt: skip


def saved_pooler(folder: Path, section: str = "model") -> Pooler | None:
    """The pooler that travels with a model, None where it has none.

    Args:
        folder: the model's.
        section: of the config that may name another, for messages.

    Raises:
        UserError: the model pools in a way otfkd does not know, or has modules after pooling that it does not.
    """
    own = folder / NOTE
    if own.is_file():
        pooler: Pooler = _json(own).get("pooler")
        if pooler not in get_args(Pooler):
            raise UserError(
                f"{own} names the pooler {pooler!r}, which otfkd does not know: name {section}.pooler to override"
            )
        return pooler
    modules = _modules(folder)
    if not modules:
        return None
    kinds = [kind for kind, _ in modules if kind != "Normalize"]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Dense"]):
        raise UserError(
            f"{folder} is made of {', '.join(kinds)}, which otfkd does not read: name {section}.pooler to override"
        )
    modes = _modes(_json(modules[1][1] / "config.json"))
    if len(modes) != 1 or modes[0] not in _POOLERS:
        named = " and ".join(modes) or "no mode at all"
        raise UserError(f"{folder} pools by {named}, which otfkd does not know: name {section}.pooler to override")
    return _with_dense(folder, _POOLERS[modes[0]], section)


def _modes(pooling: dict[str, Any]) -> list[str]:
    mode = pooling.get("pooling_mode")
    if mode is not None:
        return [mode] if isinstance(mode, str) else [str(each) for each in mode]
    return [key.removeprefix(_LEGACY) for key, on in pooling.items() if key.startswith(_LEGACY) and on]


def _with_dense(folder: Path, pooler: Pooler, section: str) -> Pooler:
    """What a pooler and the trained layer after it are together: SimCSE's head is one such, any other is unknown."""
    dense = saved_dense(folder)
    if dense is None:
        return pooler
    layer = _json(dense / "config.json")
    activation = str(layer.get("activation_function")).rpartition(".")[2]
    plain = layer.get("bias", True) and layer["in_features"] == layer["out_features"] and not layer.get("use_residual")
    if pooler == "cls" and activation == "Tanh" and plain:
        return "cls_head"
    raise UserError(
        f"{folder} projects what it pools by {pooler} from {layer['in_features']} to {layer['out_features']} "
        f"dimensions ({activation}), which otfkd does not read: name {section}.pooler to leave the projection out"
    )


def saved_dense(folder: Path) -> Path | None:
    """The folder of the trained layer that follows pooling, None where there is none."""
    return next((path for kind, path in _modules(folder) if kind == "Dense"), None)


def normalizes(folder: Path) -> bool:
    """Whether the model scales its embeddings to unit length."""
    return any(kind == "Normalize" for kind, _ in _modules(folder))


def transformer_folder(folder: Path) -> Path:
    """Where config, weights and tokenizer are: sentence-transformers' older layout has a folder for them."""
    return next((path for kind, path in _modules(folder) if kind == "Transformer"), folder)


def saved_prompts(folder: Path) -> dict[str, str]:
    """Every prompt that travels with a model, by its name."""
    prompts: dict[str, str] = _settings(folder / PROMPTS).get("prompts") or {}
    return prompts


def saved_prompt(folder: Path) -> str:
    """What the model puts before every sentence, "" where it puts nothing.

    Raises:
        UserError: the default prompt is not among the model's prompts.
    """
    name = _settings(folder / PROMPTS).get("default_prompt_name")
    if name is None:
        return ""
    prompts = saved_prompts(folder)
    if name not in prompts:
        raise UserError(f"{folder / PROMPTS} has no prompt called {name!r}, its default: add it or name another")
    return prompts[name]


def pools_prompt(folder: Path) -> bool:
    """Whether the prompt's tokens count in pooling."""
    pooling = next((path for kind, path in _modules(folder) if kind == "Pooling"), None)
    return pooling is None or bool(_json(pooling / "config.json").get("include_prompt", True))


def lower_cases(folder: Path) -> bool:
    """Whether sentences are put into lower case, whatever the tokenizer does by itself."""
    return bool(_settings(transformer_folder(folder) / TRANSFORMER).get("do_lower_case"))


def saved_length(folder: Path) -> int | None:
    """How many tokens the model reads of a sentence, None where that is left to its tokenizer."""
    length: int | None = _settings(transformer_folder(folder) / TRANSFORMER).get("max_seq_length")
    return length


def saved_dims(folder: Path) -> list[int]:
    """The sizes to which the model's embeddings may be cut, as otfkd's own note has them; none where it has none."""
    dims: list[int] = _settings(folder / NOTE).get("dims", [])
    return dims


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module, in order; a kind that is not sentence-transformers' own keeps its whole name."""
    if not (folder / MODULES).is_file():
        return []
    modules = []
    for module in _json(folder / MODULES):
        kind = str(module["type"])
        own = kind.startswith("sentence_transformers.")
        modules.append((kind.rpartition(".")[2] if own else kind, folder / module["path"]))
    return modules


def _settings(path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = _json(path) if path.is_file() else {}
    return settings


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): fetch or export the model again") from None
