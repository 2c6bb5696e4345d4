"""What the commands print beyond one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from .. import data, pipeline
from ..claims import Claims
from ..errors import OK, ReproError
from ..pipeline import Outcome, Run
from ..report import data as plain
from ..report import exports, lists, terminal
from ..tables import find

MANY = 16  # tables; more are told by a line each


def show_outcome(outcome: Outcome, store: Path, as_json: bool, page: Sequence[str] = ()) -> None:
    """Tables and relations, and where the records and the page are; with `as_json` data alone."""
    if as_json:
        found = plain.tables(outcome)
        click.echo(json.dumps(found[0] if len(found) == 1 else found, indent=1, ensure_ascii=False))
        return
    out = terminal.console()
    if len(outcome.reports) > MANY:
        lists.show_overview(out, outcome.reports)
        out.print("\n`repro diff TABLE` prints one of them whole")
    else:
        for report in outcome.reports:
            terminal.show_table(out, report)
    out.print()
    out.print(f"records: {store}", markup=False)
    for place in page:
        out.print(f"MLflow page: {place}", markup=False)


def plan_lines(run: Run, slots: int, on: str = "") -> list[str]:
    """What a run would do: its jobs, why one is to be done again, and what all of it costs, here and on a named GPU."""
    lacking = run.plan.lacking(run.has)
    there = len(run.plan.jobs) + len(run.plan.evaluations) - len(lacking)
    lines = [f"{there} jobs are there already, {len(lacking)} to do"]
    for reason, found in groupby(sorted(run.plan.blocked.items(), key=lambda item: item[1]), key=lambda item: item[1]):
        first, *others = (" | ".join(key) for key, _ in found)
        lines.append(f"  cannot run {first}{f' and {len(others)} more' if others else ''}: {reason}")
    lines += [f"  {reason}" for reason in run.absent.values()]
    if run.options.scale == "full" or on:
        from ..cost import lines as costs

        return lines + costs(lacking, run.sizes, run.options.device, slots, on)
    lines += [f"  {job.name}: about {job.cost:.0f} s{_why(run, job)}" for job in lacking]
    if lacking:
        minutes = sum(j.cost for j in lacking) / slots / 60
        lines.append(f"expected: about {max(minutes, 0.1):.1f} minutes with {slots} jobs at once")
    return lines


def _why(run: Run, job: Any) -> str:
    """What differs from the record of the same name that is there, in the spec's own words."""
    kind = "scores" if job.kind == "evaluate" else job.kind
    for record in run.store.all(kind):
        if record.name == job.name:
            changed = [k for k, v in job.spec.items() if k != "views" and record.spec.get(k) != v]
            return f"; again, since {', '.join(changed)} changed" if changed else "; on view sets that its records lack"
    return ""


def show_list(words: Sequence[str], claims: bool, as_json: bool, store: Path) -> int:
    """Papers, or the tables of one, with what the records say of their claims; or every number of theirs."""
    if not claims:
        with TemporaryDirectory() as empty:  # a list makes no store where there is none
            there = store if (store / "VERSION").is_file() else Path(empty)
            options = pipeline.Options(tuple(words), store=there)
            prepared = pipeline.prepare(options, make_data=False, say=lambda text: None)
            found = lists.papers(pipeline.conclude(prepared, {}).reports)
        click.echo(json.dumps(found, indent=1)) if as_json else lists.show_papers(terminal.console(), found)
        return OK
    reader = Claims("full")
    rows: list[Any] = []
    for table in map(reader.table, find(words)):
        rows += plain.claims(table, reader.cells(table), reader.relations(table))
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        for row in rows:
            where = f"{row['table']} | {row['row']} | {row['column']}"
            click.echo(f"{where}: {row['printed']} {row['unit']} ({row['where']})")
    return OK


def show_claims(word: str, form: str | None, as_json: bool) -> int:
    """The table as printed, every decimal kept, and its relations."""
    reader = Claims("full")
    paths = find([word])
    if form:
        click.echo(exports.render_printed([reader.table(path) for path in paths], form))
        return OK
    if as_json:
        found = [
            {
                "table": t.name,
                "title": t.title,
                "where": t.where,
                "source": t.paper.source,
                "columns": list(t.columns),
                "rows": {r: {c: v.get("printed") for c, v in s["values"].items()} for r, s in t.rows.items()},
                "relations": [
                    {"id": r.id, "text": r.text, "where": r.where, "test": r.test} for r in reader.relations(t)
                ],
            }
            for t in map(reader.table, paths)
        ]
        click.echo(json.dumps(found[0] if len(found) == 1 else found, indent=1, ensure_ascii=False))
        return OK
    out = terminal.console()
    for table in map(reader.table, paths):
        lists.show_printed(out, reader, table)
    return OK


def show_samples(word: str, path: Path, store: Path) -> int:
    """A sheet of the images that stand for the table's data set on the proxy."""
    table = Claims("full").table(find([word])[0])
    if table.paper.proxy is None:
        raise ReproError("this paper states no proxy", table.paper.file)
    name = next(iter(table.paper.proxy.dataset.values()))
    data.samples(name, store / "data", path)
    click.echo(f"{path}: samples of {name}")
    return OK
