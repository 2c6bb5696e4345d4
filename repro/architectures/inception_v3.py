"""Inception-v2 and v3: Szegedy et al., arXiv 1512.00567v3, Table 1, Sections 3 to 6 and 9.

`table1` is the net as Table 1 outlines it: six convolutions and a pooling (conv3 is marked as padded; conv7
has to be too, or 35 would not stay 35), 3, 5 and 2 modules as in Figures 5 to 7, and reductions as in
Figure 10 between them. The filter banks inside the modules are in a file of the submission, not in the
paper: those of the net that the authors released are taken. `v3` is that released net, which timm and torchvision
hold too: five convolutions, two poolings, a 5x5 in the first modules, and four modules at 17x17.

Options: `stem=7x7` is the net before "Factorized 7x7" of Table 3, one 7x7 of stride 2 for the first three
convolutions. `first=1` and `pool=no` are the nets of Section 9 for inputs of 151 and 79 (without the first
stride, without the first pooling). `aux` is the number of units of the head on the last 17x17 layer
(Figure 8: 1024; the released net has 768), 0 for none; it runs in training alone, and `aux_norm=no` is the net
before "BN-auxiliary". `depth` is the share of the modules of each stage that is kept, the last ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ReproError
from .googlenet import Conv, kept

NETS = ("table1", "v3")
ARGS = ("aux", "aux_norm", "classes", "depth", "dropout", "first", "input", "pool", "stem", "width")

# The widths of the 1x7 and 7x1 inside the modules at 17x17; Table 1 has a fifth, for which the last is taken.
SEVENS = {"v3": (128, 160, 160, 192), "table1": (128, 160, 160, 192, 192)}


def conv(
    channels: int, out: int, size: int | tuple[int, int], stride: int = 1, padding: int | tuple[int, int] | None = None
) -> Conv:
    """A convolution with batch normalisation; strided ones are not padded."""
    return Conv(channels, out, size, stride, 0 if padding is None and stride > 1 else padding, norm=True)


class Branches(nn.Module):
    """Branches beside each other, concatenated. Input (N, channels, H, W); output (N, channels, H', W')."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


def outputs(branch: nn.Module, channels: int) -> int:
    """The channels that a branch gives out when it is given `channels`."""
    if isinstance(branch, Branches):
        return sum(outputs(child, channels) for child in branch.children())
    if isinstance(branch, nn.Sequential):
        return outputs(branch[-1], channels if len(branch) == 1 else outputs(branch[:-1], channels))
    return branch.out_channels if isinstance(branch, nn.Conv2d) else channels


def pooled(channels: int, out: int) -> nn.Sequential:
    """Average pooling that keeps the size, and a 1x1."""
    return nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(channels, out, 1))


def figure5(c: int, proj: int, side: int, k: float) -> Branches:
    """The modules at 35x35; `side` of the single filter is 3 in Figure 5, 5 in the released net."""
    a, b, d = round(64 * k), round(48 * k), round(96 * k)
    return Branches(
        conv1x1=conv(c, a, 1),
        single=nn.Sequential(conv(c, b, 1), conv(b, a, side)),
        deep=nn.Sequential(conv(c, a, 1), conv(a, d, 3), conv(d, d, 3)),
        pool=pooled(c, round(proj * k)),
    )


def figure6(c: int, seven: int, k: float) -> Branches:
    """The modules at 17x17: each nxn as 1xn and nx1, with n = 7."""
    s, o = round(seven * k), round(192 * k)
    return Branches(
        conv1x1=conv(c, o, 1),
        single=nn.Sequential(conv(c, s, 1), conv(s, s, (1, 7)), conv(s, o, (7, 1))),
        deep=nn.Sequential(
            conv(c, s, 1), conv(s, s, (7, 1)), conv(s, s, (1, 7)), conv(s, s, (7, 1)), conv(s, o, (1, 7))
        ),
        pool=pooled(c, o),
    )


def figure7(c: int, k: float) -> Branches:
    """The modules at 8x8, with expanded filter banks: 1x3 and 3x1 beside each other."""
    a, b, d, p = round(320 * k), round(384 * k), round(448 * k), round(192 * k)

    def both() -> Branches:
        return Branches(conv1x3=conv(b, b, (1, 3)), conv3x1=conv(b, b, (3, 1)))

    return Branches(
        conv1x1=conv(c, a, 1),
        single=nn.Sequential(conv(c, b, 1), both()),
        deep=nn.Sequential(conv(c, d, 1), conv(d, b, 3), both()),
        pool=pooled(c, p),
    )


def reduction17(c: int, k: float) -> Branches:
    """35x35 to 17x17, as in Figure 10 without the 1x1 before the single 3x3."""
    a, b, d = round(384 * k), round(64 * k), round(96 * k)
    deep = nn.Sequential(conv(c, b, 1), conv(b, d, 3), conv(d, d, 3, 2))
    return Branches(single=conv(c, a, 3, 2), deep=deep, pool=nn.MaxPool2d(3, 2))


