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
from .fields import PaperModel, Proxy, RelationModel, TableModel
from .reader import Where, check, line_of, near, read

_HERE = Path(__file__).resolve().parent
# The copy inside the package when installed from a wheel, the folder beside it in a clone.
ROOT = next((p for p in (_HERE / "_tables", _HERE.parent / "tables") if p.is_dir()), _HERE / "_tables")


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
    if not path.is_file():
        return Paper(folder.name, str(path), "", "", {}, {}, {}, None, {})
    data, lines = read(path)
    model = check(PaperModel, data, str(path), lines)
    defaults = model.defaults.model_dump(exclude_unset=True)
    kinds = model.missing, model.recipes, model.proxy
    return Paper(folder.name, str(path), model.source, model.title, defaults, *kinds, lines)


def load(path: Path) -> Table:
    """A table file, checked whole. Raises ReproError with the file, the line and what was expected."""
    file = _shown(path)
    data, lines = read(path)
    model = check(TableModel, data, file, lines)
    columns = {
        key: {"quantity": c} if isinstance(c, str) else c.model_dump(exclude_unset=True)
        for key, c in model.columns.items()
    }
    rows: dict[str, dict[str, Any]] = {}
    for key, row in model.rows.items():
        settings = row.model_dump(exclude_unset=True)
        values, line = row.values, line_of(lines, ("rows", key, "values"))
        if isinstance(values, list):
            if len(values) != len(columns):
                hint = " (quote a number with a comma in it)" if len(values) > len(columns) else ""
                say = f"row {key!r} has {len(values)} values for {len(columns)} columns ({', '.join(columns)}){hint}"
                raise ReproError(say, file, line)
            values = dict(zip(columns, values, strict=True))
        for column in values:
            if column not in columns:
                known = ", ".join(columns)
                raise ReproError(f"unknown column {column!r}{near(column, columns)} Columns: {known}", file, line)
        settings["values"] = {
            column: {"printed": v} if isinstance(v, str) else v.model_dump(exclude_unset=True)
            for column, v in values.items()
        }
        rows[key] = settings
    table = Table(
        name=f"{path.resolve().parent.name}/{path.stem}",
        file=file,
        title=model.title,
        where=model.where,
        note=model.note,
        defaults=model.defaults.model_dump(exclude_unset=True),
        columns=columns,
        rows=rows,
        relations=model.relations,
        known=dict(_known(model, file, lines)),
        paper=load_paper(path.parent),
        lines=lines,
    )
    return table


def _shown(path: Path) -> str:
    """A path as a message shows it: from the working folder where it lies below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _known(
    model: TableModel, file: str, lines: Mapping[Where, int]
) -> Iterable[tuple[tuple[str, str], dict[str, str]]]:
    """Known differences by (row, column); `claims` holds that `gives` falls into the printed interval."""
    for i, known in enumerate(model.known):
        line = line_of(lines, ("known", i))
        arithmetic(known.gives, file, line)
        for address in known.at:
            row, _, column = (part.strip() for part in address.partition("|"))
            value = model.rows[row].values if row in model.rows else None
            column = column or next(iter(model.columns))
            cell = value.get(column) if isinstance(value, dict) else None
            if isinstance(value, list) and column in model.columns:
                cell = value[list(model.columns).index(column)]
            if cell is None:
                raise ReproError(f"known difference at {address!r}: no such cell", file, line)
            yield (row, column), {"cause": known.cause, "gives": known.gives, "line": str(line)}


_OPERATORS: dict[type, Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


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
    except SyntaxError:
        raise ReproError(f"{text!r} is no arithmetic", file, line) from None


def names(root: Path | None = None) -> list[str]:
    """The names of all tables under `root`, sorted as people count (table2 before table10)."""
    root = root or ROOT
    found = [p for p in root.glob("*/*.yaml") if p.name != "paper.yaml"]
    order = sorted(found, key=lambda p: (p.parent.name, len(p.stem) if p.stem[-1:].isdigit() else 99, p.stem))
    return [f"{p.parent.name}/{p.stem}" for p in order]


def find(words: Sequence[str], root: Path | None = None) -> list[Path]:
    """The files that words mean: `vgg/table3`, `table3`, `vgg` (all of a paper), a path; none is all."""
    root = root or ROOT
    known = names(root)
    found: dict[Path, None] = {}
    for word in words or known:
        if word.endswith((".yaml", ".yml")):
            if not Path(word).is_file():
                raise ReproError(f"no such file: {word}")
            hits = [Path(word)]
        else:
            hits = [root / f"{n}.yaml" for n in known if word in (n, n.split("/")[0], n.split("/")[1])]
        if not hits:
            words_known = {part for n in known for part in (n, *n.split("/"))}
            raise ReproError(f"no table is called {word!r}{near(word, words_known)} `repro list` shows all.")
        if len(hits) > 1 and word not in {n.split("/")[0] for n in known}:
            # A short name that several papers have is that of the one paper that can be run on a proxy.
            hits = [h for h in hits if load_paper(h.parent).proxy] or hits
        if len(hits) > 1 and word not in {n.split("/")[0] for n in known}:
            raise ReproError(f"{word!r} may be {', '.join(f'{h.parent.name}/{h.stem}' for h in hits)}; say which")
        found.update(dict.fromkeys(hits))
    return list(found)
