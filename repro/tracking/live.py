"""Long trainings on the page while they run: each line of a job's log becomes metrics of a run of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from ..store import Store
from . import address, connect

EXPERIMENT = "trainings"
AFTER = 60.0  # seconds of work before MLflow is loaded for it; shorter jobs are on the page when they are done
EVERY = 10.0


class Live:
    """Called with the names and folders of the jobs at work; never raises, for a page must not cost a run its results.

    Metrics are those of `log.jsonl` (loss, rate, errors, images per second, wait for data, GPU memory), and of this
    machine the share of processors and memory in use. A training that goes on later goes on in its run.
    """

    def __init__(self, store_root: Path, after: float = AFTER, every: float = EVERY) -> None:
        self.root, self.after, self.every, self.told = store_root.resolve(), after, every, 0.0
        self.begun: dict[Path, float] = {}
        self.runs: dict[Path, tuple[str, int]] = {}  # the run of a folder, and how many lines of its log it has

    def __call__(self, jobs: Sequence[tuple[str, Path]]) -> None:
        if (now := time.monotonic()) - self.told < self.every:
            return
        self.told = now
        try:
            for name, folder in jobs:
                if now - self.begun.setdefault(folder, now) >= self.after and (folder / "log.jsonl").is_file():
                    self._tell(name, folder)
            for folder in self.runs.keys() - {folder for _, folder in jobs}:
                connect(address(self.root)).set_terminated(self.runs.pop(folder)[0])
        except Exception:  # a server that is away must not hold up the jobs: it is asked again much later
            self.told = now + 600

    def _tell(self, name: str, folder: Path) -> None:
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        if folder not in self.runs:
            run = self._run(name, folder.name)
            self.runs[folder] = run, len(connect(address(self.root)).get_metric_history(run, "loss"))
        run, there = self.runs[folder]
        if len(lines) == there:
            return
        from mlflow.entities import Metric

        now, metrics = int(time.time() * 1000), []
        for line in lines[there:]:
            numbers = {k: v for k, v in line.items() if isinstance(v, int | float)}
            metrics += [Metric(k, v, now, line["epoch"]) for k, v in numbers.items() if k != "epoch"]
        for key, share in (("cpu", psutil.cpu_percent()), ("memory", psutil.virtual_memory().percent)):
            metrics.append(Metric(f"system/{key}_percent", share, now, lines[-1]["epoch"]))
        connect(address(self.root)).log_batch(run, metrics=metrics)
        self.runs[folder] = run, len(lines)

    def _run(self, name: str, digest: str) -> str:
        """The run of a training, taken up again where a killed one left it."""
        with Store(self.root).lock("mlflow").acquire(timeout=60):
            client: Any = connect(address(self.root))
            found = client.get_experiment_by_name(EXPERIMENT)
            own = None if address(self.root).startswith("http") else (self.root / "mlartifacts").as_uri()
            number = found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=own)
            for run in client.search_runs([number], f"tags.`repro.job` = '{digest}'", max_results=1):
                return str(run.info.run_id)
            return str(client.create_run(number, run_name=name, tags={"repro.job": digest}).info.run_id)
