"""Names to verdicts: the one place that strings the rooms together."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import data, judge, tables
from .architectures import own_source
from .claims import Claims
from .errors import JobError, ReproError
from .execution import Progress, execute
from .plan import Plan, Planner
from .reader import near
from .recipes import SIZES
from .results import Results
from .schema import KINDS, Build, Cell, Relation, RelationVerdict, Verdict
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
    weights: str = ""  # timm, torchvision, or a file: published weights in place of trainings
    limit: int = 0  # images of each evaluated set, 0 for all


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
        """Whether no cell and no relation of any table has a measurement."""
        cells = any(v.result.value is not None for r in self.reports for v in r.cells)
        return not cells and all(v.effect is None for r in self.reports for v in r.relations)

    @property
    def broken(self) -> int:
        """Planned cells and relations that could not be measured."""
        cells = sum(v.verdict == "failed" for r in self.reports for v in r.cells) + len(self.plan.blocked)
        return cells + sum(v.verdict == "failed" for r in self.reports for v in r.relations)


@dataclass(frozen=True)
class Selection:
    """What is asked of one table: cells, relations, and the cells that the relations speak of."""

    table: Table
    cells: list[Cell]
    relations: list[Relation]
    sides: list[Cell]


@dataclass
class Run:
    """One run's selection and plan, before any work: `sizes` in images of the data sets, `absent` why some lack."""

    options: Options
    store: Store
    selected: list[Selection]
    plan: Plan
    sizes: Mapping[str, int]
    absent: Mapping[str, str]

    def has(self, kind: str, digest: str) -> bool:
        """Whether a sound record is there; scores of other weights than the store's are void."""
        record = self.store.read(kind, digest)
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


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python looks for dead cycles ever longer as claims pile up, all of them alive: not while they are read."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_no_collection()
def prepare(options: Options, make_data: bool, say: Callable[[str], None]) -> Run:
    """Load and select tables, find or make their data, and plan. Raises ReproError for bad input."""
    store = Store(options.store)
    claims = Claims(options.scale, options.overrides, options.weights)
    loaded = [claims.table(path) for path in tables.find(options.words)]
    selected = [_select(options, claims, table) for table in loaded]
    for word in options.rows:
        if not any(word in t.rows for t in loaded):
            rows = [r for t in loaded for r in t.rows]
            raise ReproError(f"--row {word!r}: no table has such a row{near(word, rows)} Rows: {', '.join(rows)}")
    facts: dict[str, Mapping[str, Any] | None] = {}
    reasons: dict[str, str] = {}

    def look_up(name: str) -> Mapping[str, Any] | None:
        """A data set's facts; made or read for the first time only where work is to follow."""
        if name not in facts:
            known = data.facts(name, store.root / "data")
            has_root = name not in data.DIGITS and data.root_of(name)
            try:
                if known is None and (make_data or not (has_root or name in data.DIGITS)):
                    if name in data.DIGITS:
                        say("making the proxy's images, once")
                    known = data.ensure(name, store.root / "data", say)
            except JobError as error:
                reasons[name] = error.reason
            if known is None and has_root and not make_data:
                reasons[name] = f"{has_root} has not been read yet; `repro run` does"
            if known is None and not make_data and name in SIZES:  # a dry run tells the cost all the same
                known = {"fingerprint": "not here", **dict(zip(("images", "classes"), SIZES[name], strict=True))}
            facts[name] = known
        return facts[name]

    def find(word: str, build: Build) -> Any:
        from .weights import find as published

        return published(word, build, store.root / "weights", fetch=make_data)

    planner = Planner(claims, look_up, options.seeds, find, options.limit)
    for selection in selected:
        for cell in [*selection.cells, *selection.sides]:
            planner.add(claims.named(cell.table), cell)
    for build in sorted({str(j.spec["build"]) for j in planner.plan.jobs.values()}):
        if build.startswith("py:"):
            say(f"{build}: this runs the code of {own_source(Build.parse(build))}")
    blocked = planner.plan.blocked
    for key, reason in blocked.items():
        blocked[key] = reasons.get(reason.removesuffix(" is not here"), reason)
    sizes = {name: int(known["images"]) for name, known in facts.items() if known}
    return Run(options, store, selected, planner.plan, sizes, reasons)


def _select(options: Options, claims: Claims, table: Table) -> Selection:
    """The cells that the options ask for; relations only of whole tables, for they are one family."""
    kinds, rows = options.only or KINDS, options.rows or tuple(table.rows)
    cells = [c for c in claims.cells(table) if c.kind in kinds and c.row in rows]
    relations = claims.relations(table) if "relation" in kinds and not options.rows else []
    return Selection(table, cells, relations, claims.sides(table, relations))


@_no_collection()
def conclude(run: Run, failures: Mapping[str, str]) -> Outcome:
    """Judge what the records say of the selected cells; nothing is run."""
    results, scale = Results(run.plan, run.store, failures), run.options.scale
    reports = []
    for s in run.selected:
        cells = [judge.cell(c, results.result(c), scale) for c in s.cells]
        sides = {c.key: results.result(c) for c in s.sides}
        # The spread over seeds is stated for the proxy; nothing is known of it elsewhere.
        proxy = s.table.paper.proxy if scale == "proxy" else None
        stated = proxy.seed_spread if proxy else {}
        recipes = {c.key: {m.recipe for ensemble in c.systems for m in ensemble} for c in s.sides}
        known = {key: names for key, names in recipes.items() if names and names <= set(stated)}
        spreads = {key: max(stated[name] for name in names) for key, names in known.items()}
        reports.append(Report(s.table, scale, cells, judge.relations(s.relations, sides, spreads, scale)))
    return Outcome(reports, run.plan, results, failures=dict(failures))


def run(options: Options, executor: Callable[[], Any], progress: Progress) -> tuple[Outcome, Run]:
    """The whole way: plan, execute, judge."""
    prepared = prepare(options, True, progress.say)
    begun = time.monotonic()
    worker = executor()
    try:
        done, failures = execute(prepared.plan, prepared.store, prepared.has, worker, progress)
    finally:
        worker.end()
    outcome = conclude(prepared, failures)
    outcome.done = done
    if done:
        progress.say(f"{done} jobs done in {time.monotonic() - begun:.0f} s")
    return outcome, prepared
