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


def render(outcome: Outcome, fmt: str) -> str:
    """What was measured, as json, csv, md, latex (these two in the paper's layout), model-index. Raises ReproError."""
    if fmt == "model-index":
        return _model_index(outcome.reports)
    found, parts = data.tables(outcome), list[Any]()
    for r, t in zip(outcome.reports, found, strict=True):
        cells = [{"scale": r.scale, **v} for v in t["cells"]]
        relations = [{"scale": r.scale, **v, "row": v["id"], "column": ""} for v in t["relations"]]
        parts.append((r.table, cells, ("claimed", "measured", "delta", "verdict")))
        parts.append((r.table, relations, ("text", "effect", "interval", "p_value", "p_adjusted", "verdict")))
    return _render(found, parts, fmt)


def render_printed(tables: Sequence[Table], fmt: str) -> str:
    """The numbers of tables as they are printed, as `render`. Raises ReproError for model-index."""
    if fmt == "model-index":
        raise ReproError("model-index holds what was measured: `repro diff TABLE --format model-index`")
    parts = []
    for table in tables:
        cells = [(row, column, value) for row, s in table.rows.items() for column, value in s["values"].items()]
        told = [{"row": row, "column": column, "printed": value.get("printed")} for row, column, value in cells]
        parts.append((table, told, ("printed",)))
    return _render([{"table": table.name, "cells": told} for table, told, _ in parts], parts, fmt)


def _render(found: Sequence[Any], parts: Sequence[Any], fmt: str) -> str:
    """`parts` are a table, its cells as plain data, and which fields of a cell stand side by side in a layout."""
    import pandas as pd

    if fmt == "json":
        return json.dumps(found[0] if len(found) == 1 else found, indent=1, ensure_ascii=False)
    if fmt == "csv":
        rows = [{"table": table.name, **cell} for table, cells, _ in parts for cell in cells]
        return pd.DataFrame(rows).to_csv(index=False).rstrip()
    return "\n\n".join(_layout(table, cells, of, fmt == "latex") for table, cells, of in parts if cells)


def _layout(table: Table, cells: Sequence[Mapping[str, Any]], parts: Sequence[str], latex: bool) -> str:
    """Rows and columns where the paper has them; the parts of a cell stand side by side, empty ones are left out."""
    import pandas as pd

    rows, columns = (list(dict.fromkeys(cell[key] for cell in cells)) for key in ("row", "column"))
    told = {(c["row"], c["column"], part): _text(c[part]) for c in cells for part in parts}
    heads = [(c, p) for c in columns for p in parts if any(told.get((r, c, p)) for r in rows)]
    names = {c: settings.get("label", c) for c, settings in table.columns.items()}
    labels = [f"{names.get(c, c)} {'' if p == 'printed' else p.replace('_', ' ')}".strip() for c, p in heads]
    frame = pd.DataFrame([[told.get((r, *head), "") for head in heads] for r in rows], rows, labels)
    title = " ".join(f"{table.name}: {table.title}, {table.where}".split())
    if latex:
        style = frame.style.format(escape="latex").format_index(escape="latex").format_index(escape="latex", axis=1)
        return f"% {title}\n{style.to_latex(hrules=True).rstrip()}"
    frame = frame.map(_mark).rename(_mark, axis="index").rename(_mark, axis="columns")
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
        name, system = f"{v.cell.table} {v.cell.row}", v.cell.systems[0][0]
        how: dict[str, Any] = {
            "claimed": v.cell.claim.printed.text if v.cell.claim else None,
            "per_seed": list(v.result.per_seed),
        }
        how |= {"verdict": v.verdict, "protocol": [view.plain() for _, view in system.protocol]}
        of = ("image-classification", system.dataset, system.dataset, v.cell.quantity, float(v.result.value))
        models.setdefault(name, []).append(EvalResult(*of, metric_args=how))
    if not models:
        raise ReproError("model-index holds errors on images, and none of these tables has one measured")
    index = [model for name, results in models.items() for model in eval_results_to_model_index(name, results)]
    return f"---\n{yaml.safe_dump({'model-index': index}, sort_keys=False, allow_unicode=True)}---"
