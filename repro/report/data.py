"""Verdicts as plain data, for `--json` and for other programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from ..pipeline import Outcome, Report
from ..schema import VERDICTS, Cell, Relation, RelationVerdict, Verdict
from ..tables import Table


def plain(value: Any) -> Any:
    """A value that JSON can hold: decimals as numbers, no NaN."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell(verdict: Verdict) -> dict[str, Any]:
    """One cell: claimed text, measured value in the unit of the claim, delta, verdict."""
    c = verdict.cell
    return {
        "row": c.row, "column": c.column, "quantity": c.quantity, "kind": c.kind,
        "claimed": c.claim.printed.text if c.claim else None, "unit": c.unit, "measured": plain(verdict.result.value),
        "delta": None if verdict.verdict == "incomparable" else plain(verdict.delta),
        "verdict": verdict.verdict, "reason": verdict.reason, "known": dict(verdict.known) if verdict.known else None,
        **({"ledger": list(verdict.ledger)} if verdict.ledger else {}),
        **({"origin": verdict.result.origin} if verdict.result.origin else {}),
    }  # fmt: skip


def relation(verdict: RelationVerdict) -> dict[str, Any]:
    """One relation: effect and interval in points, p-values as tested and after Holm."""
    keys = ("effect", "interval", "p_value", "p_adjusted", "test", "n", "seeds", "mde", "verdict", "reason")
    told = {key: plain(getattr(verdict, key)) for key in keys if key != "mde" or verdict.mde is not None}
    return {"id": verdict.relation.id, "text": verdict.relation.text, **told}


def counts(report: Report) -> dict[str, dict[str, int]]:
    """How many printed cells and relations have which verdict."""
    cells = Counter(v.verdict for v in report.cells if v.cell.claim)
    found = {"cells": cells, "relations": Counter(v.verdict for v in report.relations)}
    return {what: {v: of[v] for v in VERDICTS if of[v]} for what, of in found.items()}


def tables(outcome: Outcome) -> list[dict[str, Any]]:
    """The tables of a run, as `--json` prints them."""
    return [
        {"table": r.table.name, "scale": r.scale, "cells": [cell(v) for v in r.cells],
         "relations": [relation(v) for v in r.relations], "summary": counts(r)}
        for r in outcome.reports
    ]  # fmt: skip


def claims(table: Table, cells: Iterable[Cell], relations: Iterable[Relation]) -> Iterable[Mapping[str, Any]]:
    """Every printed number of a table, relations with a printed size among them."""
    of = {"paper": table.name.split("/")[0], "table": table.name}
    for c in cells:
        if claim := c.claim:
            yield {
                **of, "where": claim.where, "row": c.row, "column": c.column, "printed": claim.printed.text,
                "unit": c.unit, "quantity": c.quantity, "kind": c.kind,
                **({"recalled": True} if claim.recalled else {}),
            }  # fmt: skip
    for r in relations:
        if r.printed:
            yield {
                **of, "where": r.where, "row": r.id, "column": "", "printed": r.printed.text, "unit": r.unit,
                "quantity": "error_delta", "kind": "relation",
            }  # fmt: skip
