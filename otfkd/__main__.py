"""`python -m otfkd train ...` is `otfkd-train ...`."""

import importlib
import sys

from otfkd.base.version import __version__

# The module and what it does.
_COMMANDS = {
    "train": ("train", "train one run, or a sweep of them"),
    "eval": ("evaluate", "score any model on a suite"),
    "export": ("export", "write a model in sentence-transformers format, and put it on the hub if asked to"),
    "compare": ("compare", "say whether methods differ, by their finished runs"),
    "figures": ("figures", "draw what runs did"),
    "reproduce": ("reproduce", "make tables"),
    "search": ("search", "try settings, and say which score best on dev"),
    "runs": ("runs", "list runs and their state"),
}


def main() -> None:
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    if asked in ("-h", "--help", "--version"):
        sys.stdout.write(f"otfkd {__version__}\n" if asked == "--version" else _help())
        raise SystemExit(0)
    if asked not in _COMMANDS:
        sys.stderr.write(f"otfkd: name a command: {', '.join(_COMMANDS)}\n")
        raise SystemExit(2)
    module, _ = _COMMANDS[sys.argv.pop(1)]
    importlib.import_module(f"otfkd.cli.{module}").main()


def _help() -> str:
    lines = [f"  {name:<10} {what}" for name, (_, what) in _COMMANDS.items()]
    return "\n".join(["usage: python -m otfkd COMMAND ...", "", *lines, "", "Each has a --help of its own.", ""])


if __name__ == "__main__":
    main()
