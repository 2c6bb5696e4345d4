"""Why a number differs: one field of the evaluation flipped at a time, on the same weights; of a count, conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Decimal
from typing import Any

from . import compare, judge, pipeline, protocols
from .architectures import LIBRARIES, make
from .errors import ReproError
from .execution import Progress, execute
from .plan import Plan
from .results import counted
from .schema import UNITS, Build, Cell, Result, System, Verdict

# Mean (0..255) and factor of the normalisations in use; an empty one is the weights' own.
NORMS = (("", ""), ("0 0 0", ""), ("0 0 0", "0.003921569"), ("127.5 127.5 127.5", "0.007843137"),
         ("123.675 116.28 103.53", "0.01712475 0.017507 0.01742919"), ("123 117 104", "1"))  # fmt: skip
STRIDES = {"resnet": ("1x1", "3x3"), "preact_resnet": ("1x1", "3x3"), "coatnet": ("conv", "depthwise")}
CROPS = (0.875, 0.9, 0.95, 1.0)  # shares of the short side that a window takes
SIZES = ((375, 500), (500, 375), (301, 422))  # of images, to see whether a choice changes any view
# Parts of a net that counts leave out, by the start of their stages' names.
PARTS = {"auxiliary heads": "aux", "fully connected layers": ("classifier", "fc", "head")}


@dataclass(frozen=True)
class Effect:
    """What a change (`name`, as `-o` takes it, or a convention) gives, in the claim's unit; `note` why it does not."""

    name: str
    value: Any = None
    moves: float = 0.0
    paired: compare.Paired | None = None
    note: str = ""


def flips(
    system: System, net: Any, overrides: Mapping[str, str], pixels: Mapping[int, int]
) -> Iterator[tuple[dict[str, str], str]]:
    """Each change of an evaluation, as overrides, with why it cannot matter to `net` and its view sets, or "".

    `pixels` are the proxy's sizes by the paper's, none at full scale.
    """
    from .evaluate.dense import Dense

    views, family = [view_set for _, view_set in system.protocol], system.build.family
    sizes = ((72, 72),) if system.dataset.startswith("digits-") else SIZES
    cut = {r: [protocols.views(replace(v, rounding=r), *s) for v in views for s in sizes] for r in ("down", "nearest")}
    is_map = any(v.kind == "dense" and Dense(net, v.crop).is_windowed for v in views)
    idle = {"cells": "" if is_map else "there is no class map: the net sees windows, or averages before its last layer"}
    if all(len(of_one) == 1 for of_one in cut["down"]):
        idle["views"] = "one view each, and softmax keeps its order"
    if cut["down"] == cut["nearest"]:
        idle["rounding"] = "its views of these images stay the same"
    for key in ("resize", "rounding", "flips", "cells", "views"):
        now = {True: "yes", False: "no"}.get(getattr(views[0], key), getattr(views[0], key))
        yield from (({f"protocol.{key}": word}, idle.get(key, "")) for word in protocols.CHOICES[key] if word != now)
    crop = views[0].crop
    for paper, size in pixels.items() or {(q, q) for q in (round(crop / share) for share in CROPS)}:
        if size >= crop and {size} != {v.Q for v in views}:
            yield {"protocol.Q": str(paper)}, ""
    is_changed = bool({"evaluate.mean", "evaluate.scale"} & set(overrides))
    yield from (({"evaluate.mean": m, "evaluate.scale": s}, "") for m, s in NORMS[0 if is_changed else 1 :])
    yield {"evaluate.dtype": "float32" if overrides.get("evaluate.dtype") == "bfloat16" else "bfloat16"}, ""
    why = "" if any(hasattr(m, "running_var") for m in net.modules()) else "the net has no batch normalisation"
    yield from (({"evaluate.bn_eps": e}, why) for e in ("1e-05", "0.001") if e != overrides.get("evaluate.bn_eps"))
    words = STRIDES.get(family, ("the only one", "3x3"))
    now = dict(system.build.args).get("stride", words[0])
    why = "" if family in STRIDES else f"{family} has one convention"
    yield from (({"evaluate.build.stride": word}, why) for word in words if word != now)
    yield {"decoder": "another"}, "its images are no JPEGs" if len(sizes) == 1 else "Pillow alone decodes here"


