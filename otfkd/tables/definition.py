"""A table's definition: a file in experiments/tables, data and never code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from otfkd.base.errors import UserError
from otfkd.config.groups import options, profile_files, table_files


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SweepSpec(Spec):
    """One row for each value of a key; `{value}` in the row's label stands for it."""

    key: str
    values: dict[str, tuple[int | float | str, ...]]  # by profile


class RowSpec(Spec):
    """One row of a table.

    Attributes:
        name: names the row in the file.
        label: what the table shows.
        experiment: what to train; None scores the encoder as it comes.
        teacher: the row whose run of the same seed is the initial teacher.
        student: the row whose run of the same seed is trained further.
        against: the row that the report compares it with; None is the table's baseline.
        overrides: further keys, in command-line style.
        sweep: makes several rows of this one.
    """

    name: str
    label: str
    experiment: str | None
    teacher: str | None = None
    student: str | None = None
    against: str | None = None
    overrides: tuple[str, ...] = ()
    sweep: SweepSpec | None = None

    @property
    def starts(self) -> dict[str, str]:
        """The rows whose runs of the same seed it starts from, by the config group that they fill in."""
        rows = {"teacher": self.teacher, "model": self.student}
        return {group: row for group, row in rows.items() if row is not None}

    def expanded(self, profile: str) -> tuple["RowSpec", ...]:
        """The rows this one stands for at a profile."""
        if self.sweep is None:
            return (self,)
        return tuple(
            RowSpec(
                name=f"{self.name}_{value}",
                label=self.label.format(value=value),
                experiment=self.experiment,
                teacher=self.teacher,
                student=self.student,
                against=self.against,
                overrides=(*self.overrides, f"{self.sweep.key}={value}"),
            )
            for value in self.sweep.values.get(profile, ())
        )


class ProfileSpec(Spec):
    """At what size a table is made.

    Attributes:
        seeds: every trained row has one run a seed.
        models: the backbones, one part of the table each, with further keys for each; none: the profile's own.
    """

    seeds: tuple[NonNegativeInt, ...]
    models: dict[str, tuple[str, ...]] = {}


class QuotedSpec(Spec):
    """A published row: shown apart from what was measured here, at the profiles with its backbone."""

    label: str
    source: str
    model: str
    scores: dict[str, float]


class TableSpec(Spec):
    """A table's definition.

    Attributes:
        title: above the table.
        kind: what is shown of each run: STS scores, transfer accuracies or costs.
        baseline: the row the others are tested against; bold is what beats it.
        columns: those shown; None shows all there are.
        figures: those drawn of it in the report.
        profiles: at which it can be made.
        rows: in the order shown; a row's teacher and student come before it.
        quoted: published rows.
    """

    title: str
    kind: Literal["sts", "transfer", "cost"] = "sts"
    baseline: str | None = None
    columns: tuple[str, ...] | None = None
    figures: tuple[Literal["interval", "curves", "compute", "geometry"], ...] = ()
    profiles: dict[str, ProfileSpec]
    rows: tuple[RowSpec, ...]
    quoted: tuple[QuotedSpec, ...] = ()

    def at(self, profile: str) -> tuple[RowSpec, ...]:
        """The rows at a profile, sweeps expanded."""
        return tuple(row for spec in self.rows for row in spec.expanded(profile))

    def references(self, profile: str) -> dict[str, str]:
        """The row that each is compared with; none for the baseline, and none in a table of costs."""
        found = {row.name: row.against or self.baseline for row in self.at(profile)}
        known = {name: other for name, other in found.items() if other is not None and other != name}
        return {} if self.kind == "cost" else known

    def lineage(self, row: RowSpec, profile: str) -> tuple[str, ...]:
        """The rows whose runs a row's runs started from, and what these started from, each once."""
        rows, found, names = {one.name: one for one in self.at(profile)}, [], list(row.starts.values())
        while names:
            name = names.pop(0)
            if name not in found:
                found.append(name)
                names += rows[name].starts.values()
        return tuple(found)


def table_names() -> list[str]:
    """Every defined table."""
    return sorted(table_files())


def profile_note(profile: str) -> str:
    """What a profile is, and what its numbers can and cannot show.

    Raises:
        UserError: nothing is said of it.
    """
    for path in profile_files():
        notes: Any = OmegaConf.to_container(OmegaConf.load(path))
        if profile in notes:
            return str(notes[profile])
    raise UserError(f"{profile_files()[-1]} does not say what profile {profile} is: add a line for it")


def load_table(name: str, profile: str) -> TableSpec:
    """Read a table's definition.

    Raises:
        UserError: there is no such table, its file is not valid, or it is not made at this profile.
    """
    path = table_files().get(name)
    if path is None:
        raise UserError(f"there is no table {name}: take one of {', '.join(table_names())}")
    values: Any = OmegaConf.to_container(OmegaConf.load(path))
    try:
        spec = TableSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path} is not valid: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    profiles = [known for known in options("profile") if known in spec.profiles]
    if profile not in profiles:
        raise UserError(f"the table {name} is not made at profile {profile}: take one of {', '.join(profiles)}")
    _check(spec, profile, path)
    return spec


def _check(spec: TableSpec, profile: str, path: Path) -> None:
    """Refuse what each part of a definition allows but the whole does not."""
    for row in spec.rows:
        if row.sweep is not None and not row.sweep.values.get(profile):
            raise UserError(f"{path}: row {row.name} sweeps over nothing at profile {profile}: give it values there")
    _check_starts(spec.at(profile), path)
    names = [row.name for row in spec.at(profile)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two rows are called {twice}: rename one")
    labels = [row.label for row in spec.at(profile)]
    alike = next((label for label in labels if labels.count(label) > 1), None)
    if alike is not None:
        raise UserError(f"{path}: two rows are labelled '{alike}': say in each what it has that the other has not")
    _check_compared(spec, spec.at(profile), path)


def _check_compared(spec: TableSpec, rows: Sequence[RowSpec], path: Path) -> None:
    names = [row.name for row in rows]
    if spec.baseline is not None and spec.baseline not in names:
        raise UserError(f"{path}: the baseline {spec.baseline} is no row: name one of {', '.join(names)}")
    for row in rows:
        if row.against is not None and (row.against not in names or row.against == row.name):
            raise UserError(f"{path}: row {row.name} is against {row.against}, which is no other row: name another row")


def _check_starts(rows: Sequence[RowSpec], path: Path) -> None:
    trained: set[str] = set()
    for row in rows:
        for group, other in row.starts.items():
            if other not in trained:
                raise UserError(f"{path}: the {group} of row {row.name} must be a trained row above it, not {other}")
        if row.experiment is not None:
            trained.add(row.name)
