"""A site of plain HTML from the records alone: a front page, and a page for each table as its paper lays it out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from shlex import quote

from ..files import write_whole
from ..pipeline import Outcome, Report
from ..schema import VERDICTS, Record, Verdict
from ..tables import ROOT, Table
from .terminal import number

STATIC = Path(__file__).parent / "static"


def write(outcome: Outcome, out: Path, command: str, options: str = "") -> dict[str, int]:
    """Write the site of an outcome into `out`; how many pages and bytes it has. Other files there are left alone.

    `command` is told as what wrote it; `options` are those of the `repro run` that makes such records.
    """
    import jinja2

    from . import plots

    html = jinja2.Environment(
        loader=jinja2.FileSystemLoader(STATIC), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    html.globals |= {"verdicts": VERDICTS, "command": command, "options": options, "shell": quote}
    html.globals |= {
        "shown": shown,
        "tally": tally,
        "named": named,
        "reasons": reasons,
        "facts": facts,
        "records": partial(records, outcome),
    }
    files = {name: (STATIC / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")}
    macs = {str(r.spec["build"]): r.numbers["stages"][""]["macs"] for r in outcome.results.store.all("measure")}
    for report in outcome.reports:
        measured = [*(v.result.value for v in report.cells), *(v.effect for v in report.relations)]
        drawn = plots.of(report, outcome, macs) if set(measured) - {None} else []
        rows: dict[str, dict[str, Verdict]] = {}
        for v in report.cells:
            rows.setdefault(v.cell.row, {})[v.cell.column] = v
        files[f"{report.table.name}.html"] = html.get_template("table.html").render(
            report=report, table=report.table, rows=rows, plots=drawn, root="../",
            settings={name for key in rows for name in report.table.rows[key]},
        )  # fmt: skip
    files["index.html"] = html.get_template("index.html").render(reports=outcome.reports, root="")
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(out / name, text)
    return {"pages": len(files) - 2, "bytes": sum(len(text.encode()) for text in files.values())}


def shown(v: Verdict) -> tuple[str, str, str]:
    """What a cell shows as text: claimed, measured, delta; the last only where it says something."""
    claimed, value = v.cell.claim.printed.text if v.cell.claim else "", v.result.value
    measured = ", ".join(map(str, value)) if isinstance(value, list | tuple) else number(value, claimed)
    return claimed, measured, "" if not v.delta or v.verdict == "incomparable" else f"{v.delta:+.4g}"


def named(table: Table) -> str:
    """What a command calls a table: its name, or its path where it is none of ours."""
    return table.name if Path(table.file).resolve().is_relative_to(ROOT) else table.file


def tally(reports: Iterable[Report]) -> dict[str, int]:
    """The verdicts of the printed cells of several tables, counted."""
    found = Counter(v.verdict for report in reports for v in report.cells if v.cell.claim)
    return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}


def records(outcome: Outcome, verdicts: Iterable[Verdict]) -> list[Record]:
    """The records behind cells, trainings first."""
    digests = dict.fromkeys(digest for v in verdicts for digest in v.result.records)
    found = [outcome.results.record(k, d) for k in ("train", "scores", "measure", "settings") for d in digests]
    return [record for record in found if record]


def reasons(reports: Iterable[Report]) -> list[tuple[str, int, list[str]]]:
    """Why cells are missing or failed, the most frequent reason first, with how many there are and in which tables."""
    found: dict[str, list[str]] = defaultdict(list)
    for v in (v for report in reports for v in report.cells if v.cell.claim and v.verdict in ("missing", "failed")):
        found[v.reason].append(v.cell.table)
    return sorted(((why, len(at), list(dict.fromkeys(at))) for why, at in found.items()), key=lambda row: -row[1])


def facts(found: Iterable[Record]) -> dict[str, list[str]]:
    """What records say of the environment they were made in: each fact with its values."""
    pairs = dict.fromkeys((k, str(v)) for record in found for k, v in record.environment.items() if v)
    return {key: [value for k, value in pairs if k == key] for key in sorted({key for key, _ in pairs})}
