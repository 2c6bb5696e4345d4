"""MobileNet and ShuffleNet, which SENet puts its blocks into.

Howard et al., arXiv 1704.04861, Table 1; Zhang et al., arXiv 1707.01083, Table 1, one times the width, 3 groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import resnet


class Shuffle(nn.Module):
    """A ShuffleNet unit: a bottleneck of grouped 1x1, shuffle, depthwise 3x3, grouped 1x1. Stride 2 concatenates."""

    def __init__(self, channels: int, out: int, stride: int, groups: int = 3, first: int = 3) -> None:
        super().__init__()
        grow, middle = (out - channels if stride > 1 else out), max(groups, out // 4 // groups * groups)
        self.groups, self.stride = groups, stride
        self.conv1 = nn.Conv2d(channels, middle, 1, groups=first, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, grow, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(grow)
        self.shortcut = nn.AvgPool2d(3, stride, 1) if stride > 1 else nn.Identity()

    def branch(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        n, c, h, w = x.shape
        x = x.reshape(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        out: Tensor = self.bn3(self.conv3(self.bn2(self.conv2(x))))
        return out

    def join(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        return F.relu(torch.cat([shortcut, branch], 1) if self.stride > 1 else branch + shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.branch(x), self.shortcut(x))


def convolution(channels: int, out: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution, its normalisation and its ReLU."""
    conv = nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.ReLU()]


def mobilenet(blocks: int | str | None, width: float, classes: int) -> nn.Sequential:
    """MobileNet, its separable convolutions in `stage1` to `stage5` by the size of the map, 112 to 7."""
    channels, net = round(32 * width), nn.Sequential()
    net.add_module("conv1", nn.Sequential(*convolution(3, channels, 3, 2)))
    counts = (1, *resnet.depths("18", blocks)) if blocks else (1, 2, 2, 6, 2)
    for number, count in enumerate(counts, 1):
        stage = nn.Sequential()
        for i in range(count):
            out = round(min(64 * 2 ** (number - 1), 1024) * width)
            stride = 2 if number > 1 and not i else 1
            layers = convolution(channels, channels, 3, stride, channels) + convolution(channels, out, 1)
            stage.add_module(str(i + 1), nn.Sequential(*layers))
            channels = out
        net.add_module(f"stage{number}", stage)
    return head(net, channels, classes)


def shufflenet(blocks: int | str | None, width: float, classes: int) -> nn.Sequential:
    """ShuffleNet, its units in `stage2` to `stage4`; the first unit's first convolution is not grouped."""
    channels, net = max(3, round(8 * width) * 3), nn.Sequential()
    net.add_module("conv1", nn.Sequential(*convolution(3, channels, 3, 2)))
    net.add_module("pool1", nn.MaxPool2d(3, 2, 1))
    counts = resnet.depths("cifar-20", blocks) if blocks else (4, 8, 4)
    for number, count in enumerate(counts, 2):
        stage, out = nn.Sequential(), 12 * max(1, round(20 * width)) * 2 ** (number - 2)
        for i in range(count):
            first = 1 if number == 2 and not i else 3
            stage.add_module(str(i + 1), Shuffle(channels, out, 1 if i else 2, first=first))
            channels = out
        net.add_module(f"stage{number}", stage)
    return head(net, channels, classes)


def head(net: nn.Sequential, channels: int, classes: int) -> nn.Sequential:
    """`net` with the mean over its map and a fully connected layer."""
    for name, layer in (("average_pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())):
        net.add_module(name, layer)
    net.add_module("fc", nn.Linear(channels, classes))
    return net
