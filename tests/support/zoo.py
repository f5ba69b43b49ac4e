"""Every architecture that is held to work: tiny models of random weights, as transformers builds them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import processors
from transformers import AutoConfig, AutoModel

from otfkd.config.sections import Pooler
from tests.support.models import make_tokenizer

_SIZE: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip
_DECODER = {**_SIZE, "num_key_value_heads": 1, "head_dim": 16}


@dataclass(frozen=True)
class Architecture:
    """One of them.

    Attributes:
        name: what people call it.
        sizes: keys of its config that make it tiny; all others are transformers' defaults.
        pooler: one that people take with it.
        ends: what its tokenizer puts around a sentence.
    """

    name: str
    sizes: dict[str, Any]
    pooler: Pooler = "mean"
    ends: Literal["[CLS] $A [SEP]", "$A [SEP]", "$A"] = "[CLS] $A [SEP]"


ZOO: dict[str, Architecture] = {
    "bert": Architecture("BERT", _SIZE, "cls"),
    "roberta": Architecture("RoBERTa", _SIZE, "cls"),
    "xlm-roberta": Architecture("XLM-RoBERTa", _SIZE, "cls"),
    "camembert": Architecture("CamemBERT", _SIZE),
    "distilbert": Architecture("DistilBERT", {
        "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64,
        "initializer_range": 0.2,
    }),
    "albert": Architecture("ALBERT", {**_SIZE, "embedding_size": 16}),
    "electra": Architecture("ELECTRA", {**_SIZE, "embedding_size": 16}, "cls"),
    "mpnet": Architecture("MPNet", _SIZE),
    "deberta-v2": Architecture("DeBERTa v2 and v3", {
        **_SIZE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
    }),
    "modernbert": Architecture("ModernBERT", {**_SIZE, "local_attention": 8, "global_attn_every_n_layers": 2}),
    "nomic_bert": Architecture("NomicBERT", _SIZE),
    "t5": Architecture("T5, its encoder", {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
                       ends="$A [SEP]"),
    "qwen3": Architecture("Qwen3", _DECODER, "last", "$A [SEP]"),
    "llama": Architecture("Llama", _DECODER, "last", "$A [SEP]"),
    "mistral": Architecture("Mistral", {**_DECODER, "sliding_window": 8}, "last", "$A [SEP]"),
    "gemma3_text": Architecture("Gemma 3", {**_DECODER, "sliding_window": 8}, "last", "$A [SEP]"),
}  # fmt: skip
DECODERS = [kind for kind, architecture in ZOO.items() if architecture.pooler == "last"]


def make_zoo_model(folder: Path, kind: str, *, ends: str | None = None, length: int = 32) -> Path:
    """Write one, no bias of it zero, as that would hide that it was left out.

    Args:
        folder: where.
        kind: a key of the zoo.
        ends: what its tokenizer puts around a sentence, if not what people's do.
        length: tokens that its tokenizer reads.
    """
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = length
    names = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        ends or ZOO[kind].ends, special_tokens=names
    )
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **ZOO[kind].sizes)
    model = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
