"""Plots as inline SVG in the page's own colours, each with words and numbers, and images on which two nets part."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .. import data
from ..errors import JobError
from ..pipeline import Outcome, Report
from ..schema import VERDICTS, Build, Verdict

# Colours that stand for variables of page.css, so that one picture serves light and dark.
INK, FAINT, LINES = "#0c0c00", "#0c0c01", [f"#0a0a0{i}" for i in range(8)]
COLOURS, MARKS = {verdict: f"#0b0b0{i}" for i, verdict in enumerate(VERDICTS)}, "os^Dv<>P"
_RC = {
    "svg.fonttype": "none", "svg.hashsalt": "repro", "text.parse_math": False, "font.size": 9, "axes.titlesize": 9,
    "legend.fontsize": 7, "legend.frameon": False, "savefig.transparent": True, "figure.constrained_layout.use": True,
    "axes.spines.top": False, "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}  # fmt: skip


class Plot(NamedTuple):
    """A picture (SVG, safe to stand in a page), what it shows in words, its numbers, images as (data URI, alt)."""

    name: str
    title: str
    svg: str
    alt: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    images: Sequence[tuple[str, str]] = ()


def of(report: Report, outcome: Outcome, macs: Mapping[str, int]) -> list[Plot]:
    """The plots of a table for which there are data; `macs` gives the multiply-adds of full-size builds."""
    ranked = [v for v in report.cells if v.cell.quantity.startswith("top1") and v.result.hits]
    with matplotlib.rc_context(_RC):  # type: ignore[arg-type]
        found = [_relations(report), _cost(report, ranked, macs), _curves(report, outcome), _agreement(ranked)]
        return [plot for plot in (*_claimed(report), *found, _parting(ranked, outcome)) if plot]


def _figure(height: float, rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(4.8, height))
    return figure, list(figure.subplots(rows, columns, squeeze=False, **shared).flat)


def _svg(name: str, figure: Figure) -> str:
    """The figure with ids of its own, no size and no font (the page gives them), in the page's colours."""
    stream = io.StringIO()
    for axes in figure.axes:  # each label once
        handles, labels = axes.get_legend_handles_labels()
        if (once := dict(zip(labels, handles, strict=True))) and not axes.get_legend():
            axes.legend(once.values(), once.keys())
        for axis in (a for a in (axes.xaxis, axes.yaxis) if a.get_scale() != "linear"):
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


def _claimed(report: Report) -> Iterator[Plot]:
    """Claimed against measured, each in its claim's unit; the line of equality where both are of the same data."""
    groups: dict[bool, list[tuple[float, float, Verdict]]] = defaultdict(list)
    for v in report.cells:
        claimed = v.cell.claim.printed.value if v.cell.claim and v.cell.kind in ("static", "metric") else None
        if claimed is not None and not isinstance(v.result.value, str | None):
            groups[v.verdict == "incomparable"].append((float(claimed), float(v.result.value), v))
    for elsewhere, points in groups.items():
        figure, (axes,) = _figure(3)
        names = list(dict.fromkeys(v.cell.quantity if elsewhere else v.verdict for _, _, v in points))
        for x, y, v in points:
            label = v.cell.quantity if elsewhere else v.verdict
            color, mark = LINES[names.index(label) % 8] if elsewhere else COLOURS[label], MARKS[names.index(label) % 8]
            axes.plot(x, y, mark, color=color, label=label.replace("_", " "), zorder=3)
        ends = [end(value for point in points for value in point[:2]) for end in (min, max)]
        if not elsewhere:
            axes.plot(ends, ends, color=FAINT, linewidth=1, label="equality")
        scale = ("log" if ends[0] else "symlog") if 0 <= 50 * ends[0] < ends[1] else "linear"
        axes.set(xscale=scale, yscale=scale)
        axes.set(xlabel="claimed", ylabel="measured")
        why = f"no line of equality, {points[0][2].reason}" if elsewhere else "the line is equality"
        alt = f"{len(points)} numbers of the table above, each in its own unit; {why}."
        name = f"claimed-{'elsewhere' if elsewhere else 'here'}"
        yield Plot(name, "Claimed against measured", _svg(name, figure), alt)


