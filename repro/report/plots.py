"""Plots as inline SVG in the page's own colours, each with words and numbers, and images on which two nets part."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .. import data
from ..pipeline import Outcome, Report
from ..schema import VERDICTS, Build, Verdict

# Colours that stand for variables of page.css, so that one picture serves light and dark.
INK, FAINT, LINES = "#0c0c00", "#0c0c01", [f"#0a0a0{i}" for i in range(8)]
STYLE: dict[str, Any] = {v: {"color": f"#0b0b0{i}", "marker": "os^Dv<"[i]} for i, v in enumerate(VERDICTS)}
_RC = {
    "svg.fonttype": "none", "svg.hashsalt": "repro", "text.parse_math": False, "font.size": 9, "legend.frameon": False,
    "savefig.transparent": True, "figure.constrained_layout.use": True, "axes.titlesize": 9, "legend.fontsize": 7,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}  # fmt: skip


class Plot(NamedTuple):
    """A picture (SVG, safe to stand in a page), what it shows in words, its numbers, images as (data URI, alt)."""

    name: str
    title: str
    svg: str
    alt: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    images: Sequence[tuple[str, str]] = ()


def of(report: Report, outcome: Outcome, macs: Mapping[str, int]) -> list[Plot]:
    """The plots of a table for which there are data; `macs` gives the multiply-adds of full-size builds."""
    ranked = [v for v in report.cells if v.cell.quantity.startswith("top1") and v.result.hits]
    with matplotlib.rc_context(_RC):  # type: ignore[arg-type]
        found = [_claimed(report), _relations(report), _cost(report, ranked, macs), _curves(report, outcome)]
        return [plot for plot in (*found, _agreement(ranked), _parting(ranked, outcome)) if plot]


def _figure(height: float, rows: int = 1) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(4.8, height))
    return figure, list(figure.subplots(rows, squeeze=False).flat)


def _svg(name: str, figure: Figure) -> str:
    """The figure with ids of its own, no size and no font (the page gives them), in the page's colours."""
    stream = io.StringIO()
    named = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes)
    if once := {label: handle for pairs in named for handle, label in pairs}:
        figure.legend(once.values(), once.keys(), loc="outside upper center", ncols=4)
    for axis in (a for axes in figure.axes for a in (axes.xaxis, axes.yaxis) if a.get_scale() != "linear"):
        low, high = axis.get_view_interval()  # the standard formatter writes TeX
        axis.set(major_formatter="{x:g}", minor_formatter="{x:g}" if high < 10 * low else "")
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    head, _, svg = stream.getvalue()[stream.getvalue().index("<svg") :].partition(">")
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    svg = re.sub(r"#0([abc])0[abc]0(\d)", r"var(--\1\2)", svg)
    return re.sub(r' (width|height)="[\d.]+pt"', "", head) + f' role="img" aria-labelledby="{name}-alt">{svg}'


def _claimed(report: Report) -> Plot | None:
    """Claimed against measured, each in its claim's unit, with the line of equality; only what can be compared."""
    cells = [v for v in report.cells if v.cell.claim and v.delta is not None and v.verdict != "incomparable"]
    points = [(float(v.cell.claim.printed.value or 0), v.delta or 0, v.verdict) for v in cells if v.cell.claim]
    if not points:
        return None
    figure, (axes,) = _figure(3)
    for x, delta, verdict in points:
        axes.plot(x, x + delta, linestyle="", label=verdict, **STYLE[verdict])
    low, high = (end(value for x, delta, _ in points for value in (x, x + delta)) for end in (min, max))
    axes.plot([low, high], [low, high], color=FAINT, linewidth=1, label="equality")
    axes.set(xlabel="claimed", ylabel="measured", **dict.fromkeys(("xscale", "yscale"), "log" if low > 0 else "linear"))
    alt = f"{len(points)} numbers of the table above, each in its own unit; the line is equality."
    return Plot("claimed", "Claimed against measured", _svg("claimed", figure), alt)


