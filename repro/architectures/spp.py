"""SPP-net: He, Zhang, Ren & Sun, arXiv 1406.4729v4, Sections 2 and 3, Table 1.

Four nets, each with the spatial pyramid over its last map or, `pyramid=none`, with the plain pooling to 6x6 of the
baselines (Section 3.1.1). A bin (i, j) of an n x n level spans rows floor((i-1) h / n) to ceil(i h / n), columns
likewise (Section 4.1), so that any size of image gives the same number of values; on the 13x13 map of a 224x224
image these are the sliding windows of Section 2.3. Two fully connected layers of 4096 and one for the classes
follow. Padding is chosen for the map sizes that Table 1 prints. ZF-5 prints 27x27 for conv2, which is its map
before the pooling of the same cell: after it, the map is the 13x13 of conv3. No library holds these nets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ReproError
from .vgg import LRN

NETS = ("ZF-5", "Convnet-5", "Overfeat-5", "Overfeat-7")
ARGS = ("classes", "depth", "dropout", "input", "pyramid", "width")

# Table 1: kernels, side, stride, padding, and what follows: `LRN`, or a pooling as (window, stride, padding).
Layer = tuple[int, int, int, int, list[Any]]
_LAST: Layer = (256, 3, 1, 1, [])
_OVERFEAT: list[Layer] = [
    (96, 7, 2, 0, [(3, 3, 0), "LRN"]),
    (256, 5, 1, 2, [(2, 2, 0)]),
    *[(512, 3, 1, 1, [])] * 5,
]
LAYERS: dict[str, list[Layer]] = {
    "ZF-5": [
        (96, 7, 2, 1, ["LRN", (3, 2, 1)]),
        (256, 5, 2, 1, ["LRN", (3, 2, 0)]),
        *[(384, 3, 1, 1, [])] * 2,
        _LAST,
    ],
    "Convnet-5": [
        (96, 11, 4, 2, ["LRN"]),
        (256, 5, 1, 2, ["LRN", (3, 2, 0)]),
        (384, 3, 1, 1, [(3, 2, 0)]),
        (384, 3, 1, 1, []),
        _LAST,
    ],
    "Overfeat-5": _OVERFEAT[:5],
    "Overfeat-7": _OVERFEAT,
}
# The pooling of the baselines to 6x6: window 3, and a stride of 2 on 13x13, of 3 on 18x18.
STRIDES = {"ZF-5": 2, "Convnet-5": 2, "Overfeat-5": 3, "Overfeat-7": 3}


class Bins(nn.Module):
    """Maps as a list of bins: (N, C, H, W) to (N, H * W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class SPP(nn.Module):
    """Spatial pyramid pooling: (N, C, H, W) to (N, bins, C), the maxima over n x n bins of each level n."""

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        for n in levels:
            self.add_module(f"level{n}", nn.Sequential(nn.AdaptiveMaxPool2d(n), Bins()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([level(x) for level in self.children()], 1)


class SPPNet(nn.Module):
    """A net of Table 1. Input (N, 3, H, W), of any size with a pyramid; output (N, classes) of logits.

    `features` holds conv1, conv2, ..., each a cell of the table; `spp` the pyramid or, without one, the baseline's
    pooling; `classifier` the three fully connected layers, numbered on as in Table 6.
    """

    def __init__(
        self,
        layers: list[Layer],
        stride: int,
        levels: list[int],
        width: float = 1.0,
        input: int = 224,
        classes: int = 1000,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.features, channels, map_side = nn.Sequential(), 3, input
        for i, (out, side, step, padding, after) in enumerate(layers, 1):
            out = max(1, round(out * width))
            cell = nn.Sequential()
            cell.add_module("conv", nn.Conv2d(channels, out, side, step, padding))
            cell.add_module("relu", nn.ReLU(inplace=True))
            channels, map_side = out, (map_side + 2 * padding - side) // step + 1
            for what in after:
                if what == "LRN":
                    cell.add_module("norm", LRN())
                else:
                    cell.add_module("pool", nn.MaxPool2d(*what))
                    map_side = (map_side + 2 * what[2] - what[0]) // what[1] + 1
            self.features.add_module(f"conv{i}", cell)
        plain = nn.Sequential(nn.MaxPool2d(3, stride), Bins())
        self.spp: nn.Module = SPP(levels) if levels else plain
        bins = sum(n * n for n in levels) if levels else ((map_side - 3) // stride + 1) ** 2
        hidden, first = round(4096 * width), len(layers) + 1
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential()
        for i, size in enumerate((bins * channels, hidden), first):
            self.classifier.add_module(f"fc{i}", nn.Linear(size, hidden))
            self.classifier.add_module(f"relu{i}", nn.ReLU(inplace=True))
            self.classifier.add_module(f"drop{i}", nn.Dropout(dropout))
        self.classifier.add_module(f"fc{first + 2}", nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.flatten(self.spp(self.features(x))))
        return logits


def pyramid_levels(text: str) -> list[int]:
    """`6-3-2-1` as [6, 3, 2, 1]; `none` as []."""
    words = [] if text == "none" else text.split("-")
    if not all(word.isdigit() and int(word) for word in words):
        raise ReproError(f"pyramid is none or levels such as 6-3-2-1, not {text}")
    return [int(word) for word in words]


def build(net: str, pyramid: str = "6-3-2-1", depth: int = 0, **args: Any) -> SPPNet:
    """Net `net` of Table 1; `depth` another number of convolutions, the one before the last being repeated."""
    layers = LAYERS[net]
    if depth:
        if depth < 4:
            raise ReproError(f"depth is 4 convolutions or more, not {depth}")
        layers = [*layers[:-1][: depth - 1], *[layers[-2]] * (depth - len(layers)), layers[-1]]
    return SPPNet(layers, STRIDES[net], pyramid_levels(str(pyramid)), **args)
