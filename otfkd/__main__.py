"""`python -m otfkd train ...` is `otfkd-train ...`."""

import importlib
import sys

COMMANDS = {
    "train": "train", "eval": "evaluate", "export": "export", "compare": "compare", "figures": "figures",
    "reproduce": "reproduce", "runs": "runs",
}  # fmt: skip


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.stderr.write(f"otfkd: name a command: {', '.join(COMMANDS)}\n")
        raise SystemExit(2)
    command = sys.argv.pop(1)
    importlib.import_module(f"otfkd.cli.{COMMANDS[command]}").main()


if __name__ == "__main__":
    main()
