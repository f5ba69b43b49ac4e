"""What a config.json asks for: honoured, put right where only the form of an answer is concerned, or refused."""

import inspect
from pathlib import Path
from typing import Any

from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING, AutoConfig, AutoModel, AutoModelForTextEncoding

from otfkd.base.errors import UserError, first_line

# These change what a model hands out or how it divides its work, and no number of any embedding.
_FORM = {"chunk_size_feed_forward": 0, "output_attentions": False, "return_dict": True}
_NOT_OF_LAYERS = ("token_id", "token_ids", "architectures", "labels")


def load_config(folder: Path) -> Any:
    """The config of a model that is to be read here.

    Raises:
        UserError: transformers does not know the model, or no longer computes what the config asks for.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for files that are not what they should be
        raise UserError(
            f"{folder}/config.json cannot be used ({first_line(error)}): give a model that transformers knows"
        ) from None
    _check_architecture(config, folder)
    for key, value in _FORM.items():
        if hasattr(config, key):
            setattr(config, key, value)
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute" and not hasattr(type(config), "position_embedding_type"):
        raise UserError(
            f"{folder}/config.json asks for {positions} positions, which transformers no longer computes for "
            f"{config.model_type}: take a model with absolute ones"
        )
    return config


def _check_architecture(config: Any, folder: Path) -> None:
    if _has_decoder_too(config) and type(config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        # Without a second text the decoder reads the first one over again: its states are nobody's embeddings.
        raise refused(config, folder, "an encoder with a decoder, of which otfkd would read the decoder")
    try:
        known = isinstance(config.hidden_size, int) and isinstance(config.num_hidden_layers, int)
    except (AttributeError, NotImplementedError):
        known = False
    if not known:
        raise refused(config, folder, "which has no one width and number of layers")
    if config.num_hidden_layers < 1:
        raise UserError(
            f"{folder}/config.json asks for {config.num_hidden_layers} layers: give a model with at least one"
        )


def loader(config: Any) -> Any:
    """What loads a model: of an encoder with a decoder the encoder alone, as of T5."""
    return AutoModelForTextEncoding if _has_decoder_too(config) else AutoModel


def _has_decoder_too(config: Any) -> bool:
    model = MODEL_MAPPING.get(type(config), None)
    return inspect.isclass(model) and "decoder_input_ids" in inspect.signature(model.forward).parameters


def refused(config: Any, folder: Path, why: str) -> UserError:
    """The error for an architecture that cannot be read well."""
    return UserError(
        f"{folder} is a {config.model_type} model, {why}: "
        "take an encoder such as BERT, RoBERTa or ModernBERT, or a decoder such as Qwen3"
    )


def cut_layers(config: Any, layers: int) -> None:
    """Keep the first layers, and of every list with an entry for each layer the same ones."""
    before = config.num_hidden_layers
    for key, value in list(vars(config).items()):
        # Lists of tokens, classes or architectures may be as long by chance.
        if isinstance(value, list | tuple) and len(value) == before and not key.endswith(_NOT_OF_LAYERS):
            setattr(config, key, value[:layers])
    config.num_hidden_layers = layers
