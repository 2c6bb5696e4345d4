"""Why a number differs: one field of the evaluation flipped at a time, on the same weights; of a count, conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Decimal
from typing import Any

from . import compare, pipeline, protocols
from .architectures import LIBRARIES, make
from .errors import ReproError
from .execution import Progress, execute
from .plan import Plan
from .results import counted
from .schema import UNITS, Cell, Verdict, ViewSet

# Mean (0..255) and factor of the normalisations in use; an empty one is the weights' own.
NORMS = (("0 0 0", ""), ("0 0 0", "0.003921569"), ("127.5 127.5 127.5", "0.007843137"),
         ("123.675 116.28 103.53", "0.01712475 0.017507 0.01742919"), ("123 117 104", "1"))  # fmt: skip
STRIDES = {"resnet": ("1x1", "3x3"), "preact_resnet": ("1x1", "3x3"), "coatnet": ("conv", "depthwise")}
CROPS = (0.875, 0.9, 0.95, 1.0)  # shares of the short side that a window takes
SIZES = ((375, 500), (500, 375), (301, 422), (60, 80))  # of images, to see whether a choice changes any view


@dataclass(frozen=True)
class Effect:
    """What one change gives: its value and how far it moved, in the claim's unit; on images also the paired test.

    `name` is the change as `-o` takes it, or a convention of counting. Without a value `note` says why not.
    """

    name: str
    value: Any = None
    moves: float = 0.0
    paired: compare.Paired | None = None
    note: str = ""


def flips(cell: Cell, overrides: Mapping[str, str], pixels: Mapping[int, int]) -> Iterator[tuple[dict[str, str], str]]:
    """Each change of a metric cell's evaluation, as overrides, with why it cannot matter, or "".

    `pixels` are the proxy's sizes by the paper's, none at full scale.
    """
    import torch

    system = cell.systems[0][0]
    views = [view_set for _, view_set in system.protocol]
    with torch.device("meta"):
        net = make(system.build)
    sizes = ((72, 72),) if system.dataset.startswith("digits-") else SIZES
    for key, known in protocols.CHOICES.items():
        for other in known:
            if getattr(views[0], key) not in (other, other == "yes"):
                yield {f"protocol.{key}": other}, _idle(net, views, key, other, sizes)
    crop, Q = views[0].crop, {v.Q for v in views}
    for size, paper in ({p: q for q, p in pixels.items()} or {q: q for q in (round(crop / s) for s in CROPS)}).items():
        if {size} != Q and size >= crop:
            yield {"protocol.Q": str(paper)}, ""
    own = (("", ""),) if {"evaluate.mean", "evaluate.scale"} & set(overrides) else ()
    for mean, scale in (*own, *NORMS):
        yield {"evaluate.mean": mean, "evaluate.scale": scale}, ""
    yield {"evaluate.dtype": "float32" if overrides.get("evaluate.dtype") == "bfloat16" else "bfloat16"}, ""
    found = [m.eps for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    now = float(overrides.get("evaluate.bn_eps") or max(found, default=0))
    for eps in {1e-5, 1e-3} - {now}:
        yield {"evaluate.bn_eps": str(eps)}, "" if found else "the net has no batch normalisation"
    family = system.build.family
    for word in STRIDES.get(family, ("3x3",)):
        if word != dict(system.build.args).get("stride", STRIDES.get(family, ("",))[0]):
            yield {"evaluate.build.stride": word}, "" if family in STRIDES else f"{family} has one convention"
    yield {"decoder": "another"}, "its images are no JPEGs" if len(sizes) == 1 else "Pillow alone decodes here"


def _idle(net: Any, views: Sequence[ViewSet], key: str, other: str, sizes: Sequence[tuple[int, int]]) -> str:
    """Why a choice cannot matter to these view sets of images of these `sizes`; empty where it may."""
    from .evaluate.dense import Dense

    cut = [[protocols.views(v, *size) for size in sizes] for v in views]
    if key == "cells":
        is_map = any(v.kind == "dense" and Dense(net, v.crop).is_windowed for v in views)
        return "" if is_map else "there is no class map: the net sees windows, or averages before its last layer"
    if key == "views":
        return "" if any(len(c) > 1 for of in cut for c in of) else "one view each, and softmax keeps its order"
    if key not in ("side", "rounding", "region"):
        return ""
    given: dict[str, Any] = {key: other}
    try:
        changed = [[protocols.views(replace(v, **given), *size) for size in sizes] for v in views]
    except ReproError as error:
        return str(error)
    return "its views of these images stay the same" if changed == cut else ""


def explain(
    options: pipeline.Options, row: str, column: str, executor: Callable[[], Any], progress: Progress
) -> tuple[Verdict, list[Effect]]:
    """The cell's verdict as it stands, and what each change gives, by evaluations of the same weights alone.

    `options` names one table, and what is changed by hand. Raises ReproError where there is no such cell, or where
    its nets are not trained yet.
    """
    asked = replace(options, rows=(row,), only=("metric", "static"), seeds=options.seeds[:1])
    base = pipeline.prepare(asked, True, progress.say)
    cells = {c.column: c for c in base.selected[0].cells}
    if column not in cells:
        raise ReproError(f"{row} | {column}: no metric or count stands there. Columns: {', '.join(cells)}")
    cell, runs, notes = cells[column], {"": base}, {}
    weights = {m.weights for seeds in base.plan.systems.get(cell.key, ()) for of in seeds for m in of}
    if any(not base.has("train", digest) for digest in weights - set(base.plan.published)):
        raise ReproError(f"its nets are not trained yet; first: repro run {options.words[0]} --row {row!r}")
    proxy = base.selected[0].table.paper.proxy if options.scale == "proxy" else None
    for given, why in flips(cell, options.overrides, proxy.pixels if proxy else {}) if weights else ():
        name = " ".join(f"{key}={value!r}" for key, value in given.items())
        notes[name] = why
        try:
            if not why:
                changed = replace(asked, overrides={**asked.overrides, **given})
                runs[name] = pipeline.prepare(changed, True, progress.say)
        except ReproError as error:
            notes[name] = str(error)
    found = _measured(runs, cell, executor, progress)
    verdict, result = found[""], found[""].result
    if result.value is None:
        raise ReproError(f"{row} | {column} is not measured: {verdict.reason}")
    if cell.kind == "static":
        record = base.store.read("measure", result.records[0]) if result.records else None
        return verdict, list(conventions(cell, record.numbers)) if record else []
    effects = []
    for name, note in notes.items():
        other = found[name].result if name in found else None
        if other is None or other.value is None:
            effects.append(Effect(name, note=note or found[name].reason))
            continue
        sides = (result.hits[0], other.hits[0])[:: 1 if cell.quantity.endswith("error") else -1]
        effects.append(Effect(name, other.value, other.value - result.value, compare.paired(*sides)))
    return verdict, effects


def _measured(
    runs: Mapping[str, pipeline.Run], cell: Cell, executor: Callable[[], Any], progress: Progress
) -> dict[str, Verdict]:
    """The cell's verdict in each run, from what it alone needs; evaluations of the same weights in one pass."""
    plan = Plan()
    for run in runs.values():
        members = [m for seeds in run.plan.systems.get(cell.key, ()) for of in seeds for m in of]
        wanted = {digest for m in members for _, digest in m.scores}
        plan.jobs.update({digest: run.plan.jobs[digest] for digest in run.plan.counts.get(cell.key, ())})
        plan.published.update(run.plan.published)
        for key, evaluation in run.plan.evaluations.items():
            views = {digest: view for digest, view in evaluation.views.items() if digest in wanted}
            if views:
                plan.evaluations.setdefault(key, replace(evaluation, views={})).views.update(views)
    worker = executor()
    try:
        _, failures = execute(plan, runs[""].store, runs[""].has, worker, progress)
    finally:
        worker.end()
    cells = {name: pipeline.conclude(run, failures).reports[0].cells for name, run in runs.items()}
    return {name: next(v for v in of if v.cell.key == cell.key) for name, of in cells.items()}


