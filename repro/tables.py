"""YAML to a checked `Table`: one file for each table of a paper, every mistake told by file and line."""

from __future__ import annotations

import ast
import difflib
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from .errors import ReproError

_HERE = Path(__file__).resolve().parent
# The folder beside the package in a clone, the copy inside the package when installed from a wheel.
ROOT = next((p for p in (_HERE.parent / "tables", _HERE / "_tables") if p.is_dir()), _HERE / "_tables")

Where = tuple[str | int, ...]
T = TypeVar("T", bound=BaseModel)


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _optional(value: Any) -> Any:
    return None if value == "no" else value


Words = Annotated[list[str], BeforeValidator(_listed)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Settings(_Model):
    """The fields that may stand at every level: defaults, column, row, cell."""

    label: str | None = None
    build: Words | None = None
    recipe: str | None = None
    S: str | None = None
    Q: Words | None = None
    protocol: Words | None = None
    dataset: str | None = None
    quantity: str | None = None
    unit: str | None = None
    kind: str | None = None
    setting: str | None = None
    stage: str | None = None
    means: str | None = None
    digits: int | None = None
    missing: str | None = None
    quotes: str | None = None
    recalled: str | None = None
    where: str | None = None
    note: str | None = None
    nets: list[str | dict[str, Any]] | None = None
    margin: float | None = None
    input: int | None = None


class Value(Settings):
    printed: str = "-"


class Row(Settings):
    values: list[str | Value] | dict[str, str | Value]


class RelationModel(_Model):
    text: str
    where: str
    less: list[Any] | None = None
    not_better: list[str] | None = None
    falls: list[str] | None = None
    margin: float = 0.0
    printed: str | None = None
    unit: str = "pp"
    missing: str | None = None
    note: str | None = None


class Known(_Model):
    at: Words
    cause: str
    gives: str


class TableModel(_Model):
    title: str
    where: str
    note: str | None = None
    defaults: Settings = Settings()
    columns: dict[str, str | Settings]
    rows: dict[str, Row]
    relations: dict[str, RelationModel] = {}
    known: list[Known] = []


class Optimizer(_Model):
    name: Literal["sgd"]
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0


class Schedule(_Model):
    name: Literal["plateau", "one-cycle"]
    factor: float = 0.1
    patience: int = 3
    drops: int = 3
    warmup: float = 0.3


class Init(_Model):
    name: Literal["normal", "kaiming"]
    std: float = 0.0


class Augment(_Model):
    flip: float
    colour: float


class Recipe(_Model):
    """How weights come to be, typed; `train` reads it as plain data (source by section in the file)."""

    dataset: str
    val: str
    batch: int
    epochs: int
    optimizer: Optimizer
    schedule: Schedule
    dropout: float
    init: Init
    clip: Annotated[float | None, BeforeValidator(_optional)] = None
    augment: Augment
    scale: float = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    threads: int = 1
    bar: float = 1.0


class Start(_Model):
    from_: dict[str, str]
    copy_: list[str]

    model_config = ConfigDict(extra="forbid", alias_generator=lambda name: name.rstrip("_"))


class Proxy(_Model):
    """Everything in which the proxy differs from the paper; a size that is not listed is an error."""

    why: str
    dataset: dict[str, str]
    pixels: dict[int, int]
    build: dict[str, str] = {}
    classes: int = 10
    seed_spread: dict[str, float] = {}
    note: str | None = None


class PaperModel(_Model):
    source: str
    title: str = ""
    defaults: Settings = Settings()
    recipes: dict[str, dict[str, Any]] = {}
    proxy: Proxy | None = None


@dataclass(frozen=True)
class Paper:
    """What the tables of one paper share."""

    name: str
    file: str
    source: str
    title: str
    defaults: Mapping[str, Any]
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
        return _line(self.lines, where)


def near(word: str, known: Iterable[str]) -> str:
    """What follows a name that is not known: `; did you mean 'x'?`, or a full stop when none is near."""
    close = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else "."


def _line(lines: Mapping[Where, int], where: Sequence[str | int]) -> int:
    for end in range(len(where), -1, -1):
        if (line := lines.get(tuple(where[:end]))) is not None:
            return line
    return 1


def _plain(node: yaml.Node, file: str, where: Where, lines: dict[Where, int]) -> Any:
    """A composed node as dicts, lists and strings (`25.60` and `no` survive), its lines noted."""
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(v, file, (*where, i), lines) for i, v in enumerate(node.value)]
    out: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ReproError("a key must be a plain word; quote it", file, line)
        if key.value in out:
            raise ReproError(f"the key {key.value!r} stands here twice; remove one", file, line)
        lines[(*where, key.value)] = line
        out[key.value] = _plain(value, file, (*where, key.value), lines)
    return out


