"""Views drawn: the boxes of each protocol on an image of 375 x 500 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import protocols
from ..errors import ReproError

HEIGHT, WIDTH = 375, 500
COLUMNS = 6


def draw(names: Sequence[str], path: Path) -> None:
    """Write a picture (PNG, SVG or PDF by its name) with a panel for each protocol: one outline a box and scale.

    Images are drawn at their size after the rescale, all by one measure, so that scales can be compared. Raises
    ReproError for a name without a format that matplotlib writes.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.3 * rows))
    if path.suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
        raise ReproError(f"--picture {path}: expected a name that ends in .png, .svg or .pdf")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.axis("off")
    for axis, name in zip(axes, names, strict=False):
        sets = [v for _, v in protocols.resolve([name], (256,), 224)]
        # An image whose size is its own has the size of CIFAR's.
        sizes = [(v.Q, v.Q) if v.side == "none" else (HEIGHT, WIDTH) for v in sets]
        found = [protocols.views(v, *size) for v, size in zip(sets, sizes, strict=True)]
        far = max(max(view.size) for views in found for view in views)
        for i, views in enumerate(found):
            colour = colormaps["viridis"](i / len(found))
            height, width = views[0].size
            axis.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor="0.6", linestyle=":"))
            for view in (v for v in views if not v.flip):
                top, left, high, wide = view.box
                style = "--" if view.out else "-"
                axis.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=colour, linestyle=style))
                axis.add_patch(Rectangle((left, top), wide, high, color=colour, alpha=0.05))
        axis.set(xlim=(-8, far + 8), ylim=(far + 8, -8), aspect="equal")
        flips = " and their mirror images" if sets[0].flips else ""
        boxes = sum(map(len, found)) // (2 if flips else 1)
        scales = ", ".join(str(v.Q) for v in sets)
        axis.set_title(f"{name}: {boxes} box{'es' * (boxes > 1)}{flips}\nat {scales}", fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
