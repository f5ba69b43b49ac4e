"""The commands on pages, as a reader would give them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COMMAND = re.compile(r"(?:\.venv/bin/)?otfkd-(\w+)(?:\s+(.*))?$|python -m otfkd(?:\s+(.*))?$")


def code(page: str) -> Iterator[str]:
    """Every span and every line of code of a page that is not Python; a line's comment and prompt are left out."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if language != "python":
            for line in block.replace("\\\n", " ").splitlines():
                yield re.sub(r"\s#\s.*", "", line.removeprefix("$ "))
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL))


def commands(page: str) -> list[str]:
    """The arguments of every whole command of a page, as `python -m otfkd` takes them, each once."""
    found: dict[str, None] = {}
    for text in code(page):
        inner = re.fullmatch(r'eval "\$\((.*)\)"', text.strip())
        command = _COMMAND.match((inner[1] if inner else text).strip())
        if command is not None:
            name, arguments, alone = command.groups()
            found[(alone or "") if name is None else f"{name} {arguments or ''}".strip()] = None
    return list(found)