def explain(
    options: pipeline.Options, row: str, column: str, executor: Callable[[], Any], progress: Progress
) -> tuple[Verdict, list[Effect]]:
    """A cell's verdict as it stands, and what each change gives, by evaluations of the same weights alone.

    `options` names one table. Raises ReproError where there is no such cell or its nets are not trained yet.
    """
    asked = replace(options, rows=(row,), only=("metric", "static"), seeds=options.seeds[:1])
    base = pipeline.prepare(asked, True, progress.say)
    if len(base.selected) > 1:
        raise ReproError(f"{options.words[0]!r} is several tables; expected one, as {base.selected[0].table.name}")
    cells = {c.column: c for c in base.selected[0].cells}
    if column not in cells:
        known = ", ".join(cells) or "none"
        raise ReproError(f"{row} | {column}: no metric or count stands there. Columns: {known}")
    cell, runs, notes, plan = cells[column], {"": base}, {}, Plan(published=base.plan.published)
    missing = cell.claim.missing if cell.claim else "" if cell.systems else "the table does not say how"
    if reason := missing or base.plan.blocked.get(cell.key):
        raise ReproError(f"{row} | {column} is not measured: {reason}")
    if cell.kind == "static":
        return conventions(cell)
    weights = {m.weights for seeds in base.plan.systems[cell.key] for of in seeds for m in of}
    if any(not base.has("train", digest) for digest in weights - set(plan.published)):
        raise ReproError(f"its nets are not trained yet; first: repro run {options.words[0]} --row {row!r}")
    proxy, system = base.selected[0].table.paper.proxy, cell.systems[0][0]
    pixels = proxy.pixels if proxy and options.scale == "proxy" else {}
    for given, why in flips(system, _on_meta(system.build), options.overrides, pixels):
        name = " ".join(f"{key}={value!r}" for key, value in given.items())
        notes[name] = why
        if not why:
            other = replace(asked, overrides={**asked.overrides, **given})
            runs[name] = pipeline.prepare(other, True, lambda text: None)  # what there is to say was said of the base
    for run in runs.values():  # the evaluations of the same weights in one pass
        for digest, e in run.plan.evaluations.items():
            if e.weights in weights:
                plan.evaluations.setdefault(digest, e).views.update(e.views)
    worker = executor()
    try:
        _, failures = execute(plan, base.store, base.has, worker, progress)
    finally:
        worker.end()
    told = {name: pipeline.conclude(run, failures).reports[0].cells for name, run in runs.items()}
    found = {name: next(v for v in of if v.cell.key == cell.key) for name, of in told.items()}
    own = found[""].result
    if not own.hits:
        raise ReproError(f"{row} | {column} is not measured: {found[''].reason}")
    effects = []
    for name, note in notes.items():
        if note or not (new := found[name].result).hits:
            effects.append(Effect(name, note=note or found[name].reason))
            continue
        sides = (own.hits[0], new.hits[0])[:: 1 if cell.quantity.endswith("error") else -1]
        effects.append(Effect(name, new.value, new.value - own.value, compare.paired(*sides)))
    return found[""], effects


def _on_meta(build: Build) -> Any:
    import torch

    with torch.device("meta"):
        return make(build).eval()


def conventions(cell: Cell) -> tuple[Verdict, list[Effect]]:
    """A count's verdict, and what the ways in which papers count make of its first net: parts, units, other sizes."""
    from .measure.stages import count

    system, stages, found = cell.systems[0][0], dict[str, Any](), dict[str, Any]()
    classes = "num_classes" if system.build.family in LIBRARIES else "classes"
    changes: dict[str, tuple[dict[str, str], int]] = {"": ({}, system.input)}
    changes |= {f"input of {size}": ({}, size) for size in (224, 227, 229, 299)}
    changes |= {f"{n} classes": ({classes: str(n)}, system.input) for n in (1000, 1001)}
    changes |= {f"stride {word}": ({"stride": word}, system.input) for word in STRIDES.get(system.build.family, ())}
    for name, (args, size) in changes.items():
        try:
            net = _on_meta(replace(system.build, args=tuple({**dict(system.build.args), **args}.items())))
            stages[name] = {"stages": count(net, size)[0]}
            found[name] = counted(cell, stages[name])
        except (ReproError, RuntimeError, AssertionError, ValueError) as error:
            found[name] = error
    if (value := found.pop("")) is None or isinstance(value, Exception):
        raise ReproError(f"{cell.row} | {cell.column} cannot be counted: {value or 'there is no such stage'}")
    if isinstance(value, Decimal):
        names = list(stages[""]["stages"])
        parts = {part: [n for n in names if n.lower().startswith(start)] for part, start in PARTS.items()}
        parts |= {"biases": ["biases"], "norms": ["norms"], "biases and norms": ["biases", "norms"]}
        for name, some in parts.items():
            out = [*cell.extra.get("without", ()), *(part for part in some if "." not in part)]
            lean = replace(cell, extra={**cell.extra, "without": out})
            found[f"without {name}"] = counted(lean, stages[""]) if some else "the net has none"
        if cell.quantity in ("macs", "flops"):
            found["two operations for a multiply-add, or one"] = value * 2 if cell.quantity == "macs" else value / 2
        unit = UNITS.get(cell.unit, Decimal(1))
        found[f"units of 2^{unit.adjusted() // 3 * 10}"] = value * unit / Decimal(1024) ** (unit.adjusted() // 3)
        if cell.claim and cell.claim.printed.low is not None and cell.claim.printed.high is not None:
            digit = cell.claim.printed.high - cell.claim.printed.low
            found["cut, not rounded"] = (value / digit).to_integral_value(ROUND_DOWN) * digit
    effects = []
    for name, other in found.items():
        if type(other) is not type(value):
            effects.append(Effect(name, note=next(iter(str(other or "").splitlines()), "it is not read from this net")))
        elif other != value:
            effects.append(Effect(name, other, float(other - value) if isinstance(value, Decimal) else 0.0))
    return judge.cell(cell, Result(value=value), "full"), effects
