"""Lines on records: what store and tracking take of a run, planning and judging."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from repro import pipeline
from repro.executors import Local
from repro.schema import Job
from repro.store import Store
from repro.work import Output, work

from .made import STORE
from .timing import Found, Line, NotRun, everywhere, in_turn

# The store and the tracking of one run


Quiet = type("Quiet", (), dict.fromkeys(("say", "begin", "running", "done", "failed", "end"), lambda *args: None))


class Replay:
    """An executor that takes trainings from the records of another store, and does the rest itself, one at a time."""

    slots, device = 1, "cpu"

    def __init__(self, old: Store, data: Path) -> None:
        self.old, self.data, self.recorded = old, data, 0.0

    def submit(self, job: Job, inputs: Mapping[str, Path], out: Path) -> Future[tuple[list[Output], float]]:
        future: Future[tuple[list[Output], float]] = Future()
        if job.kind != "train":
            begun = time.monotonic()
            future.set_result((work(job, inputs, out, self.data), time.monotonic() - begun))
            return future
        record = self.old.read("train", job.digest)
        if record is None:
            raise NotRun(f"{self.old.root} lacks {job.name}; repro run table3")
        files = {name: out / name for name in record.files}
        for name, path in files.items():
            shutil.copyfile(self.old.file(record, name), path)
        self.recorded += record.seconds
        future.set_result(([Output(job.digest, "train", job.spec, record.numbers, files)], record.seconds))
        return future

    def end(self) -> None:
        """Nothing to end."""


@contextmanager
def clocked(spent: list[float]) -> Iterator[None]:
    """Inside, seconds in the methods of every store are added to `spent`; those called by another count once."""
    depth = 0

    def timed(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth, begun = depth + 1, time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                depth -= 1
                spent[0] += 0 if depth else time.perf_counter() - begun

        return call

    with ExitStack() as stack:
        for name, method in vars(Store).items():
            if callable(method) and name != "all":
                stack.enter_context(patch.object(Store, name, timed(method)))
        yield


def one_run(quick: bool) -> Found:
    """`repro run table3` into an empty store, and what of its wall time goes into records and MLflow."""
    from repro.cli.page import send

    with tempfile.TemporaryDirectory() as folder:
        root, spent = Path(folder, "store"), [0.0]
        replay = Replay(Store(STORE), STORE / "data")
        (root / "data").mkdir(parents=True)
        if (STORE / "data" / "digits").is_dir():
            (root / "data" / "digits").symlink_to((STORE / "data" / "digits").resolve())
        options = pipeline.Options(words=("table3",), jobs=2, store=root)
        begun = time.perf_counter()
        with clocked(spent):
            outcome, prepared = pipeline.run(
                options, (lambda: replay) if quick else (lambda: Local(2, root / "data")), Quiet()
            )
        tracked = time.perf_counter()
        send(outcome, prepared)
        spent[0] += time.perf_counter() - tracked
        wall = time.perf_counter() - begun + replay.recorded / 2  # two jobs at once
        least = statistics.median(written(root, f"{folder}/{i}") for i in range(3))
        how = "trainings replayed from records" if quick else "run in full"
        note = f"{spent[0]:.1f} of {wall:.0f} s, {how}; limit: writing the same bytes, with fsync"
        return Found([spent[0] / wall], limit_share=least / spent[0], note=note)


def written(root: Path, target: str) -> float:
    """Seconds to copy the records of a store, file by file, and bring each to the disk."""
    begun = time.perf_counter()
    for path in (root / "records").rglob("*.*"):
        with open(target, "wb") as stream:
            stream.write(path.read_bytes())
            os.fsync(stream.fileno())
    return time.perf_counter() - begun


# Planning and judging

QUANTITIES = {"params": "M", "macs": "G", "layers": "count", "weighted": "count", "neurons": "M"}


def tables(folder: Path, claims: int) -> tuple[str, ...]:
    """Table files of 100 rows by 10 columns that hold so many claims of 100 nets."""
    folder.mkdir()
    (folder / "paper.yaml").write_text("source: none\ntitle: made up\n")
    columns = "".join(
        f"  {q} {i}: {{quantity: {q}, unit: {unit}, label: {q}}}\n" for i in (1, 2) for q, unit in QUANTITIES.items()
    )
    for number in range(claims // 1000):
        values = "[132.9, 7.6, 11, 11, 7.4, 132.9, 7.6, 11, 12, 7.4]"
        rows = "".join(f"  r{r}: {{build: vgg:A+classes={r + 1}, values: {values}}}\n" for r in range(100))
        text = f"title: made up\nwhere: Table {number}\ncolumns:\n{columns}rows:\n{rows}"
        (folder / f"table{number}.yaml").write_text(text)
    return tuple(str(path) for path in folder.glob("table*.yaml"))


def judged(words: tuple[str, ...], store: Path) -> pipeline.Outcome:
    run = pipeline.prepare(pipeline.Options(words=words, store=store), False, lambda text: None)
    return pipeline.conclude(run, {})


def planning(quick: bool) -> Found:
    """From table files to verdicts with every record there: time per claim of 100,000 against 10,000."""
    with tempfile.TemporaryDirectory() as folder:
        store, rounds = Path(folder, "store"), 3 if quick else 5
        few, many = ([tables(Path(folder, f"{n}-{i}"), n) for i in range(rounds + 1)] for n in (10_000, 100_000))
        stages = {
            "": {"params": 132_863_336, "macs": 7_609_090_048, "layers": 11, "weighted": 11, "neurons": 7_400_000}
        }
        plan = pipeline.prepare(pipeline.Options(words=few[0][:1], store=store), False, lambda text: None).plan
        for digest, job in plan.jobs.items():
            numbers = {"macs_fvcore": None, "causes": {}, "stages": stages}
            Store(store).commit("measure", digest, job.name, job.spec, numbers, {}, {}, 1.0)

        def matches(words: tuple[str, ...]) -> int:
            return sum(v.verdict == "match" for r in judged(words, store).reports for v in r.cells)

        def parsed() -> float:
            begun = time.process_time()
            for word in many[0]:
                yaml.load(Path(word).read_bytes(), yaml.CSafeLoader)
            return time.process_time() - begun

        times, a, _ = in_turn(
            lambda given: matches(given[1]),
            lambda given: matches(given[0]),
            zip(few, many, strict=True),
            parsed,
            time.process_time,
        )
    each = statistics.median(other for _, other, _ in times) / 10_000
    share = statistics.median(least / own for own, _, least in times)
    note = f"{1e6 * each:.0f} µs of CPU time a claim at 10,000; limit: parsing the YAML alone"
    # Nine of ten claims agree with the records.
    return Found([own / other / 10 for own, other, _ in times], max(abs(n - 90_000) for n in a), share, note=note)


LINES = [
    Line("store and tracking in one repro run table3", one_run, everywhere(0.02), "lower"),
    Line("planning and judging 100,000 claims, against 10,000", planning, everywhere(1.2), "lower", 0),
]
