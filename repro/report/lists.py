"""Lists on a terminal: many tables by a line each, a table as printed, a net part by part, the protocols."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ..claims import Claims
from ..pipeline import Report
from ..schema import VERDICTS
from ..tables import Table
from .terminal import number


def papers(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Each paper, or each table where there is but one paper: how much it prints, and the verdicts of its numbers."""
    single = len({r.table.paper.name for r in reports}) == 1
    groups: dict[str, list[Report]] = {}
    for r in reports:
        groups.setdefault(r.table.name if single else r.table.paper.name, []).append(r)
    rows = []
    for name, group in groups.items():
        cells = Counter(v.verdict for r in group for v in r.cells if v.cell.claim)
        relations = [v.relation for r in group for v in r.relations]
        claims = cells.total() + sum(bool(relation.printed) for relation in relations)
        row: dict[str, Any] = {"table": name} if single else {"paper": name, "tables": len(group)}
        row |= {"title": (group[0].table if single else group[0].table.paper).title}
        row |= {"claims": claims, "relations": len(relations)}
        rows.append({**row, "verdicts": {verdict: cells[verdict] for verdict in VERDICTS if cells[verdict]}})
    return rows


def show_papers(out: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """What `papers` gives, a line each, and the sums."""
    lines = [{"name": row.get("paper") or row.get("table"), **row, **row["verdicts"]} for row in rows]
    heads = [h for h in ("tables", "claims", "relations", *VERDICTS) if any(h in line for line in lines)]
    lines += [{"name": "all", "title": "", **{h: sum(line.get(h, 0) for line in lines) for h in heads}}]
    grid = _grid("", *heads)
    grid.add_column("")
    for line in lines:
        title = Text(line["title"], "dim", no_wrap=True, overflow="ellipsis")
        grid.add_row(Text(line["name"]), *(f"{line.get(h, 0):,}" for h in heads), title)
    out.print(grid)


def _grid(*heads: str) -> Grid:
    """A grid under `heads`, its columns but the first flush right."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, head in enumerate(heads):
        grid.add_column(head, justify="right" if i else "left", no_wrap=True)
    return grid


def show_overview(out: Console, reports: Sequence[Report]) -> None:
    """Many tables: a line of counts for each that was measured, then every number that differs, with its cause."""
    heads = ("match", "differs, known", "differs", "inconclusive", "incomparable", "missing", "failed")
    tallies = [Counter("differs, known" if v.known else v.verdict for v in r.cells if v.cell.claim) for r in reports]
    counts = [(r, tally) for r, tally in zip(reports, tallies, strict=True) if set(tally) - {"missing"}]
    grid = _grid("table", *heads)
    for report, tally in counts:
        grid.add_row(report.table.name, *(str(tally[head] or "") for head in heads))
    grid.add_row(f"and {len(reports) - len(counts)} tables with nothing measured", *[""] * len(heads))
    total = sum(tallies, Counter[str]())
    grid.add_row("all", *(str(total[head]) for head in heads), style="bold")
    out.print(grid)
    recalled = [v.verdict for r in reports for v in r.cells if v.cell.claim and v.cell.claim.recalled]
    counted = len(recalled) - recalled.count("missing")
    out.print(f"of these, {len(recalled)} claims ({counted} measured) are recalled, not read in the paper: to confirm")
    for v in (v for r in reports for v in r.cells if v.cell.claim and v.verdict in ("differs", "failed")):
        printed = v.cell.claim.printed.text if v.cell.claim else ""
        cause = f"; {v.known['cause']}: {v.known['gives']}" if v.known else ""
        where = f"{v.cell.table} | {v.cell.row} | {v.cell.column}"
        measured = number(v.result.value, printed) or v.reason
        out.print(Text(f"  {VERDICTS[v.verdict]} {where}: {printed} printed, {measured} measured{cause}"))


def show_protocols(out: Console, rows: Sequence[Mapping[str, Any]], choices: Mapping[str, Sequence[str]]) -> None:
    """Protocols with their views, scales and windows, and what may stand in their open fields."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head, justify in (("protocol", "left"), ("views", "right"), ("Q", "left"), ("window", "right"), ("", "left")):
        grid.add_column(head, justify=justify, no_wrap=head != "")  # type: ignore[arg-type]
    for row in rows:
        Q = row["Q"] if isinstance(row["Q"], str) else ", ".join(map(str, row["Q"]))
        grid.add_row(row["name"], str(row["views"]), Q, str(row["crop"]), Text(row["source"]))
    out.print(grid)
    out.print("open fields, the first being what is used unless a protocol says otherwise (-o protocol.FIELD=...):")
    for key, known in choices.items():
        out.print(Text(f"  {key}: {', '.join(known)}"))


def show_stages(out: Console, build: str, input: int, numbers: Mapping[str, Any], depth: int) -> None:
    """What was counted of a net, part by part down to `depth`, and of the whole."""
    out.print(Text(f"{build} at {input} x {input}; a multiply-add counts as one", "bold"))
    grid = _grid("", "output", "layers", "params", "multiply-adds")
    stages = {n: s for n, s in numbers["stages"].items() if n and n.count(".") < depth}
    for name, stage in [*stages.items(), ("the net", numbers["stages"][""])]:
        output = "×".join(map(str, stage.get("output", [])))
        grid.add_row(name, output, *(f"{stage.get(key, 0):,}" for key in ("layers", "params", "macs")))
    out.print(grid)
    check, causes = numbers["macs_fvcore"], "; ".join(f"{why}: {n:,}" for why, n in numbers["causes"].items())
    out.print(Text(f"by fvcore: {'not asked' if check is None else f'{check:,}'}{f' ({causes})' if causes else ''}"))


def show_printed(out: Console, reader: Claims, table: Table) -> None:
    """A table as the paper prints it, every decimal kept, with how each row would be measured."""
    out.print(Text(f"\n{table.name}: {table.title} ({table.paper.source}, {table.where})", "bold"))
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in ("", *(c.get("label", k) for k, c in table.columns.items()), "how it was measured"):
        grid.add_column(Text(head))
    for key, row in table.rows.items():
        cell = reader.cell(table, key, next(iter(table.columns)))
        how = "; ".join(f"{s.build} {s.recipe}".strip() for e in cell.systems for s in e)
        protocol = row.get("protocol") or table.defaults.get("protocol") or []
        how += f"; {' and '.join(protocol)}" if how and protocol and cell.kind == "metric" else ""
        values = [row["values"].get(c, {}).get("printed", "-") for c in table.columns]
        grid.add_row(*(Text(t) for t in (row.get("label", key), *values, how or row.get("missing", ""))))
    out.print(grid)
    if table.note:
        out.print(Text(f"note: {table.note}", "dim"))
    for relation in reader.relations(table):
        out.print(Text(f"  {relation.id}: {relation.text} ({relation.where})"))
