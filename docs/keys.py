"""Writes docs/keys.md, what `otfkd-train --explain` says of every key: `python docs/keys.py`."""

from pathlib import Path

from otfkd.config.groups import groups
from otfkd.config.keys import Key, choices, keys
from otfkd.config.schema import Config, EvaluateConfig

PAGE = Path(__file__).with_suffix(".md")
START = """\
# All keys

What `otfkd-train --explain` says, written by `python docs/keys.py`. `--explain schedule` tells of a section, and
`--explain schedule.every` of one key. Some keys are read by some runs alone, and refused by the others: the last column
says what to give for them to be read, for instance.
"""


def page() -> str:
    """The page in Markdown."""
    of_training = keys(Config)
    parts = [START, "## Of a run\n", _table([key for key in of_training if "." not in key.name])]
    for section in Config.model_fields:
        own = [key for key in of_training if key.name.startswith(f"{section}.")]
        if own:
            parts += [f"## {section}\n", *([_list(section)] if section in groups() else []), _table(own)]
    parts += [
        "## Whole presets\n",
        "Each sets keys of all sections.\n",
        _list("experiment"),
        _list("profile"),
        _list("debug"),
    ]
    only = [key for key in keys(EvaluateConfig) if key.name not in {known.name for known in of_training}]
    return "\n".join([*parts, "## Of otfkd-eval alone\n", _table(only)])


def _list(group: str) -> str:
    return "".join(f"- `{one.name}`: {one.meaning}\n" for one in choices(group))


def _table(rows: list[Key]) -> str:
    lines = ["| key | meaning | may be | default | read, for instance, with |", "|---|---|---|---|---|"]
    for key in rows:
        cells = (f"`{key.name}`", key.meaning, key.takes, f"`{key.default}`", key.needs)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
