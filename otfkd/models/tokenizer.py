"""From a model's folder to its tokenizer, as everything here reads and pads with it."""

from pathlib import Path

from tokenizers.normalizers import Lowercase, Sequence
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from otfkd.base.errors import UserError, first_line
from otfkd.models.saved import lower_cases, transformer_folder

_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer, set to what is done with it: padding on the right, whatever its own settings say.

    Raises:
        UserError: there is none, it cannot be read, or it makes what no model here is given.
    """
    inner = transformer_folder(folder)
    if not any(path for pattern in _VOCABULARIES for path in inner.glob(pattern)):
        # transformers would make one up that knows no word
        raise UserError(f"{folder} has no tokenizer ({', '.join(_VOCABULARIES)}): give a folder with its files")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            inner, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises many kinds for files that are not what they should be
        raise UserError(
            f"the tokenizer in {folder} cannot be loaded ({first_line(error)}): give a folder with its files"
        ) from None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # some files ship a fixed length of their own, as MiniLM's 128
        backend.no_truncation()
        backend.no_padding()
        if lower_cases(folder):
            own = [] if backend.normalizer is None else [backend.normalizer]
            backend.normalizer = Sequence([Lowercase(), *own])
    tokenizer.padding_side = "right"  # saved as it is used: with positions from the left it decides an embedding
    if "attention_mask" not in tokenizer.model_input_names:  # others would let padding in
        tokenizer.model_input_names = [*tokenizer.model_input_names, "attention_mask"]
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"the tokenizer in {folder} has neither a padding token nor one that ends a text: name a pad_token"
        )
    if (most := tokenizer.model_max_length) < 1:
        raise UserError(
            f"the tokenizer in {folder} reads {most} tokens of a text: put model_max_length right in its config"
        )
    if any(tokenizer("a b").get("token_type_ids") or ()):
        raise UserError(
            f"the tokenizer in {folder} gives token types other than 0, which otfkd does not hand to a model: "
            "give it a post-processor without them, or take another model"
        )
    return tokenizer
