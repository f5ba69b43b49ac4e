"""Everything that is built of published rows: each table's files, the report, and the figures that pages cite."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from otfkd.base.files import write_text
from otfkd.tables.cited import pages, written
from otfkd.tables.definition import TableSpec, load_table
from otfkd.tables.drawings import drawings
from otfkd.tables.looks import page_looks
from otfkd.tables.measured import backbones
from otfkd.tables.published import Published, read_published, tabulated
from otfkd.tables.report import report

REPORT = "report.html"
_NONE: Mapping[str, TableSpec] = {}


def results_file(experiments: Path, profile: str) -> Path:
    """Where the rows of a profile are published."""
    return experiments / "results" / f"{profile}.jsonl"


def built_folder(experiments: Path, profile: str) -> Path:
    """Where the tables of a profile are."""
    return experiments / "built" / profile


def built(profile: str, published: Sequence[Published], known: Mapping[str, TableSpec] = _NONE) -> dict[str, str]:
    """File names and their texts, the same bytes from the same rows.

    Args:
        profile: at which the rows were made.
        published: the rows.
        known: definitions already at hand, as they were when the rows were planned; the others are read.

    Raises:
        UserError: a table that is no longer defined, or rows that do not fit its definition.
    """
    specs = _defined(profile, published, known)
    files: dict[str, str] = {}
    for name, spec in specs.items():
        files |= tabulated(name, spec, profile, published).files(name)
    return {**files, REPORT: report(specs, profile, published)}


def _defined(
    profile: str, published: Sequence[Published], known: Mapping[str, TableSpec] = _NONE
) -> dict[str, TableSpec]:
    """The definitions of the tables that rows are of; the main table comes first."""
    names = sorted({one.table for one in published}, key=lambda one: (one != "main", one))
    return {name: known.get(name) or load_table(name, profile) for name in names}


def figures(profile: str, published: Sequence[Published], specs: Mapping[str, TableSpec]) -> dict[str, str]:
    """File names and texts of the figures that are in the report too."""
    # With the looks of the whole report, so that these are the figures of its page.
    looks = page_looks({**_defined(profile, published, specs), **specs}, profile, published)
    drawn: dict[str, str | None] = {}
    for name, spec in specs.items():
        own = [one for one in published if one.table == name]
        every = [one for part in backbones(spec, profile, own) for one in drawings(name, part, looks[name])]
        drawn |= {f"{name}-{number}.svg": one.svg for number, one in enumerate(every, 1)}
    return {file: svg for file, svg in drawn.items() if svg is not None}


def build(experiments: Path, profile: str, known: Mapping[str, TableSpec] = _NONE) -> dict[str, str]:
    """Write all that is built of a profile's rows, and give it back: file names and texts, none where there is no row.

    Raises:
        UserError: as `built`.
    """
    path = results_file(experiments, profile)
    files = built(profile, read_published(path), known) if path.is_file() else {}
    for file, text in files.items():
        write_text(built_folder(experiments, profile) / file, text)
    return files


def build_all(experiments: Path) -> list[Path]:
    """Write every table again, and the figures that pages cite.

    Returns:
        The pages that were changed.

    Raises:
        UserError: as `built`, or a page that cites what is not there.
    """
    for profile in published_profiles(experiments):
        build(experiments, profile)
    changed = {page: text for page in pages(experiments) if (text := written(page, experiments)) != _read(page)}
    for page, text in changed.items():
        write_text(page, text)
    return [*changed]


def published_profiles(experiments: Path) -> list[str]:
    """The profiles that rows are published at."""
    return sorted(path.stem for path in results_file(experiments, "*").parent.glob("*.jsonl"))


def differing(experiments: Path) -> list[Path]:
    """The files in built/ that are not what the rows in results/ give byte for byte, are missing, or come of no row."""
    wrong = []
    for profile in published_profiles(experiments):
        folder = built_folder(experiments, profile)
        rows = read_published(results_file(experiments, profile))
        expected = {folder / name: text.encode() for name, text in built(profile, rows).items()}
        found = set(folder.iterdir()) if folder.is_dir() else set()
        wrong += [path for path, content in expected.items() if path not in found or path.read_bytes() != content]
        wrong += sorted(found - expected.keys())
    return wrong


def unfinished(experiments: Path) -> list[str]:
    """The rows of published tables that lack seeds, in words."""
    told = []
    for profile in published_profiles(experiments):
        rows = read_published(results_file(experiments, profile))
        for name, spec in _defined(profile, rows).items():
            table = tabulated(name, spec, profile, rows)
            for model, line in ((part.model, line) for part in table.parts for line in part.lines if line.missing):
                where = "/".join(filter(None, [profile, name, model]))
                seeds = [str(seed) for seed in line.missing if seed is not None]
                lacks = f", lacks {', '.join(seeds)}" if seeds else ""
                told.append(f"{where}, {line.label}: {line.n} of {line.n + len(line.missing)} seeds{lacks}")
    return told


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8")
