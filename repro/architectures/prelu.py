"""PReLU-nets: He, Zhang, Ren & Sun, arXiv 1502.01852v1, Tables 1 and 3.

A, B and C of Table 3: one 7x7 convolution, then 5 or 6 of 3x3 at each of three map sizes, and a spatial pyramid of
{7, 3, 2, 1} before three fully connected layers. `small` is the 14-layer model of Table 1. After each weight layer
but the last comes a PReLU, channel-wise (`activation=channel-wise`), with one coefficient a layer
(`channel-shared`), or a ReLU (`relu`). The 2x2 convolutions of `small` change the size of a map by one; they are
padded by 0 and 1 in turn, which is not printed. VGG-19 of Table 3 is `vgg:E`. No library holds these nets.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import ReproError
from .spp import SPP, pyramid_levels

NETS = ("A", "B", "C", "small")
ARGS = ("activation", "classes", "depth", "dropout", "pyramid", "width")

# Table 3: how many 3x3 convolutions a block, and their channels at maps of 56, 28 and 14 pixels.
BLOCKS = {"A": (5, (256, 512, 512)), "B": (6, (256, 512, 512)), "C": (6, (384, 768, 896))}


def _activation(name: str, channels: int) -> nn.Module:
    """A PReLU or ReLU after `channels` outputs; the coefficient starts at 0.25 (Section 2.1)."""
    if name == "relu":
        return nn.ReLU(inplace=True)
    return nn.PReLU(channels if name == "channel-wise" else 1, init=0.25)


class PReLUNet(nn.Module):
    """A PReLU-net. Input (N, 3, H, W) of any size; output (N, classes) of logits.

    Of A, B, C the `features` hold conv1, pool1, and blocks by the size of their map for a 224x224 image: block56,
    pool2, block28, pool3, block14. Of `small` they hold the layers of Table 1 by their names. `act_<layer>` is the
    activation after a layer. `fc1`, `fc2`, `fc3` are in `classifier`.
    """

    def __init__(
        self,
        net: str,
        levels: list[int],
        width: float = 1.0,
        classes: int = 1000,
        depth: int = 0,
        activation: str = "channel-wise",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.width, self.activation, self._channels = width, activation, 3
        self.features = nn.Sequential()
        self._small(self.features, depth or 6) if net == "small" else self._large(self.features, net, depth)
        self.spp = SPP(levels)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential()
        size, hidden = self._channels * sum(n * n for n in levels), round(4096 * width)
        for i in (1, 2):
            self.classifier.add_module(f"fc{i}", nn.Linear(size, hidden))
            self.classifier.add_module(f"act_fc{i}", _activation(activation, hidden))
            self.classifier.add_module(f"drop{i}", nn.Dropout(dropout))
            size = hidden
        self.classifier.add_module("fc3", nn.Linear(hidden, classes))

    def _large(self, to: nn.Sequential, net: str, depth: int) -> None:
        """Table 3."""
        printed, channels = BLOCKS[net]
        self._add(to, "conv1", 96, 7, 2, 3)
        to.add_module("pool1", nn.MaxPool2d(2, 2))
        for i, (side, out) in enumerate(zip((56, 28, 14), channels, strict=True), 2):
            block = nn.Sequential()
            for j in range(1, (depth or printed) + 1):
                self._add(block, f"conv{i}_{j}", out, 3, 1, 1)
            to.add_module(f"block{side}", block)
            if side > 14:
                to.add_module(f"pool{i}", nn.MaxPool2d(2, 2))

    def _small(self, to: nn.Sequential, last: int) -> None:
        """Table 1, with `last` convolutions at the end: 6, or 22 in the 30-layer model of Section 2.2."""
        self._add(to, "conv1", 64, 7, 2, 0)
        to.add_module("pool1", nn.MaxPool2d(3, 3))
        for j in range(1, 5):
            self._add(to, f"conv2_{j}", 128, 2, 1, j % 2)
        to.add_module("pool2", nn.MaxPool2d(2, 2))
        for j in range(1, last + 1):
            self._add(to, f"conv3_{j}", 256, 2, 1, j % 2)

    def _add(self, to: nn.Sequential, name: str, out: int, side: int, stride: int, padding: int) -> None:
        out = max(1, round(out * self.width))
        to.add_module(name, nn.Conv2d(self._channels, out, side, stride, padding))
        to.add_module(f"act_{name}", _activation(self.activation, out))
        self._channels = out

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.flatten(self.spp(self.features(x))))
        return logits


def build(net: str, pyramid: str = "", **args: Any) -> PReLUNet:
    """A, B or C of Table 3, or the 14-layer model of Table 1, `small`; `depth` is the convolutions of a block."""
    if args.get("activation", "relu") not in ("channel-wise", "channel-shared", "relu"):
        raise ReproError(f"activation is channel-wise, channel-shared or relu, not {args['activation']}")
    levels = pyramid_levels(str(pyramid) or ("6-3-2-1" if net == "small" else "7-3-2-1"))
    return PReLUNet(net, levels, **args)
