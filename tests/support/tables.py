"""Sentences in the formats that users have them in."""

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

SENTENCES = ["the cat sat", '"a dog", on the mat', "a tab\u2028less house, naïve", "the cat sat", "the old road"]


def write_as(path: Path, sentences: Sequence[str], column: str = "text") -> Path:
    """Write sentences as the endings of the name say; tables have a column of numbers first."""
    plain, packed = (path.with_suffix(""), path.suffix) if path.suffix in (".gz", ".zst") else (path, "")
    rows = list(enumerate(sentences))
    match plain.suffix:
        case ".jsonl":
            text = "".join(f"{json.dumps({'n': n, column: sentence})}\n" for n, sentence in rows)
        case ".tsv":
            text = "".join(f"{n}\t{sentence}\n" for n, sentence in [("n", column), *rows])
        case ".csv":
            with plain.open("w", newline="") as file:
                csv.writer(file).writerows([("n", column), *rows])
            text = plain.read_text()
        case ".parquet":
            parquet.write_table(pa.table({"n": [n for n, _ in rows], column: list(sentences)}), path)
            return path
        case _:
            text = "".join(f"{sentence}\n" for sentence in sentences)
    if packed == ".zst":
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(text.encode())
    else:
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path
