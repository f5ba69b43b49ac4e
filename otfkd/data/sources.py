"""The text that a config names: generated, downloaded, the user's own files, or a map of the user's own."""

import glob
from collections.abc import Sequence
from pathlib import Path

from otfkd.base.errors import UserError
from otfkd.base.files import write_bytes
from otfkd.base.hashing import sha256_file
from otfkd.base.progress import waiting
from otfkd.config.sections import DataConfig
from otfkd.data.corpus import Corpus
from otfkd.data.formats import TextFile, recognize
from otfkd.data.joined import Table, join, unique
from otfkd.data.mapped import mapped


def find_corpus(config: DataConfig, cache: Path) -> Corpus:
    """The corpus a config names; a single plain text is read where it lies.

    Args:
        config: `data` of the run.
        cache: where a generated corpus is kept, and one that is made of several files or of tables.

    Raises:
        UserError: a file is missing, cannot be read, or does not hold what its name says.
    """
    if config.source == "custom":
        corpus = _from_python(config, cache)
        return unique(corpus, cache) if config.unique else corpus
    sources = _sources(config, cache)
    only = sources[0]
    if config.column is not None and all(source.format == "text" for source in sources):
        raise UserError(f"data.column={config.column} is for tables, and {only.name} is plain text: leave it out")
    if len(sources) == 1 and isinstance(only, TextFile) and only.is_plain:
        corpus = Corpus(only.path, only.sha256)
    else:
        corpus = join(sources, config.column, cache)
    return unique(corpus, cache) if config.unique else corpus


def _sources(config: DataConfig, cache: Path) -> Sequence[TextFile | Table]:
    match config.source:
        case "mini":
            return [recognize(_generated(cache))]
        case "text":
            return [recognize(path) for path in matching(config.paths)]
        case "hub":
            return [_from_hub(config)]
    raise UserError(
        f"data.source={config.source} is labelled examples, and the objective reads plain sentences: "
        "take data=mini, text or wiki1m, or fine-tune with objective=supervised_simcse, cosent, cosine_regression "
        "or softmax"
    )


def _from_python(config: DataConfig, cache: Path) -> Corpus:
    if not config.paths:
        raise UserError("data.path must be given with data=custom: add data.path=package.module:Class")
    return mapped(config.paths[0], cache)


def matching(paths: Sequence[str], key: str = "data.path") -> list[Path]:
    """The files that paths and patterns name, those of a pattern by name.

    Args:
        paths: of files, and patterns.
        key: the config's key that names them, for messages.

    Raises:
        UserError: there is no path, a pattern matches nothing, or a file is named twice.
    """
    if not paths:
        raise UserError("data.path must be given with data=text: add data.path=FILE")
    found: list[Path] = []
    for path in paths:
        if Path(path).exists() or not glob.has_magic(path):
            found.append(Path(path))
            continue
        matched = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
        files = [one for one in map(Path, matched) if one.is_file()]
        if not files:
            raise UserError(f"{key}={path} matches no file: correct the pattern")
        found += files
    twice = next((path for place, path in enumerate(found) if path in found[:place]), None)
    if twice is not None:
        raise UserError(f"{key} names {twice} twice: name it once")
    return found


def _from_hub(config: DataConfig) -> TextFile | Table:
    from otfkd.data.hub import download, load_split

    instead = "data=text data.path=FILE"
    if config.repo is not None and config.split is not None:
        return load_split(config.repo, config.subset, config.split, instead)
    if config.repo is None or config.file is None:
        raise UserError(f"data.source=hub needs data.repo and data.file: take data=wiki1m, or {instead}")
    return recognize(download(config.repo, config.file, instead))


def _generated(cache: Path) -> Path:
    from otfkd.data import mini

    path = cache / "corpora" / f"mini-{mini.CORPUS_SHA256[:16]}.txt"
    if not (path.is_file() and sha256_file(path) == mini.CORPUS_SHA256):
        with waiting("writing the sentences of data=mini, once"):
            write_bytes(path, "".join(f"{sentence}\n" for sentence in mini.corpus()).encode())
    return path
