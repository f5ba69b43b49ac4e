"""How much dropout an encoder trains with: where its architecture has it, or where it gets it if it has none."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from otfkd.base.errors import UserError
from otfkd.models.dropout import Dropout

# What transformers' configs call them.
_HIDDEN = (
    "hidden_dropout_prob", "hidden_dropout", "dropout", "dropout_rate", "embedding_dropout", "mlp_dropout",
    "embd_pdrop", "resid_pdrop", "residual_dropout",
)  # fmt: skip
_ATTENTION = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
# What ends the two branches of a layer, norms after them included; the first pair that a layer has.
_BRANCHES = (("post_attention_layernorm", "post_feedforward_layernorm"), ("self_attn", "mlp"))
_OWN = "residual_dropout"


def set_rates(config: Any, hidden: float | None, attention: float | None) -> None:
    """Put rates in the place of those that a model's config has, before the model is built from it.

    Args:
        config: of the model.
        hidden: `model.dropout`, of all that is not attention; None leaves it as it is.
        attention: `model.attention_dropout`, of attention's weights; None leaves it as it is.

    Raises:
        UserError: the architecture has no dropout of attention alone.
    """
    if attention is not None and not _keys(config, _ATTENTION):
        raise UserError(
            f"model.attention_dropout={attention:g} has no place in a {config.model_type} model, whose config has no "
            "dropout of attention alone: leave it out, or take model.dropout"
        )
    for keys, rate in ((_HIDDEN, hidden), (_ATTENTION, attention)):
        if rate is not None:
            for key in _keys(config, keys):
                setattr(config, key, float(rate))  # some configs take no whole number


def add_where_none(backbone: PreTrainedModel, rate: float | None) -> None:
    """Where a config has no rate but attention's, drop embeddings and what each branch of a layer adds to them.

    That is where Vaswani et al. 2017 (sec. 5.4) have it. Names of weights stay what they are, and evaluation is as it
    was.

    Raises:
        UserError: the layers are not made of attention and an MLP.
    """
    if not rate or _keys(backbone.config, _HIDDEN):
        return
    embeddings = backbone.get_input_embeddings()
    assert isinstance(embeddings, nn.Module)
    for part in (embeddings, *_branches(backbone, rate)):
        # A child of what it drops, so that a copy has its own, which is in its own mode.
        part.add_module(_OWN, Dropout(rate))
        part.register_forward_hook(_drop)


def told_rates(backbone: PreTrainedModel) -> str:
    """The rates in words."""
    config = backbone.config
    rates = [f"{key} {getattr(config, key):g}" for key in _keys(config, (*_HIDDEN, *_ATTENTION))]
    embeddings: Any = backbone.get_input_embeddings()
    if hasattr(embeddings, _OWN):
        rates.insert(0, f"{getattr(embeddings, _OWN).p:g} on embeddings and residuals")
    return ", ".join(rates) or "none"


def _keys(config: Any, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if isinstance(getattr(config, name, None), int | float)]


def _branches(backbone: PreTrainedModel, rate: float) -> Iterator[nn.Module]:
    config = backbone.config
    stacks = (part for part in backbone.modules() if isinstance(part, nn.ModuleList))
    layers = next((stack for stack in stacks if len(stack) == config.num_hidden_layers), nn.ModuleList())
    pairs = [[pair for pair in _BRANCHES if all(hasattr(layer, name) for name in pair)] for layer in layers]
    if not pairs or not all(pairs):
        raise UserError(
            f"model.dropout={rate:g} has no place in a {config.model_type} model, whose config has no dropout and "
            "whose layers are not attention and an MLP: leave it out, or take another model"
        )
    for layer, (ends, *_) in zip(layers, pairs, strict=True):
        for name in ends:
            yield getattr(layer, name)


def _drop(part: nn.Module, _: Any, output: Any) -> Any:
    drop: Any = getattr(part, _OWN)
    dropped: Tensor = drop(output[0] if isinstance(output, tuple) else output)
    return (dropped, *output[1:]) if isinstance(output, tuple) else dropped