def _relations(report: Report) -> Plot | None:
    """Effects with their 95 % intervals, a line for each relation."""
    found = [v for v in report.relations if v.effect is not None]
    if not found:
        return None
    figure, (axes,) = _figure(0.9 + 0.32 * len(found))
    for i, v in enumerate(found):
        axes.plot(v.interval or [v.effect] * 2, [i, i], color=COLOURS[v.verdict], linewidth=2)
        axes.plot(v.effect, i, "o", color=COLOURS[v.verdict])
        axes.plot([v.relation.margin] * bool(v.relation.margin), [i] * bool(v.relation.margin), "|", color=INK)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.set_yticks(range(len(found)), [f"{v.relation.id} {VERDICTS[v.verdict]}" for v in found])
    axes.set(xlabel="gain in points (|: the margin that it stays below)", ylim=(len(found) - 0.5, -0.5))
    alt = (
        f"Effect and 95 % interval of {len(found)} relations, with the letter of the verdict; the numbers stand above."
    )
    return Plot("relations", "Relations", _svg("relations", figure), alt)


def _error(verdict: Verdict, where: Any = slice(None)) -> float:
    """Top-1 error (%) on the images chosen by `where`, the mean over seeds."""
    return float(100 * (1 - np.mean([hits[where].mean() for hits in verdict.result.hits])))


def _cost(report: Report, ranked: Sequence[Verdict], macs: Mapping[str, int]) -> Plot | None:
    """Top-1 error against the multiply-adds of one view of the net at full size, as claimed and as measured."""
    added = report.table.paper.proxy.build if report.table.paper.proxy else {}
    points = []
    for v in ranked:
        net, claim = v.cell.systems[0][0].build, v.cell.claim.printed.value if v.cell.claim else None
        net = Build(net.family, net.net, tuple((k, x) for k, x in net.args if str(added.get(k)) != x))
        if str(net) in macs and [len(e) for e in v.cell.systems] == [1]:
            claimed = [float(100 - claim if v.cell.quantity == "top1_accuracy" else claim)] if claim is not None else []
            points.append((macs[str(net)] / 1e9, (claimed, [_error(v)]), v.cell.row))
    if len({x for x, _, _ in points}) < 2:
        return None
    figure, panels = _figure(4.4, rows=2, sharex=True)
    for i, (axes, name) in enumerate(zip(panels, ("claimed", "measured"), strict=True)):
        for x in {x for x, _, _ in points}:
            mine = [(y, row.split()[0]) for at, errors, row in points if at == x for y in errors[i]]
            axes.plot([x] * len(mine), [y for y, _ in mine], "o-", color=LINES[i], linewidth=0.8, markersize=4)
            for label in {", ".join(dict.fromkeys(row for _, row in mine))} - {""}:
                axes.annotate(label, (x, max(mine)[0]), xytext=(3, 4), textcoords="offset points")
        axes.set(ylabel=f"{name} top-1 error (%)", ymargin=0.15)
    panels[1].set(xlabel="multiply-adds of one view at full size (1e9)")
    where = ranked[0].cell.systems[0][0].dataset
    alt = f"{len(points)} rows by cost, a line for each net; above as claimed, below as measured on {where}."
    rows = [(row, f"{x:.2f}", *("".join(f"{y:.2f}" for y in e) for e in errors)) for x, errors, row in points]
    head = ("row", "multiply-adds (1e9)", "claimed error (%)", "measured error (%)")
    return Plot("cost", "Error against multiply-adds", _svg("cost", figure), alt, head, rows)


