"""Data sets of the hub: single files, and splits that `datasets` reads; downloaded once, then read from its cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from otfkd.base.errors import UserError, first_line
from otfkd.base.hashing import sha256_bytes, sha256_file

if TYPE_CHECKING:
    from datasets import Dataset


def download(repo: str, file: str, instead: str) -> Path:
    """The local path of a file of a hub data set.

    Args:
        repo: the data set's id.
        file: the file in it.
        instead: the override to use where there is no hub, for the error message.

    Raises:
        UserError: the hub cannot be reached or has no such file.
    """
    import httpx2
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(hf_hub_download(repo, file, repo_type="dataset"))
    except (HFValidationError, OSError, httpx2.HTTPError) as error:
        raise UserError(
            f"{file} of the hub data set {repo} cannot be had ({first_line(error)}): use {instead}"
        ) from None


@dataclass(frozen=True)
class Split:
    """A split of a data set, memory-mapped.

    Attributes:
        name: of data set and split.
        dataset: its rows.
    """

    name: str
    dataset: "Dataset"
    format: Literal["dataset"] = "dataset"

    @property
    def sha256(self) -> str:
        """Of its name, which may say that it is a part of its files, and of those."""
        files = (sha256_file(Path(file["filename"])) for file in self.dataset.cache_files)
        return sha256_bytes(text.encode() for text in (self.name, *files))

    @property
    def columns(self) -> list[str]:
        return list(self.dataset.column_names)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Where each row is, for a message, and its values of some of the columns."""
        chosen = self.dataset.select_columns(list(columns))
        for number, row in enumerate(chosen, 1):
            yield f"{self.name} row {number}", tuple(row[column] for column in columns)


def load_split(repo: str, subset: str | None, split: str, instead: str) -> Split:
    """A split of a data set, of the hub or of a folder.

    Args:
        repo: the data set's id, or a folder.
        subset: of a data set that has several.
        split: such as `train`, or a part such as `train[:10%]`.
        instead: the override to use where there is no hub, for the error message.

    Raises:
        UserError: the hub cannot be reached, or has no such data set, subset or split.
    """
    import httpx2
    from datasets import Dataset, load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HFValidationError

    name = f"{repo}{'' if subset is None else f' {subset}'} {split}"
    try:
        dataset = load_dataset(repo, subset, split=split)
    except (DatasetsError, HFValidationError, OSError, ValueError, RuntimeError, httpx2.HTTPError) as error:
        raise UserError(f"the data set {name} cannot be had ({first_line(error)}): use {instead}") from None
    if not isinstance(dataset, Dataset):
        raise UserError(f"data.split={split} names several splits of {repo}: name one")
    return Split(name, dataset)
