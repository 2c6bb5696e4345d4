"""YAML to plain data with the line of every place, and checked data with every mistake placed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from .errors import ReproError

Where = tuple[str | int, ...]
T = TypeVar("T", bound=BaseModel)


def near(word: str, known: Iterable[str]) -> str:
    """What follows a name that is not known: `; did you mean 'x'?`, or a full stop when none is near."""
    close = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else "."


def line_of(lines: Mapping[Where, int], where: Sequence[str | int]) -> int:
    """The line of a place in a file, or of the nearest place above it that has one."""
    found = (lines.get(tuple(where[:end])) for end in range(len(where), -1, -1))
    return next((line for line in found if line is not None), 1)


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


def read(path: Path) -> tuple[Any, dict[Where, int]]:
    """A file's data, all scalars as strings, and the line of each place in it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                line = event.start_mark.line + 1 if event.start_mark else None
                raise ReproError("anchors, aliases and tags are not read; write the value out", str(path), line)
        node = yaml.compose(text, Loader=loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ReproError(f"cannot be read: {error}", str(path)) from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        raise ReproError(f"is not YAML: {problem}", str(path), mark.line + 1 if mark else None) from None
    if not isinstance(node, yaml.MappingNode):
        raise ReproError("is empty or no mapping; see tables/vgg/table3.yaml for an example", str(path), 1)
    lines: dict[Where, int] = {}
    return _plain(node, str(path), (), lines), lines


def check(model: type[T], data: Any, file: str, lines: Mapping[Where, int], bases: Sequence[Where] = ((),)) -> T:
    """`data` as a `model`; the first mistake becomes a ReproError with its file, line and field.

    `bases` are the places in the file that the data was merged from, the innermost first; without `lines` the data
    is of no file, and `file` says where else it was written.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # The deepest complaint is the one about what was written, not about a union's other branch.
        first = max(error.errors(), key=lambda e: (len(e["loc"]), e["type"] == "extra_forbidden"))
    loc, message = first["loc"], first["msg"].removeprefix("Value error, ")
    base = next((b for b in bases if (*b, *loc) in lines), bases[0])
    kept: list[str | int] = []  # of `loc` what stands in the file: pydantic names the branches of a union too
    for part in loc:
        kept += [part] if (*base, *kept, part) in lines else []
    line = line_of(lines, (*base, *kept)) if lines else None
    key = str(loc[-1]) if loc else ""
    if first["type"] == "extra_forbidden":
        fields = [f.rstrip("_") for f in _fields_at(model, loc[:-1])]
        raise ReproError(f"unknown key {key!r}{near(key, fields)} Known here: {', '.join(fields)}", file, line)
    if first["type"] == "missing":
        raise ReproError(f"the key {key!r} is missing", file, line)
    name = " ".join(map(str, kept or loc))
    raise ReproError(f"{name} is {str(first['input'])!r}: {message.lower()}" if loc else message, file, line)


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
