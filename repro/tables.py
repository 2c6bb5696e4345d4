"""YAML to a checked `Table`: one file for each table of a paper."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from .errors import ReproError
from .fields import PaperModel, Proxy, RelationModel, Settings, TableModel
from .reader import Where, check, line_of, near, read

_WHEEL = Path(__file__).resolve().parent / "_tables"  # the copy inside the package; a clone has the folder beside it
ROOT = _WHEEL if _WHEEL.is_dir() else _WHEEL.parents[1] / "tables"


@dataclass(frozen=True)
class Paper:
    """What the tables of one paper share."""

    name: str
    file: str
    source: str
    title: str
    defaults: Mapping[str, Any]
    missing: Mapping[str, str]  # why a claim of a kind is not measured, where its cell does not say how
    recipes: Mapping[str, Mapping[str, Any]]
    proxy: Proxy | None
    lines: Mapping[Where, int]


@dataclass(frozen=True)
class Table:
    """A checked table file. `columns` and `rows` hold settings by key, in the paper's order."""

    name: str
    file: str
    title: str
    where: str
    note: str | None
    defaults: Mapping[str, Any]
    columns: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, Mapping[str, Any]]
    relations: Mapping[str, RelationModel]
    known: Mapping[tuple[str, str], Mapping[str, str]]
    paper: Paper
    lines: Mapping[Where, int]

    def line(self, *where: str | int) -> int:
        """The line of a place in the file, or of the nearest place above it."""
        return line_of(self.lines, where)


def load_paper(folder: Path) -> Paper:
    """`paper.yaml` of a folder; a table that stands alone has an empty paper."""
    path = folder / "paper.yaml"
    file = _shown(path)
    if not path.is_file():
        return Paper(folder.name, file, "", "", {}, {}, {}, None, {})
    data, lines = read(path)
    model = check(PaperModel, data, file, lines)
    kinds = model.missing, model.recipes, model.proxy
    return Paper(folder.name, file, model.source, model.title, _given(model.defaults), *kinds, lines)


def load(path: Path) -> Table:
    """A table file, checked whole. Raises ReproError with the file, the line and what was expected."""
    file = _shown(path)
    data, lines = read(path)
    model = check(TableModel, data, file, lines)
    columns = {k: {"quantity": c} if isinstance(c, str) else _given(c) for k, c in model.columns.items()}
    rows: dict[str, dict[str, Any]] = {}
    for key, row in model.rows.items():
        values, line, known = row.values, line_of(lines, ("rows", key, "values")), ", ".join(columns)
        if isinstance(values, list):
            if len(values) != len(columns):
                hint = " (quote a number with a comma in it)" if len(values) > len(columns) else ""
                say = f"row {key!r} has {len(values)} values for {len(columns)} columns ({known}){hint}"
                raise ReproError(say, file, line)
            values = dict(zip(columns, values, strict=True))
        for column in values.keys() - columns.keys():
            raise ReproError(f"unknown column {column!r}{near(column, columns)} Columns: {known}", file, line)
        printed = {c: {"printed": v} if isinstance(v, str) else _given(v) for c, v in values.items()}
        rows[key] = _given(row) | {"values": printed}
    return Table(
        f"{path.resolve().parent.name}/{path.stem}", file, model.title, model.where, model.note,
        defaults=_given(model.defaults), columns=columns, rows=rows, relations=model.relations,
        known=dict(_known(model, rows, file, lines)), paper=load_paper(path.parent), lines=lines,
    )  # fmt: skip


def _given(model: Settings) -> dict[str, Any]:
    """The fields that a file sets."""
    return model.model_dump(exclude_unset=True)


def _shown(path: Path) -> str:
    """A path as a message shows it: from the working folder where it lies below."""
    whole = path.resolve()
    return str(whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else path)


def _known(
    model: TableModel, rows: Mapping[str, Mapping[str, Any]], file: str, lines: Mapping[Where, int]
) -> Iterable[tuple[tuple[str, str], dict[str, str]]]:
    """Known differences by (row, column); `claims` holds that `gives` falls into the printed interval."""
    for i, known in enumerate(model.known):
        line = line_of(lines, ("known", i))
        arithmetic(known.gives, file, line)
        for address in known.at:
            row, _, column = (part.strip() for part in address.partition("|"))
            column = column or next(iter(model.columns))
            if column not in rows.get(row, {}).get("values", ()):
                raise ReproError(f"known difference at {address!r}: no such cell", file, line)
            yield (row, column), {"cause": known.cause, "gives": known.gives, "line": str(line)}


_OPERATORS: dict[type, Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip


def arithmetic(text: str, file: str = "", line: int = 0) -> Decimal:
    """The value of an expression of numbers, + - * / **, brackets and `floor(...)`."""

    def value(node: ast.expr) -> Decimal:
        match node:
            case ast.Constant(value=int() | float()):
                return Decimal(str(node.value))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.Call(func=ast.Name(id="floor"), args=[arg]):
                return Decimal(math.floor(value(arg)))
        raise ReproError(f"{text!r}: only numbers, + - * / **, brackets and floor() are read", file, line)

    try:
        return value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ArithmeticError, ValueError):  # 1/0, a number beyond all bounds, a null character
        raise ReproError(f"{text!r} is no arithmetic", file, line) from None


def names(root: Path | None = None) -> list[str]:
    """The names of all tables under `root`, sorted as people count (table2 before table10)."""
    found = [p for p in (root or ROOT).glob("*/*.yaml") if p.name != "paper.yaml"]
    order = sorted(found, key=lambda p: (p.parent.name, len(p.stem) if p.stem[-1:].isdigit() else 99, p.stem))
    return [f"{p.parent.name}/{p.stem}" for p in order]


def find(words: Sequence[str], root: Path | None = None) -> list[Path]:
    """The files that words mean: `vgg/table3`, `table3`, `vgg` (all of a paper), a path; none is all."""
    root = root or ROOT
    known = {name: (name, *name.split("/")) for name in names(root)}
    papers = {paper for _, paper, _ in known.values()}
    found: dict[Path, Path] = {}
    for word in words or known:
        hits = [root / f"{name}.yaml" for name, called in known.items() if word in called]
        if word.endswith((".yaml", ".yml")):
            hits = [Path(word)]
            if not hits[0].is_file():
                raise ReproError(f"no such file: {word}")
        if not hits:
            every = {part for called in known.values() for part in called}
            raise ReproError(f"no table is called {word!r}{near(word, every)} `repro list` shows all.")
        if len(hits) > 1 and word not in papers:
            # A short name that several papers have is that of the one paper that can be run on a proxy.
            hits = [h for h in hits if load_paper(h.parent).proxy] or hits
            if len(hits) > 1:
                raise ReproError(f"{word!r} may be {', '.join(f'{h.parent.name}/{h.stem}' for h in hits)}; say which")
        found |= {path.resolve(): path for path in hits}
    return list(found.values())
