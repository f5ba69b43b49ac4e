"""A corpus: one sentence per LF, its id the number of its line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from otfkd.base.errors import UserError
from otfkd.base.hashing import sha256_bytes, sha256_file
from otfkd.config.sections import DataConfig


@dataclass(frozen=True)
class Corpus:
    """A text file that has been found; nothing of it is held in memory.

    Attributes:
        path: the file.
        sha256: its content's hash, which keys every cache made from it.
    """

    path: Path
    sha256: str

    def sentences(self) -> Iterator[tuple[int, str]]:
        """Yield (line number from 0, sentence), skipping blank lines.

        Only LF ends a sentence (CRLF is tolerated): U+2028, U+0085, form feeds, lone CRs and a BOM stay inside it.

        Raises:
            UserError: a line that is not UTF-8, by file and line number.
        """
        with self.path.open("rb") as file:
            for number, raw in enumerate(file):
                try:
                    sentence = raw.removesuffix(b"\n").removesuffix(b"\r").decode()
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{self.path} line {number + 1} is not UTF-8 ({error.reason} at byte {error.start}): "
                        "convert the file, for instance with iconv"
                    ) from None
                if sentence.strip():
                    yield number, sentence

    def count(self) -> int:
        """How many sentences there are; reads the whole file.

        Raises:
            UserError: a line that is not UTF-8.
        """
        return sum(1 for _ in self.sentences())


def find_corpus(config: DataConfig, cache: Path) -> Corpus:
    """The corpus a config names: generated, downloaded or the user's own file.

    Args:
        config: `data` of the run.
        cache: where a generated corpus is kept.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    if config.source == "mini":
        path = _generated(cache)
    elif config.source == "hub":
        from otfkd.data.hub import download

        if config.repo is None or config.file is None:
            raise UserError(
                "data.source=hub needs data.repo and data.file: take data=wiki1m, or data=text data.path=FILE"
            )
        path = download(config.repo, config.file, "data=text data.path=FILE")
    elif config.source != "text":
        raise UserError(
            f"data.source={config.source} is labelled examples, and the objective reads plain sentences: "
            "take data=mini, text or wiki1m, or fine-tune with objective=supervised_simcse, cosent, cosine_regression "
            "or softmax"
        )
    else:
        if config.path is None:
            raise UserError("data.path must be given with data=text: add data.path=FILE")
        path = Path(config.path)
    if not path.is_file():
        raise UserError(f"data.path={path} is not a file: give a text file with one sentence a line")
    try:
        return Corpus(path, sha256_file(path))
    except OSError as error:
        raise UserError(f"data.path={path} cannot be read ({error.strerror}): check its permissions") from None


def _generated(cache: Path) -> Path:
    from otfkd.base.files import write_bytes
    from otfkd.data import mini

    content = "".join(f"{sentence}\n" for sentence in mini.corpus()).encode()
    path = cache / "corpora" / f"mini-{sha256_bytes([content])[:16]}.txt"
    if not path.is_file():
        write_bytes(path, content)
    return path
