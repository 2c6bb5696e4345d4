"""GoogLeNet: Szegedy et al., arXiv 1409.4842v1, Table 1, Figure 3 and Section 5.

Without batch normalisation, with local response normalisation where Figure 3 has it and two auxiliary
heads on 4a and 4d. No library holds that: torchvision's net has batch normalisation, no LRN, 3x3 in the
place of the 5x5 filters and another fourth pooling. Convolutions keep the size ("same" in Figure 3), and
poolings count a last window that hangs over, as the authors' contemporaries' Caffe did: 112, 56, 28, 14, 7.

Options: `module=naive` is Figure 2a, without 1x1 reductions and projections; `norm=batch` is the
BN-GoogLeNet of arXiv 1512.00567, Table 3; `filters=3x3` puts two 3x3 for each 5x5 (arXiv 1502.03167,
appendix); `multiplier=8` is the separable first layer of that appendix, 0 the full 7x7. `stride` is that of
the whole net, 32: at 16 or less the last of the strided layers keep their size, for images smaller than the
paper's. `depth` is the share of the modules of each stage that is kept, the last ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError
from .vgg import LRN

T = TypeVar("T")
NETS = ("googlenet",)
ARGS = (
    "aux",
    "classes",
    "depth",
    "dropout",
    "filters",
    "input",
    "module",
    "multiplier",
    "norm",
    "stride",
    "width",
)

# Table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
MODULES: dict[str, dict[str, tuple[int, int, int, int, int, int]]] = {
    "inception_3": {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64)},
    "inception_4": {
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
    },
    "inception_5": {"5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)},
}


class Conv(nn.Conv2d):
    """A convolution with batch normalisation, or with biases where `norm` is False, and its nonlinearity.

    `size` is the side of the filter or its height and width; unless `padding` says otherwise the map keeps
    its size at stride 1.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        norm: bool = False,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        same = (height // 2, width // 2) if padding is None else padding
        super().__init__(channels, out, (height, width), stride, same, groups=groups, bias=not norm)
        self.norm = nn.BatchNorm2d(out, eps=0.001) if norm else nn.Identity()
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(super().forward(x)))
        return out


