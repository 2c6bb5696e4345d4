"""The paper's table on a terminal: claimed, measured, delta and verdict in each cell."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ..pipeline import Report
from ..schema import VERDICTS, RelationVerdict, Verdict
from ..tables import Table
from .data import counts

STYLES = dict(zip(VERDICTS, ("green", "bold red", "yellow", "cyan", "dim", "bold magenta"), strict=True))


def console(file: IO[str] | None = None) -> Console:
    """A console that is plain where it is no terminal, wide enough there for whole lines."""
    stream = file or sys.stdout
    plain = not stream.isatty() and not os.environ.get("FORCE_COLOR")
    width = None if stream.isatty() or "COLUMNS" in os.environ else 120
    return Console(file=stream, width=width, highlight=False, no_color=plain or None, soft_wrap=False, emoji=False)


def number(value: Any, like: str = "") -> str:
    """A measured value as text: one decimal more than the claim prints, else four digits; a list word by word."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if value is None or isinstance(value, str | bool) or not math.isfinite(value):
        return "" if value is None else str(value)
    places = len(like.partition(".")[2])
    if like.replace(".", "", 1).isdigit() and (places or value != int(value)):
        return f"{float(value):.{places + 1}f}"
    return str(int(value)) if value == int(value) else f"{float(value):.4g}"


def _values(v: Verdict) -> list[Text]:
    """Claimed, measured, delta and letter of one cell."""
    claimed, shown = v.cell.claim.printed.text if v.cell.claim else "", v.result.value
    style, delta = STYLES[v.verdict], ""
    measured = "the same" if isinstance(shown, str) and v.verdict == "match" else number(shown, claimed)
    if v.delta is not None and v.verdict != "incomparable":
        delta = f"{v.delta:+.2f}".replace("+0.00", "0").replace("-0.00", "0")
    letter = VERDICTS[v.verdict] if v.cell.claim else ""
    return [Text(claimed), Text(measured, style if v.cell.claim else ""), Text(delta, "dim"), Text(letter, style)]


def show_table(out: Console, report: Report) -> None:
    """One table as the paper lays it out, then its relations and a count of verdicts."""
    table = report.table
    rows: dict[str, dict[str, Verdict]] = {}
    for v in report.cells:
        rows.setdefault(v.cell.row, {})[v.cell.column] = v
    out.print()
    source = f"{table.paper.source}, " if table.paper.source else ""
    scale = "" if all(v.cell.kind in ("static", "setting") for v in report.cells) else f", {report.scale} scale"
    out.print(Text(f"{table.name}: {table.title} ({source}{table.where}{scale})", "bold"))
    if rows:
        out.print(_grid(table, rows, stacked=len(table.columns) > 3 or out.width < 100))
        _legend(out, [v for v in report.cells if v.cell.claim])
    if report.relations:
        out.print(_relations(report.relations))
    out.print(Text(f"{table.name}: {sentence(report)}"))


def _grid(table: Table, rows: dict[str, dict[str, Verdict]], stacked: bool) -> Grid:
    """Rows and columns where the paper has them; in a wide table a cell's parts stand in one column."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    evaluated = [r for r, cells in rows.items() if any(v.cell.kind == "metric" for v in cells.values())]
    settings = [f for f in ("S", "Q") if any(f in table.rows[r] for r in evaluated)]
    lines: dict[str, list[Text]] = {r: [Text(table.rows[r].get("label", r))] for r in rows}
    grid.add_column("", min_width=min(28, max(line[0].cell_len for line in lines.values())))
    for field in settings:
        grid.add_column(field, no_wrap=True)
        for r, line in lines.items():
            value = table.rows[r].get(field, "") if r in evaluated else ""
            line.append(Text(", ".join(value) if isinstance(value, list) else value.replace("..", "-")))
    for column in (c for c in table.columns if any(c in cells for cells in rows.values())):
        label = Text(table.columns[column].get("label", column))  # as Text, brackets in it are no markup
        parts = {r: _values(cells[column]) if column in cells else [Text("")] * 4 for r, cells in rows.items()}
        if stacked:
            grid.add_column(label)
            for r, line in lines.items():
                line.append(_stacked(*parts[r]))
            continue
        longest = max(p[0].cell_len for p in parts.values())
        for i, head in enumerate((label, *map(Text, ("measured", "delta", "")))):
            if i < 2 or any(p[i].plain for p in parts.values()):
                # The paper's heading wraps before a number does.
                width = max(12, min(longest, 56)) if i == 0 else None
                grid.add_column(head, justify="left" if i == 3 else "right", no_wrap=i > 0, max_width=width)
                for r, line in lines.items():
                    line.append(parts[r][i])
    for line in lines.values():
        grid.add_row(*line)
    return grid


def _stacked(claimed: Text, measured: Text, delta: Text, letter: Text) -> Text:
    if not measured.plain or measured.plain == "the same":
        return Text.assemble(letter, " ", claimed)
    arrow, change = " → " if claimed.plain else "", (" (", delta, ")") if delta.plain else ()
    return Text.assemble(letter, " ", claimed, arrow, measured, *change)


def _legend(out: Console, verdicts: Sequence[Verdict]) -> None:
    for verdict in (word for word in VERDICTS if any(v.verdict == word for v in verdicts)):
        reasons = list(dict.fromkeys(v.reason for v in verdicts if v.verdict == verdict and v.reason))
        several = f" (and {len(reasons) - 1} more reasons; --json gives each)" if len(reasons) > 1 else ""
        note = ": agrees with the claim" if verdict == "match" else f": {reasons[0]}{several}"
        out.print(Text.assemble((f"  {VERDICTS[verdict]} {verdict}", STYLES[verdict]), note))
    for v in (v for v in verdicts if v.known):
        known = v.known or {}
        out.print(Text(f"  {v.cell.row} | {v.cell.column}: known difference: {known['cause']}, {known['gives']}"))


def _relations(verdicts: Sequence[RelationVerdict]) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), title_justify="left")
    for head in ("relation", "effect", "95 % interval", "p", "Holm p", ""):
        grid.add_column(head, justify="left" if head in ("relation", "") else "right", no_wrap=head != "relation")
    for v in verdicts:
        text = Text.assemble(f"{v.relation.text} ({v.relation.where})", ("\n" + v.reason if v.reason else "", "dim"))
        interval = f"{v.interval[0]:+.2f} to {v.interval[1]:+.2f}" if v.interval else ""
        effect = f"{v.effect:+.2f}" if v.effect is not None else ""
        letter = Text(f"{VERDICTS[v.verdict]} {v.verdict}", STYLES[v.verdict])
        grid.add_row(text, effect, interval, _p(v.p_value), _p(v.p_adjusted), letter)
    return grid


def _p(value: float | None) -> str:
    return "" if value is None else "<.0001" if value < 1e-4 else f"{value:.4f}".lstrip("0") if value < 1 else "1"


def sentence(report: Report) -> str:
    """The counts of verdicts as one line."""
    parts = []
    for what, of in counts(report).items():
        if total := sum(of.values()):
            noun = what if total > 1 else what.removesuffix("s")
            parts.append(f"{total} {noun}: " + ", ".join(f"{n} {v}" for v, n in of.items()))
    if recalled := sum(bool(v.cell.claim and v.cell.claim.recalled) for v in report.cells):
        parts.append(f"{recalled} of the claims are recalled, not read in the paper: to be confirmed")
    return "; ".join(parts) or "nothing was selected"
