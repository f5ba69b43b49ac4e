"""A sentence encoder: tokenizer, backbone and pooler, which travel together so that no model is read the wrong way."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from otfkd.config.sections import Pooler
from otfkd.data.collate import Tokens
from otfkd.data.tokens import fingerprint_tokenizer, prompt_length
from otfkd.models.packing import packs, read_packed
from otfkd.models.pooling import FIRST, LAYERED, pool


class Head(nn.Module):
    """SimCSE's Linear + tanh, (B, d) to (B, d), initialised as BERT's layers are (Gao et al. 2021, sec. 3).

    The first numbers of an embedding go through the part of the layer that they have by themselves, as the sizes of
    Matryoshka's efficient variant share one layer (Kusupati et al. 2022, sec. 3).
    """

    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        size = pooled.shape[-1]
        return torch.tanh(nn.functional.linear(pooled, self.dense.weight[:size, :size], self.dense.bias[:size]))


class Encoder(nn.Module):
    """Backbone and pooler, with the tokenizer that feeds them.

    Args:
        backbone: a transformer that returns hidden states.
        tokenizer: its tokenizer.
        pooler: how token vectors become one vector.
        head: for the pooler `cls_head` alone: the layer that is part of the embedding.
        prompt: what tokens are to be made with, put before every sentence.
        pool_prompt: whether the prompt's tokens count in pooling.
        normalize: whether embeddings are scaled to unit length.
        dims: sizes to which embeddings may be cut, for training made them so, in falling order.
    """

    def __init__(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pooler: Pooler, head: Head | None = None,
        *, prompt: str = "", pool_prompt: bool = True, normalize: bool = False, dims: Sequence[int] = (),
    ):  # fmt: skip
        super().__init__()
        if (pooler == "cls_head") != (head is not None):
            raise ValueError("a head belongs to the pooler cls_head, and only to it")
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooler: Pooler = pooler
        self.head = head
        self.prompt = prompt
        self.pool_prompt = pool_prompt
        self.normalize = normalize
        self.dims = tuple(dims)
        self.register_state_dict_post_hook(_keep_once)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_give_to_all)  # type: ignore[no-untyped-call]
        self._left_out = 0 if pool_prompt or not prompt else prompt_length(tokenizer, prompt)

    def with_prompt(self, prompt: str) -> "Encoder":
        """An encoder of the same weights, not copies of them, with another prompt."""
        return Encoder(
            self.backbone, self.tokenizer, self.pooler, self.head, prompt=prompt, pool_prompt=self.pool_prompt,
            normalize=self.normalize, dims=self.dims,
        )  # fmt: skip

    @property
    def width(self) -> int:
        return int(self.backbone.config.hidden_size)

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def positions(self) -> int:
        """Tokens of a sentence that there are positions for."""
        most: int | None = getattr(self.backbone.config, "max_position_embeddings", None)
        if most is None or most < 0:  # BLOOM and Mamba need none, XLNet says -1
            return sys.maxsize
        # RoBERTa and its kin count from after the padding's id.
        padding = getattr(getattr(self.backbone, "embeddings", None), "padding_idx", None)
        return most if padding is None else most - padding - 1

    @property
    def longest(self) -> int:
        """Tokens that can be read of a sentence: what the tokenizer says, as far as there are positions."""
        return min(int(self.tokenizer.model_max_length), self.positions)

    def reading_length(self, saved: int | None) -> int:
        """Tokens to read of a sentence: those saved with the model, else the longest; no more than have positions."""
        return self.longest if saved is None else min(saved, self.positions)

    @property
    def input_hash(self) -> str:
        """A hash of how text becomes tokens: encoders with the same one can share a batch."""
        return fingerprint_tokenizer(self.tokenizer, self.prompt)

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def forward(self, tokens: Tokens) -> Tensor:
        """Embed token ids that are padded on the right, (B, L) to (B, d)."""
        start, layered = self._left_out, self.pooler in LAYERED
        if packs(self.backbone):
            first_only = self.pooler in FIRST and not start
            layers = read_packed(self.backbone, tokens, layered=layered, first_only=first_only)
        else:
            layers = _read_padded(self.backbone, tokens, layered=layered)
        pooled = pool(self.pooler, [hidden[:, start:] for hidden in layers], tokens.attention_mask[:, start:])
        embedded: Tensor = pooled if self.head is None else self.head(pooled)
        return nn.functional.normalize(embedded, dim=-1) if self.normalize else embedded

    def same_shape(self, other: nn.Module) -> bool:
        """Whether the other's weights mean the same in place: same tensors, architecture, pooler and input."""
        mine, theirs = self.state_dict(), other.state_dict()
        return (
            isinstance(other, Encoder)
            and (self.pooler, self.pool_prompt, self.normalize) == (other.pooler, other.pool_prompt, other.normalize)
            and {name: tensor.shape for name, tensor in mine.items()}
            == {name: tensor.shape for name, tensor in theirs.items()}
            and _architecture(self) == _architecture(other)
            and self.input_hash == other.input_hash
        )


def _keep_once(encoder: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # T5 has its word embeddings under two names, and safetensors takes a tensor once.
    for name in _tied(encoder):
        del state[prefix + name]


def _give_to_all(encoder: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, first in _tied(encoder).items():
        if prefix + first in state:
            state[prefix + name] = state[prefix + first]


def _tied(module: nn.Module) -> dict[str, str]:
    """Names of weights that have an earlier name too, and which."""
    firsts: dict[Tensor, str] = {}
    named = module.named_parameters(remove_duplicate=False)
    return {name: first for name, weight in named if (first := firsts.setdefault(weight, name)) != name}


def _read_padded(backbone: PreTrainedModel, tokens: Tokens, *, layered: bool) -> list[Tensor]:
    output = backbone(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=layered)
    return list(output.hidden_states) if layered else [output.last_hidden_state]


def _architecture(encoder: Encoder) -> dict[str, object]:
    # What the files were called and written with says nothing of how the tensors are used.
    values: dict[str, object] = encoder.backbone.config.to_dict()
    return {
        key: value for key, value in values.items() if key not in ("_name_or_path", "transformers_version", "dtype")
    }


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every submodule gets back the mode it had."""
    with _in_mode(module, train=False), torch.no_grad():
        yield


@contextlib.contextmanager
def training(module: nn.Module) -> Iterator[None]:
    """Training mode; every submodule gets back the mode it had."""
    with _in_mode(module, train=True):
        yield


@contextlib.contextmanager
def _in_mode(module: nn.Module, *, train: bool) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.train(train)
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
