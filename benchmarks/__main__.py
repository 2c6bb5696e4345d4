"""How long the commands take that people wait for, on the records that are there.

Run `repro run table3` first. Each line is the least of five processes, CPU and wall time in ms.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

COMMANDS = {
    "repro --help": (["--help"], "under 200 ms of CPU time"),
    "repro diff table3": (["diff", "table3"], "under 1500 ms"),
    "repro run table3, nothing to do": (["run", "table3"], "under 15000 ms"),
}


def timed(words: list[str]) -> tuple[float, float]:
    """CPU and wall milliseconds of one process of the command."""
    before, begun = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "repro", *words], check=True, capture_output=True)
    after, wall = os.times(), time.perf_counter() - begun
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return 1000 * cpu, 1000 * wall


for name, (words, goal) in COMMANDS.items():
    runs = [timed(words) for _ in range(5)]
    print(f"{name:34} {min(c for c, _ in runs):7.0f} ms CPU {min(w for _, w in runs):7.0f} ms   goal: {goal}")
