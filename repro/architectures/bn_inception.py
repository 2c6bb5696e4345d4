"""BN-Inception: Ioffe & Szegedy, arXiv 1502.03167v3, Figure 5, its appendix and Section 4.2.

GoogLeNet with two 3x3 for each 5x5, a third module at 28x28, average or maximum pooling inside the modules,
and the strides inside 3c and 4e in the place of poolings between. The first convolution (`*` in Figure 5) is
separable with depth multiplier 8, as the appendix says; `multiplier=0` is the full 7x7. Widths are those of
Figure 5: 4c and 4d then have 608 channels, not the 576 that it prints, and 4e has 1056. No library holds it.

`inception` is the net that Figure 3 calls Inception, with local response normalisation and 40 % dropout, and
`bn-inception` has batch normalisation before each nonlinearity and neither of the two; `activation=sigmoid` is
BN-x5-Sigmoid. `double=5x5` puts back one 5x5 for each two 3x3. `stride` is that of the whole net and `depth`
the share of the modules of each stage that is kept, the last ones, as in `googlenet`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ReproError
from .googlenet import Conv, Strides, kept, opening
from .vgg import LRN

NETS = ("bn-inception", "inception")
ARGS = ("activation", "classes", "depth", "double", "dropout", "input", "multiplier", "stride", "width")

# Figure 5: #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double #3x3, pool, proj (0: pass through, at stride 2).
MODULES: dict[str, dict[str, tuple[int, int, int, int, int, str, int]]] = {
    "inception_3": {
        "3a": (64, 64, 64, 64, 96, "avg", 32),
        "3b": (64, 64, 96, 64, 96, "avg", 64),
        "3c": (0, 128, 160, 64, 96, "max", 0),
    },
    "inception_4": {
        "4a": (224, 64, 96, 96, 128, "avg", 128),
        "4b": (192, 96, 128, 96, 128, "avg", 128),
        "4c": (160, 128, 160, 128, 160, "avg", 128),
        "4d": (96, 128, 192, 160, 192, "avg", 128),
        "4e": (0, 128, 192, 192, 256, "max", 0),
    },
    "inception_5": {"5a": (352, 192, 320, 160, 224, "avg", 128), "5b": (352, 192, 320, 192, 224, "max", 128)},
}
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}


class Inception(nn.Module):
    """A module of Figure 5. Input (N, channels, H, W); output (N, self.out, H / stride, W / stride).

    Without a projection the pooling passes its input through. The pooling's own branch is `avg_proj` or
    `max_proj`, by its kind.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        pool: str,
        stride: int,
        double: str,
        norm: bool,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        one, reduce, three, reduce_double, two, proj = widths

        def conv(before: int, out: int, size: int, stride: int = 1) -> Conv:
            return Conv(before, out, size, stride, norm=norm, activation=activation)

        self.branches: list[list[str]] = []
        if one:
            self.conv1x1 = conv(channels, one, 1)
            self.branches.append(["conv1x1"])
        self.reduce3x3 = conv(channels, reduce, 1)
        self.conv3x3 = conv(reduce, three, 3, stride)
        self.branches.append(["reduce3x3", "conv3x3"])
        self.reduce_double = conv(channels, reduce_double, 1)
        self.double3x3 = (
            nn.Sequential(conv(reduce_double, two, 3), conv(two, two, 3, stride))
            if double == "3x3"
            else conv(reduce_double, two, 5, stride)
        )
        self.branches.append(["reduce_double", "double3x3"])
        self.pool = nn.AvgPool2d(3, stride, 1) if pool == "avg" else nn.MaxPool2d(3, stride, 1)
        self.branches.append(["pool"])
        if proj:
            self.add_module(f"{pool}_proj", conv(channels, proj, 1))
            self.branches[-1].append(f"{pool}_proj")
        self.out = one + three + two + (proj or channels)

    def forward(self, x: Tensor) -> Tensor:
        outs = []
        for branch in self.branches:
            out = x
            for name in branch:
                out = self.get_submodule(name)(out)
            outs.append(out)
        return torch.cat(outs, 1)


class BNInception(nn.Module):
    """The net of Figure 5. Input (N, 3, input, input); output (N, classes) of logits.

    A larger image is seen by the average pooling window by window, and the windows are averaged.
    """

    inception_3: nn.Sequential
    inception_4: nn.Sequential
    inception_5: nn.Sequential

    def __init__(
        self,
        norm: bool = True,
        width: float = 1.0,
        depth: float = 1.0,
        input: int = 224,
        classes: int = 1000,
        stride: int = 32,
        dropout: float = 0.0,
        activation: str = "relu",
        double: str = "3x3",
        multiplier: int = 8,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS or double not in ("3x3", "5x5"):
            raise ReproError(f"activation is {' or '.join(ACTIVATIONS)}, double 3x3 or 5x5; not {activation}, {double}")
        strides, act = Strides(input, stride), ACTIVATIONS[activation]

        first, second = round(64 * width), round(192 * width)
        self.conv1 = opening(first, strides.step(), multiplier, norm, act)
        self.pool1 = strides.pool()
        self.norm1 = nn.Identity() if norm else LRN()
        self.conv2 = nn.Sequential()
        self.conv2.add_module("reduce3x3", Conv(first, first, 1, norm=norm, activation=act))
        self.conv2.add_module("conv3x3", Conv(first, second, 3, norm=norm, activation=act))
        self.norm2 = nn.Identity() if norm else LRN()
        self.pool2 = strides.pool()
        channels = second
        for stage, modules in MODULES.items():
            part = nn.Sequential()
            for name in kept(modules, depth):
                *widths, kind, proj = modules[name]
                scaled = tuple(round(int(v) * width) for v in (*widths, proj))
                block = Inception(channels, scaled, kind, 1 if proj else strides.step(), double, norm, act)
                channels = block.out
                part.add_module(f"inception_{name}", block)
            self.add_module(stage, part)
        self.avg_pool = nn.AvgPool2d(strides.side, 1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.pool1(self.conv1(x)))
        x = self.pool2(self.norm2(self.conv2(x)))
        x = self.inception_5(self.inception_4(self.inception_3(x)))
        logits: Tensor = self.linear(self.dropout(self.avg_pool(x).mean((2, 3))))
        return logits


def build(net: str, **args: float | str) -> BNInception:
    """`bn-inception` or `inception` of Section 4.2 with the options that the docstring of this module names."""
    if net == "inception":
        args = {"dropout": 0.4, **args}
    return BNInception(net == "bn-inception", **args)  # type: ignore[arg-type]
