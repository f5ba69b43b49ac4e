"""What keeps the package easy to read: layers, light commands, short files."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import otfkd

PACKAGE = Path(otfkd.__file__).parent
TESTS = Path(__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "conf" not in path.relative_to(PACKAGE).parts)

# A module may import from its own layer and from those above it in this list.
LAYERS = (
    {"base"},
    {"config"},
    {"runs"},
    {"data"},
    {"models"},
    {"evaluation"},
    {"distill"},
    {"finetune"},
    {"training"},
    {"search"},
    {"reporting"},
    {"tables"},
    {"cli"},
    {"__init__", "__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def room(path: Path) -> str:
    """The first part of a file's module name below the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(path: Path) -> Iterator[str]:
    """Every otfkd module that a file imports, at its top or anywhere inside."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "otfkd")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            module = node.module or ""
            if module == "otfkd":
                yield from (f"otfkd.{alias.name}" for alias in node.names)
            elif module.startswith("otfkd."):
                yield module


def test_the_walk_sees_the_package() -> None:
    assert len(FILES) > 35
    assert sum(1 for path in FILES for _ in imported(path)) > 100


def test_every_module_has_a_layer() -> None:
    assert {room(path) for path in FILES} == LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_obey_the_layers(path: Path) -> None:
    own = LEVEL[room(path)]
    upward = [name for name in imported(path) if LEVEL[name.split(".")[1]] > own]
    assert upward == []


def module(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {module(path): set(imported(path)) for path in FILES if path.name != "__init__.py"}
    done: set[str] = set()
    while ready := {name for name in graph if name not in done and not (graph[name] & graph.keys()) - done}:
        done |= ready
    assert done == graph.keys()


def test_a_command_refuses_without_heavy_imports() -> None:
    code = "import sys, otfkd, otfkd.cli.train, otfkd.cli.evaluate, otfkd.cli.reproduce; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "otfkd.cli.train" in loaded
    assert not loaded & {"torch", "transformers", "lightning", "datasets", "wandb"}


def test_every_module_has_its_line_in_the_design() -> None:
    design = (TESTS.parent / "docs" / "design.md").read_text()
    named = set(re.findall(r"`otfkd/([\w/]+\.py)`", design))
    modules = {str(path.relative_to(PACKAGE)) for path in FILES if path.name != "__init__.py"}
    assert modules - named == set()
    assert {name for name in named if not (PACKAGE / name).is_file()} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 330


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_imports_from_another(path: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    own = {name for name in names if name.split(".")[0] == "tests"}
    assert {name for name in own if not name.startswith("tests.support.")} == set()


def test_what_tests_share_lies_in_one_place() -> None:
    helpers = {path for path in TESTS.rglob("*.py") if path.name not in ("__init__.py", "conftest.py")}
    helpers -= set(TESTS.rglob("test_*.py"))
    assert {path.parent for path in helpers} == {TESTS / "support"}
    assert list((TESTS / "support").rglob("test_*.py")) == []


BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.match_case)


def complexity(function: ast.AST) -> int:
    """McCabe's: one, and one more for every place at which a function goes one way or another."""
    total = 1
    for node in ast.walk(function):
        total += isinstance(node, BRANCHES)
        if isinstance(node, ast.comprehension):
            total += 1 + len(node.ifs)
        elif isinstance(node, ast.BoolOp):
            total += len(node.values) - 1
    return total


def test_no_function_is_too_tangled_to_follow() -> None:
    tangled = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}, {complexity(node)}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and complexity(node) > 15
    ]
    assert tangled == []
