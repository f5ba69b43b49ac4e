"""From a model's folder to an encoder."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from otfkd.base.errors import UserError, first_line
from otfkd.config.messages import shown
from otfkd.config.sections import Pooler
from otfkd.models.architecture import cut_layers, load_config, loader, refused
from otfkd.models.dropout_rates import add_where_none, set_rates
from otfkd.models.encoder import Encoder, Head
from otfkd.models.found import check_whole
from otfkd.models.found import find_model as find_model
from otfkd.models.found import fingerprint_model as fingerprint_model
from otfkd.models.packing import enable_packing
from otfkd.models.probe import probe
from otfkd.models.saved import normalizes, pools_prompt, saved_dense, saved_dims, saved_prompt, transformer_folder
from otfkd.models.saved import saved_pooler as saved_pooler  # finding, loading and this are asked for together
from otfkd.models.tokenizer import load_tokenizer


def load_encoder(
    folder: Path,
    pooler: Pooler | None = None,
    layers: int | None = None,
    *,
    train: bool = False,
    rates: tuple[float | None, float | None] = (None, None),
    dims: Sequence[int] = (),
    section: str = "model",
) -> Encoder:
    """Load an encoder in float32 and evaluation mode, with the prompt that is saved with it.

    Args:
        folder: a model's folder, from `find_model`.
        pooler: instead of the one saved with the model and of whatever follows it there.
        layers: keep only the first layers.
        train: it will be trained: a pooler with untrained weights may be had, and embeddings keep their length, which
            a head reads.
        rates: of dropout in training, of hidden states and of attention; None is what the model's config has.
        dims: sizes to which embeddings may be cut once it is trained; without training they are those saved with it.
        section: of the config that says all this, for messages.

    Raises:
        UserError: unreadable files, a tokenizer that is not the model's, no pooler known, more layers than there are,
            a pooler without trained weights, dropout that has no place, sizes above the embedding's, or a model that
            cannot be run.
    """
    check_whole(transformer_folder(folder))
    chosen = pooler or _known_pooler(folder, section)
    inner = transformer_folder(folder)
    config = load_config(inner)
    if layers is not None:
        if layers > config.num_hidden_layers:
            raise UserError(
                f"{section}.layers={layers} is more than the {config.num_hidden_layers} layers of {folder}: lower it"
            )
        cut_layers(config, layers)
    if chosen == "top2_mean" and config.num_hidden_layers < 2:
        raise UserError(f"the pooler top2_mean needs two layers: take {section}.pooler=mean or raise {section}.layers")
    set_rates(config, *rates)
    try:
        with quiet():
            backbone, report = loader(config).from_pretrained(
                inner, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True,
                output_loading_info=True, trust_remote_code=False,
            )  # fmt: skip
    except Exception as error:  # transformers raises many kinds for files that are not what they should be
        raise UserError(
            f"the model in {folder} cannot be loaded ({first_line(error)}): fetch or export it again"
        ) from None
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:  # transformers would leave them random
        raise UserError(
            f"the model in {folder} lacks {len(missing)} weights, as {missing[0]}: fetch or export it again"
        )
    # transformers' own pooler is random where the checkpoint has none and never read here, but SqueezeBERT calls it.
    backbone.pooler = torch.nn.Identity()
    add_where_none(backbone, rates[0])
    enable_packing(backbone)
    tokenizer = load_tokenizer(folder)
    most, rows = max(tokenizer.get_vocab().values()), _vocabulary(backbone, config, folder)
    if most >= rows:
        raise UserError(
            f"the tokenizer in {folder} has ids up to {most} and the model {rows} embeddings: give it its own"
        )
    head = _head(folder, config.hidden_size, section, train=train) if chosen == "cls_head" else None
    as_saved = pooler is None and not train
    encoder = Encoder(
        backbone, tokenizer, chosen, head, prompt=saved_prompt(folder), pool_prompt=pools_prompt(folder),
        normalize=as_saved and normalizes(folder), dims=_sizes(folder, dims, config.hidden_size, as_saved=as_saved),
    ).eval()  # fmt: skip
    probe(encoder, folder)
    return encoder


def _sizes(folder: Path, dims: Sequence[int], width: int, *, as_saved: bool) -> Sequence[int]:
    """Sizes as saved with a model, or to be trained; of these none may be above the embedding's."""
    if as_saved:
        return saved_dims(folder)
    if max(dims, default=0) > width:
        told = f"objective.dims={shown(list(dims))} has sizes above the {width} numbers of an embedding"
        raise UserError(f"{told}: leave them out")
    return dims


def _known_pooler(folder: Path, section: str) -> Pooler:
    saved = saved_pooler(folder, section)
    if saved is None:
        export = " or, for otfkd-export, --pooler mean" if section == "model" else ""
        raise UserError(f"{folder} says nothing of its pooler: name it by {section}.pooler=mean{export}")
    return saved


def _vocabulary(backbone: PreTrainedModel, config: Any, folder: Path) -> int:
    try:
        embeddings: Any = backbone.get_input_embeddings()
        return len(embeddings.weight)
    except (AttributeError, NotImplementedError):
        raise refused(config, folder, "which does not read token ids") from None


def _head(folder: Path, width: int, section: str, *, train: bool) -> Head:
    head, square = Head(width), [width, width]
    names = ("head.dense.weight", "pooler.dense.weight", "bert.pooler.dense.weight", "roberta.pooler.dense.weight")
    for file in sorted((saved_dense(folder) or transformer_folder(folder)).glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            held = tensors.keys()
            for name in ("linear.weight", *names):
                if name in held and tensors.get_slice(name).get_shape() == square:
                    layer = {part: tensors.get_tensor(name.replace("weight", part)) for part in ("weight", "bias")}
                    head.dense.load_state_dict(layer)
                    return head
    if not train:
        raise UserError(f"{folder} has no trained weights for the pooler cls_head: take {section}.pooler=cls or mean")
    return head


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' report of weights that are dropped on purpose, and its progress bar."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
