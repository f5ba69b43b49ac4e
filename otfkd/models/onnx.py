"""Encoders as one ONNX graph: token ids to sentence embeddings, for runtimes without Python or torch."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from otfkd.base.errors import UserError
from otfkd.data.collate import Tokens, pad
from otfkd.models.encoder import Encoder, evaluating
from otfkd.models.packing import only_padded

# torch.onnx writes by the last two; the first runs what was written.
_NEEDED = ("onnxruntime", "onnx", "onnxscript")
_INPUTS, _OUTPUT = ("input_ids", "attention_mask"), "sentence_embedding"
_MOST_BYTES = 2**31 - 2**20  # a protobuf file holds no more; heavier weights go into a file beside it
_TOLERANCE = 1e-4


class _Graph(nn.Module):
    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded: Tensor = self.encoder(Tokens(input_ids, attention_mask))
        return embedded


def check_onnx() -> None:
    """Raise a UserError where the packages that ONNX needs are not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {' and '.join(missing)}: install the extra with pip install 'otfkd[onnx]'")


def write_onnx(encoder: Encoder, path: Path) -> None:
    """Write an encoder as a graph and see that onnxruntime computes the same with it.

    The graph takes `input_ids` and `attention_mask`, int64 (batch, length) of any size and padded on the right, made
    with the encoder's prompt, and gives `sentence_embedding`, float32 (batch, d). Token types are zeros inside it.

    Raises:
        UserError: the extra `onnx` is not installed.
        RuntimeError: onnxruntime computes something else than torch.
    """
    check_onnx()
    tokens = _example(encoder)
    weight = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with evaluating(encoder), only_padded(encoder.backbone), _quiet():
        torch.onnx.export(
            _Graph(encoder).eval(), (tokens.input_ids, tokens.attention_mask), path, input_names=_INPUTS,
            output_names=[_OUTPUT], dynamic_shapes=(sizes, sizes), external_data=weight > _MOST_BYTES, verbose=False,
        )  # fmt: skip
        apart = max(_apart(encoder, path, part) for part in (tokens, _first(tokens)))
    if not apart <= _TOLERANCE:
        raise RuntimeError(f"the ONNX graph of {path.name} is {apart:.1e} away from the model: it is not kept")


def _example(encoder: Encoder) -> Tokens:
    # Three lengths, none of them the batch's size, so that no size is taken for another.
    start = len(encoder.tokenizer(encoder.prompt)["input_ids"])
    ids = torch.arange(start + 7) % encoder.backbone.config.vocab_size
    return pad([ids[:length].tolist() for length in (start + 7, start + 4, start + 2)], encoder.pad_id).to(
        encoder.device
    )


def _first(tokens: Tokens) -> Tokens:
    return Tokens(tokens.input_ids[:1, :-2], tokens.attention_mask[:1, :-2])


def _apart(encoder: Encoder, path: Path, tokens: Tokens) -> float:
    """The largest difference of any number of any embedding between torch and onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    fed = {name: getattr(tokens, name).cpu().numpy() for name in _INPUTS}
    (found,) = session.run([_OUTPUT], fed)
    return float((torch.from_numpy(found) - encoder(tokens).cpu()).abs().max())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch.onnx says of packages and names that do not concern the graph."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
