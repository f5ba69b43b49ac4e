"""Whether what a finished run left is whole: its scores can be read, and its model is the one that was scored."""

from pathlib import Path

from otfkd.base.errors import UserError
from otfkd.base.files import whole_lines, write_text
from otfkd.base.hashing import sha256_file
from otfkd.runs.folder import RunFolder


def seal_model(run: RunFolder) -> None:
    """Write down the sha256 of each file of the exported model, as `sha256sum` does and checks."""
    files = sorted(path for path in run.model.rglob("*") if path.is_file())
    lines = (f"{sha256_file(path)}  {path.relative_to(run.path).as_posix()}\n" for path in files)
    write_text(run.checksums_file, "".join(lines))


def damaged(run: RunFolder) -> Path | None:
    """What of the exported model is gone or altered, the first of it; None where all is there.

    Of a model without checksums, which earlier versions did not write, no more is known than whether it is there.
    """
    for line in whole_lines(run.checksums_file):
        sha256, _, name = line.decode(errors="replace").partition("  ")
        path = run.path / name
        if not path.is_file() or sha256_file(path) != sha256:
            return path
    return None if any(run.model.glob("*.safetensors")) else run.model


def unreadable(run: RunFolder) -> str | None:
    """Why a run's scores cannot be used, though it has some; None where they can."""
    try:
        rows = run.read_rows()
    except UserError as error:
        return str(error)
    kinds = {row.checkpoint for row in rows}
    splits = {tuple(row.split for row in rows if row.checkpoint == kind) for kind in kinds}
    whole = kinds in ({"selected", "last"}, {"given"}) and len(splits) == 1 and "dev" in next(iter(splits))
    return None if whole else f"{run.results_file} has lost rows"
