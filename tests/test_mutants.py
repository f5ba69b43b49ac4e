"""The faults that `make mutants` tries."""

import ast
from pathlib import Path

import pytest

from experiments.mutants.__main__ import ROOT
from experiments.mutants.faults import Fault, generated, named

SOURCE = '''
"""é: a file whose bytes are not its characters."""
LIMIT = 3


def count(given: list[int], most: int = 4) -> int:
    """Nothing of 5 is changed here."""
    log.info("nor here %d", 6)
    if not given:
        raise ValueError(f"nor here {7 + 8}")
    found: dict[str, int] = {}
    found["é"] = len(given) % 9
    return found["é"] if most > LIMIT and given else 0
'''


def test_every_rule_and_no_message(tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text(SOURCE)
    faults = generated(tmp_path, "count.py")
    assert [(fault.line(SOURCE), fault.before, fault.after) for fault in faults] == [
        (9, "not given", "given"),
        (12, 'found["é"] = len(given) % 9', "pass"),
        (12, "%", "*"),
        (12, "9", "10"),
        (13, ">", ">="),
        (13, "and", "or"),
        (13, "0", "1"),
    ]
    for fault in faults:
        changed = fault.put_into(SOURCE)
        ast.parse(changed)
        assert len(changed) == len(SOURCE) + len(fault.after) - len(fault.before)


def test_a_fault_belongs_to_the_source_it_was_made_from() -> None:
    with pytest.raises(ValueError, match=r"^x\.py does not hold 'a' at character 1$"):
        Fault("x.py", 1, "a", "b").put_into("bbb")


def test_the_list_follows_the_code() -> None:
    faults = named(ROOT, ROOT / "experiments/mutants/known.toml")
    assert len(faults) > 20
    for fault in faults:
        source = (ROOT / fault.file).read_text()
        assert ast.dump(ast.parse(fault.put_into(source))) != ast.dump(ast.parse(source)), fault


def test_a_list_that_does_not_follow_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("a = 1\na = 1\n")
    (tmp_path / "list.toml").write_text('[[fault]]\nfile = "x.py"\nbefore = "a"\nafter = "b"\n')
    with pytest.raises(ValueError, match=r"'a' stands 2 times in x\.py"):
        named(tmp_path, tmp_path / "list.toml")
