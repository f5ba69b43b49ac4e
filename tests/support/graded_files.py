"""Graded pairs in the formats that users have them in."""

import csv
import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from tests.support.texts import sentence

Rows = Sequence[tuple[str, str, float]]
COLUMNS = ("sentence1", "sentence2", "score")


def random_pairs(seed: int, grades: Sequence[float] = (0, 1, 2, 3, 4, 5), times: int = 4) -> Rows:
    """Pairs in the tiny vocabulary, each grade several times."""
    rng = random.Random(seed)
    return [(sentence(rng), sentence(rng), grade) for grade in (*grades,) * times]


def write_pairs(path: Path, rows: Rows, columns: Sequence[str] = COLUMNS) -> Path:
    """Write pairs as the ending of the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))), path)
    elif ".jsonl" in path.suffixes:
        text = "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    elif path.suffix == ".tsv":
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [columns, *rows]))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    return path
