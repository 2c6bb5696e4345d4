"""Verdicts and printed tables for other programs: JSON, CSV, Markdown, LaTeX and Hugging Face's model-index."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ReproError
from ..pipeline import Outcome, Report
from ..tables import Table
from . import data

FORMATS = ("json", "csv", "md", "latex", "model-index")


def render(outcome: Outcome, fmt: str) -> str:
    """What was measured, in one of FORMATS; Markdown and LaTeX in the paper's own layout. Raises ReproError."""
    if fmt == "model-index":
        return _model_index(outcome.reports)
    found, parts = data.tables(outcome), list[tuple[Table, list[dict[str, Any]], Sequence[str]]]()
    for report, t in zip(outcome.reports, found, strict=True):
        cells = [{"scale": t["scale"], **c} for c in t["cells"]]
        relations = [{"scale": t["scale"], **r, "row": r["id"], "column": ""} for r in t["relations"]]
        parts.append((report.table, cells, ("claimed", "measured", "delta", "verdict")))
        parts.append((report.table, relations, ("text", "effect", "interval", "p_value", "p_adjusted", "verdict")))
    return _render(found, parts, fmt)


def render_printed(tables: Sequence[Table], fmt: str) -> str:
    """The numbers of tables as they are printed, in one of FORMATS. Raises ReproError for model-index."""
    if fmt == "model-index":
        raise ReproError("model-index holds what was measured: `repro diff TABLE --format model-index`")
    cells = [
        [
            {"row": r, "column": c, "printed": v.get("printed")}
            for r, s in t.rows.items()
            for c, v in s["values"].items()
        ]
        for t in tables
    ]
    found = [{"table": t.name, "cells": c} for t, c in zip(tables, cells, strict=True)]
    return _render(found, [(t, c, ("printed",)) for t, c in zip(tables, cells, strict=True)], fmt)


def _render(found: Sequence[Any], parts: Sequence[tuple[Table, list[dict[str, Any]], Sequence[str]]], fmt: str) -> str:
    import pandas as pd

    if fmt == "json":
        return json.dumps(found[0] if len(found) == 1 else found, indent=1, ensure_ascii=False)
    if fmt == "csv":
        return (
            pd.DataFrame([{"table": t.name, **cell} for t, cells, _ in parts for cell in cells])
            .to_csv(index=False)
            .rstrip()
        )
    return "\n\n".join(_layout(*part, fmt) for part in parts if part[1])


def _layout(table: Table, cells: Sequence[Mapping[str, Any]], parts: Sequence[str], fmt: str) -> str:
    """Rows and columns where the paper has them; the parts of a cell stand side by side, empty ones are left out."""
    import pandas as pd

    rows, columns = (list(dict.fromkeys(cell[key] for cell in cells)) for key in ("row", "column"))
    told = {(c["row"], c["column"], part): _text(c[part]) for c in cells for part in parts}
    heads = [(c, p) for c in columns for p in parts if any(told.get((r, c, p)) for r in rows)]
    names = {c: settings.get("label", c) for c, settings in table.columns.items()}
    labels = [(names.get(c, c), "" if p == "printed" else p.replace("_", " ")) for c, p in heads]
    values = [[told.get((r, *head), "") for head in heads] for r in rows]
    title = " ".join(f"{table.name}: {table.title}, {table.where}".split())
    if fmt == "latex":
        many = any(part for _, part in labels)
        over = pd.MultiIndex.from_tuples(labels) if many else pd.Index([column for column, _ in labels])
        style = pd.DataFrame(values, rows, over).style.format(escape="latex")
        style = style.format_index(escape="latex").format_index(escape="latex", axis=1)
        return f"% {title}\n{style.to_latex(hrules=True, multicol_align='c').rstrip()}"
    marked = [[_mark(value) for value in line] for line in values]
    frame = pd.DataFrame(marked, list(map(_mark, rows)), [_mark(" ".join(label).strip()) for label in labels])
    return f"**{_mark(title)}**\n\n{frame.to_markdown(disable_numparse=True)}"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(map(_text, value))
    return "" if value is None or value != value else f"{value:.4g}" if isinstance(value, float) else str(value)


def _mark(text: str) -> str:
    """Text as it is in a cell of Markdown: no HTML, no new column."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _model_index(reports: Sequence[Report]) -> str:
    """The front matter of a model card: a model for each row, its measured errors by data set. Raises ReproError."""
    import yaml
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    models: dict[str, list[EvalResult]] = {}
    for v in (v for r in reports for v in r.cells if v.cell.kind == "metric" and v.result.per_seed):
        system = v.cell.systems[0][0]
        how: dict[str, Any] = {"claimed": v.cell.claim.printed.text if v.cell.claim else None, "verdict": v.verdict}
        how |= {"per_seed": list(v.result.per_seed), "protocol": [view.plain() for _, view in system.protocol]}
        task, data_set, value = "image-classification", system.dataset, float(v.result.value)
        result = EvalResult(task, data_set, data_set, v.cell.quantity, value, metric_args=how)
        models.setdefault(f"{v.cell.table} {v.cell.row}", []).append(result)
    if not models:
        raise ReproError("model-index holds errors on images, and none of these tables has one measured")
    index = [model for name, results in models.items() for model in eval_results_to_model_index(name, results)]
    return f"---\n{yaml.safe_dump({'model-index': index}, sort_keys=False, allow_unicode=True)}---"
