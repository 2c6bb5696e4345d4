"""Measured claims of speed: each line times two things in turn and compares their answers.

`repro bench` prints the lines; `python -m benchmarks` also compares them with baseline.json (`nox -s bench`).
`timing` holds a line and how it is judged, `made` nets and images, `peers` what others would run, `evaluation`,
`gpu`, `records` and `machinery` the lines themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def run(
    names: Sequence[str] = (), quick: bool = False, say: Callable[[str], None] = print, gpu_only: bool = False
) -> list[dict[str, Any]]:
    """The lines of those names, or all, as plain data. Raises ReproError for an unknown name, or for want of a GPU."""
    from repro.errors import ReproError
    from repro.reader import near

    from . import evaluation, gpu, machinery, records, timing

    lines = {line.name: line for line in (*evaluation.LINES, *records.LINES, *machinery.LINES, *gpu.LINES)}
    if gpu_only:
        try:
            gpu.needed()
        except timing.NotRun as reason:
            raise ReproError(f"--gpu: {reason}; without it all lines run that can") from None
        names = names or [line.name for line in gpu.LINES]
    for name in names:
        if name not in lines:
            raise ReproError(
                f"--line {name!r}: there is no such line{near(name, list(lines))} Lines: {'; '.join(lines)}"
            )
    found = []
    for name in names or lines:
        found.append(timing.measured(lines[name], quick))
        say(timing.sentence(found[-1]))
    return found
