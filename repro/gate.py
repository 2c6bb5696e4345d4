"""The baseline: what was measured when somebody blessed it, and what has moved since."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from . import compare as pairing
from .errors import ReproError
from .files import write_whole
from .pipeline import Outcome, Report
from .provenance import revision
from .schema import Claim, Job, Relation, RelationVerdict, Verdict

VERSION = 1
Baseline = dict[str, Any]  # runs/baseline/README.md tells what is in it
_json = partial(json.dumps, ensure_ascii=False)


@dataclass(frozen=True)
class Change:
    """A claim that moved: its name (`row | column` or `relations | id`), values and verdicts before and now."""

    table: str
    name: str
    before: Any
    after: Any
    was: str
    now: str
    why: str
    file: str
    line: int

    @property
    def text(self) -> str:
        """From, to, by how much, and the verdicts."""
        values = f"{self.before} -> {self.after}, " if self.before != self.after else ""
        numbers = isinstance(self.before, int | float) and isinstance(self.after, int | float)
        by = f"by {self.after - self.before:+.6g}, " if numbers and values else ""
        return f"{values}{by}{f'{self.was} -> ' if self.was != self.now else 'still '}{self.now}"


def read(path: Path) -> Baseline | None:
    """A baseline, or None where there is none. Raises ReproError where the file is none of this version."""
    if not path.is_file():
        return None
    try:
        data: Baseline = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] == VERSION:
            return data
    except (ValueError, KeyError, TypeError):
        pass
    raise ReproError(f"no baseline of version {VERSION}; restore it, or remove it and bless anew", str(path))


def write(path: Path, new: Baseline, old: Baseline | None, report: Report, reason: str) -> bool:
    """Keep what is new, a line for each cell, and what was not selected as it was; False where nothing is new."""
    history = old["history"] if old else {}
    kept = {name: entry for name, entry in old["cells"].items() if name in _skipped(report)} if old else {}
    new = {**new, "history": history, "cells": {**kept, **new["cells"]}}
    if old == new:
        return False
    today = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "revision": revision(), "reason": reason}
    new["history"] = {**history, str(len(history) + 1): today}
    lines = []
    for key, value in new.items():
        rows = [f"  {_json(k)}: {_json(v)}" for k, v in sorted(value.items())] if isinstance(value, dict) else []
        lines.append(f" {_json(key)}: " + ("{\n" + ",\n".join(rows) + "\n }" if rows else _json(value)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return True


def items(report: Report) -> dict[str, tuple[Claim | Relation | None, Verdict | RelationVerdict]]:
    """What was judged of a table by name, as a claim or a relation and its verdict."""
    cells = {f"{v.cell.row} | {v.cell.column}": (v.cell.claim, v) for v in report.cells}
    return {**cells, **{f"relations | {r.relation.id}": (r.relation, r) for r in report.relations}}


def _skipped(report: Report) -> set[str]:
    """What the table holds and was not selected."""
    table = report.table
    every = {f"{r} | {c}" for r in table.rows for c in table.columns} | {f"relations | {r}" for r in table.relations}
    return every - items(report).keys()


def snapshot(report: Report, outcome: Outcome, seeds: tuple[int, ...]) -> Baseline:
    """What was measured of a table and how, as plain data; what is missing is not told."""
    told = {name: v for name, (_, v) in items(report).items() if v.verdict != "missing"}
    cells = {
        name: _entry(v, report, outcome, seeds) if isinstance(v, Verdict) else {"verdict": v.verdict}
        for name, v in told.items()
    }
    return {"version": VERSION, "table": report.table.name, "scale": report.scale, "history": {}, "cells": cells}


def _entry(v: Verdict, report: Report, outcome: Outcome, seeds: tuple[int, ...]) -> dict[str, Any]:
    """One cell: value, verdict, and in `how` the source, the jobs and the records, each behind what it needs."""
    plan, cell, value = outcome.plan, v.cell, v.result.value
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    jobs, scores, places = [plan.jobs[digest] for digest in plan.counts.get(cell.key, ())], [], set()
    for trained in [t for several in plan.systems.get(cell.key, ()) for members in several for t in members]:
        chain, digest = list[Job](), trained.weights
        while digest in plan.jobs:
            chain.insert(0, plan.jobs[digest])
            digest = chain[0].spec["parent"]
        jobs += chain
        for kind, digest in [("train", trained.weights), *(("scores", digest) for _, digest in trained.scores)]:
            if record := outcome.results.record(kind, digest):
                place = [record.environment.get(k, "cpu") for k in ("system", "processor", "device", "torch")]
                places.add("{}, {}, {}, torch {}, seeds {}".format(*place, " ".join(map(str, seeds))))
                scores += [f"{record.name} {digest[:8]}"] if kind == "scores" else []
    sources = [f"source of {str(j.spec['build']).split(':')[0]} {j.spec['source'].split()[-1][:8]}" for j in jobs]
    how = list(dict.fromkeys([*sources, *(f"{job.name} {job.digest[:8]}" for job in jobs), *scores]))
    entry = {"measured": value, "verdict": v.verdict, "how": how}
    if places and not v.result.origin:  # fixed weights are compared exactly everywhere
        proxy = report.table.paper.proxy if report.scale == "proxy" else None
        stated = [proxy.seed_spread.get(m.recipe, 0.0) for e in cell.systems for m in e] if proxy else [0.0]
        # Two standard deviations of the difference of two trainings, as in `judge`; none where no spread is stated.
        room = round(2 * math.sqrt(2 / len(seeds)) * max(stated), 2)
        entry |= {"measured": value and round(value, 6), "in": sorted(places), "elsewhere": room}
    return entry


def compare(old: Baseline, new: Baseline, report: Report, outcome: Outcome) -> list[Change]:
    """What moved of what was selected, with the paired difference where the scores of both sides are kept."""
    table, judged, changes, nothing = report.table, items(report), [], {"verdict": "missing"}
    last = old["history"][str(len(old["history"]))]
    since = f"since {last['revision'] or 'no revision'} ({last['date']})"
    for name in sorted({*old["cells"], *new["cells"]} - _skipped(report)):
        a, b = (of["cells"].get(name, nothing) for of in (old, new))
        if a["verdict"] == b["verdict"] and not _moved(a, b):
            continue
        claim, verdict = judged.get(name, (None, None))
        row, _, column = name.partition(" | ")
        line = claim.line if claim else table.line(*(("relations", column) if row == "relations" else ("rows", row)))
        # The first that is new explains those behind it.
        fresh = [f"new: {key}" for key in b.get("how", ()) if key not in a.get("how", ())][:1]
        reasons = [verdict.reason if verdict else "", _paired(a, b, outcome), *fresh, since]
        values, verdicts = (a.get("measured"), b.get("measured")), (a["verdict"], b["verdict"])
        why = "; ".join(filter(None, reasons))
        changes.append(Change(table.name, name, *values, *verdicts, why, table.file, line))
    return changes


def _moved(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether a value moved: at all, or where a training was repeated elsewhere, beyond the spread over seeds."""
    before, after = a.get("measured"), b.get("measured")
    if before is None or after is None or "in" not in a or a["in"] == b.get("in"):
        return bool(before != after)
    return bool(abs(after - before) > a["elsewhere"])


def _paired(a: Mapping[str, Any], b: Mapping[str, Any], outcome: Outcome) -> str:
    """The difference image by image, where each side has one score record, both are kept and of the same images."""
    old, new = ([key.split()[-1] for key in of.get("how", ()) if key.startswith("evaluate ")] for of in (a, b))
    if old == new or len(old) != 1 or len(new) != 1:
        return ""
    try:
        sides = [pairing.recorded(outcome.results.store, digest) for digest in (*old, *new)]
        return f"top-1 error image by image {pairing.compare(*sides)}"
    except ReproError:  # not kept here, or of other images
        return ""
