"""Names to verdicts: the one place that strings the rooms together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from . import data, judge, tables
from .claims import Claims
from .errors import JobError, ReproError
from .plan import Plan, Planner
from .provenance import environment
from .results import Results
from .schema import Cell, Job, RelationVerdict, Result, Verdict
from .store import Store
from .tables import Table, near

_PARENT = "what it starts from failed: "
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


class Progress(Protocol):
    """What a run tells while it works."""

    def say(self, text: str) -> None: ...
    def begin(self, jobs: int, seconds: float) -> None: ...
    def running(self, names: Sequence[tuple[str, Path]], seconds_left: float) -> None: ...
    def done(self, name: str, seconds: float, note: str) -> None: ...
    def failed(self, name: str, reason: str) -> None: ...
    def end(self) -> None: ...


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


class Interrupted(Exception):
    """Ctrl-C; `done` jobs were recorded in this run, `begun` had not ended."""

    def __init__(self, done: int, begun: list[str]) -> None:
        self.done, self.begun = done, begun
        super().__init__("interrupted")


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


def execute(run: Run, executor: Any, progress: Progress) -> tuple[int, dict[str, str]]:
    """Do every job whose record is lacking, several at once, each under its lock.

    Returns how many jobs were done and the failures by digest. A job that another run is doing is
    waited for. Raises Interrupted.
    """
    return _Execution(run, executor, progress).all()


@dataclass
class _Execution:
    run: Run
    executor: Any
    progress: Progress
    done: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    active: dict[Future[Any], tuple[str, Job, FileLock]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.run.plan
        # Items wait under the digest of their job, or of the evaluation of some weights.
        self.items: dict[str, Callable[[], Job | None]] = {
            d: partial(self._if_lacking, j) for d, j in plan.jobs.items()
        }
        self.items |= {d: partial(e.job, self.run.has) for d, e in plan.evaluations.items()}
        self.needs = {d: j.needs for d, j in plan.jobs.items()} | {d: (e.weights,) for d, e in plan.evaluations.items()}
        lacking = {d: job for d, make in self.items.items() if (job := make())}
        self.waiting = dict.fromkeys(lacking)
        self.cost = {d: job.cost for d, job in lacking.items()}
        self.names = {d: job.name for d, job in lacking.items()}
        # The longest way that still hangs on an item: longest first keeps both workers busy.
        self.chain = dict(self.cost)
        for item in reversed([*plan.jobs, *plan.evaluations]):
            for need in self.needs[item]:
                if need in self.chain:
                    self.chain[need] = max(self.chain[need], self.cost[need] + self.chain.get(item, 0.0))

    def all(self) -> tuple[int, dict[str, str]]:
        if not self.waiting:
            return 0, {}
        self.progress.begin(len(self.waiting), self._left())
        try:
            while self.waiting or self.active:
                self._start()
                wait(self.active, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in [f for f in self.active if f.done()]:
                    self._finish(future)
                places = [(job.name, self.run.store.root / "partial" / item) for item, job, _ in self.active.values()]
                self.progress.running(places, self._left())
        except KeyboardInterrupt:
            self.executor.kill()
            begun = [job.name for _, job, _ in self.active.values()]
            raise Interrupted(self.done, begun) from None
        finally:
            self.progress.end()
            for _, _, lock in self.active.values():
                lock.release(force=True)
        return self.done, self.failures

    def _if_lacking(self, job: Job) -> Job | None:
        return None if self.run.has(job.kind, job.digest) else job

    def _left(self) -> float:
        """Expected seconds to the end, from the costs of what is not done."""
        items = [*self.waiting, *(item for item, _, _ in self.active.values())]
        longest = max((self.chain[i] for i in items), default=0.0)
        return max(longest, sum(self.cost[i] for i in items) / max(1, int(self.executor.slots)))

    def _start(self) -> None:
        for item in sorted(self.waiting, key=lambda i: -self.chain[i]):
            if len(self.active) >= self.executor.slots:
                return
            needs = self.needs[item]
            if any(n in self.waiting or n in {i for i, _, _ in self.active.values()} for n in needs):
                continue
            broken = next((n for n in needs if self._failed(n)), None)
            if broken:
                reason = str(self._failed(broken)).removeprefix(_PARENT)
                self._fail(item, _PARENT + reason)
                continue
            lock = self.run.store.lock(item)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue  # another run is at it; its record will be there when the lock is free
            job = self.items[item]()
            if job is None:
                lock.release()
                del self.waiting[item]
                continue
            inputs = {}
            for need in needs:
                record = self.run.store.read("train", need)
                if record:
                    inputs[need] = self.run.store.file(record, "safetensors")
            del self.waiting[item]
            future = self.executor.submit(job, inputs, self.run.store.partial(item))
            self.active[future] = item, job, lock

    def _failed(self, digest: str) -> str | None:
        record = self.run.store.read("train", digest)
        return self.failures.get(digest) or (record.failed if record else None)

    def _fail(self, item: str, reason: str) -> None:
        self.waiting.pop(item, None)
        self.failures[item] = reason
        evaluation = self.run.plan.evaluations.get(item)
        self.failures |= dict.fromkeys(evaluation.views, reason) if evaluation else {}
        self.progress.failed(self.names[item], reason)

    def _finish(self, future: Future[Any]) -> None:
        item, job, lock = self.active.pop(future)
        try:
            outputs, seconds = future.result()
            for out in outputs:
                self.run.store.commit(
                    out.kind,
                    out.digest,
                    job.name,
                    out.spec,
                    out.numbers,
                    out.files,
                    environment(),
                    seconds / len(outputs),
                )
            self.run.store.clear(item)
            self.done += 1
            self.progress.done(job.name, seconds, _note(outputs[0].numbers))
        except BrokenProcessPool:
            self._broken(item)
        except JobError as error:
            if error.final and job.kind == "train":
                # The same job would end the same way: this is its outcome, and is kept.
                self.run.store.commit(
                    job.kind, job.digest, job.name, job.spec, {}, {}, environment(), 0.0, error.reason
                )
                self.run.store.clear(item)
            self._fail(item, error.reason)
        except OSError as error:
            self._fail(
                item, f"{error.strerror or error}: {error.filename or self.run.store.root}; nothing of it was recorded"
            )
        except Exception as error:  # a fault of the job's code must not end the other jobs
            log = self.run.store.root / "partial" / item / "worker.txt"
            self._fail(item, f"{type(error).__name__}: {error} (see {log})")
        finally:
            lock.release(force=True)

    def _broken(self, item: str) -> None:
        """A worker died (out of memory, or killed): begin again in a new pool, twice at most."""
        self.executor.renew()
        self.tries[item] = self.tries.get(item, 0) + 1
        if self.tries[item] > 2:
            self._fail(item, "its process died three times; is there enough memory? Try --jobs 1")
        else:
            self.waiting[item] = None


def _note(numbers: Mapping[str, Any]) -> str:
    for key, words in (("val_error", "validation error"), ("top1_error", "error")):
        if key in numbers:
            return f"{words} {numbers[key]:.1f} %"
    return ""


def run(options: Options, executor: Callable[[], Any], progress: Progress) -> tuple[Outcome, Run]:
    """The whole way: plan, execute, judge."""
    prepared = prepare(options, True, progress.say)
    begun = time.monotonic()
    worker = executor()
    try:
        done, failures = execute(prepared, worker, progress)
    finally:
        worker.close()
    outcome = conclude(prepared, failures)
    outcome.done = done
    if done:
        progress.say(f"{done} jobs done in {time.monotonic() - begun:.0f} s")
    return outcome, prepared
