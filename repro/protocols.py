"""Protocols by name, and the views that each takes of an image: scales, boxes and flips as plain numbers.

Sizes are (height, width) in pixels. Sources: VGG, arXiv 1409.1556v6, Section 3.2, and AlexNet (Krizhevsky et
al. 2012), Section 4.1. Softmax outputs are averaged over views, over scales (VGG, Section 4.2) and over
protocols (4.3); logits only over the cells of a dense class map. Choices where a paper is open say "taken".
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from fractions import Fraction

from .errors import ReproError
from .schema import Protocol, ViewSet

# name: (boxes a side, flips)
PROTOCOLS: dict[str, tuple[int, bool]] = {
    # The whole image and its mirror image, the net made fully convolutional; logits averaged over the cells of
    # the map (taken: the paper names posteriors only afterwards), softmax, then the mean over flips.
    "dense": (1, True),
    # 5 x 5 boxes evenly spaced from edge to edge, each with its mirror image: 50 views.
    "grid": (5, True),
    # AlexNet: four corners and the centre, each with its mirror image: 10 views (taken: corners of the whole image).
    "ten": (1, True),
    # One box in the middle, no flip: VGG, Section 4.1, for the net with 5x5 filters.
    "centre": (1, False),
}


@dataclass(frozen=True)
class View:
    """One view: the image rescaled to `size`, cut to `box` (top, left, height, width), mirrored where `flip`."""

    size: tuple[int, int]
    box: tuple[int, int, int, int]
    flip: bool


def resolve(names: list[str], Q: list[int], crop: int) -> Protocol:
    """View sets of the named protocols at the short sides `Q`, with windows of side `crop`.

    Weights are equal over names, then over Q: [grid, dense] at three Q is six view sets of 1/6. A view set
    that comes twice has both weights. Raises ReproError for unknown names, none, or a Q below the window.
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
    """Size after the rescale to short side `Q`; the long side is rounded down (taken), as by torchvision's `Resize`."""
    return (Q, Q * width // height) if height <= width else (Q * height // width, Q)


def positions(size: int, crop: int, n: int) -> list[int]:
    """Offsets of `n` windows of side `crop` along `size`, evenly from 0 to size - crop; one alone is in the middle.

    Rounded to the nearest pixel, half to even (taken); the far half mirrors the near one, so that the mirrored
    image has the same windows, but for a middle one where size - crop is odd. Raises ReproError where none fits.
    """
    span = size - crop
    if span < 0:
        raise ReproError(f"a window of {crop} does not fit a side of {size} pixels; use a Q of {crop} or more")
    if n == 1:
        return [round(Fraction(span, 2))]
    near = [round(Fraction(i * span, n - 1)) for i in range((n + 1) // 2)]
    return near + [span - offset for offset in reversed(near[: n // 2])]


def views(view_set: ViewSet, height: int, width: int) -> list[View]:
    """All views of an image of (height, width): its boxes row by row (`ten`: corners, centre), then the same mirrored.

    Raises ReproError for a kind that is not known and for a window larger than the rescaled image.
    """
    if view_set.kind not in PROTOCOLS:
        raise ReproError(f"unknown kind of view {view_set.kind!r}. Known: {', '.join(PROTOCOLS)}")
    size, crop = rescaled(height, width, view_set.Q), view_set.crop
    if view_set.kind == "dense":
        boxes = [(0, 0, *size)]
    else:
        grids = (2, 1) if view_set.kind == "ten" else (view_set.grid,)
        boxes = [
            (top, left, crop, crop)
            for n in grids
            for top in positions(size[0], crop, n)
            for left in positions(size[1], crop, n)
        ]
    flips = (False, True) if view_set.flips else (False,)
    return [View(size, box, flip) for flip in flips for box in boxes]
