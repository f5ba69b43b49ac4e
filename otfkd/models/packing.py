"""Reading a batch without its padding: all tokens in one row, and attention sentence by sentence.

A fifth to a half of a padded batch is padding, and every layer but attention would compute on it. Where only the first
token is pooled, the last layer needs no other: keys and values are all it takes of them.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from otfkd.data.collate import Tokens
from otfkd.models.dropout import dropout, enable_fast_dropout

_ATTENTION = "otfkd_packed"
_SHORT = 64  # tokens
# Architectures known to hand their keywords down to attention, and whether positions count from after the padding id.
_POSITIONS_AFTER_PADDING = {"bert": False, "roberta": True, "xlm-roberta": True}


@dataclass(frozen=True)
class Packing:
    """Where the T real tokens of a padded (B, L) batch are.

    Attributes:
        kept: (T,) their places in the flattened batch.
        mask: (B, L) bool.
        first_only: whether the last layer is to give each sentence's first token alone.
    """

    kept: Tensor
    mask: Tensor
    first_only: bool = False

    @classmethod
    def of(cls, attention_mask: Tensor, *, first_only: bool = False) -> "Packing":
        return cls(attention_mask.flatten().nonzero().squeeze(1), attention_mask.bool(), first_only)

    @cached_property
    def firsts(self) -> Tensor:
        """(B,) places of the first tokens among the packed ones."""
        lengths = self.mask.sum(1)
        return lengths.cumsum(0) - lengths

    def pack(self, padded: Tensor) -> Tensor:
        """(B, L, ...) to (T, ...)."""
        return padded.flatten(0, 1).index_select(0, self.kept)

    def pad(self, packed: Tensor) -> Tensor:
        """(T, ...) to (B, L, ...), zeros on padding."""
        rows = packed.new_zeros(self.mask.numel(), *packed.shape[1:])
        return rows.index_copy(0, self.kept, packed).view(*self.mask.shape, *packed.shape[1:])

    @cached_property
    def nearest(self) -> Tensor:
        """(B L,) for each place of the padded batch which packed token is there, or is the last one before it."""
        return self.mask.flatten().cumsum(0) - 1

    def spread(self, packed: Tensor) -> Tensor:
        """(T, ...) to (B, L, ...), the sentence's last token on its padding: for attention, which does not see that."""
        rows: Tensor = _Spread.apply(packed, self.nearest, self.kept)  # type: ignore[no-untyped-call]
        return rows.view(*self.mask.shape, *packed.shape[1:])


