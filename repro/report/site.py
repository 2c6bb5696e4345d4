"""A site of plain HTML from the records alone: a front page, and a page for each table as its paper lays it out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from shlex import join

from ..files import write_whole
from ..pipeline import Outcome, Report
from ..schema import VERDICTS, Record, Verdict
from .terminal import number

STATIC = Path(__file__).parent / "static"


def write(outcome: Outcome, out: Path, command: str) -> tuple[int, int]:
    """Write the site of an outcome into `out`: how many pages, and bytes. Other files there are left alone."""
    import jinja2

    from . import plots

    loader = jinja2.FileSystemLoader(STATIC)
    html = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    html.globals |= {"verdicts": VERDICTS, "command": command, "shell": join, "records": partial(records, outcome)}
    html.globals |= {"shown": shown, "tally": tally, "reasons": reasons, "facts": facts}
    macs = {str(r.spec["build"]): r.numbers["stages"][""]["macs"] for r in outcome.results.store.all("measure")}
    files = {"page.css": (STATIC / "page.css").read_text(encoding="utf-8")}
    page, front = html.get_template("table.html"), html.get_template("index.html")
    for r in outcome.reports:
        drawn = plots.of(r, outcome, macs)
        files[f"{r.table.name}.html"] = page.render(report=r, table=r.table, plots=drawn, root="../")
    files["index.html"] = front.render(reports=outcome.reports, root="")
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(out / name, text)
    return len(files) - 1, sum(len(text.encode()) for text in files.values())


def shown(v: Verdict) -> tuple[str, str, str]:
    """What a cell shows as text: claimed, measured, delta; the last only where it says something."""
    claimed, value = v.cell.claim.printed.text if v.cell.claim else "", v.result.value
    measured = ", ".join(map(str, value)) if isinstance(value, list | tuple) else number(value, claimed)
    return claimed, measured, "" if not v.delta or v.verdict == "incomparable" else f"{v.delta:+.3g}"


def tally(reports: Iterable[Report]) -> dict[str, int]:
    """The verdicts of the printed cells of several tables, counted."""
    found = Counter(v.verdict for report in reports for v in report.cells if v.cell.claim)
    return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}


def records(outcome: Outcome, verdicts: Iterable[Verdict], *kinds: str) -> list[Record]:
    """The records behind cells, of some kinds or of all, trainings first."""
    digests = dict.fromkeys(digest for v in verdicts for digest in v.result.records)
    kinds = kinds or ("train", "scores", "measure", "settings")
    return [record for kind in kinds for d in digests if (record := outcome.results.record(kind, d))]


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