def _relations(report: Report) -> Plot | None:
    """Effects with their 95 % intervals, a line for each relation."""
    found = [v for v in report.relations if v.effect is not None]
    if not found:
        return None
    figure, (axes,) = _figure(0.9 + 0.32 * len(found))
    for i, v in enumerate(found):
        axes.plot(v.interval or [v.effect] * 2, [i, i], color=STYLE[v.verdict]["color"], linewidth=2)
        axes.plot(v.effect, i, **STYLE[v.verdict])
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.set_yticks(range(len(found)), [f"{v.relation.id} {VERDICTS[v.verdict]}" for v in found])
    axes.set(xlabel="gain in points", ylim=(len(found) - 0.5, -0.5))
    alt = f"Effect and 95 % interval of {len(found)} relations, with the verdict's letter; the numbers stand above."
    return Plot("relations", "Relations", _svg("relations", figure), alt)


def _error(verdict: Verdict, where: Any = slice(None)) -> float:
    """Top-1 error (%) on the images chosen by `where`, the mean over seeds."""
    return float(100 * (1 - np.mean([hits[where].mean() for hits in verdict.result.hits])))


def _cost(report: Report, ranked: Sequence[Verdict], macs: Mapping[str, int]) -> Plot | None:
    """Top-1 error against the multiply-adds of one view of the net at full size, as claimed and as measured."""
    added = report.table.paper.proxy.build if report.table.paper.proxy else {}
    points = []
    for v in (v for v in ranked if v.cell.claim and v.cell.claim.printed.value is not None):
        net, claimed = v.cell.systems[0][0].build, float(v.cell.claim.printed.value)  # type: ignore[union-attr,arg-type]
        net = Build(net.family, net.net, tuple((k, x) for k, x in net.args if str(added.get(k)) != x))
        if str(net) in macs and [len(e) for e in v.cell.systems] == [1]:
            claimed = 100 - claimed if v.cell.quantity == "top1_accuracy" else claimed
            points.append((v.cell.row, macs[str(net)] / 1e9, claimed, _error(v)))
    if len({x for _, x, *_ in points}) < 2:
        return None
    figure, (axes,) = _figure(3.4)
    rows, x, *sides = zip(*points, strict=True)
    for y, mark, color, label in zip(sides, "os", LINES, ("claimed", "measured"), strict=False):
        axes.plot(x, y, mark, color=color, label=label, markersize=4)
    for row, place, height, _ in {point[1]: point for point in points}.values():
        axes.annotate(row.split()[0], (place, height), xytext=(4, 2), textcoords="offset points")
    axes.set(xlabel="multiply-adds of one view at full size (1e9)", ylabel="top-1 error (%)", yscale="log", ymargin=0.1)
    alt = f"{len(rows)} rows by cost, measured on {ranked[0].cell.systems[0][0].dataset}; the errors on a log scale."
    head = ("row", "multiply-adds (1e9)", "claimed error (%)", "measured error (%)")
    return Plot("cost", "Error against multiply-adds", _svg("cost", figure), alt, head, points)


def _curves(report: Report, outcome: Outcome) -> Plot | None:
    """Validation error by epoch of the trainings behind a table: a panel for each recipe, a colour for each net."""
    panels: dict[str, list[tuple[str, list[float]]]] = defaultdict(list)
    rows = []
    for digest in dict.fromkeys(w for v in report.cells for seed in v.result.weights for w in seed):
        record = outcome.results.record("train", digest)
        if record and (path := outcome.results.store.file(record, "log.jsonl")).is_file():
            net, _, rest = record.name.removeprefix("train ").partition(" ")
            recipe, _, seed = rest.rpartition(" seed ")
            log = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            panels[recipe].append((net, [entry["val_error"] for entry in log]))
            rows.append((f"{net} {recipe}", seed, len(log), log[-1]["train_error"], log[-1]["val_error"]))
    if not panels:
        return None
    nets = list(dict.fromkeys(net for panel in panels.values() for net, _ in panel))
    figure, grid = _figure(0.7 + 1.5 * len(panels), len(panels))
    for axes, (recipe, curves) in zip(grid, panels.items(), strict=True):
        for net, curve in curves:
            axes.plot(curve, color=LINES[nets.index(net) % 8], linewidth=1, label=net)
        axes.set(title=recipe, yscale="log", ylabel="error (%)")
    grid[-1].set(xlabel="epoch")
    alt = f"Validation error by epoch of {len(rows)} trainings, a line for each seed; the scale is log."
    head = ("training", "seed", "epochs", "last training error (%)", "last validation error (%)")
    return Plot("curves", "Training curves", _svg("curves", figure), alt, head, sorted(rows))


