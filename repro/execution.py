"""Jobs in order, several at once, each under its lock, each record committed as its job ends."""

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

from .errors import JobError
from .plan import Plan
from .provenance import environment
from .schema import Job
from .store import Store

_PARENT = "what it starts from failed: "


class Progress(Protocol):
    """What a run tells while it works."""

    def say(self, text: str) -> None: ...
    def begin(self, jobs: int, seconds: float) -> None: ...
    def running(self, names: Sequence[tuple[str, Path]], seconds_left: float) -> None: ...
    def done(self, name: str, seconds: float, note: str) -> None: ...
    def failed(self, name: str, reason: str) -> None: ...
    def end(self) -> None: ...


class Interrupted(Exception):
    """Ctrl-C; `done` jobs were recorded in this run, `begun` had not ended."""

    def __init__(self, done: int, begun: list[str]) -> None:
        self.done, self.begun = done, begun
        super().__init__("interrupted")


def execute(
    plan: Plan, store: Store, has: Callable[[str, str], bool], executor: Any, progress: Progress
) -> tuple[int, dict[str, str]]:
    """Do every job whose record is lacking, several at once, each under its lock.

    Returns how many jobs were done and the failures by digest. A job that another run is doing is
    waited for. Raises Interrupted.
    """
    return _Execution(plan, store, has, executor, progress).all()


@dataclass
class _Execution:
    plan: Plan
    store: Store
    has: Callable[[str, str], bool]
    executor: Any
    progress: Progress
    done: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    active: dict[Future[Any], tuple[str, Job, FileLock]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.plan
        # Items wait under the digest of their job, or of the evaluation of some weights.
        self.items: dict[str, Callable[[], Job | None]] = {
            d: partial(self._if_lacking, j) for d, j in plan.jobs.items()
        }
        self.items |= {d: partial(e.job, self.has) for d, e in plan.evaluations.items()}
        self.needs = {d: j.needs for d, j in plan.jobs.items()} | {d: (e.weights,) for d, e in plan.evaluations.items()}
        lacking = {d: job for d, make in self.items.items() if (job := make())}
        self.waiting = dict.fromkeys(lacking)
        for item in [i for i in self.needs if i in lacking]:
            if reason := self._broken_parent(item):
                self._drop(item, reason)  # recorded by an earlier run, which said so
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
            return 0, self.failures
        self.progress.begin(len(self.waiting), self._left())
        try:
            while self.waiting or self.active:
                self._start()
                if self.active:
                    wait(self.active, timeout=0.5, return_when=FIRST_COMPLETED)
                elif self.waiting:
                    time.sleep(0.3)  # all that is left is being done by another run
                for future in [f for f in self.active if f.done()]:
                    self._finish(future)
                places = [(job.name, self.store.root / "partial" / item) for item, job, _ in self.active.values()]
                self.progress.running(places, self._left())
        except KeyboardInterrupt:
            self.executor.end()
            begun = [job.name for _, job, _ in self.active.values()]
            raise Interrupted(self.done, begun) from None
        finally:
            self.progress.end()
            for _, _, lock in self.active.values():
                lock.release(force=True)
        return self.done, self.failures

    def _if_lacking(self, job: Job) -> Job | None:
        return None if self.has(job.kind, job.digest) else job

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
            if reason := self._broken_parent(item):
                self._fail(item, reason)
                continue
            lock = self.store.lock(item)
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
                if need in self.plan.published:
                    inputs[need] = self.plan.published[need].path
                elif record := self.store.read("train", need):
                    inputs[need] = self.store.file(record, "safetensors")
            del self.waiting[item]
            future = self.executor.submit(job, inputs, self.store.partial(item))
            self.active[future] = item, job, lock

    def _failed(self, digest: str) -> str | None:
        record = self.store.read("train", digest)
        return self.failures.get(digest) or (record.failed if record else None)

    def _broken_parent(self, item: str) -> str:
        """Why what an item starts from failed, or nothing."""
        reason = next((r for n in self.needs[item] if (r := self._failed(n))), None)
        return _PARENT + reason.removeprefix(_PARENT) if reason else ""

    def _fail(self, item: str, reason: str) -> None:
        self._drop(item, reason)
        self.progress.failed(self.names[item], reason)

    def _drop(self, item: str, reason: str) -> None:
        self.waiting.pop(item, None)
        self.failures[item] = reason
        evaluation = self.plan.evaluations.get(item)
        self.failures |= dict.fromkeys(evaluation.views, reason) if evaluation else {}

    def _finish(self, future: Future[Any]) -> None:
        item, job, lock = self.active.pop(future)
        place = environment() | {"device": str(self.executor.device)}
        try:
            outputs, seconds = future.result()
            each = seconds / len(outputs)
            for out in outputs:
                self.store.commit(out.kind, out.digest, job.name, out.spec, out.numbers, out.files, place, each)
            self.store.clear(item)
            self.done += 1
            self.progress.done(job.name, seconds, _note(outputs[0].numbers))
        except BrokenProcessPool:
            self._broken(item)
        except JobError as error:
            if error.final and job.kind == "train":
                # The same job would end the same way: this is its outcome, and is kept.
                self.store.commit(job.kind, job.digest, job.name, job.spec, {}, {}, place, 0.0, error.reason)
                self.store.clear(item)
            self._fail(item, error.reason)
        except OSError as error:
            where = error.filename or self.store.root
            self._fail(item, f"{error.strerror or error}: {where}; nothing of it was recorded")
        except Exception as error:  # a fault of the job's code must not end the other jobs
            log = self.store.root / "partial" / item / "worker.txt"
            self._fail(item, f"{type(error).__name__}: {error} (see {log})")
        finally:
            lock.release(force=True)

    def _broken(self, item: str) -> None:
        """A worker died (out of memory, or killed): begin again in a new pool, twice at most."""
        self.executor.end()
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