def reduction8(c: int, k: float) -> Branches:
    """17x17 to 8x8, as in Figure 10 with 1x7 and 7x1 for the first of two 3x3."""
    a, b = round(192 * k), round(320 * k)
    deep = nn.Sequential(conv(c, a, 1), conv(a, a, (1, 7)), conv(a, a, (7, 1)), conv(a, a, 3, 2))
    single = nn.Sequential(conv(c, a, 1), conv(a, b, 3, 2))
    return Branches(single=single, deep=deep, pool=nn.MaxPool2d(3, 2))


class Head(nn.Module):
    """The auxiliary classifier of Figure 8. Input (N, channels, side, side); output (N, classes) of logits."""

    def __init__(self, channels: int, between: int, units: int, side: int, classes: int, norm: bool) -> None:
        super().__init__()
        size = min(5, side)
        self.pool = nn.AvgPool2d(size, 3)
        self.conv = conv(channels, between, 1)
        self.fc = Conv(between, units, (side - size) // 3 + 1, padding=0, norm=norm)
        self.logits = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.logits(self.fc(self.conv(self.pool(x))).flatten(1))
        return out


class InceptionV3(nn.Module):
    """An Inception-v3. Input (N, 3, input, input); output (N, classes) of logits, and in training the head's too.

    A larger image is seen by the average pooling window by window, and the windows are averaged.
    """

    def __init__(
        self,
        net: str,
        width: float = 1.0,
        depth: float = 1.0,
        input: int = 299,
        classes: int = 1000,
        dropout: float = 0.5,
        aux: int = 1024,
        aux_norm: str = "yes",
        stem: str = "3x3",
        first: int = 2,
        pool: str = "yes",
    ) -> None:
        super().__init__()
        if stem not in ("3x3", "7x7") or first not in (1, 2) or pool not in ("yes", "no"):
            raise ReproError(f"stem is 3x3 or 7x7, first 1 or 2, pool yes or no; not {stem}, {first}, {pool}")
        table1, a, b, c, d = net == "table1", *(round(v * width) for v in (32, 64, 80, 192))
        self.stem = nn.Sequential()
        if stem == "3x3":
            self.stem.add_module("conv1", conv(3, a, 3, first, 0))
            self.stem.add_module("conv2", conv(a, a, 3, padding=0))
            self.stem.add_module("conv3", conv(a, b, 3))
        else:
            self.stem.add_module("conv1", conv(3, b, 7, first, 0))
        if pool == "yes":
            self.stem.add_module("pool4", nn.MaxPool2d(3, 2))
        self.stem.add_module("conv5", conv(b, c, 3, padding=0) if table1 else conv(b, c, 1))
        self.stem.add_module("conv6", conv(c, d, 3, 2) if table1 else conv(c, d, 3, padding=0))
        self.stem.add_module("conv7" if table1 else "pool7", conv(d, d * 3 // 2, 3) if table1 else nn.MaxPool2d(3, 2))
        channels, side = d * 3 // 2 if table1 else d, input
        for layer in self.stem:
            square = (getattr(layer, name) for name in ("kernel_size", "stride", "padding"))
            size, stride, padding = (v if isinstance(v, int) else v[0] for v in square)
            side = (side + 2 * padding - size) // stride + 1
        self.inception_35 = nn.Sequential()
        for proj in kept((64, 64, 64) if table1 else (32, 64, 64), depth):
            self.inception_35.append(figure5(channels, proj, 3 if table1 else 5, width))
            channels = outputs(self.inception_35, channels)
        self.reduction_17 = reduction17(channels, width)
        channels, side = outputs(self.reduction_17, channels), (side - 3) // 2 + 1
        self.inception_17 = nn.Sequential()
        for seven in kept(SEVENS[net], depth):
            self.inception_17.append(figure6(channels, seven, width))
            channels = outputs(self.inception_17, channels)
        if aux:
            units = round(128 * width), round(aux * width)
            self.aux1 = Head(channels, *units, side, classes, aux_norm == "yes")
        self.reduction_8 = reduction8(channels, width)
        channels, side = outputs(self.reduction_8, channels), (side - 3) // 2 + 1
        self.inception_8 = nn.Sequential()
        for _ in kept((1, 2), depth):
            self.inception_8.append(figure7(channels, width))
            channels = outputs(self.inception_8, channels)
        self.avg_pool = nn.AvgPool2d(side, 1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = grid = self.inception_17(self.reduction_17(self.inception_35(self.stem(x))))
        x = self.inception_8(self.reduction_8(x))
        logits: Tensor = self.linear(self.dropout(self.avg_pool(x).mean((2, 3))))
        return (logits, self.aux1(grid)) if self.training and hasattr(self, "aux1") else logits


def build(net: str, **args: float | str) -> InceptionV3:
    """`table1` or `v3` with the options that the docstring of this module names."""
    return InceptionV3(net, **args)  # type: ignore[arg-type]