def _bars(name: str, labels: Sequence[str], series: Mapping[str, Sequence[float]], axis: str) -> str:
    figure, (axes,) = _figure(1 + 0.24 * len(labels))
    left = np.zeros(len(labels))
    for color, (label, values) in zip(LINES, series.items(), strict=False):
        axes.barh(range(len(labels)), values, left=left, color=color, label=label)
        left = left + values
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel=axis, ylim=(len(labels) - 0.4, -0.6))
    axes.axvline(0, color=INK, linewidth=0.8)
    return _svg(name, figure)


def _agreement(ranked: Sequence[Verdict]) -> Plot | None:
    """On how many images two protocols of the same weights part: only the first is right, or only the second."""
    rows: list[tuple[Any, ...]] = []
    for a, b in combinations(ranked, 2):
        x, y = np.stack(a.result.hits), np.stack(b.result.hits)
        same = a.result.weights == b.result.weights and set(a.result.records) != set(b.result.records)
        if same and x.shape == y.shape and len(rows) < 20:
            rows.append((f"{a.cell.row} / {b.cell.row}", *(100 * np.mean(part) for part in (x == y, x & ~y, ~x & y))))
    if not rows:
        return None
    labels, agree, *parts = zip(*rows, strict=True)
    series = dict(zip(("only the first is right (%)", "only the second (%)"), parts, strict=True))
    svg = _bars("agreement", labels, series, "share of the images (%)")
    alt = f"Two protocols of the same weights agree on {min(agree):.1f} % of the images or more; here, where they part."
    return Plot("agreement", "Agreement of protocols", svg, alt, ("protocols", "agree (%)", *series), rows)


def _parting(ranked: Sequence[Verdict], outcome: Outcome) -> Plot | None:
    """Where the rows with the highest and the lowest error part: by class, and images that only one gets right."""
    worst, best = (end(ranked, key=_error, default=None) for end in (max, min))
    where = (worst.cell.systems[0][0].dataset, outcome.results.store.root / "data") if worst else None
    if worst is None or best is None or where is None or worst is best or not data.facts(*where):
        return None
    images, one, other = data.open_set(*where), np.stack(worst.result.hits), np.stack(best.result.hits)
    if one.shape != other.shape or one.shape[1] != len(labels := np.asarray(images.labels)):
        return None
    rows = [(str(images.classes[c]), _error(worst, labels == c), _error(best, labels == c)) for c in np.unique(labels)]
    rows = sorted(sorted(rows, key=lambda r: -abs(r[1] - r[2]))[:20], key=lambda r: r[2] - r[1])
    shown = []
    for right, wrong, a, b in ((one, other, worst, best), (other, one, best, worst)):
        for i in np.flatnonzero(right.all(0) & ~wrong.any(0))[:6]:
            stream, picture = io.BytesIO(), Image.fromarray(images[int(i)])
            picture.thumbnail((160, 160))
            picture.save(stream, format="WEBP", quality=80)
            alt = f"image {i}, a {images.classes[labels[i]]}: {a.cell.row} is right, {b.cell.row} wrong"
            shown.append((f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}", alt))
    series = {f"error of {worst.cell.row} less that of {best.cell.row}": [r[1] - r[2] for r in rows]}
    svg = _bars("classes", [r[0] for r in rows], series, "difference (points)")
    alt = f"{worst.cell.row} has the highest error of the table, {best.cell.row} the lowest; in points, by class."
    head = ("class", worst.cell.row, best.cell.row)
    return Plot("classes", "Differences by class", svg, alt, head, rows, shown)
