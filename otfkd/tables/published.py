"""Published rows: copies of runs' result rows in results/PROFILE.jsonl, and which table's row each belongs to."""

import os.path
from collections.abc import Sequence, Set
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from otfkd.base.errors import UserError, first_line
from otfkd.base.files import read_json_lines, write_text
from otfkd.runs.rows import Row
from otfkd.tables.definition import TableSpec
from otfkd.tables.table import Table
from otfkd.tables.tabulate import build_table


class Published(BaseModel):
    """A line of results/PROFILE.jsonl.

    Attributes:
        table: the table's name.
        row: the name of its row.
        model: the backbone; None for the profile's own.
        arguments: of the training command, but for what other rows' runs fill in.
        folder: the run's; in the file as seen from there.
        geometry: of the dev sentences, as in `Row`, where it was measured.
        result: the test row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    row: str
    model: str | None
    arguments: tuple[str, ...]
    folder: str
    geometry: dict[str, float] | None
    result: Row


def publish(made: Sequence[Published], tables: Set[str], path: Path) -> None:
    """Write copies of rows; those of other tables in the file stay as they are.

    Args:
        made: the rows.
        tables: those that were asked for, whose earlier rows give way even where every job failed.
        path: the file.
    """
    kept = [one for one in read_published(path) if one.table not in tables] if path.is_file() else []
    new = [one.model_copy(update={"folder": os.path.relpath(one.folder, path.parent)}) for one in made]
    rows = sorted([*kept, *new], key=lambda one: one.table)
    write_text(path, "".join(one.model_dump_json() + "\n" for one in rows))


def read_published(path: Path) -> list[Published]:
    """Every line of a results file, each checked.

    Raises:
        UserError: a line that is none of this otfkd's.
    """
    try:
        return [Published.model_validate(line) for line in read_json_lines(path)]
    except (ValidationError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): make the tables again") from None


def tabulated(name: str, spec: TableSpec, profile: str, published: Sequence[Published]) -> Table:
    """A table from published rows alone.

    Raises:
        UserError: as `build_table`.
    """
    measured: dict[str | None, dict[str, list[Row]]] = {model: {} for model in spec.profiles[profile].models or (None,)}
    for one in published:
        if one.table == name:
            measured.setdefault(one.model, {}).setdefault(one.row, []).append(one.result)
    return build_table(spec, profile, measured)
