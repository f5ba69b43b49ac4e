"""Published rows: copies of runs' result rows in results/PROFILE.jsonl, and which table's row each belongs to."""

import os.path
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from otfkd.base.errors import UserError, first_line
from otfkd.base.files import read_json_lines, write_text
from otfkd.runs.rows import Row
from otfkd.tables.definition import TableSpec
from otfkd.tables.table import Table
from otfkd.tables.tabulate import build_table

# Table, backbone, row and seed.
Key = tuple[str, str | None, str, int | None]

# What lines did not have from the beginning; it is not written where it is not known.
_LATER = ("dev", "last", "dev_in_test", "known_as", "made")


class Published(BaseModel):
    """A line of results/PROFILE.jsonl.

    Attributes:
        table: the table's name.
        row: the name of its row.
        model: the backbone; None for the profile's own.
        arguments: of the training command, but for what other rows' runs fill in and for this machine's folders.
        folder: the run's; in the file as seen from there.
        geometry: of the dev sentences, as in `Row`, where it was measured.
        result: the test row of the selected model.
        dev: the selected model's score on all dev pairs, scored like the test tasks.
        last: the test row of the last step's model.
        dev_in_test: how many pairs of each test task are dev pairs too, for the tasks that have any.
        made: the day on which the run ended (UTC, year first).
        known_as: the hash of the same config today, where its row has that of an earlier version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    table: str
    row: str
    model: str | None
    arguments: tuple[str, ...]
    folder: str
    geometry: dict[str, float] | None
    result: Row
    dev: float | None = None
    last: Row | None = None
    dev_in_test: dict[str, int] | None = None
    known_as: str | None = None
    made: str | None = None

    @property
    def key(self) -> Key:
        return (self.table, self.model, self.row, self.result.seed)

    @property
    def hash(self) -> str:
        """What its config is called; an untrained encoder's scores lie in a folder of that name."""
        return self.known_as or self.result.config_hash or PurePosixPath(self.folder).name

    def line(self) -> str:
        return self.model_dump_json(exclude={name for name in _LATER if getattr(self, name) is None}) + "\n"


Order = Callable[[Published], tuple[int, ...]]


def order_of(specs: Mapping[str, TableSpec], profile: str) -> Order:
    """Where a row stands in its table: by backbone, seed and row; of tables without a definition nothing is moved."""

    def place(one: Published) -> tuple[int, ...]:
        if one.table not in specs:
            return ()
        spec = specs[one.table]
        models, rows = list(spec.profiles[profile].models), [row.name for row in spec.at(profile)]
        seed = -1 if one.result.seed is None else one.result.seed
        return (
            models.index(one.model) if one.model in models else len(models),
            seed,
            rows.index(one.row) if one.row in rows else len(rows),
        )

    return place


def publish(made: Iterable[Published], path: Path, order: Order, dropped: Set[Key] = frozenset()) -> None:
    """Write copies of rows to a file; the rows that are there stay but for those dropped and those made again.

    Args:
        made: the rows; a folder that is a whole path is written as seen from the file.
        path: the file.
        order: of the rows of a table.
        dropped: rows that give way.
    """
    kept = {one.key: one for one in read_published(path)} if path.is_file() else {}
    rows = {key: one for key, one in kept.items() if key not in dropped}
    for one in made:
        whole = Path(one.folder).is_absolute()
        rows[one.key] = one.model_copy(update={"folder": os.path.relpath(one.folder, path.parent)}) if whole else one
    if not rows and not path.is_file():
        return
    write_text(path, "".join(one.line() for one in sorted(rows.values(), key=lambda one: (one.table, order(one)))))


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
    own = [one for one in published if one.table == name]
    measured: dict[str | None, dict[str, list[Row]]] = {model: {} for model in spec.profiles[profile].models or (None,)}
    for one in own:
        result = one.result.model_copy(update={"config_hash": one.known_as}) if one.known_as else one.result
        measured.setdefault(one.model, {}).setdefault(one.row, []).append(result)
    in_dev = next((one.dev_in_test for one in own if one.dev_in_test is not None), None)
    return build_table(spec, profile, measured, in_dev)
