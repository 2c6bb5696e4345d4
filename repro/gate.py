"""The two gates: what is measured now against what was blessed, and claims that differ without a known cause."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path
from typing import Any

from .errors import ReproError
from .files import write_whole
from .pipeline import Outcome, Report
from .provenance import revision
from .schema import Claim, Relation, RelationVerdict, Verdict

VERSION = 1
Baseline = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A claim that moved against the baseline, or one that differs from the paper.

    `name` is `row | column` or `relations | id`; `was` and `now` are verdicts, empty where there is none, `reason`
    is that of `now`. `since` says when `before` was blessed, `causes` what changed in how it is measured.
    """

    table: str
    name: str
    before: Any
    after: Any
    was: str
    now: str
    reason: str
    since: str
    causes: tuple[str, ...]
    file: str
    line: int

    @property
    def delta(self) -> float | None:
        """How far a number moved, in the unit of its claim."""
        both = isinstance(self.before, int | float) and isinstance(self.after, int | float)
        return self.after - self.before if both else None

    @property
    def rank(self) -> tuple[int, float]:
        """The worst first: failed, differing, gone, then the other verdicts; among equals what moved farthest."""
        worst = {"failed": 0, "differs": 1, "missing": 2, "": 2}.get(self.now, 3 + (self.was == self.now))
        return worst, -abs(self.delta / (self.before or 1)) if self.delta is not None else 0.0

    @property
    def text(self) -> str:
        """From, to, by how much, the verdicts, and the reason of the new one."""
        if self.was == "claimed":
            return f"claimed {self.before}, measured {self.after}: {self.reason}"
        values = f"{self.before} -> {self.after}, " if self.before != self.after else ""
        by = f"by {self.delta:+.6g}, " if self.delta else ""
        verdicts = f"{self.was or 'not there'} -> {self.now or 'gone'}" if self.was != self.now else f"still {self.now}"
        return f"{values}{by}{verdicts}{': ' if self.reason else ''}{self.reason}"


def read(path: Path) -> Baseline | None:
    """A baseline, or None where there is none. Raises ReproError where the file is none of this version."""
    try:
        data: Baseline = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] == VERSION:
            return data
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        pass
    raise ReproError(f"expected a baseline of version {VERSION}; restore it, or remove it and bless anew", str(path))


