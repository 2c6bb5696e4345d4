"""One line of the benchmarks: two things timed in turn, their answers compared, a limit of the machine beside them."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from rich.table import Table

from repro.evaluate.machines import MACHINES, machine

FP32, BF16 = 1e-4, 0.1  # the largest difference of a score that two paths may have, over its spread across images
CLASSES = 5  # the reference must give so many, or one an image where there are fewer images
FIELDS = ("name", "ratio", "spread", "better", "goal", "class", "agreement", "limit_share", "void")


class NotRun(Exception):
    """Why a line is not run here."""


@dataclass
class Found:
    """What a line measured: a ratio for each repeat, `agreement` of the answers, the share of its limit."""

    ratios: Sequence[float]
    agreement: float | None = None
    limit_share: float | None = None
    classes: int | None = None  # that the reference gives
    images: int = 0
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A claim: `run(quick)` measures it, `goals` by class of processor, `bound` for its agreement."""

    name: str
    run: Callable[[bool], Found]
    goals: Mapping[str, float] = field(default_factory=dict)
    better: str = "higher"
    bound: float = BF16
    compiled: bool = False  # dear to compile: left out of a quick run


def everywhere(goal: float) -> dict[str, float]:
    return dict.fromkeys(("amx", "bf16", "other"), goal)


@cache
def processor() -> str:
    """The class of this machine's processor: `amx`, `bf16` (AVX512, no AMX) or `other`."""
    return next(name for name, known in MACHINES.items() if known is machine("cpu"))


def measured(line: Line, quick: bool) -> dict[str, Any]:
    """A line's result as plain data: FIELDS and a `note`. `ratio` is None where it was not run."""
    row = {"name": line.name, "better": line.better, "goal": line.goals.get(processor()), "class": processor()}
    try:
        if quick and line.compiled:
            raise NotRun("compiled, and this is a quick run")
        found = line.run(quick)
    except NotRun as reason:
        row |= {"ratio": None, "spread": None, "agreement": None, "limit_share": None, "void": False}
        return {key: row[key] for key in FIELDS} | {"note": f"not run: {reason}"}
    row["ratio"], row["spread"] = statistics.median(found.ratios), (max(found.ratios) - min(found.ratios)) / 2
    row |= {"agreement": found.agreement, "limit_share": found.limit_share}
    disagree = found.agreement is not None and not found.agreement <= line.bound
    few = found.classes is not None and found.classes < min(CLASSES, found.images)
    why = [f"answers differ by more than {line.bound:g}"] * disagree + [f"{found.classes} classes only"] * few
    row["void"] = bool(why)
    return {key: row[key] for key in FIELDS} | {"note": "; ".join([*why, found.note] if found.note else why)}


def in_turn(
    ours: Callable[[Any], Any],
    theirs: Callable[[Any], Any],
    inputs: Iterable[Any],
    limit: Callable[[], float] = lambda: math.nan,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[tuple[float, float, float]], list[Any], list[Any]]:
    """Seconds of ours, theirs and the `limit` for each input but the first, and the answers of both.

    The first input warms both up, and its answers count as well. No input is timed twice, each side goes first
    in turn, and the limit is measured beside them, so that all three see the same machine.
    """
    times, mine, other = [], [], []
    for i, given in enumerate(inputs):
        spent = {}
        for side in (ours, theirs) if i % 2 else (theirs, ours):
            gc.collect()  # what one side leaves behind is not the other's to clear up
            begun = clock()
            (mine if side is ours else other).append(side(given))
            spent[side] = clock() - begun
        if i:
            times.append((spent[ours], spent[theirs], limit()))
    return times, mine, other


