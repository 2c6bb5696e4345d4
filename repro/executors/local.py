"""Jobs in worker processes of this machine, one process a slot, kept for the whole run."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from ..schema import Job
from ..work import Output, work


class Local:
    """`slots` worker processes. A worker dies with its parent, so that no orphan writes on."""

    def __init__(self, slots: int, data: Path, device: str = "cpu") -> None:
        self.slots, self.data, self.device = slots, data, device
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, job: Job, inputs: Mapping[str, Path], out: Path) -> Future[tuple[list[Output], float]]:
        """Start a job in a worker; the future gives its outputs and its seconds, or raises."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.slots, context, _begin, (os.getpid(),))
        return self._pool.submit(_run, job, dict(inputs), out, self.data, self.device)

    def end(self) -> None:
        """End the workers at once; the next job starts others. What they have checkpointed stays."""
        for process in multiprocessing.active_children():
            process.kill()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _begin(parent: int) -> None:
    """Set up a worker: Ctrl-C is the parent's business, and the parent's death is ours too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A team of OpenMP threads spinning beside a one-thread training costs more than it gives.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(job: Job, inputs: dict[str, Path], out: Path, data: Path, device: str) -> tuple[list[Output], float]:
    # What libraries print goes to a file in the job's folder, not between the lines of the report.
    with (out / "worker.txt").open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    begun = time.monotonic()
    outputs = work(job, inputs, out, data, device)
    return outputs, time.monotonic() - begun