def _read(path: Path) -> tuple[Any, dict[Where, int]]:
    """A file's data, all scalars as strings, and the line of each place in it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ReproError("anchors, aliases and tags are not read; write the value out", str(path), line)
        node = yaml.compose(text, Loader=loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ReproError(f"cannot be read: {error}", str(path)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise ReproError(f"is not YAML: {problem}", str(path), mark.line + 1 if mark else None) from None
    lines: dict[Where, int] = {}
    if not isinstance(node, yaml.MappingNode):
        raise ReproError("is empty or no mapping; see tables/vgg/table3.yaml for an example", str(path), 1)
    return _plain(node, str(path), (), lines), lines


def check(model: type[T], data: Any, file: str, lines: Mapping[Where, int], bases: Sequence[Where] = ((),)) -> T:
    """`data` as a `model`; the first mistake becomes a ReproError with its file, line and field.

    `bases` are the places in the file that the data was merged from, the innermost first.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # The deepest complaint is the one about what was written, not about a union's other branch.
        first = max(error.errors(), key=lambda e: (len(e["loc"]), e["type"] == "extra_forbidden"))
    kept: list[str | int] = []
    base = next((b for b in bases if (*b, *first["loc"]) in lines), bases[0])
    for part in first["loc"]:
        if (*base, *kept, part) in lines or first["type"] in ("missing", "extra_forbidden"):
            kept.append(part)
    line = _line(lines, (*base, *kept))
    name = " ".join(str(p) for p in first["loc"] if not str(p).startswith(("function-", "list[", "dict["))) or "file"
    key = str(first["loc"][-1]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        fields = [f.rstrip("_") for f in _fields_at(model, first["loc"][:-1])]
        raise ReproError(f"unknown key {key!r}{near(key, fields)} Known here: {', '.join(fields)}", file, line)
    if first["type"] == "missing":
        raise ReproError(f"the key {key!r} is missing", file, line)
    raise ReproError(f"{name} is {str(first['input'])!r}: {first['msg'].lower()}", file, line)


def _fields_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The fields that may stand at `loc`, found by walking down the models' annotations."""
    for part in loc:
        field = model.model_fields.get(str(part))
        model = next(_models_in(field.annotation), model) if field else model
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def load_paper(folder: Path) -> Paper:
    """`paper.yaml` of a folder; a table that stands alone has an empty paper."""
    path = folder / "paper.yaml"
    if not path.is_file():
        return Paper(folder.name, str(path), "", "", {}, {}, None, {})
    data, lines = _read(path)
    model = check(PaperModel, data, str(path), lines)
    defaults = model.defaults.model_dump(exclude_unset=True)
    return Paper(folder.name, str(path), model.source, model.title, defaults, model.recipes, model.proxy, lines)


def load(path: Path) -> Table:
    """A table file, checked whole. Raises ReproError with the file, the line and what was expected."""
    file = _shown(path)
    data, lines = _read(path)
    model = check(TableModel, data, file, lines)
    columns = {
        key: {"quantity": c} if isinstance(c, str) else c.model_dump(exclude_unset=True)
        for key, c in model.columns.items()
    }
    rows: dict[str, dict[str, Any]] = {}
    for key, row in model.rows.items():
        settings = row.model_dump(exclude_unset=True)
        values, line = row.values, _line(lines, ("rows", key, "values"))
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
    """Known differences by (row, column); `gives` must fall into the printed interval."""
    from .printed import parse

    for i, known in enumerate(model.known):
        line = _line(lines, ("known", i))
        gives = arithmetic(known.gives, file, line)
        for address in known.at:
            row, _, column = (part.strip() for part in address.partition("|"))
            value = model.rows[row].values if row in model.rows else None
            column = column or next(iter(model.columns))
            cell = value.get(column) if isinstance(value, dict) else None
            if isinstance(value, list) and column in model.columns:
                cell = value[list(model.columns).index(column)]
            if cell is None:
                raise ReproError(f"known difference at {address!r}: no such cell", file, line)
            printed = cell if isinstance(cell, str) else cell.printed
            if not parse(printed).holds(gives):
                raise ReproError(
                    f"known difference at {address!r}: {known.gives} is {gives}, not {printed}", file, line
                )
            yield (row, column), {"cause": known.cause, "gives": known.gives}


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
            raise ReproError(f"{word!r} may be {', '.join(f'{h.parent.name}/{h.stem}' for h in hits)}; say which")
        found.update(dict.fromkeys(hits))
    return list(found)