def write(path: Path, new: Baseline, old: Baseline | None, reason: str) -> bool:
    """Keep what was measured, a line for each cell, with the history of blessings; False where nothing is new."""
    history = old["history"] if old else {}
    if old and json.loads(json.dumps({**new, "history": history})) == old:
        return False
    today = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "revision": revision(), "reason": reason}
    lines = []
    for key, value in {**new, "history": {**history, f"{len(history) + 1}": today}}.items():
        rows = [f"  {_json(k)}: {_json(v)}" for k, v in sorted(value.items())] if isinstance(value, dict) else []
        lines.append(f" {_json(key)}: " + ("{\n" + ",\n".join(rows) + "\n }" if rows else _json(value)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return True


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def snapshot(report: Report, outcome: Outcome, asked: Mapping[str, Any]) -> Baseline:
    """What was measured of a table and how, as plain data; `asked` is the selection, with its seeds."""
    facts: dict[str, Any] = {}
    proxy = report.table.paper.proxy if report.scale == "proxy" else None
    spreads = proxy.seed_spread if proxy else {}
    cells: dict[str, Any] = {}
    for name, (claim, v) in _items(report).items():
        if isinstance(v, RelationVerdict) or (claim and v.verdict == "missing"):
            cells[name] = {"verdict": v.verdict}
        elif v.verdict != "missing":
            cells[name] = _entry(v, outcome, spreads, asked, facts)
    head = {"version": VERSION, "table": report.table.name, "scale": report.scale}
    # A place outside the working folder is this machine's own.
    head["file"] = "" if Path(report.table.file).is_absolute() else report.table.file
    return {**head, "asked": dict(asked), "history": {}, "cells": cells, "facts": facts}


def _plain(value: Any) -> Any:
    """A value as JSON holds it: a whole number as one, an error to the sixth decimal."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return round(value, 6) if isinstance(value, float) else value


def _entry(
    v: Verdict, outcome: Outcome, spreads: Mapping[str, float], asked: Mapping[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """One cell: value, verdict, and in `how` the facts it rests on, each noted once in `facts`."""
    plan, cell, how = outcome.plan, v.cell, []

    def note(name: str, fact: Mapping[str, Any]) -> str:
        """The name under which a fact stands: several equal ones (a recipe) stand once."""
        parts = {k: note(k, x) if isinstance(x, Mapping) and x else x for k, x in fact.items()}
        fact = {k: x for k, x in parts.items() if k not in ("weights", "parent")}  # digests; they are in `how`
        key, n = name, 1
        while facts.setdefault(key, fact) != fact:
            n += 1
            key = f"{name} ({n})"
        return key

    places: dict[str, None] = {}
    for trained in [t for seeds in plan.systems.get(cell.key, ()) for members in seeds for t in members]:
        chain = [trained.weights]
        while parent := plan.jobs[chain[0]].spec["parent"] if chain[0] in plan.jobs else None:
            chain.insert(0, parent)
        how += [note(plan.jobs[d].name, plan.jobs[d].spec) for d in chain if d in plan.jobs]
        for kind, digest in [("train", trained.weights), *(("scores", d) for _, d in trained.scores)]:
            if record := outcome.results.record(kind, digest):
                how += [note(record.name, record.spec)] if kind == "scores" else []
                place = {k: record.environment.get(k, "cpu") for k in ("system", "processor", "device", "torch")}
                places[note("environment", {**place, "seeds": asked["seeds"]})] = None
    how += [note(plan.jobs[d].name, plan.jobs[d].spec) for d in plan.counts.get(cell.key, ())]
    if cell.kind == "setting":
        how += [note("view", s.plain()) for e in cell.systems for m in e for _, s in m.protocol]
    entry = {"claimed": cell.claim.printed.text if cell.claim else "", "measured": _plain(v.result.value)}
    entry |= {"verdict": v.verdict, "how": list(dict.fromkeys(how))}
    if places and not v.result.origin:  # fixed weights are compared exactly everywhere
        # Two standard deviations of the difference of two trainings, as in `judge`; none where no spread is stated.
        stated = min(max(spreads.get(m.recipe, 0.0) for m in e) for e in cell.systems)
        entry |= {"in": list(places), "elsewhere": round(2 * math.sqrt(2 / len(asked["seeds"])) * stated, 2)}
    return entry


def _items(report: Report) -> dict[str, tuple[Claim | Relation | None, Verdict | RelationVerdict]]:
    """What was judged of a table by name, as a claim or a relation and its verdict."""
    cells = {f"{v.cell.row} | {v.cell.column}": (v.cell.claim, v) for v in report.cells}
    return {**cells, **{f"relations | {r.relation.id}": (r.relation, r) for r in report.relations}}


def compare(old: Baseline, new: Baseline, report: Report, whole: bool = False) -> list[Change]:
    """What moved. Cells of the table that were not selected are not looked at, unless `whole`."""
    table, items, changes = report.table, _items(report), []
    skipped = {f"{r} | {c}" for r in table.rows for c in table.columns} | {f"relations | {r}" for r in table.relations}
    last = old["history"][str(len(old["history"]))]
    since = f"{last['revision'] or 'no revision'} ({last['date']})"
    for name in sorted({*old["cells"], *new["cells"]} - (set() if whole else skipped - items.keys())):
        a, b = (of["cells"].get(name, {"verdict": ""}) for of in (old, new))
        if a["verdict"] == b["verdict"] and not _moved(a, b, old, new):
            continue
        claim, verdict = items.get(name, (None, None))
        row, _, column = name.partition(" | ")
        line = claim.line if claim else table.line(*(("relations", column) if row == "relations" else ("rows", row)))
        causes, reason = tuple(dict.fromkeys(_causes(a, b, old, new))), verdict.reason if verdict else ""
        values, verdicts = (a.get("measured"), b.get("measured")), (a["verdict"], b["verdict"])
        changes.append(Change(table.name, name, *values, *verdicts, reason, since, causes, table.file, line))
    return changes


def _moved(a: Mapping[str, Any], b: Mapping[str, Any], old: Baseline, new: Baseline) -> bool:
    """Whether a value moved: at all, or where a training was repeated elsewhere, beyond the spread over seeds."""
    before, after = a.get("measured"), b.get("measured")
    places = [[_flat(name, of) for name in entry.get("in", ())] for entry, of in ((a, old), (b, new))]
    if before is None or after is None or not all(places) or places[0] == places[1]:
        return bool(before != after)
    return bool(abs(after - before) > a["elsewhere"])


def _causes(a: Mapping[str, Any], b: Mapping[str, Any], old: Baseline, new: Baseline) -> Iterator[str]:
    """What changed in how a claim is measured, in the words of the jobs' own specs."""
    if "claimed" in a and "claimed" in b and a["claimed"] != b["claimed"]:
        yield f"the table prints {b['claimed']}, before {a['claimed']}"
    for key in ("how", "in"):
        for names in zip_longest(a.get(key, ()), b.get(key, ())):
            before, after = (_flat(name, of) for name, of in zip(names, (old, new), strict=True))
            for k in sorted(before.keys() & after.keys()):
                own = k == "source" and " " not in str(before[k])  # a library's source is its version
                if before[k] != after[k]:
                    yield f"source of {after['build'].split(':')[0]}" if own else f"{k} {before[k]} -> {after[k]}"


def _flat(value: Any, of: Baseline, key: str = "") -> dict[str, Any]:
    """Plain data by dotted keys, with the facts that it names put in their places."""
    value = of["facts"].get(value, value) if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        return {key: value}
    return {k: v for name, inner in value.items() for k, v in _flat(inner, of, f"{key}.{name}".lstrip(".")).items()}


def unexplained(report: Report) -> list[Change]:
    """The gate against the paper: what differs, where the table states no cause."""
    found = []
    for name, (claim, v) in _items(report).items():
        if claim and v.verdict == "differs" and not getattr(v, "known", None):
            printed = claim.printed.text if claim.printed else v.relation.text if isinstance(v, RelationVerdict) else ""
            value = _plain(v.result.value if isinstance(v, Verdict) else v.effect)
            of = report.table.name, name, printed, value, "claimed", "differs", v.reason, "", (), claim.file, claim.line
            found.append(Change(*of))
    return found
