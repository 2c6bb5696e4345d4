"""Protocols by name, and the views that each takes of an image: scales, boxes and flips as plain numbers.

At every level softmax outputs are averaged, except over the cells of a dense class map, where
logits are (VGG, arXiv 1409.1556v6, Section 3.2). Sizes are (height, width) in pixels.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from fractions import Fraction

from .errors import ReproError
from .schema import Protocol, ViewSet

# name: (boxes a side, flips). `ten` has the four corners and the centre; `dense` the whole image.
PROTOCOLS: dict[str, tuple[int, bool]] = {"dense": (1, True), "grid": (5, True), "ten": (1, True), "centre": (1, False)}

_MULTI = "several Q: softmax averaged over scales (4.2); several protocols: mean of their softmax outputs (4.3)"
_DESCRIPTIONS: dict[str, str] = {
    "dense": (
        "the whole rescaled image and its mirror image, net made fully convolutional; logits averaged over the "
        f"cells of the class map, then softmax, then the mean over the two flips; {_MULTI}. Source: VGG, "
        "arXiv 1409.1556v6, Section 3.2. Open there: what the cells average (taken: logits, since posteriors "
        "are named only afterwards) and how the long side is rounded (taken: down)"
    ),
    "grid": (
        "5 x 5 boxes evenly spaced from edge to edge, each with its mirror image: 50 views a scale; softmax of "
        f"each view, then the mean over views; {_MULTI}. Source: VGG, arXiv 1409.1556v6, Section 3.2. Open "
        "there: how box positions are rounded (taken: to the nearest pixel, the far half mirroring the near)"
    ),
    "ten": (
        "four corners and the centre, each with its mirror image: 10 views; softmax of each view, then the mean "
        "over views. Source: AlexNet (Krizhevsky et al. 2012), Section 4.1. Open there: images that are not "
        "square (taken: corners of the whole rescaled image); the mirrored centre is the mirror of the same box"
    ),
    "centre": (
        "one box at the centre, no flip; softmax. Source: VGG, arXiv 1409.1556v6, Section 4.1, for the net with "
        "5x5 filters. Open there: the rounding of an odd margin (taken: half to even, as torchvision does)"
    ),
}


@dataclass(frozen=True)
class View:
    """One view: the image rescaled to `size`, cut to `box` (top, left, height, width), mirrored where `flip`."""

    size: tuple[int, int]
    box: tuple[int, int, int, int]
    flip: bool


def describe() -> dict[str, str]:
    """For each protocol's name one line: boxes, flips, what is averaged where, the source, the choices taken."""
    return dict(_DESCRIPTIONS)


def resolve(names: list[str], Q: list[int], crop: int) -> Protocol:
    """The view sets of the named protocols at the short sides `Q`, with windows of side `crop`.

    Weights are equal over names, then over Q: [grid, dense] at three Q is six view sets of 1/6,
    the mean of the two protocols. A view set that comes twice has both weights. Raises ReproError
    for an unknown name, for none, and for an image that would be smaller than the window.
    """
    if not names or not Q:
        raise ReproError(f"a protocol needs at least one name and one Q, not {names} at {Q}")
    weights: dict[ViewSet, Fraction] = {}
    for name in names:
        if name not in PROTOCOLS:
            near = difflib.get_close_matches(name, PROTOCOLS, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ReproError(f"unknown protocol {name!r}{hint} Known: {', '.join(PROTOCOLS)}")
        grid, flips = PROTOCOLS[name]
        for q in Q:
            if q < crop:
                raise ReproError(f"protocol {name!r}: a window of {crop} does not fit an image of short side {q}")
            view_set = ViewSet(name, q, crop, grid, flips)
            weights[view_set] = weights.get(view_set, Fraction(0)) + Fraction(1, len(names) * len(Q))
    return tuple((weight, view_set) for view_set, weight in weights.items())


def rescaled(height: int, width: int, Q: int) -> tuple[int, int]:
    """Size after the rescale to short side `Q`; the long side is rounded down, as torchvision's `Resize` does."""
    if height <= width:
        return Q, Q * width // height
    return Q * height // width, Q


def positions(size: int, crop: int, n: int) -> list[int]:
    """Offsets of `n` windows of side `crop`, evenly spaced along `size`: the first at 0, the last at size - crop.

    Each is rounded to the nearest pixel, half to even, and the far half mirrors the near one, so
    that the mirrored image has the same windows (but for a middle one where size - crop is odd).
    One window alone stands in the middle. Raises ReproError where the window does not fit.
    """
    span = size - crop
    if span < 0:
        raise ReproError(f"a window of {crop} does not fit a side of {size} pixels; use a Q of {crop} or more")
    if n == 1:
        return [round(Fraction(span, 2))]
    near = [round(Fraction(i * span, n - 1)) for i in range((n + 1) // 2)]
    return near + [span - offset for offset in reversed(near[: n // 2])]


def boxes(view_set: ViewSet, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Boxes (top, left, height, width) of a view set on the rescaled image (height, width), row by row.

    `ten` gives the corners and then the centre. Raises ReproError for a kind that is not known
    and for a window larger than the image.
    """
    crop = view_set.crop
    if view_set.kind == "dense":
        return [(0, 0, height, width)]
    if view_set.kind not in PROTOCOLS:
        raise ReproError(f"unknown kind of view {view_set.kind!r}. Known: {', '.join(PROTOCOLS)}")
    if view_set.kind == "ten":
        corners = [(top, left) for top in positions(height, crop, 2) for left in positions(width, crop, 2)]
        corners.append((positions(height, crop, 1)[0], positions(width, crop, 1)[0]))
        return [(top, left, crop, crop) for top, left in corners]
    tops, lefts = positions(height, crop, view_set.grid), positions(width, crop, view_set.grid)
    return [(top, left, crop, crop) for top in tops for left in lefts]


def views(view_set: ViewSet, height: int, width: int) -> list[View]:
    """All views of an image of (height, width): the boxes of the rescaled image, then the same boxes mirrored.

    Raises ReproError as `boxes` does.
    """
    size = rescaled(height, width, view_set.Q)
    flips = (False, True) if view_set.flips else (False,)
    return [View(size, box, flip) for flip in flips for box in boxes(view_set, *size)]


def map_size(height: int, width: int, stride: int = 32, window: int = 7) -> tuple[int, int]:
    """Size of the dense class map of a net whose poolings of 2 multiply to `stride`, fc6 seeing window x window.

    Each pooling rounds down, which adds up to one division by the stride rounded down. Raises
    ReproError where the image has not one whole window.
    """
    rows, columns = height // stride - window + 1, width // stride - window + 1
    if rows < 1 or columns < 1:
        raise ReproError(f"an image of {height} x {width} is smaller than the net's window of {stride * window} pixels")
    return rows, columns
