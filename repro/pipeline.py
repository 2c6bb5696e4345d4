"""Names to verdicts: the one place that strings the rooms together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import data, judge, tables
from .claims import Claims
from .errors import JobError, ReproError
from .execution import Progress, execute
from .plan import Plan, Planner
from .reader import near
from .results import Results
from .schema import Cell, RelationVerdict, Result, Verdict
from .store import Store
from .tables import Table

_SMALL = 64 << 20  # files up to this size are checked against their checksum at every run


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    words: tuple[str, ...] = ()
    scale: str = "proxy"
    only: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    jobs: int = 0
    device: str = "cpu"
    store: Path = Path("runs/store")
    overrides: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Report:
    """One table with the verdicts of its cells and relations, in the paper's order."""

    table: Table
    scale: str
    cells: list[Verdict]
    relations: list[RelationVerdict]


@dataclass
class Outcome:
    """What a run came to: reports, what it did, and what could not run."""

    reports: list[Report]
    plan: Plan
    results: Results
    done: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def unmeasured(self) -> bool:
        """Whether no cell of any table has a measurement."""
        return not any(v.result.value is not None for r in self.reports for v in r.cells)

    @property
    def broken(self) -> int:
        """Planned cells and relations that could not be measured."""
        cells = sum(v.verdict == "failed" for r in self.reports for v in r.cells) + len(self.plan.blocked)
        return cells + sum(v.verdict == "failed" for r in self.reports for v in r.relations)


@dataclass
class Run:
    """One run's selection and plan, before any work."""

    options: Options
    store: Store
    claims: Claims
    selected: list[tuple[Table, list[Cell]]]
    plan: Plan

    def has(self, kind: str, digest: str) -> bool:
        """Whether a sound record is there; scores of other weights than the store's are void."""
        record = self.store.read(kind, digest) if self.store.has(kind, digest) else None
        if record is None:
            return False
        paths = [self.store.file(record, name) for name in record.files]
        void = not all(p.is_file() for p in paths)
        if not void and all(p.stat().st_size < _SMALL for p in paths):
            void = bool(self.store.sound(record))
        if kind == "scores" and not void:
            weights = self.store.read("train", record.spec["weights"])
            void = weights is not None and weights.files.get("safetensors") != record.numbers["weights_sha256"]
        if void:
            self.store.set_aside(record)
        return not void


def prepare(options: Options, make_data: bool, say: Callable[[str], None]) -> Run:
    """Load and select tables, find or make their data, and plan. Raises ReproError for bad input."""
    store = Store(options.store)
    claims = Claims(options.scale, overrides=options.overrides)
    loaded = [claims.table(path) for path in tables.find(options.words)]
    selected = [(t, _select(options, claims.cells(t))) for t in loaded]
    for word in options.rows:
        if not any(word in t.rows for t in loaded):
            rows = [r for t in loaded for r in t.rows]
            raise ReproError(f"--row {word!r}: no table has such a row{near(word, rows)} Rows: {', '.join(rows)}")
    facts: dict[str, Mapping[str, Any] | None] = {}
    reasons: dict[str, str] = {}

    def look_up(name: str) -> Mapping[str, Any] | None:
        if name not in facts:
            facts[name] = data.facts(name, store.root / "data")
            if facts[name] is None and (make_data or name not in data.DIGITS):
                try:
                    if name in data.DIGITS:
                        say("making the proxy's images, once")
                    facts[name] = data.ensure(name, store.root / "data")
                except JobError as error:
                    reasons[name] = error.reason
            elif facts[name] is None:
                facts[name] = {"fingerprint": "not made yet", "images": 8000, "classes": 10}
        return facts[name]

    planner = Planner(claims, look_up, options.seeds, options.device)
    for table, cells in selected:
        relations = claims.relations(table) if _wants(options, "relation") and not options.rows else []
        for cell in [*cells, *claims.sides(table, relations)]:
            planner.add(next(t for t in claims._tables.values() if t.name == cell.table), cell)
    blocked = planner.plan.blocked
    for key, reason in blocked.items():
        blocked[key] = reasons.get(reason.removesuffix(" is not here"), reason)
    return Run(options, store, claims, selected, planner.plan)


def _wants(options: Options, kind: str) -> bool:
    return not options.only or kind in options.only


def _select(options: Options, cells: list[Cell]) -> list[Cell]:
    return [c for c in cells if _wants(options, c.kind) and (not options.rows or c.row in options.rows)]


def conclude(run: Run, failures: Mapping[str, str]) -> Outcome:
    """Judge what the records say of the selected cells; nothing is run."""
    results = Results(run.plan, run.store, failures)
    reports = []
    for table, cells in run.selected:
        verdicts = [judge.cell(c, results.result(c), run.options.scale) for c in cells]
        relations = run.claims.relations(table) if _wants(run.options, "relation") and not run.options.rows else []
        found: dict[tuple[str, str, str], Result] = {
            c.key: results.result(c) for c in run.claims.sides(table, relations)
        }
        spread = table.paper.proxy.seed_spread.get("top1_error") if table.paper.proxy else None
        reports.append(
            Report(table, run.options.scale, verdicts, judge.relations(relations, found, spread, run.options.scale))
        )
    return Outcome(reports, run.plan, results, failures=dict(failures))


def run(options: Options, executor: Callable[[], Any], progress: Progress) -> tuple[Outcome, Run]:
    """The whole way: plan, execute, judge."""
    prepared = prepare(options, True, progress.say)
    begun = time.monotonic()
    worker = executor()
    try:
        done, failures = execute(prepared.plan, prepared.store, prepared.has, worker, progress)
    finally:
        worker.close()
    outcome = conclude(prepared, failures)
    outcome.done = done
    if done:
        progress.say(f"{done} jobs done in {time.monotonic() - begun:.0f} s")
    return outcome, prepared
