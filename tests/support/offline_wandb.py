"""Reads what W&B keeps of an offline run: records in LevelDB's log format, as `wandb sync` reads them."""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, 7
_FULL, _LAST = 1, 4


@dataclass
class Kept:
    """An offline run.

    Attributes:
        facts: id, project, group and so on.
        config: what it was given.
        history: its rows, `_step` among their values.
        axes: metric to the metric that is its axis.
        exit_code: None for a run that was never closed.
        artifacts: name to the files in it.
    """

    facts: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    artifacts: dict[str, list[str]] = field(default_factory=dict)


def read_offline(runs: Path) -> Kept:
    """The only offline run in a folder's wandb/."""
    wandb.teardown()  # its service may write for a moment after a run is finished
    (path,) = runs.glob("wandb/offline-run-*/run-*.wandb")
    kept = Kept()
    for record in _records(path.read_bytes()):
        match record.WhichOneof("record_type"):
            case "run":
                kept.facts = record.run
                kept.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            case "history":
                kept.history.append({
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                })  # fmt: skip
            case "metric":
                metric = record.metric
                kept.axes[metric.name or metric.glob_name] = metric.step_metric
            case "exit":
                kept.exit_code = record.exit.exit_code
            case "artifact":
                kept.artifacts[record.artifact.name] = [entry.path for entry in record.artifact.manifest.contents]
    return kept


def _records(content: bytes) -> Iterator[Any]:
    assert content[:4] == b":W&B"
    at, parts = _HEADER, b""
    while at + _HEADER <= len(content):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK  # a header never crosses a block's end
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, at)
        data = content[at + _HEADER : at + _HEADER + length]
        if len(data) < length:
            return  # the writer was killed
        assert checksum == zlib.crc32(bytes([kind]) + data)
        at, parts = at + _HEADER + length, parts + data
        if kind in (_FULL, _LAST):
            yield Record.FromString(parts)
            parts = b""
