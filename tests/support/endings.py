"""Commands on generated bad input: whatever it is, they end in a sentence or in a valid run, and overwrite nothing."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tests.support.commands import Command, Outcome


def contents(folder: Path) -> dict[Path, str]:
    """What each file of a folder holds."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_ends_well(command: Command, arguments: Sequence[str], inputs: Path) -> Outcome:
    """Run a command; it must be done or refuse in one sentence, and leave its input as it was."""
    before = contents(inputs)
    outcome = command(*arguments)
    told = outcome.err.splitlines()
    assert outcome.code in (0, 2), (arguments, outcome)
    assert "Traceback" not in outcome.err + outcome.out, (arguments, outcome)
    if outcome.code == 2:
        assert told[-1].startswith("otfkd: ") and len(told[-1]) > len("otfkd: "), (arguments, outcome)
        assert sum(line.startswith("otfkd: ") for line in told) == 1, (arguments, outcome)
        assert not outcome.out, (arguments, outcome)
    else:
        assert "otfkd: " not in outcome.err, (arguments, outcome)
        assert outcome.out, (arguments, outcome)
    assert contents(inputs) == before, arguments
    return outcome
