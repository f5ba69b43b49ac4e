"""Encoders as folders in sentence-transformers' format, with safetensors weights."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from otfkd.base.files import atomic_folder
from otfkd.models.encoder import Encoder
from otfkd.models.registry import quiet
from otfkd.models.saved import MODULES, NOTE, PROMPTS, TRANSFORMER

_POOLING = {"cls": "pooling_mode_cls_token", "cls_head": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}


def save_encoder(encoder: Encoder, folder: Path, max_length: int) -> None:
    """Write an encoder so that sentence-transformers and otfkd read the same embeddings from it.

    Args:
        encoder: what to save.
        folder: appears whole or not at all; an earlier one is replaced.
        max_length: tokens read of a sentence.
    """
    with atomic_folder(folder) as temporary:
        write_encoder(encoder, temporary, max_length)


def write_encoder(encoder: Encoder, folder: Path, max_length: int, prompts: Mapping[str, str] | None = None) -> None:
    """Write an encoder's files into a folder that is there.

    Args:
        encoder: what to write.
        folder: holds nothing yet.
        max_length: tokens read of a sentence, as far as there are positions for them.
        prompts: by name, beside the one that the encoder puts before every sentence.
    """
    layered, max_length = _layer_weights(encoder), encoder.reading_length(max_length)
    with quiet():
        encoder.backbone.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    # Whoever reads the folder without sentence-transformers is to cut there too.
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    _json(folder / "tokenizer_config.json", {**settings, "model_max_length": max_length})
    modules = [("", "Transformer")]
    if layered is not None:
        # sentence-transformers averages layers in a module of its own; it sees them only if the backbone returns them.
        config = json.loads((folder / "config.json").read_text())
        _json(folder / "config.json", {**config, "output_hidden_states": True})
        modules.append(("1_WeightedLayerPooling", "WeightedLayerPooling"))
        _layer_module(folder / "1_WeightedLayerPooling", encoder, layered)
    modules.append((f"{len(modules)}_Pooling", "Pooling"))
    _json(folder / modules[-1][0] / "config.json", {
        "word_embedding_dimension": encoder.width,
        **dict.fromkeys(("pooling_mode_cls_token", "pooling_mode_mean_tokens", "pooling_mode_lasttoken"), False),
        _POOLING.get(encoder.pooler, "pooling_mode_mean_tokens"): True,
        "include_prompt": encoder.pool_prompt,
    })  # fmt: skip
    if encoder.head is not None:
        modules.append(("2_Dense", "Dense"))
        _dense_module(folder / "2_Dense", encoder)
    if encoder.normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    listing = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    _json(folder / MODULES, listing)
    _json(folder / TRANSFORMER, {"max_seq_length": max_length, "do_lower_case": False, **_built_with(encoder)})
    default = {"default": encoder.prompt} if encoder.prompt else {}
    _json(folder / PROMPTS, {
        "prompts": {**(prompts or {}), **default}, "default_prompt_name": next(iter(default), None),
        "similarity_fn_name": "cosine",
    })  # fmt: skip
    _json(folder / NOTE, {
        "format": 1, "pooler": encoder.pooler, "max_length": max_length,
        # Not sentence-transformers' truncate_dim, by which everybody would get shorter embeddings unasked.
        **({"dims": list(encoder.dims)} if encoder.dims else {}),
    })  # fmt: skip


def _built_with(encoder: Encoder) -> dict[str, Any]:
    """What sentence-transformers is to build the backbone with: no pooler of transformers' own where it would add one.

    Nothing reads that pooler, and its weights, which are not saved, would be reported as missing and made up.
    """
    built = inspect.signature(type(encoder.backbone)).parameters
    return {"model_args": {"add_pooling_layer": False}} if "add_pooling_layer" in built else {}


def _layer_weights(encoder: Encoder) -> list[float] | None:
    """Weights over the layers' outputs, first layer first, for the poolers that average two of them."""
    layers = int(encoder.backbone.config.num_hidden_layers)
    picked = {"first_last_mean": (0, layers - 1), "top2_mean": (layers - 2, layers - 1)}.get(encoder.pooler)
    return None if picked is None else [float(picked.count(layer)) for layer in range(layers)]


def _layer_module(folder: Path, encoder: Encoder, weights: list[float]) -> None:
    import torch

    _json(folder / "config.json", {
        "word_embedding_dimension": encoder.width, "layer_start": 1, "num_hidden_layers": len(weights),
    })  # fmt: skip
    save_file({"layer_weights": torch.tensor(weights)}, folder / "model.safetensors")


def _dense_module(folder: Path, encoder: Encoder) -> None:
    assert encoder.head is not None
    _json(folder / "config.json", {
        "in_features": encoder.width, "out_features": encoder.width, "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    })  # fmt: skip
    dense = encoder.head.dense
    save_file(
        {"linear.weight": dense.weight.detach(), "linear.bias": dense.bias.detach()}, folder / "model.safetensors"
    )


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