def conventions(cell: Cell, numbers: Mapping[str, Any]) -> Iterator[Effect]:
    """What the ways in which papers count make of the first net's `numbers`: parts left out, units, other sizes."""
    import torch

    from .measure.stages import count

    value, system, aside = counted(cell, numbers), cell.systems[0][0], list(cell.extra.get("without", ()))
    parts = {"biases": ["biases"], "norms": ["norms"], "biases and norms": ["biases", "norms"]}
    for name, start in (("auxiliary heads", "aux"), ("fully connected layers", ("classifier", "fc", "head"))):
        parts[name] = [stage for stage in numbers["stages"] if "." not in stage and stage.lower().startswith(start)]
    found: dict[str, Any] = {}
    if isinstance(value, Decimal):
        for name, some in parts.items():
            lean = replace(cell, extra={**cell.extra, "without": [*aside, *some]})
            found[f"without {name}"] = counted(lean, numbers) if some else "the net has none"
        if cell.quantity in ("macs", "flops"):
            found["two operations for a multiply-add, or one"] = value * 2 if cell.quantity == "macs" else value / 2
        unit = UNITS.get(cell.unit, Decimal(1))
        found[f"units of 2^{unit.adjusted() // 3 * 10}"] = value * unit / Decimal(1024) ** (unit.adjusted() // 3)
        if cell.claim and cell.claim.printed.low is not None and cell.claim.printed.high is not None:
            digit = cell.claim.printed.high - cell.claim.printed.low
            found["cut, not rounded"] = (value / digit).to_integral_value(ROUND_DOWN) * digit
    key = "num_classes" if system.build.family in LIBRARIES else "classes"
    changes: dict[str, tuple[dict[str, str], int]] = {f"input of {s}": ({}, s) for s in (224, 227, 229, 299)}
    changes |= {f"{n} classes": ({key: str(n)}, system.input) for n in (1000, 1001)}
    changes |= {f"stride {w}": ({"stride": w}, system.input) for w in STRIDES.get(system.build.family, ())}
    for name, (args, size) in changes.items():
        build = replace(system.build, args=tuple(sorted({**dict(system.build.args), **args}.items())))
        try:
            with torch.device("meta"):
                net = make(build).eval()
            found[name] = counted(cell, {"stages": count(net, size)[0]})
        except (ReproError, RuntimeError, AssertionError, ValueError) as error:
            found[name] = error
    for name, other in found.items():
        if type(other) is not type(value):
            yield Effect(name, note=str(other or "it is not read from this net").splitlines()[0])
        elif other != value:
            yield Effect(name, other, float(other - value) if isinstance(value, Decimal) else 0.0)
