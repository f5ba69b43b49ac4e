"""What must be said below a table: what its numbers are of, what its marks mean, and what they were made with."""

from collections.abc import Mapping, Sequence

from otfkd.runs.rows import Row
from otfkd.tables.definition import TableSpec, profile_note
from otfkd.tables.table import UNFINISHED, UNROTATED, Line, Part


def notes(
    spec: TableSpec, profile: str, rows: Sequence[Row], parts: Sequence[Part], dev_in_test: Mapping[str, int] | None
) -> tuple[str, ...]:
    """Everything that is said of a table.

    Args:
        spec: its definition.
        profile: at which its rows were run.
        rows: all of them.
        parts: what is shown of them.
        dev_in_test: as in `build_table`.
    """
    lines = [line for part in parts for line in part.lines]
    said = [profile_note(profile), *_made(spec, rows), *_marks(lines, rows)]
    if spec.kind == "sts" and rows and dev_in_test is not None:
        said.append(_dev_in_test(rows[0], dev_in_test))
    if spec.kind == "cost":
        said += _cost_notes(spec, profile)
    elif spec.baseline is not None:
        label = next(row.label for row in spec.at(profile) if row.name == spec.baseline)
        said.append(
            f"Bold: above '{label}' by the paired t interval over common seeds, at 5 % after Holm's correction over "
            "all tests of the table's part."
        )
    said += [*_undefined(rows), *_trained_on(rows), *_own_parts(rows)]
    quoted = dict.fromkeys(f"{one.label}: {one.source}" for part in parts for one in part.quoted)
    if quoted:
        said.append(f"Quoted rows were published, not measured here. {'; '.join(quoted)}.")
    return tuple(said)


def first_generation(row: Row) -> int:
    """The generation of a run's first teacher: one that it made itself is the first to rotate in."""
    return 0 if row.teacher_sha256 is not None else 1


def rotates(row: Row) -> bool:
    """Whether a teacher came after the first one, or should have."""
    return row.cost is not None and len(row.cost.rotations) + (row.cost.refused or 0) > first_generation(row)


def unrotated(row: Row) -> bool:
    """Whether the selected model had no teacher but the first."""
    return row.generation is not None and row.generation <= first_generation(row)


def _marks(lines: Sequence[Line], rows: Sequence[Row]) -> list[str]:
    """What the marks in a table mean, for those that are there."""
    if not rows:
        return []
    notes = []
    if any(line.generations for line in lines):
        own = any(first_generation(row) <= (row.generation or 0) for row in rows if row.teacher_sha256 is None)
        notes.append(
            "Generation: how often the teacher had changed before the step that dev chose, seed by seed where they "
            "differ" + ("; a first teacher that the run makes itself counts as one change." if own else ".")
        )
    if unrotated := [line for line in lines if line.unrotated]:
        told = "; ".join(f"{line.label}, {line.unrotated} of {line.n} seeds" for line in unrotated)
        notes.append(
            f"{UNROTATED} The teacher rotates in training, but dev chose a model from before that, which had only the "
            f"first teacher: {told}."
        )
    if lacking := [line for line in lines if line.missing]:
        notes.append(
            f"{UNFINISHED} Unfinished: {len(lacking)} of the {len(lines)} rows lack seeds that the others have or the "
            "definition asks for, and their numbers will change."
        )
    return notes


def _dev_in_test(row: Row, counts: Mapping[str, int]) -> str:
    """How many of the pairs that are reported have helped to choose."""
    if not counts:
        return "No test pair is a dev pair."
    told = ", ".join(f"{count:,} of the {row.scores[task]['pairs']:,.0f} of {task}" for task, count in counts.items())
    return (
        f"Dev chose the checkpoints, and {sum(counts.values()):,} test pairs are dev pairs too: {told}. What the "
        "scores are without them cannot be told from the rows, which hold no scores of single pairs."
    )


def _made(spec: TableSpec, rows: Sequence[Row]) -> list[str]:
    """What the numbers are of, and what they were made with; nothing where there are none."""
    if not rows:
        return []
    scored = (
        f"Test split of suite {rows[0].suite} ({rows[0].suite_sha256[:8]}), {rows[0].protocol}; checkpoint selected on "
        "dev."
    )
    made = "; ".join(sorted({made_with(row) for row in rows}))
    counted = f"Mean ± standard deviation over n seeds. Made with {made}."
    return [counted] if spec.kind == "cost" else [scored, counted]


def _cost_notes(spec: TableSpec, profile: str) -> list[str]:
    notes = [
        "A forward is one encoder pass over one view of a micro-batch; a backward pass counts as two. 'With teacher' "
        "adds the training of the initial teacher, as does the time to reach its dev score; a row without an initial "
        "teacher has the baseline's to reach. A dash: not every seed reached it."
    ]
    if any(row.student for row in spec.at(profile)):
        notes.append("A model that is trained further counts like an initial teacher, and so does its own teacher.")
    return notes


def _undefined(rows: Sequence[Row]) -> list[str]:
    """Which tasks some model has no score of."""
    tasks = {task for row in rows for task, scores in row.scores.items() if scores.get("all", 0.0) is None}
    names = ", ".join(sorted(tasks))
    told = f"A dash: the score is undefined with one seed at least, whose model holds all pairs of {names} for alike."
    return [told] if tasks else []


def _trained_on(rows: Sequence[Row]) -> list[str]:
    """Which test pairs fine-tuned rows were trained on: those scores do not compare with the other rows'."""
    seen = {row.fine_tuned.data: row.fine_tuned.trained_on for row in rows if row.fine_tuned is not None}
    told = [
        f"{data} holds test pairs: "
        + ", ".join(f"{count} of the {rows[0].scores[task]['pairs']:.0f} of {task}" for task, count in counts.items())
        for data, counts in sorted(seen.items())
        if counts
    ]
    return [f"Rows fine-tuned on them have seen their grades. {'; '.join(told)}."] if told else []


def _own_parts(rows: Sequence[Row]) -> list[str]:
    """Which rows have code that is not otfkd's, by what they record."""
    told = dict.fromkeys(
        f"{row.name}, {part} (sha256 of its source {sha256[:8]})"
        for row in rows
        for part, sha256 in (row.parts or {}).items()
    )
    return [f"Rows with code that is not otfkd's own: {'; '.join(told)}."] if told else []


def made_with(row: Row) -> str:
    """What a row's number was made with and could change with."""
    environment = row.environment
    revision, dirty, _ = environment["git_revision"].partition("-")
    versions = environment["versions"]
    return (
        f"otfkd {versions['otfkd']} at {revision[:12]}{dirty and '-dirty'}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, {environment['device']}, {environment['threads']} threads, "
        f"{environment['system']}"
    )
