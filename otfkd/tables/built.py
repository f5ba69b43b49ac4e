"""Everything that is built of published rows: each table's files, and the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from otfkd.tables.definition import TableSpec, load_table
from otfkd.tables.drawings import drawings
from otfkd.tables.published import Published, read_published, tabulated
from otfkd.tables.report import report

REPORT = "report.html"


def built(profile: str, published: Sequence[Published], known: Mapping[str, TableSpec]) -> dict[str, str]:
    """File names and their texts, the same bytes from the same rows.

    Args:
        profile: at which the rows were made.
        published: the rows.
        known: definitions already at hand, as they were when the rows were planned; the others are read.

    Raises:
        UserError: a table that is no longer defined, or rows that do not fit its definition.
    """
    names = {one.table for one in published} | known.keys()
    # The main table comes first.
    specs = {
        name: known.get(name) or load_table(name, profile)
        for name in sorted(names, key=lambda one: (one != "main", one))
    }
    files: dict[str, str] = {}
    for name, spec in specs.items():
        files |= tabulated(name, spec, profile, published).files(name)
    return {**files, REPORT: report(specs, profile, published)}


def figures(profile: str, published: Sequence[Published], specs: Mapping[str, TableSpec]) -> dict[str, str]:
    """File names and texts of the figures that are in the report too."""
    drawn = {
        f"{name}-{number}.svg": drawing.svg
        for name, spec in specs.items()
        for number, drawing in enumerate(
            drawings(name, spec, profile, [one for one in published if one.table == name]), 1
        )
    }
    return {file: svg for file, svg in drawn.items() if svg is not None}


def differing(experiments: Path) -> list[Path]:
    """The files in built/ that are not what the rows in results/ give byte for byte, are missing, or come of no row."""
    wrong = []
    for results in sorted((experiments / "results").glob("*.jsonl")):
        folder = experiments / "built" / results.stem
        expected = {
            folder / name: text.encode() for name, text in built(results.stem, read_published(results), {}).items()
        }
        found = set(folder.iterdir()) if folder.is_dir() else set()
        wrong += [path for path, content in expected.items() if path not in found or path.read_bytes() != content]
        wrong += sorted(found - expected.keys())
    return wrong
