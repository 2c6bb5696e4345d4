"""What a run of the page holds: a row of a table under a seed, the names of its metrics, the saved view of all rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTS = ("claimed", "measured", "delta")


@dataclass(frozen=True)
class Entry:
    """One cell: `claimed`, `measured` and `delta` in the claim's unit; a measured word as it is."""

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
    """One row of a table under one seed, all from records: what changes between runs is written anew."""

    key: str
    seed: int
    number: int  # its place in the paper's table
    entries: tuple[Entry, ...]
    label: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[tuple[str, str, str], ...] = ()  # name, digest, `training` or `evaluation`
    curve: tuple[Mapping[str, float], ...] = ()  # for each epoch, `epoch` and its numbers
    files: tuple[Path, ...] = ()  # copied as artifacts
    git: str = ""
    created: float = 0.0  # seconds since the epoch
    seconds: float = 0.0  # of work
    model: str = ""  # SHA-256 of the weights


def legal(name: str) -> str:
    """A name as one part of an MLflow key, which takes letters, digits, `_`, `-`, `.` and space."""
    return re.sub(r"[^\w.\- ]", "_", name)


def names(row: Row) -> list[str]:
    """What each entry's metrics are called: by its quantity, or where entries share one by its column."""
    quantities = [e.quantity for e in row.entries]
    found: list[str] = []
    for e in row.entries:
        name = legal(e.quantity if quantities.count(e.quantity) == 1 else e.column)
        while name in found:
            name += "_"
        found.append(name)
    return found


def view(rows: Sequence[Row]) -> dict[str, Any]:
    """The state of MLflow's table of runs: the paper's order, and claimed, measured, delta side by side."""
    cells = [cell for row in rows for cell in zip(names(row), row.entries, strict=True)]
    numeric = {f"{n}/{part}" for n, e in cells for part in PARTS if isinstance(getattr(e, part), int | float)}
    quantities = list(dict.fromkeys(n for n, _ in cells))
    keys = [f"{n}/{part}" for n in quantities for part in PARTS]
    columns = [f"{'metrics' if k in numeric else 'tags'}.`{k}`" for k in keys]
    columns += [f"tags.`{n}/verdict`" for n in quantities] + ["params.`seed`"]
    return {
        "orderByKey": "metrics.`row`", "orderByAsc": True, "searchFilter": "", "startTime": "ALL",
        "selectedColumns": columns, "columnOrder": ["tags.`mlflow.runName`", *columns],
        "columnWidths": {c: 50 + 7 * len(c) for c in columns},
    }  # fmt: skip
