"""Files of hub data sets, downloaded once by huggingface_hub and then read from its cache."""

from pathlib import Path

from otfkd.base.errors import UserError, first_line


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
