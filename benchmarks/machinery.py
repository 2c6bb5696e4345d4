"""Lines on counting and start-up."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
import warnings
from functools import partial

import click

from repro import architectures, pipeline
from repro.measure.stages import count
from repro.schema import Build

from .made import STORE
from .timing import Found, Line, NotRun, everywhere, in_turn

# Counting

COUNTED = ("vgg16", "resnet152", "densenet201")


def by_us(name: str) -> int:
    import torch

    with torch.device("meta"):
        net = architectures.make(Build.parse(f"torchvision:{name}")).eval()
    return int(count(net, 224)[0][""]["macs"])


def by_fvcore(name: str) -> int:
    import torch
    from fvcore.nn import FlopCountAnalysis

    net = architectures.make(Build.parse(f"torchvision:{name}")).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(net, torch.zeros(1, 3, 224, 224))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        return int(sum(analysis.by_operator()[op] for op in ("conv", "linear")))


def counting(name: str, quick: bool) -> Found:
    """CPU time from a net's name to its multiply-adds, the building of the net included on both sides."""
    import torch

    torch.set_num_threads(1)  # threads that wait for each other count as CPU time
    names, rounds = (COUNTED if name == "together" else (name,)), 3 if quick else 5

    def forward(name: str) -> float:
        """The net on the meta device, built and run once, which every count has to do."""
        begun = time.process_time()
        with torch.device("meta"), torch.no_grad():
            architectures.make(Build.parse(f"torchvision:{name}")).eval()(torch.empty(1, 3, 224, 224))
        return time.process_time() - begun

    times, a, b = in_turn(
        lambda given: [by_us(n) for n in given],
        lambda given: [by_fvcore(n) for n in given],
        itertools.repeat(names, rounds + 1),
        lambda: sum(forward(n) for n in names),
        time.process_time,
    )
    pairs = [(x, y) for mine, its in zip(a, b, strict=True) for x, y in zip(mine, its, strict=True)]
    worst = max(abs(x - y) / y for x, y in pairs)
    share = statistics.median(least / own for own, _, least in times)
    return Found(
        [y / x for x, y, _ in times], worst, share, note="CPU time; limit: building and one forward pass on meta"
    )


# Start-up

COMMANDS = {
    "repro --help": (["--help"], 0.2),
    "repro diff table3": (["diff", "table3"], 1.5),
    "repro run table3, nothing to do": (["run", "table3"], 15.0),
}


def cpu_seconds(words: list[str]) -> float:
    """CPU time of one process."""
    before = os.times()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def start_up(name: str, quick: bool) -> Found:
    """CPU time of a command against the time that it may take."""
    words, allowed = COMMANDS[name]
    if words[0] != "--help":
        prepared = pipeline.prepare(pipeline.Options(words=("table3",), store=STORE), False, lambda text: None)
        if prepared.plan.lacking(prepared.has):
            raise NotRun(f"{STORE} lacks records of table3; repro run table3")
    runs = [cpu_seconds(["-m", "repro", *words]) for _ in range(3 if quick else 5)]
    least = min(cpu_seconds(["-c", f"import {click.__name__}"]) for _ in range(3))
    note = f"{1000 * statistics.median(runs):.0f} ms of CPU time of {1000 * allowed:.0f}; limit: python and click"
    return Found([r / allowed for r in runs], limit_share=least / statistics.median(runs), note=note)


LINES = [
    Line("counting three nets together, fvcore", partial(counting, "together"), everywhere(2.5), bound=0),
    *(Line(f"counting {n}, fvcore", partial(counting, n), everywhere(1), bound=0) for n in COUNTED),
    *(Line(name, partial(start_up, name), everywhere(1), "lower") for name in COMMANDS),
]
