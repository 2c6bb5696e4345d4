"""Protocols by name, and the views that each takes of an image: scales, boxes and flips as plain numbers.

Sizes are (height, width) in pixels. Where a paper leaves a level open, the choice says "taken"; `-o protocol.KEY=`
makes the other one. Softmax outputs are averaged over crops, flips and scales (AlexNet, Section 4.1; VGG,
Section 4.2), logits only over the cells of a dense class map, where the mean commutes with the last layer.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .errors import ReproError
from .schema import Protocol, ViewSet


@dataclass(frozen=True)
class Rule:
    """What a name stands for: a view set at each of the scales `Q`, or at the table's scales where it has none."""

    kind: str
    source: str
    flips: bool = False
    Q: tuple[int, ...] = ()
    crop: int = 0
    weights: tuple[int, ...] = ()  # of the scales; equal where empty
    more: Mapping[str, Any] | None = None  # other fields of the view sets


def _centre(Q: int, crop: int, source: str, **more: Any) -> Rule:
    return Rule("grid", source, False, (Q,), crop, (), {"grid": 1, **more})


PROTOCOLS: dict[str, Rule] = {
    # At the scales and with the window that a table states.
    "dense": Rule("dense", "VGG 3.2: the whole image, fully convolutional, and its mirror image", True),
    "grid": Rule("grid", "VGG 3.2: 5 x 5 boxes from edge to edge, each mirrored: 50 views", True, more={"grid": 5}),
    "ten": Rule("ten", "AlexNet 4.1: four corners and the centre, each mirrored (taken: of the whole image)", True),
    "centre": Rule("grid", "VGG 4.1, for the net with 5x5 filters: one box in the middle", more={"grid": 1}),
    "full": Rule("full", "SPP-net 3.1.4: the whole image in one view"),
    # Whole protocols of one paper each.
    "alexnet10": Rule("ten", "AlexNet 4.1: of the central 256 x 256", True, (256,), 224, (), {"region": "centre"}),
    "googlenet1": _centre(256, 224, "GoogLeNet 7: 1 crop (taken: of short side 256)"),
    "googlenet10": Rule("ten", "GoogLeNet 7: 10 crops (taken: as AlexNet's, of short side 256)", True, (256,), 224),
    "googlenet144": Rule("six", "GoogLeNet 7: 4 scales x 3 squares x (4 corners, centre, whole square) x 2", True,
                         (256, 288, 320, 352), 224, (), {"region": "three"}),
    "inception1": _centre(342, 299, "Inception-v3 6 (taken: short side 342, which is 299 / 0.875)"),
    "inception12": Rule("six", "Inception-v3 Table 4: 12 crops (taken: one scale and the central square)", True,
                        (342,), 299, (), {"region": "centre"}),
    "inception144": Rule("six", "Inception-v3 Table 4: 144 crops (taken: GoogLeNet's, its scales times 299 / 224)",
                         True, (342, 384, 427, 470), 299, (), {"region": "three"}),
    "resnet10": Rule("ten", "ResNet 3.4: the standard 10 crops (taken: of the whole image)", True, (256,), 224),
    "resnet-dense": Rule("dense", "ResNet 3.4: fully convolutional at five scales (taken: with flips)", True,
                         (224, 256, 384, 480, 640), 224),
    "prelu-dense": Rule("dense", "PReLU 3: pyramid-pooled windows of the last map, flips, three scales", True,
                        (256, 384, 480), 224),
    "spp10": Rule("ten", "SPP-net 3.1: corners of the whole image", True, (256,), 224),
    "spp-full": Rule("full", "SPP-net 3.1.4: the full image of short side 256", False, (256,)),
    "spp96": Rule("grid", "SPP-net 3.1.5: 18 views a scale, 6 at 224 (of an image that is no square)", True,
                  (224, 256, 300, 360, 448, 560), 224, (1, 3, 3, 3, 3, 3), {"grid": 3}),
    "densenet1": _centre(256, 224, "DenseNet 4.2: 1 crop of 224 (taken: of short side 256)"),
    "densenet10": Rule("ten", "DenseNet 4.2: 10 crops of 224", True, (256,), 224),
    "senet224": _centre(256, 224, "SENet 5.1: centre crop, short side 256"),
    "senet299": _centre(352, 299, "SENet 5.1, for Inception-ResNet-v2: centre crop, short side 352"),
    "senet320": _centre(366, 320, "SENet Table 8 (taken: the crop is 0.875 of the short side)"),
    "senet331": _centre(378, 331, "SENet Table 9 (taken: the crop is 0.875 of the short side)"),
    **{f"vit{q}": _centre(q, q, "ViT 4.1 (taken: the image is squeezed to the square)", side="both")
       for q in (224, 384, 512)},
    "coatnet224": _centre(256, 224, "CoAtNet Table 10: pre-training with a centre crop (taken: of short side 256)"),
    **{f"coatnet{q}": _centre(q, q, "CoAtNet Table 10: fine-tuning without a centre crop", side="both")
       for q in (384, 512)},
    "cifar": _centre(32, 32, "ResNet 4.2: the image as it is", side="none"),
}  # fmt: skip

