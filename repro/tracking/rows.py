"""What a table's row is to MLflow: entries, legal keys, notes in Markdown, the saved view of columns."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..schema import RelationVerdict

# Part of every digest: raise it when the same rows are to be written in another way.
LAYOUT = 1
# From the best news to the worst: a row bears the worst verdict of its cells.
ORDER = ("match", "incomparable", "inconclusive", "missing", "differs", "failed")
NUMBERS = ("measured", "claimed", "delta")  # of each entry, as metrics


@dataclass(frozen=True)
class Entry:
    """One cell: `claimed` and `measured` in the claim's unit; a word is in the note only."""

    column: str
    quantity: str
    verdict: str
    printed: str = ""
    claimed: float | None = None
    measured: float | str | None = None
    delta: float | None = None
    unit: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table under one seed, with all that its run will hold.

    `number` is its place in the paper's table, `created` and `seconds` are in seconds (since the
    epoch, and of work). `datasets` holds (name, digest, context), with a context of `training`
    or `evaluation`; `curve` a mapping for each epoch, with `epoch` among its keys; `files` are
    copied as artifacts. Everything must come from records: what a later run would say otherwise
    (the time, the present commit) makes the row a changed one.
    """

    key: str
    seed: int
    number: int
    entries: tuple[Entry, ...]
    label: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[tuple[str, str, str], ...] = ()
    curve: tuple[Mapping[str, float], ...] = ()
    files: tuple[Path, ...] = ()
    git: str = ""
    created: float = 0.0
    seconds: float = 0.0

    @property
    def worst(self) -> str:
        return max((e.verdict for e in self.entries), key=ORDER.index, default="missing")


def legal(name: str) -> str:
    """A name of ours as one part of an MLflow key; different names stay different.

    MLflow takes letters, digits, `_`, `-`, `.` and space, and `/` between parts. Any other
    character becomes its code point between `-x` and `-`, and so does a `-` before an `x`.
    Names beyond 200 characters are cut, and end in a checksum.
    """

    def coded(found: re.Match[str]) -> str:
        return f"-x{ord(found.group()):x}-"

    only_dots = r"\.|" if set(name) <= {"."} else ""
    key = re.sub(only_dots + r"[^\w.\- ]|-(?=x)", coded, name) or "-x-"
    return key if len(key) <= 200 else f"{key[:180]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def metric_names(rows: Sequence[Row]) -> dict[str, str]:
    """Column key to the name of its metrics: the quantity, or where columns share one the column.

    A name loses the characters that MLflow refuses if it still differs from all others then.
    """
    quantities = {e.column: e.quantity for row in rows for e in row.entries}
    shared = list(quantities.values())
    names = {column: q if shared.count(q) == 1 else column for column, q in quantities.items()}
    short = {column: " ".join(re.sub(r"[^\w.\- ]", " ", name).split()) for column, name in names.items()}
    alike = list(short.values())
    plain = {column for column, s in short.items() if alike.count(s) == 1 and legal(s) == s}
    return {column: short[column] if column in plain else legal(name) for column, name in names.items()}


def row_note(row: Row) -> str:
    """The row as a Markdown table, a line for each printed number."""
    head = ["", "printed", "measured", "delta", "verdict", "reason"]
    lines = [[e.column, f"{e.printed} {e.unit}".strip(), _text(e.measured), _text(e.delta, "+"), e.verdict, e.reason]
             for e in row.entries]  # fmt: skip
    return f"**{_cell(row.label or row.key)}** (`{row.key}`, seed {row.seed})\n\n{_markdown(head, lines)}"


def relations_note(title: str, relations: Sequence[RelationVerdict]) -> str:
    """Title and relations of a table as Markdown, effects and intervals in points."""
    head = ["the paper says", "where", "verdict", "effect", "interval", "p", "p adjusted", "n", "seeds", "reason"]
    lines = [
        [
            r.relation.text, r.relation.where, r.verdict, _text(r.effect, "+"),
            f"{_text(r.interval[0], '+')} to {_text(r.interval[1], '+')}" if r.interval else "",
            _text(r.p_value), _text(r.p_adjusted), str(r.n or ""), str(r.seeds or ""), r.reason,
        ]
        for r in relations
    ]  # fmt: skip
    return title + (f"\n\n{_markdown(head, lines)}" if lines else "")


def _text(value: float | str | None, sign: str = "") -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:{sign}.4g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    # Hard spaces, because the page sets its tables without any between columns.
    body = ["| " + " | ".join(f"{_cell(c)}\u00a0\u00a0" for c in line) + " |" for line in (head, *lines)]
    return "\n".join([body[0], "|" + " --- |" * len(head), *body[1:]])


def view(rows: Sequence[Row], names: Mapping[str, str]) -> dict[str, Any]:
    """The state of MLflow's table of runs: the paper's order, and claimed beside measured."""
    columns = []
    for column, base in names.items():
        entries = [e for row in rows for e in row.entries if e.column == column]
        for part in ("claimed", "measured", "delta"):
            numeric = any(isinstance(getattr(e, part), int | float) for e in entries)
            if numeric or part == "delta":
                columns.append(f"{'metrics' if numeric else 'tags'}.`{base}/{part}`")
    columns += [f"tags.`{word}`" for word in ("repro.verdict", *(f"{base}/verdict" for base in names.values()))]
    columns += [f"params.`{k}`" for k in ("build", "S", "Q", "seed") if k == "seed" or any(k in r.params for r in rows)]
    widths = {c: 50 + 7 * len(c.split("`")[1]) for c in columns}
    return {
        "orderByKey": "metrics.`row`", "orderByAsc": True, "searchFilter": "", "startTime": "ALL",
        "selectedColumns": columns, "columnOrder": ["tags.`mlflow.runName`", *columns], "columnWidths": widths,
    }  # fmt: skip


def digest(value: Any) -> str:
    def plain(x: Any) -> Any:
        return x.name if isinstance(x, Path) else asdict(x) if hasattr(x, "__dataclass_fields__") else str(x)

    text = json.dumps([LAYOUT, value], sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()
