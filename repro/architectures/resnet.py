"""ResNets and their plain twins: He et al., arXiv 1512.03385, Table 1, Figure 3, Sections 3.3, 4.1 and 4.2.

`18` to `152` are the nets for ImageNet, `plain-18` and `plain-34` the same without shortcuts; `cifar-20` to
`cifar-1202` and `cifar-plain-20` to `cifar-plain-110` those of Section 4.2, 6n + 2 layers deep. Bottlenecks have
their stride in the first 1x1, as published; `stride=3x3` is the later variant (v1.5) that libraries hold.
Shortcut options (Section 4.1): A, padding with zeros wherever shapes change; B, projections there; C, projections
everywhere. Without a word it is B on ImageNet and A on CIFAR, as in the paper's results.

A block is `join(branch(x), shortcut(x))`: the ReLU of a sum. Other modules wrap blocks by these three.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError

NETS = (
    "18", "34", "50", "101", "152", "plain-18", "plain-34",
    "cifar-20", "cifar-32", "cifar-44", "cifar-56", "cifar-110", "cifar-1202",
    "cifar-plain-20", "cifar-plain-32", "cifar-plain-44", "cifar-plain-56", "cifar-plain-110",
)  # fmt: skip
ARGS = ("blocks", "classes", "option", "stride", "width")

# Table 1: blocks of conv2_x to conv5_x.
STAGES: dict[str, tuple[int, ...]] = {
    "18": (2, 2, 2, 2),
    "34": (3, 4, 6, 3),
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
}


class Pad(nn.Module):
    """Option A: the identity, subsampled by `stride`, with channels of zeros behind it. (N, C, H, W)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.more, self.step = out - channels, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.step, :: self.step], (0, 0, 0, 0, 0, self.more))


def projection(channels: int, out: int, stride: int) -> nn.Sequential:
    """Options B and C: a 1x1 convolution and its normalisation."""
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


def shortcut(option: str, channels: int, out: int, stride: int) -> nn.Module:
    """The shortcut of a block from `channels` to `out`; of a plain net (option "none") there is none."""
    if option == "none" or (option in "AB" and channels == out and stride == 1):
        return nn.Identity()
    return Pad(channels, out, stride) if option == "A" else projection(channels, out, stride)


class Basic(nn.Module):
    """Two 3x3 convolutions (Figure 5, left). From (N, channels, H, W) to (N, out, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, channels: int, middle: int, stride: int, option: str = "A", first: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, middle, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.plain = option == "none"
        self.shortcut = shortcut(option, channels, middle, stride)

    def branch(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.bn2(self.conv2(x))
        return out

    def join(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        return F.relu(branch + shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x)) if self.plain else self.join(self.branch(x), self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with four times the channels (Figure 5, right); `first`: the stride is in the first 1x1.

    `out` and `groups` are for nets that are built from it, where they are not those of this paper.
    """

    expansion = 4

    def __init__(
        self,
        channels: int,
        middle: int,
        stride: int,
        option: str = "B",
        first: bool = True,
        groups: int = 1,
        out: int | None = None,
    ) -> None:
        super().__init__()
        out = out or middle * self.expansion
        self.conv1 = nn.Conv2d(channels, middle, 1, stride if first else 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, 1 if first else stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.shortcut = shortcut(option, channels, out, stride)

    def branch(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        out: Tensor = self.bn3(self.conv3(x))
        return out

    def join(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        return F.relu(branch + shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.branch(x), self.shortcut(x))


# channels in, channels of the 3x3 convolutions, stride -> block
Make = Callable[[int, int, int], nn.Module]


class ResNet(nn.Module):
    """A net of Table 1: `conv1`, `bn1`, `pool1`, `conv2_x` to `conv5_x`, `average_pool`, `fc`.

    Input (N, 3, H, W), output (N, classes) of logits. With three stages it is a net of Section 4.2, `conv2_x` to
    `conv4_x` behind a 3x3 convolution, without `pool1`. `make` gives the blocks, `expansion` how many times the
    channels of their 3x3 convolutions they give out.
    """

    def __init__(
        self, make: Make, stages: tuple[int, ...], expansion: int = 1, width: float = 1.0, classes: int = 1000
    ) -> None:
        super().__init__()
        small = len(stages) == 3
        middle = max(1, round((16 if small else 64) * width))
        self.conv1 = nn.Conv2d(3, middle, 3, 1, 1, bias=False) if small else nn.Conv2d(3, middle, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool1 = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        channels = middle
        for i, count in enumerate(stages):
            stage = nn.Sequential()
            for j in range(count):
                stage.add_module(str(j + 1), make(channels, middle, 2 if i and not j else 1))
                channels = middle * expansion
            self.add_module(f"conv{i + 2}_x", stage)
            middle *= 2
        self.stages = [f"conv{i + 2}_x" for i in range(len(stages))]
        self.average_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool1(self.relu1(self.bn1(self.conv1(x))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name in self.stages:
            x = getattr(self, name)(x)
        logits: Tensor = self.fc(self.average_pool(x).flatten(1))
        return logits


def depths(net: str, blocks: int | str | None = None) -> tuple[int, ...]:
    """How many blocks each stage of `net` has; `blocks` is 2 for two in each, or "3-4-6-3"."""
    depth = int(net.rpartition("-")[2])
    stages = (depth // 6,) * 3 if net.startswith("cifar") else STAGES[str(depth)]
    if blocks is None:
        return stages
    own = tuple(int(n) for n in str(blocks).split("-"))
    own = own * len(stages) if len(own) == 1 else own
    if len(own) != len(stages) or min(own) < 1:
        raise ReproError(f"blocks is a number, or {len(stages)} joined by '-', not {blocks}")
    return own


def build(
    net: str,
    option: str | None = None,
    stride: str = "1x1",
    blocks: int | str | None = None,
    width: float = 1.0,
    classes: int | None = None,
) -> ResNet:
    """Net `net` with shortcuts by `option` (A, B, C); `stride` says which layer of a bottleneck strides, 1x1 or 3x3."""
    small = net.startswith("cifar")
    option = option or ("A" if small else "B")
    if option not in ("A", "B", "C") or stride not in ("1x1", "3x3"):
        raise ReproError(f"option is A, B or C and stride 1x1 or 3x3, not {option} and {stride}")
    option = "none" if "plain" in net else option
    block = Bottleneck if net in ("50", "101", "152") else Basic
    return ResNet(
        lambda channels, middle, step: block(channels, middle, step, option, stride == "1x1"),
        depths(net, blocks),
        block.expansion,
        width,
        classes or (10 if small else 1000),
    )
