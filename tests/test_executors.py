"""Where jobs run: devices by name, and workers that are ended without touching other processes."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
import torch

from repro.errors import ReproError
from repro.executors import Local, device_named
from repro.schema import Job


@pytest.mark.parametrize("word", ["cuda:1", "cudax", "cuda:", "mps", "gpu"])
def test_a_device_that_is_not_there_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """On a machine with one GPU the second one is refused at once, not by every job that would use it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert [device_named(known) for known in ("cpu", "cuda", "cuda:0")] == ["cpu", "cuda", "cuda:0"]
    with pytest.raises(
        ReproError, match=f"--device {word}: there is no such device here; use --device auto, cpu, cuda:0"
    ):
        device_named(word)


def test_workers_are_ended_and_no_other_child_of_the_process(tmp_path: Path) -> None:
    """The pytest plugin runs inside processes that have children of their own."""
    local = Local(1, tmp_path)
    job = Job("measure", "count", {"build": "vgg:A+width=1/16+input=32", "input": 32}, ("d",))
    [output], _ = local.submit(job, {}, tmp_path).result()
    assert output.numbers["stages"][""]["layers"] == 11
    stranger = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), daemon=True)
    stranger.start()
    (worker,) = set(multiprocessing.active_children()) - {stranger}
    local.end()
    assert stranger.is_alive()
    assert not worker.is_alive()
    stranger.kill()
    stranger.join()
