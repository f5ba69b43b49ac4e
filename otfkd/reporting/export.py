"""A run's model, or any other, as a folder that explains itself, and that folder on the hub."""

import logging
from pathlib import Path

from otfkd.base.errors import UserError, first_line
from otfkd.base.files import atomic_folder, write_text
from otfkd.base.hashing import hash_weights
from otfkd.config.sections import Pooler
from otfkd.models.export import write_encoder
from otfkd.models.onnx import check_onnx, write_onnx
from otfkd.models.registry import find_model, load_encoder
from otfkd.models.saved import saved_length, saved_prompts
from otfkd.reporting.card.history import check_history, read_history
from otfkd.reporting.card.names import hub_name
from otfkd.reporting.card.page import model_card

log = logging.getLogger("otfkd")


def export(
    source: str, output: Path, *, name: str | None = None, pooler: Pooler | None = None, licence: str | None = None,
    onnx: bool = False,
) -> None:  # fmt: skip
    """Write a model in sentence-transformers format with a model card.

    Args:
        source: a run's folder, a model's folder, a hub id or `minilm`.
        output: the new folder; it appears whole or not at all.
        name: what the card calls the model; the folder's name by default.
        pooler: instead of the one saved with the model.
        licence: its identifier on the hub.
        onnx: write `model.onnx` too.

    Raises:
        UserError: the output is not empty, the model cannot be used, or what ONNX needs is not installed.
    """
    output = output.expanduser().absolute()
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"{output} is there already: name a new or an empty folder")
    if onnx:
        check_onnx()
    folder = find_model(source)
    encoder = load_encoder(folder, pooler)
    history, weights = read_history(folder), hash_weights(encoder)
    if history is not None:
        check_history(history, encoder, weights)
    base = hub_name(source, f"{folder}/") if history is None else hub_name(history.base[0] or "", history.plan)
    length = encoder.reading_length(saved_length(folder))
    card = model_card(
        name or output.name, encoder, length, history, base=base, licence=licence and licence.lower(), onnx=onnx
    )
    try:
        with atomic_folder(output) as temporary:
            write_encoder(encoder, temporary, length, saved_prompts(folder))
            write_text(temporary / "README.md", card)
            if onnx:
                write_onnx(encoder, temporary / "model.onnx")
    except OSError as error:
        raise UserError(f"{output} cannot be written ({first_line(error)}): name a folder with room for it") from None


def check_repository(repository: str) -> None:
    """Raise a UserError for a name that the hub would not take."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"{repository} is no name for a repository ({first_line(error)}): give OWNER/NAME") from None


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Put an exported folder on the hub.

    Returns:
        The commit's address.

    Raises:
        UserError: the hub did not take it; the folder stays as it is.
    """
    import httpx2
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Exported by otfkd")
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise UserError(
            f"{folder} is written but was not pushed to {repository} ({first_line(error)}): check the network and the "
            "token (hf auth login), then upload the folder"
        ) from None
    return str(commit.commit_url)