def _curves(report: Report, outcome: Outcome) -> Plot | None:
    """Validation error by epoch of the trainings behind a table: a panel for each recipe, a colour for each net."""
    panels: dict[str, list[tuple[str, str, list[Any]]]] = defaultdict(list)
    for digest in dict.fromkeys(w for v in report.cells for seed in v.result.weights for w in seed):
        record = outcome.results.record("train", digest)
        if record and (path := outcome.results.store.file(record, "log.jsonl")).is_file():
            net, _, rest = record.name.removeprefix("train ").partition(" ")
            recipe, _, seed = rest.rpartition(" seed ")
            log = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            panels[recipe].append((net, seed, log))
    if not panels:
        return None
    lines, nets = -(-len(panels) // 2), list(dict.fromkeys(net for panel in panels.values() for net, _, _ in panel))
    figure, grid = _figure(0.6 + 2.2 * lines, lines, min(2, len(panels)), sharey=True)
    for axes, (recipe, curves) in zip(grid, panels.items(), strict=False):
        for net, _, log in curves:
            color, dash = LINES[nets.index(net) % 8], ("-", "--", ":")[nets.index(net) // 8 % 3]
            axes.plot([entry["val_error"] for entry in log], dash, color=color, linewidth=1, label=net)
        axes.set(title=recipe, yscale="log", xlabel="epoch")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.supylabel("validation error (%), log scale", fontsize=9)
    rows = [(f"{net} {recipe}", seed, str(len(log)), *(f"{log[-1][k]:.2f}" for k in ("train_error", "val_error")))
            for recipe, panel in panels.items() for net, seed, log in panel]  # fmt: skip
    alt = f"Validation error by epoch of {len(rows)} trainings, a panel for each recipe and a line for each seed."
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
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return _svg(name, figure)


def _agreement(ranked: Sequence[Verdict]) -> Plot | None:
    """On how many images two protocols of the same weights part: only the first is right, or only the second."""
    rows: list[tuple[Any, ...]] = []
    for a, b in combinations(ranked, 2):
        x, y = np.stack(a.result.hits), np.stack(b.result.hits)
        same = a.result.weights == b.result.weights and set(a.result.records) != set(b.result.records)
        if same and x.shape == y.shape and len(rows) < 20:
            shares = [100 * float(part.mean()) for part in (x == y, x & ~y, ~x & y)]
            rows.append((f"{a.cell.row} / {b.cell.row}", *shares))
    if not rows:
        return None
    labels, agree, *parts = zip(*rows, strict=True)
    series = dict(zip(("only the first is right", "only the second"), parts, strict=True))
    svg = _bars("agreement", labels, series, "share of the images (%)")
    alt = f"Two protocols of the same weights agree on {min(agree):.1f} % of the images or more; here, where they part."
    told = [(row[0], *(f"{share:.2f}" for share in row[1:])) for row in rows]
    return Plot("agreement", "Agreement of protocols", svg, alt, ("protocols", "agree (%)", *series), told)


def _parting(ranked: Sequence[Verdict], outcome: Outcome) -> Plot | None:
    """Where the rows with the highest and the lowest error part: by class, and images that only one gets right."""
    if len(ranked) < 2:
        return None
    worst, best = max(ranked, key=_error), min(ranked, key=_error)
    try:
        images = data.open_set(worst.cell.systems[0][0].dataset, outcome.results.store.root / "data")
    except JobError:
        return None
    labels, one, other = np.asarray(images.labels), np.stack(worst.result.hits), np.stack(best.result.hits)
    if one.shape != other.shape or one.shape[1] != len(labels):
        return None
    rows: list[Any] = [
        (str(images.classes[c]), *(_error(v, labels == c) for v in (worst, best))) for c in np.unique(labels)
    ]
    rows = sorted(sorted(rows, key=lambda r: -abs(r[1] - r[2]))[:20], key=lambda r: r[2] - r[1])
    series = {f"error of {worst.cell.row} less that of {best.cell.row}": [r[1] - r[2] for r in rows]}
    shown = []
    for right, wrong, a, b in ((one, other, worst, best), (other, one, best, worst)):
        for i in np.flatnonzero(right.all(0) & ~wrong.any(0))[:6]:
            stream, picture = io.BytesIO(), Image.fromarray(images[int(i)])
            picture.thumbnail((160, 160))
            picture.save(stream, format="WEBP", quality=80)
            alt = f"image {i}, a {images.classes[labels[i]]}: {a.cell.row} is right, {b.cell.row} wrong"
            shown.append((f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}", alt))
    alt = f"{worst.cell.row} has the highest error of the table, {best.cell.row} the lowest; in points, by class."
    head, told = ("class", worst.cell.row, best.cell.row), [(r[0], f"{r[1]:.2f}", f"{r[2]:.2f}") for r in rows]
    svg = _bars("classes", [r[0] for r in rows], series, "difference (points)")
    return Plot("classes", "Differences by class", svg, alt, head, told, shown)