# What may stand in a view set's open fields, the first being what is used where a paper says nothing.
CHOICES = {
    "side": ("short", "both", "none"),  # which side is brought to Q; `none` leaves the image as it is
    "rounding": ("down", "nearest"),  # of the long side; down is torchvision's `Resize`
    "resize": ("bilinear antialias", "bicubic antialias", "bilinear"),
    "region": ("image", "centre", "three"),  # where crops are cut: the image, its central square, three squares
    "cells": ("logits", "softmax"),
    "views": ("softmax", "logits"),
    "flips": ("yes", "no"),
}


@dataclass(frozen=True)
class View:
    """One view: the image rescaled to `size`, cut to `box` (top, left, height, width), mirrored where `flip`."""

    size: tuple[int, int]
    box: tuple[int, int, int, int]
    flip: bool
    out: int = 0  # the side that the box is resized to, 0 where it is fed as it is
    count: int = 1  # of the paper's views that it stands for, where several fall together


def resolve(
    names: Sequence[str], Q: Sequence[int] = (), crop: int = 0, size: Callable[[int], int] = int,
    choices: Mapping[str, str] | None = None,
) -> Protocol:  # fmt: skip
    """View sets of the named protocols at the short sides `Q`, with windows of side `crop`.

    A whole protocol brings its own scales and window, put through `size`. Weights are equal over names, then
    over Q: [grid, dense] at three Q is six view sets of 1/6. A view set that comes twice has both weights.
    `choices` overrides fields of every view set, and `Q` (numbers parted by commas) the scales. Raises
    ReproError for unknown names or choices, none, or a window that does not fit.
    """
    if not names:
        raise ReproError(f"a protocol needs at least one name, not {list(names)}")
    given = dict(choices or {})
    other = [size(int(q)) for q in given.pop("Q").split(",")] if re.fullmatch(r"\d+(,\d+)*", given.get("Q", "")) else []
    for key, value in given.items():
        if value not in CHOICES.get(key, ()):
            known = "; ".join(f"{k}: {', '.join(v)}" for k, v in CHOICES.items())
            raise ReproError(f"protocol.{key}={value} is no choice. Known: {known}; Q: pixels, as 256,384")
    chosen = {key: value == "yes" if key == "flips" else value for key, value in given.items()}
    weights: dict[ViewSet, Fraction] = {}
    for name in names:
        if (rule := PROTOCOLS.get(name)) is None:
            near = difflib.get_close_matches(name, PROTOCOLS, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ReproError(f"unknown protocol {name!r}{hint} `repro protocols` lists them")
        scales = other or [size(q) for q in rule.Q] or list(Q)
        window = size(rule.crop) if rule.crop else crop
        if not scales:
            raise ReproError(f"protocol {name!r} needs a Q: the short side that the image is brought to")
        shares = (not other and rule.weights) or (1,) * len(scales)
        for q, share in zip(scales, shares, strict=True):
            view_set = ViewSet(rule.kind, q, window, **{"flips": rule.flips, **(rule.more or {}), **chosen})
            if q < window and rule.kind != "full":
                raise ReproError(f"protocol {name!r}: a window of {window} does not fit an image of short side {q}")
            weights[view_set] = weights.get(view_set, Fraction(0)) + Fraction(share, len(names) * sum(shares))
    return tuple((weight, view_set) for view_set, weight in weights.items())


def rescaled(height: int, width: int, view_set: ViewSet) -> tuple[int, int]:
    """Size after the rescale that a view set states."""
    if view_set.side != "short":
        return (height, width) if view_set.side == "none" else (view_set.Q, view_set.Q)
    short, long = sorted((height, width))
    far = view_set.Q * long // short if view_set.rounding == "down" else round(Fraction(view_set.Q * long, short))
    return (view_set.Q, far) if height <= width else (far, view_set.Q)


def positions(size: int, crop: int, n: int) -> list[int]:
    """Offsets of `n` windows of side `crop` along `size`, evenly from 0 to size - crop; one alone is in the middle.

    Rounded to the nearest pixel, half to even (taken); the far half mirrors the near one, so that the mirrored
    image has the same windows, but for a middle one where size - crop is odd. Raises ReproError where none fits.
    """
    if (span := size - crop) < 0:
        raise ReproError(f"a window of {crop} does not fit a side of {size} pixels; use a Q of {crop} or more")
    if n == 1:
        return [round(Fraction(span, 2))]
    near = [round(Fraction(i * span, n - 1)) for i in range((n + 1) // 2)]
    return near + [span - offset for offset in reversed(near[: n // 2])]


def views(view_set: ViewSet, height: int, width: int) -> list[View]:
    """All views of an image of (height, width): region by region its boxes row by row, then the same mirrored.

    `ten` is corners then centre; `six` has the region itself after them, resized to the window. Views that fall
    together are one with their `count`, so that the mean stays the paper's. Raises ReproError for an unknown kind
    and for a window larger than the image.
    """
    size, crop = rescaled(height, width, view_set), view_set.crop
    boxes = Counter[tuple[tuple[int, int, int, int], int]]()  # with the side that each is resized to
    if view_set.kind in ("dense", "full"):
        boxes[(0, 0, *size), 0] = 1
    elif view_set.kind in ("grid", "ten", "six"):
        grids = (view_set.grid,) if view_set.kind == "grid" else (2, 1)
        for top, left, high, wide in _regions(view_set.region, *size):
            for n in grids:
                for y in positions(high, crop, n):
                    boxes.update(((top + y, left + x, crop, crop), 0) for x in positions(wide, crop, n))
            if view_set.kind == "six":
                boxes[(top, left, high, wide), 0 if high == wide == crop else crop] += 1
    else:
        raise ReproError(f"unknown kind of view {view_set.kind!r}. Known: dense, full, grid, ten, six")
    flips = (False, True) if view_set.flips else (False,)
    return [View(size, box, flip, out, count) for flip in flips for (box, out), count in boxes.items()]


def _regions(region: str, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Where crops are cut: the whole image, or one or three squares of its short side along its long one."""
    if region == "image":
        return [(0, 0, height, width)]
    side, n = min(height, width), 3 if region == "three" else 1
    return [(y, x, side, side) for y in positions(height, side, n)[: n if height > width else 1]
            for x in positions(width, side, n)[: n if width > height else 1]]  # fmt: skip


def table() -> list[dict[str, Any]]:
    """Every protocol as plain data: its view sets, how many views they take of a 375 x 500 image, its source."""
    rows = []
    for name, rule in PROTOCOLS.items():
        found = [(v, views(v, 375, 500)) for _, v in resolve([name], (256,), 224)]
        rows.append({
            "name": name, "views": sum(len(taken) for _, taken in found), "Q": list(rule.Q) or "the table's",
            "crop": rule.crop or ("-" if rule.kind in ("dense", "full") else "the table's"), "source": rule.source,
            "view_sets": [{**v.plain(), "boxes": [t.box for t in taken if not t.flip]} for v, taken in found],
        })  # fmt: skip
    return rows
