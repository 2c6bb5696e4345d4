"""An outcome as rows of the MLflow page: one for each row of a table and seed, from records alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from ..pipeline import Outcome, Report, Run
from ..schema import Record, Verdict
from ..tracking import Entry, Row, sync


def send(outcome: Outcome, run: Run) -> list[str]:
    """Bring the page up to what was measured; returns where it is, and reasons why it is not."""
    is_part, store = bool(run.options.only or run.options.rows), run.options.store
    said = []
    for report in outcome.reports:
        if rows := list(_rows(report, outcome, run)):
            table, pictures = report.table, partial(_pictures, report, outcome)
            link = sync(table.name, table.title, report.scale, rows, report.relations, store, is_part, pictures)
            said.append(link.reason or link.page or f"repro ui --store {store}")
    return list(dict.fromkeys(said))


def _pictures(report: Report, outcome: Outcome) -> dict[str, str]:
    """The report's plots as SVG that stands alone, in the colours of the light page."""
    from ..report import plots

    page = (Path(plots.__file__).parent / "static" / "page.css").read_text(encoding="utf-8")
    colours = "".join(re.findall(r"^:root \{.*?\}", page, re.DOTALL | re.MULTILINE))
    found = {}
    for plot in plots.of(report, outcome, {}):
        head, _, rest = plot.svg.partition(">")
        head = head if "xmlns=" in head else head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
        found[plot.name] = f"{head}><style>{colours}</style>{rest}"
    return found


def _rows(report: Report, outcome: Outcome, run: Run) -> Iterator[Row]:
    cells: dict[str, list[Verdict]] = {}
    for verdict in report.cells:
        cells.setdefault(verdict.cell.row, []).append(verdict)
    for number, (key, verdicts) in enumerate(cells.items()):
        if all(v.result.value is None and v.verdict != "failed" for v in verdicts):
            continue
        trainings = max(len(v.result.weights) for v in verdicts)  # one alone of published weights and of counts
        for i, seed in enumerate(run.options.seeds[: trainings or 1]):
            yield _row(report, outcome, run, key, number, seed, i, verdicts)


def _row(
    report: Report, outcome: Outcome, run: Run, key: str, number: int, seed: int, i: int, verdicts: list[Verdict]
) -> Row:
    records = _records(outcome, verdicts, i)
    trained = [r for r in records if r.kind == "train"]
    last = next(reversed(trained or records), None)
    environment = last.environment if last else {}
    datasets = [(n, str(f), "training") for r in trained for n, f in r.spec["data"].items()]
    datasets += [(r.spec["dataset"], r.spec["fingerprint"], "evaluation") for r in records if r.kind == "scores"]
    return Row(
        key, seed, number, tuple(_entry(v, i) for v in verdicts), report.table.rows[key].get("label", ""),
        params={"scale": report.scale, **_params(verdicts, records)},
        metrics={k: r.numbers[k] for r in trained for k in ("val_error", "train_error", "loss") if k in r.numbers},
        environment={k: str(v) for k, v in environment.items() if v}, git=str(environment.get("revision", "")),
        datasets=tuple(dict.fromkeys(datasets)), model=trained[-1].files.get("safetensors", "") if trained else "",
        curve=tuple(_curve(run.store.file(trained[-1], "log.jsonl")) if trained else ()),
        files=tuple(run.store.file(r, "json") for r in records),
        created=last.created if last else 0.0, seconds=sum(r.seconds for r in records),
    )  # fmt: skip


def _curve(log: Path) -> Iterator[dict[str, float]]:
    """The numbers of a training's log by epoch; MLflow takes nothing else as a metric."""
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        yield {k: v for k, v in json.loads(line).items() if isinstance(v, int | float)}


def _records(outcome: Outcome, verdicts: list[Verdict], i: int) -> list[Record]:
    """The records behind a row under its seed, trainings before what was evaluated with them."""
    found: dict[str, Record] = {}
    for verdict in verdicts:
        mine = verdict.result.weights[i : i + 1]
        for digest in verdict.result.records:
            for kind in ("train", "scores", "measure", "settings"):
                record = outcome.results.record(kind, digest)
                if record and not (mine and digest not in mine[0] and record.spec.get("weights") not in mine[0]):
                    found[digest] = record
    return sorted(found.values(), key=lambda r: r.kind != "train")


def _entry(verdict: Verdict, i: int) -> Entry:
    claim, value, delta = verdict.cell.claim, verdict.result.value, verdict.delta
    claimed = claim.printed.value if claim else None
    if i < len(verdict.result.per_seed):
        value = verdict.result.per_seed[i]
        delta = None if delta is None or claimed is None else value - float(claimed)
    measured = round(float(value), 6) if isinstance(value, Decimal | int | float) else value  # as a page shows it
    return Entry(
        verdict.cell.column, verdict.cell.quantity, verdict.verdict, printed=claim.printed.text if claim else "",
        claimed=None if claimed is None else float(claimed), measured=measured,
        delta=None if verdict.verdict == "incomparable" else delta, unit=verdict.cell.unit, reason=verdict.reason,
    )  # fmt: skip


def _params(verdicts: list[Verdict], records: list[Record]) -> dict[str, str]:
    """Build, protocol, published weights, and the recipe field by field, as the records hold them."""
    system = next((s for v in verdicts for ensemble in v.cell.systems for s in ensemble), None)
    if system is None:
        return {}
    params: dict[str, Any] = {"build": str(system.build), "recipe": system.recipe, "input": system.input}
    params["weights"] = "; ".join(dict.fromkeys(r.spec["origin"] for r in records if "origin" in r.spec))
    if system.protocol:
        params["S"] = "-".join(str(s) for s in dict.fromkeys(system.S) if s)
        params["Q"] = ", ".join(dict.fromkeys(str(v.Q) for _, v in system.protocol))
        params["protocol"] = " and ".join(dict.fromkeys(v.kind for _, v in system.protocol))
        params["dataset"] = system.dataset
    recipes = [r.spec["recipe"] for r in records if r.kind == "train"]
    for name, value in recipes[-1].items() if recipes else ():
        for sub, inner in value.items() if isinstance(value, dict) else (("", value),):
            params[f"recipe.{name}{'.' * bool(sub)}{sub}"] = inner
    return {k: str(v) for k, v in params.items() if v not in ("", None)}