def opening(out: int, stride: int, multiplier: int, norm: bool, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """The first layer, a 7x7 over the colours.

    With a `multiplier` it is separable: as many filters for each colour, and a 1x1 over all; one nonlinearity.
    """
    if not multiplier:
        return Conv(3, out, 7, stride, norm=norm, activation=activation)
    conv = nn.Sequential()
    conv.add_module("depthwise", nn.Conv2d(3, 3 * multiplier, 7, stride, 3, groups=3, bias=False))
    conv.add_module("pointwise", Conv(3 * multiplier, out, 1, norm=norm, activation=activation))
    return conv


class Inception(nn.Module):
    """An Inception module (Figure 2b, or 2a if `naive`). Input (N, channels, H, W); output (N, self.out, H, W)."""

    def __init__(
        self, channels: int, widths: tuple[int, ...], naive: bool = False, filters: str = "5x5", norm: bool = False
    ) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pool = widths
        self.conv1x1 = Conv(channels, one, 1, norm=norm)
        self.reduce3x3 = nn.Identity() if naive else Conv(channels, reduce3, 1, norm=norm)
        self.conv3x3 = Conv(channels if naive else reduce3, three, 3, norm=norm)
        self.reduce5x5 = nn.Identity() if naive else Conv(channels, reduce5, 1, norm=norm)
        before = channels if naive else reduce5
        self.conv5x5 = (
            Conv(before, five, 5, norm=norm)
            if filters == "5x5"
            else nn.Sequential(Conv(before, five, 3, norm=norm), Conv(five, five, 3, norm=norm))
        )
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.pool_proj = nn.Identity() if naive else Conv(channels, pool, 1, norm=norm)
        self.out = one + three + five + (channels if naive else pool)

    def forward(self, x: Tensor) -> Tensor:
        three, five = self.conv3x3(self.reduce3x3(x)), self.conv5x5(self.reduce5x5(x))
        return torch.cat([self.conv1x1(x), three, five, self.pool_proj(self.pool(x))], 1)


class Head(nn.Module):
    """An auxiliary classifier (Section 5). Input (N, channels, side, side); output (N, classes) of logits."""

    def __init__(self, channels: int, side: int, width: float, classes: int, norm: bool) -> None:
        super().__init__()
        size = min(5, side)
        self.pool = nn.AvgPool2d(size, 3)
        self.conv = Conv(channels, round(128 * width), 1, norm=norm)
        cells = ((side - size) // 3 + 1) ** 2
        self.fc = nn.Linear(round(128 * width) * cells, round(1024 * width))
        self.drop = nn.Dropout(0.7)
        self.logits = nn.Linear(round(1024 * width), classes)

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.fc(self.conv(self.pool(x)).flatten(1)))
        out: Tensor = self.logits(self.drop(features))
        return out


def kept(modules: Iterable[T], depth: float) -> list[T]:
    """The last of `modules`, the share `depth` of them, at least one."""
    listed = list(modules)
    return listed[-max(1, round(len(listed) * depth)) :]


class Strides:
    """The strides of a net's layers, 2 until the net's own, `stride`, is used up; `side` is that of the map so far."""

    def __init__(self, side: int, stride: int) -> None:
        self.side, self._left = side, stride

    def step(self) -> int:
        """The stride of the next strided layer."""
        now = 2 if self._left > 1 else 1
        self.side, self._left = -(-self.side // now), self._left // 2
        return now

    def pool(self) -> nn.MaxPool2d:
        """The next 3x3 pooling, over the edge where it is strided."""
        now = self.step()
        return nn.MaxPool2d(3, now, 0 if now == 2 else 1, ceil_mode=True)


class GoogLeNet(nn.Module):
    """GoogLeNet. Input (N, 3, input, input); output (N, classes) of logits, and in training those of the heads too.

    `aux` is `train` for heads that run in training alone, `always`, or `none`. A larger image is seen by
    the average pooling window by window, and the windows are averaged.
    """

    inception_3: nn.Sequential
    inception_4: nn.Sequential
    inception_5: nn.Sequential
    pool3: nn.MaxPool2d
    pool4: nn.MaxPool2d

    def __init__(
        self,
        width: float = 1.0,
        depth: float = 1.0,
        input: int = 224,
        classes: int = 1000,
        stride: int = 32,
        dropout: float = 0.4,
        aux: str = "train",
        module: str = "reduced",
        filters: str = "5x5",
        norm: str = "lrn",
        multiplier: int = 0,
    ) -> None:
        super().__init__()
        batch, self.aux, strides = norm == "batch", aux, Strides(input, stride)
        given = {"aux": aux, "module": module, "filters": filters, "norm": norm}
        for name, known in CHOICES.items():
            if given[name] not in known:
                raise ReproError(f"{name} is {' or '.join(known)}, not {given[name]}")

        first, second = round(64 * width), round(192 * width)
        self.conv1 = opening(first, strides.step(), multiplier, batch)
        self.pool1 = strides.pool()
        self.norm1 = nn.Identity() if batch else LRN()
        self.conv2 = nn.Sequential()
        if module != "naive":
            self.conv2.add_module("reduce3x3", Conv(first, first, 1, norm=batch))
        self.conv2.add_module("conv3x3", Conv(first, second, 3, norm=batch))
        self.norm2 = nn.Identity() if batch else LRN()
        self.pool2 = strides.pool()
        channels = second
        for stage, modules in MODULES.items():
            part = nn.Sequential()
            names = kept(modules, depth)
            for i, name in enumerate(names):
                widths = tuple(round(v * width) for v in modules[name])
                block = Inception(channels, widths, module == "naive", filters, batch)
                channels = block.out
                part.add_module(f"inception_{name}", block)
                if stage == "inception_4" and aux != "none":
                    if i == 0:
                        self.aux1 = Head(channels, strides.side, width, classes, batch)
                    if i == max(0, len(names) - 2):
                        self.aux2 = Head(channels, strides.side, width, classes, batch)
            self.add_module(stage, part)
            if stage != "inception_5":
                self.add_module(f"pool{stage[-1]}", strides.pool())
        self.avg_pool = nn.AvgPool2d(strides.side, 1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = self.norm1(self.pool1(self.conv1(x)))
        x = self.pool2(self.norm2(self.conv2(x)))
        x = self.pool3(self.inception_3(x))
        taps = []
        for block in self.inception_4:
            taps.append(x := block(x))
        x = self.inception_5(self.pool4(x))
        logits: Tensor = self.linear(self.dropout(self.avg_pool(x).mean((2, 3))))
        if self.aux == "none" or (self.aux == "train" and not self.training):
            return logits
        return logits, self.aux1(taps[0]), self.aux2(taps[max(0, len(taps) - 2)])


CHOICES = {
    "aux": ("train", "always", "none"),
    "module": ("reduced", "naive"),
    "filters": ("5x5", "3x3"),
    "norm": ("lrn", "batch"),
}


def build(net: str, **args: float | str) -> GoogLeNet:
    """GoogLeNet of Table 1 with the options that the docstring of this module names."""
    return GoogLeNet(**args)  # type: ignore[arg-type]
