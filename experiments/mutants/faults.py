"""One-line faults: put into a source file by rule, or named in a list."""

import ast
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARED = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}  # fmt: skip
_COMPUTED = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.BitOr: ("|", "&"), ast.BitAnd: ("&", "|"),
}  # fmt: skip
_JOINED = {ast.And: ("and", "or"), ast.Or: ("or", "and")}
_TURNED = ast.Compare | ast.BoolOp | ast.UnaryOp  # as conditions they are turned round by their own rule
_SAID = ("log", "warnings")  # a sentence less is another matter than a number that is wrong


@dataclass(frozen=True)
class Fault:
    """A text that stands where another stood.

    Attributes:
        file: the source file, from the project's root.
        start: of the text that gives way, in characters.
        before: that text.
        after: what stands there instead.
    """

    file: str
    start: int
    before: str
    after: str

    def put_into(self, source: str) -> str:
        """The source with the fault in it.

        Raises:
            ValueError: the text is not there.
        """
        end = self.start + len(self.before)
        if source[self.start : end] != self.before:
            raise ValueError(f"{self.file} does not hold {self.before!r} at character {self.start}")
        return source[: self.start] + self.after + source[end:]

    def line(self, source: str) -> int:
        """The line in which it begins, from 1."""
        return source.count("\n", 0, self.start) + 1


def generated(root: Path, file: str) -> list[Fault]:
    """All faults that the rules make in the functions of a file.

    A comparison, an operation, a connective or a condition turned round; a number one higher; a call, or an assignment
    to an attribute or an element, left out. Messages, logging, annotations and defaults stay as they are.
    """
    source = (root / file).read_text(encoding="utf-8")
    starts = [0]
    for text in source.encode().splitlines(keepends=True):  # ast counts bytes
        starts.append(starts[-1] + len(text))

    def at(row: int, column: int) -> int:
        return len(source.encode()[: starts[row - 1] + column].decode())

    def span(node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)

    found = []
    for node in _of_functions(ast.parse(source)):
        for start, end, after in _edits(node, source, span):
            before = source[start:end]
            if "\n" not in before:
                found.append(Fault(file, start, before, after))
    return sorted(set(found), key=lambda fault: (fault.start, fault.after))


def _of_functions(tree: ast.AST, *, inside: bool = False) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise | ast.Assert | ast.arguments | ast.JoinedStr) or _says(node):
            continue
        if inside:
            yield node
        if isinstance(node, ast.FunctionDef):
            yield from _of_functions(ast.Module(node.body, []), inside=True)
        elif isinstance(node, ast.AnnAssign):
            if inside and node.value is not None:
                yield node.value
                yield from _of_functions(node.value, inside=True)
        else:
            yield from _of_functions(node, inside=inside)


def _says(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return name in _SAID
        case _:
            return False


def _edits(
    node: ast.AST, source: str, span: Callable[[ast.expr | ast.stmt], tuple[int, int]]
) -> Iterator[tuple[int, int, str]]:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            yield from _between(source, span(left)[1], span(right)[0], _COMPARED[type(op)])
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTED:
            yield from _between(source, span(left)[1], span(right)[0], _COMPUTED[type(op)])
        case ast.BoolOp(op=op, values=[left, right]):
            yield from _between(source, span(left)[1], span(right)[0], _JOINED[type(op)])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            start, end = span(node)
            yield start, end, source[slice(*span(operand))]
        case ast.Constant(value=bool() as value):
            yield *span(node), str(not value)
        case ast.Constant(value=int() | float() as value):
            yield *span(node), str(value + 1)
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if not isinstance(test, _TURNED):
            start, end = span(test)
            yield start, end, f"not ({source[start:end]})"
        case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AugAssign():
            yield *span(node), "pass"


def _between(source: str, start: int, end: int, swap: tuple[str, str]) -> Iterator[tuple[int, int, str]]:
    before, after = swap
    at = source.find(before, start, end)
    if at >= 0:
        yield at, at + len(before), after


def named(root: Path, path: Path) -> list[Fault]:
    """The faults of a list: a file, a text that stands in it once, and what stands there instead.

    Raises:
        ValueError: the text does not stand there once; the list is to follow the code.
    """
    faults = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["fault"]:
        source = (root / entry["file"]).read_text(encoding="utf-8")
        if source.count(entry["before"]) != 1:
            raise ValueError(f"{entry['before']!r} stands {source.count(entry['before'])} times in {entry['file']}")
        faults.append(Fault(entry["file"], source.index(entry["before"]), entry["before"], entry["after"]))
    return faults