def compared(times: Sequence[tuple[float, float, float]], ours: Any, theirs: Any, note: str) -> Found:
    """How much longer theirs took, from `in_turn`; scores of both are (images, classes), as lists over inputs."""
    a, b = np.concatenate(ours), np.concatenate(theirs)
    return Found(
        [other / own for own, other, _ in times],
        agreement(a, b),
        statistics.median(least / own for own, _, least in times),
        len(set(b.argmax(1))),
        len(b),
        note,
    )


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of a score over the spread of a score across images; scores are probabilities.

    Both are taken of the logarithm, so that small scores count as much as large ones; the spread of a class
    over a handful of images says little, so it is the root mean square over classes.
    """
    a, b = np.log(np.asarray(ours, np.float64)), np.log(np.asarray(theirs, np.float64))
    spread = math.sqrt(b.var(axis=0).mean())
    return float(np.abs(a - b).max() / spread) if a.shape == b.shape and spread > 0 else math.nan


def matrix_seconds(macs: float, dtype: str, device: str = "cpu") -> float:
    """Seconds that so many multiply-adds would take at the machine's best speed, measured now.

    That of a large matrix product; on a CPU, where it is faster, that of a large 3x3 convolution.
    """
    import torch
    from torch.nn import functional as F

    side, kind = (2048 if device == "cpu" else 8192), getattr(torch, dtype)
    a = torch.randn(side, side, device=device, dtype=kind)
    works = {side**3: lambda: a @ a}
    if device == "cpu":
        x = torch.randn(8, 512, 28, 28, dtype=kind).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(512, 512, 3, 3, dtype=kind)
        works[8 * 28**2 * 512**2 * 9] = lambda: F.conv2d(x, weight, padding=1)
    best = math.inf
    with torch.inference_mode():
        for size, work in works.items():
            work()
            for _ in range(3):
                begun = time.perf_counter()
                work().flatten()[0].item()
                best = min(best, (time.perf_counter() - begun) / size)
    return macs * best


def fallen(found: Sequence[Mapping[str, Any]], baseline: Mapping[str, Any]) -> list[str]:
    """What is worse than the baseline of its class by more than its spread, or void, one sentence each.

    A line that is run once has no spread: a tenth of the ratio stands for it.
    """
    said = [f"{row['name']}: void, {row.get('note', '')}" for row in found if row["void"]]
    for row in found:
        old = baseline.get(row["class"], {}).get("lines", {}).get(row["name"])
        if row["void"] or row["ratio"] is None or not old or old["ratio"] is None:
            continue
        loss = (old["ratio"] - row["ratio"]) * (1 if row["better"] == "higher" else -1)
        if loss > (max(old["spread"], row["spread"]) or old["ratio"] / 10):
            said.append(f"{row['name']}: {row['ratio']:.3g}, the baseline is {old['ratio']:.3g} ± {old['spread']:.2g}")
    return said


def _verdict(row: Mapping[str, Any]) -> str:
    if row["void"] or row["ratio"] is None:
        return "void" if row["void"] else "not run"
    if row["goal"] is None:
        return "shown"
    return (
        "met"
        if (row["ratio"] >= row["goal"]) == (row["better"] == "higher") or row["ratio"] == row["goal"]
        else "short"
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    if row["ratio"] is None:
        return ["-", "-", "-"]
    agree = "-" if row["agreement"] is None else f"{row['agreement']:.1e}"
    limit = "-" if row["limit_share"] is None else f"{100 * row['limit_share']:.0f} %"
    return [f"{row['ratio']:.3g} ± {row['spread']:.2g}", agree, limit]


def sentence(row: Mapping[str, Any]) -> str:
    ratio, agree, limit = _cells(row)
    return f"{row['name']}: {ratio}, agreement {agree}, limit {limit}, {_verdict(row)}"


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    """The lines as a table, each with what was timed under it."""
    grid = Table(title=f"processor class: {processor()}", title_justify="left")
    for name in ("line", "ratio", "goal", "", "agreement", "of the limit"):
        grid.add_column(name, justify="left" if name in ("line", "") else "right", no_wrap=name != "line")
    for row in found:
        goal = "-" if row["goal"] is None else f"{'≥' if row['better'] == 'higher' else '≤'} {row['goal']:g}"
        ratio, agree, limit = _cells(row)
        grid.add_row(f"{row['name']}\n[dim]{row['note']}[/dim]", ratio, goal, _verdict(row), agree, limit)
    return grid