class _Spread(torch.autograd.Function):
    """Rows, read by where they belong: a seventh of the time of writing them there. Padding hands no gradient on."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, nearest: Tensor, kept: Tensor) -> Tensor:
        ctx.kept = kept
        return packed.index_select(0, nearest)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.kept), None, None


def enable_packing(backbone: PreTrainedModel) -> None:
    """Let a backbone read packed batches, if its architecture is known to; padded ones it reads as before."""
    config = backbone.config
    # A decoder's tokens do not see the ones after them, which attention sentence by sentence does not mind.
    if config.model_type in _POSITIONS_AFTER_PADDING and not config.is_decoder:
        backbone.set_attn_implementation(_ATTENTION)
        enable_fast_dropout(backbone)
        last = backbone.get_submodule("encoder.layer")[-1]  # type: ignore[index]
        last.forward = MethodType(_last_layer, last)


def disable_packing(backbone: PreTrainedModel) -> None:
    """Read padded batches from now on."""
    backbone.set_attn_implementation("sdpa")


@contextlib.contextmanager
def only_padded(backbone: PreTrainedModel) -> Iterator[None]:
    """Read padded batches as such, for what follows every operation, as the export of a graph."""
    if not packs(backbone):
        yield
        return
    before = backbone.config._attn_implementation
    backbone.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)


def packs(backbone: PreTrainedModel) -> bool:
    """Whether a backbone can read packed batches."""
    return bool(backbone.config._attn_implementation == _ATTENTION)


def read_packed(backbone: PreTrainedModel, tokens: Tokens, *, layered: bool, first_only: bool) -> list[Tensor]:
    """The hidden states of the last layer, or of the word embeddings and all layers: (B, L, d), zeros on padding.

    With `first_only` those of each sentence's first token in the last layer, (B, 1, d).
    """
    packing = Packing.of(tokens.attention_mask, first_only=first_only)
    output = backbone(
        input_ids=packing.pack(tokens.input_ids)[None],
        position_ids=packing.pack(_positions(backbone, tokens))[None],
        output_hidden_states=layered,
        packing=packing,
    )
    if first_only:
        return [output.last_hidden_state.transpose(0, 1)]
    return [packing.pad(hidden[0]) for hidden in (output.hidden_states if layered else [output.last_hidden_state])]


def _positions(backbone: PreTrainedModel, tokens: Tokens) -> Tensor:
    """(B, L) positions as transformers counts them."""
    config = backbone.config
    if not _POSITIONS_AFTER_PADDING[config.model_type]:
        return tokens.attention_mask.cumsum(1) - 1
    # By id, not by mask: a tokenizer may pad with another id than the config says, or a text may name the padding.
    padding = int(config.pad_token_id)
    counted = tokens.input_ids.ne(padding).long()
    return counted.cumsum(1) * counted + padding


def _last_layer(layer: nn.Module, hidden: Tensor, *others: Any, packing: Packing | None = None, **more: Any) -> Tensor:
    """The last layer of BERT and its kin as it is, or for first tokens alone, (1, T, d) to (1, B, d)."""
    if packing is None or not packing.first_only:
        whole: Tensor = type(layer).forward(layer, hidden, *others, packing=packing, **more)
        return whole
    attention: Any = layer.attention
    read, firsts = attention.self, hidden[:, packing.firsts]
    heads = (-1, read.num_attention_heads, read.attention_head_size)
    query = read.query(firsts)[0].view(heads).unsqueeze(2)
    key, value = (packing.spread(part(hidden)[0].view(heads)).transpose(1, 2) for part in (read.key, read.value))
    p = read.dropout.p if read.training else 0.0
    attended = _attend(query, key, value, packing.mask[:, None, None, :], p, read.scaling)
    given: Tensor = layer.feed_forward_chunk(attention.output(attended.flatten(1)[None], firsts))  # type: ignore[operator]
    return given


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *,
    packing: Packing | None = None, dropout: float = 0.0, scaling: float | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention as transformers calls it, on (1, heads, T, d / heads) where the batch is packed."""
    if packing is None:
        attended: Tensor = sdpa_attention_forward(
            module, query, key, value, mask, dropout=dropout, scaling=scaling, **others
        )[0]
        return attended, None
    query, key, value = (packing.spread(part[0].transpose(0, 1)).transpose(1, 2) for part in (query, key, value))
    attended = _attend(query, key, value, packing.mask[:, None, None, :], dropout, scaling)
    return packing.pack(attended.transpose(1, 2))[None], None


def _attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, p: float, scaling: float | None) -> Tensor:
    """Attention of each sentence to itself: (B, heads, L or 1, d / heads) queries, mask (B, 1, 1, L)."""
    if query.device.type == "cpu" and (p or (query.dtype == torch.bfloat16 and seen.shape[-1] <= _SHORT)):
        return _plain(query, key, value, seen, p, scaling)
    return nn.functional.scaled_dot_product_attention(query, key, value, seen, p, scale=scaling)


def _plain(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, p: float, scaling: float | None) -> Tensor:
    # On a CPU torch has no fused kernel with dropout, and its bfloat16 one takes twice as long on short sentences.
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    unseen = torch.zeros(seen.shape, dtype=query.dtype).masked_fill_(~seen, torch.finfo(query.dtype).min)
    scores = torch.baddbmm(
        unseen.expand(-1, query.shape[1], -1, -1).flatten(0, 1), query.flatten(0, 1), key.flatten(0, 1).mT, alpha=scale
    )
    weights = scores.softmax(-1)
    return torch.bmm(dropout(weights, p) if p else weights, value.flatten(0, 1)).view(query.shape)


AttentionInterface.register(_ATTENTION, _attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
