"""Jobs in worker processes of this machine, one process a slot, kept for the whole run."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from ..errors import JobError
from ..files import write_whole
from ..processes import die_with
from ..schema import Job
from ..work import Output, work


class Local:
    """`slots` worker processes, which die with their parent; a training is done by `processes` under `torchrun`."""

    def __init__(self, slots: int, data: Path, device: str = "cpu", processes: int = 1) -> None:
        self.slots, self.data, self.device, self.processes = slots, data, device, processes
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, job: Job, inputs: Mapping[str, Path], out: Path) -> Future[tuple[list[Output], float]]:
        """Start a job in a worker; the future gives its outputs and its seconds, or raises."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.slots, context, _begin, (os.getpid(),))
        return self._pool.submit(_run, job, dict(inputs), out, self.data, self.device, self.processes)

    def end(self) -> None:
        """End the workers at once; the next job starts others. What they have checkpointed stays."""
        if self._pool:
            for process in dict(self._pool._processes or {}).values():  # no others: pytest may have children too
                process.kill()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _begin(parent: int) -> None:
    """Set up a worker: Ctrl-C is the parent's business, and the parent's death is ours too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a team that spins beside a one-thread training costs more
    die_with(parent)


def _run(
    job: Job, inputs: dict[str, Path], out: Path, data: Path, device: str, processes: int
) -> tuple[list[Output], float]:
    # What libraries print goes to a file in the job's folder, not between the lines of the report.
    with (out / "worker.txt").open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    begun = time.monotonic()
    several = processes > 1 and job.kind == "train"
    outputs = torchrun(job, inputs, out, data, device, processes) if several else work(job, inputs, out, data, device)
    return outputs, time.monotonic() - begun


def torchrun(job: Job, inputs: Mapping[str, Path], out: Path, data: Path, device: str, processes: int) -> list[Output]:
    """A job in several processes under `torchrun`, which end with this one. Raises JobError."""
    told = {"job": vars(job), "inputs": inputs, "data": data.absolute(), "device": device, "parent": os.getpid()}
    write_whole(out / "job.json", json.dumps(told, default=str))
    for name in ("outputs.json", "failed.json"):
        (out / name).unlink(missing_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*launcher, "-m", "repro.work", out / "job.json", out], stdin=subprocess.DEVNULL)
    if (out / "failed.json").exists():
        raise JobError(**json.loads((out / "failed.json").read_text(encoding="utf-8")))
    if done.returncode:
        raise JobError(f"torchrun ended with {done.returncode}; see {out / 'worker.txt'}")
    found = json.loads((out / "outputs.json").read_text(encoding="utf-8"))
    return [Output(**{**o, "files": {name: Path(path) for name, path in o["files"].items()}}) for o in found]
