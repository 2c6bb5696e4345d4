"""Residual Attention Network: Wang et al., arXiv 1704.06904, Section 3, Figure 2 and Table 2.

`56` and `92` are the ImageNet nets of Table 2 in pre-activation units, `NeXt-56` has ResNeXt units (32 groups,
Table 7); what the table leaves open (pooling, skip connections of the mask) is as in the authors' released
descriptions. The `cifar-` nets of Section 4.1 have three stages of m modules and two residual units each,
36m + 20 layers in the trunk; their widths, which the paper does not print, are those of ResNet-164.

Options: `attention` is `residual` (ARL: (1 + M) T), `naive` (NAL: M T, Table 3) or `no`, the trunk alone;
`activation` of the mask is `mixed`, `channel` or `spatial` (Table 1); `mask=local` keeps as many units in the
mask at one resolution (Table 4); `p`, `t`, `r` count the units of Figure 2.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError

NETS = ("56", "92", "NeXt-56", "cifar-56", "cifar-92", "cifar-128", "cifar-164", "cifar-236", "cifar-452")
ARGS = ("activation", "attention", "classes", "mask", "modules", "p", "r", "t", "units", "width")

# Modules of each stage (Table 2); for CIFAR the same number in all three (Section 4.1).
MODULES = {
    "56": [1, 1, 1],
    "92": [1, 2, 3],
    "NeXt-56": [1, 1, 1],
    "cifar-56": [1, 1, 1],
    "cifar-92": [2, 2, 2],
    "cifar-128": [3, 3, 3],
    "cifar-164": [4, 4, 4],
    "cifar-236": [6, 6, 6],
    "cifar-452": [6, 6, 6],
}
MASKS = ("encoder-decoder", "local")
ATTENTIONS = ("residual", "naive", "no")
ACTIVATIONS = ("mixed", "channel", "spatial")


def norm(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


class Unit(nn.Module):
    """Pre-activation bottleneck of widths c, c, 4c; where the size changes, the shortcut too is pre-activated."""

    grouped = False

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        c = out // 4
        self.norm = nn.Sequential(*norm(channels))
        self.conv1 = nn.Conv2d(channels, c, 1, bias=False)
        self.norm1 = nn.Sequential(*norm(c))
        self.conv2 = nn.Conv2d(c, c, 3, stride, 1, bias=False)
        self.norm2 = nn.Sequential(*norm(c))
        self.conv3 = nn.Conv2d(c, out, 1, bias=False)
        same = stride == 1 and channels == out
        self.shortcut = None if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm(x)
        out: Tensor = self.conv3(self.norm2(self.conv2(self.norm1(self.conv1(a)))))
        return out + (x if self.shortcut is None else self.shortcut(a))


class NeXtUnit(nn.Module):
    """ResNeXt bottleneck of widths 2c, 2c in 32 groups, 4c, activated after the sum."""

    grouped = True

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        c = out // 2
        self.conv1 = nn.Conv2d(channels, c, 1, bias=False)
        self.norm1 = nn.Sequential(*norm(c))
        self.conv2 = nn.Conv2d(c, c, 3, stride, 1, groups=32, bias=False)
        self.norm2 = nn.Sequential(*norm(c))
        self.conv3 = nn.Conv2d(c, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)
        self.shortcut = None
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm3(self.conv3(self.norm2(self.conv2(self.norm1(self.conv1(x))))))
        total: Tensor = out + (x if self.shortcut is None else self.shortcut(x))
        return total.relu()


Kind = type[Unit] | type[NeXtUnit]


def stack(unit: Kind, channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(unit(channels, channels) for _ in range(count)))


class Mask(nn.Module):
    """The soft mask branch: `depth` poolings down, as many interpolations up, two 1x1 convolutions, activation.

    r units follow each pooling, 2r the last; a unit joins each resolution on the way down to the same on the
    way up, where r units follow the sum. Input and output (N, channels, H, W).
    """

    def __init__(self, unit: Kind, channels: int, depth: int, r: int, mask: str, activation: str) -> None:
        super().__init__()
        self.local, self.activation = mask == "local", activation
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.down = nn.ModuleList(stack(unit, channels, r if i < depth - 1 else 2 * r) for i in range(depth))
        self.skip = nn.ModuleList(unit(channels, channels) for _ in range(depth - 1))
        self.up = nn.ModuleList(stack(unit, channels, r) for _ in range(depth - 1))
        before = [] if unit.grouped else norm(channels)
        self.linear = nn.Sequential(*before, nn.Conv2d(channels, channels, 1, bias=False), *norm(channels))
        self.linear.append(nn.Conv2d(channels, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        if self.local:
            for units in [*self.down, *self.skip, *self.up]:
                x = units(x)
        else:
            x = self.nested(x, 0)
        x = self.linear(x)
        if self.activation == "channel":
            return F.normalize(x, dim=1)
        if self.activation == "spatial":
            x = F.instance_norm(x)
        return x.sigmoid()

    def nested(self, x: Tensor, level: int) -> Tensor:
        """`x` by way of its half size, where the next level does the same."""
        half = self.down[level](self.pool(x))
        if level < len(self.skip):
            half = self.up[level](self.skip[level](half) + self.nested(half, level + 1))
        return F.interpolate(half, size=x.shape[2:], mode="bilinear", align_corners=True)


class Attention(nn.Module):
    """An attention module: p units, the trunk of t units weighted by the mask, p units."""

    def __init__(
        self,
        unit: Kind,
        channels: int,
        depth: int,
        ptr: tuple[int, int, int],
        attention: str,
        mask: str,
        activation: str,
    ) -> None:
        super().__init__()
        p, t, r = ptr
        self.naive = attention == "naive"
        self.before = stack(unit, channels, p)
        self.trunk = stack(unit, channels, t)
        self.mask = None if attention == "no" else Mask(unit, channels, depth, r, mask, activation)
        self.after = stack(unit, channels, p)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        trunk = self.trunk(x)
        if self.mask is not None:
            weights = self.mask(x)
            trunk = weights * trunk if self.naive else (1 + weights) * trunk
        out: Tensor = self.after(trunk)
        return out


class ResidualAttention(nn.Module):
    """A residual attention network. Input (N, 3, 224, 224), for CIFAR (N, 3, 32, 32); output (N, classes).

    Children: `conv1`, for ImageNet `pool1`, then `res1` (residual units), `attention1` (modules), ..., `fc`.
    """

    def __init__(
        self,
        unit: Kind,
        first: int,
        channels: list[int],
        units: list[int],
        modules: list[int],
        imagenet: bool,
        classes: int,
        options: dict[str, str],
        ptr: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.body = nn.Sequential()
        conv = nn.Conv2d(3, first, 7, 2, 3, bias=False) if imagenet else nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.body.add_module("conv1", conv)
        if imagenet:
            self.body.add_module("norm1", nn.Sequential(*norm(first)))
            self.body.add_module("pool1", nn.MaxPool2d(3, 2, ceil_mode=True))
        for i, (out, count) in enumerate(zip(channels, units, strict=True), 1):
            start = unit(first, out, stride=1 if i == 1 else 2)
            self.body.add_module(f"res{i}", nn.Sequential(start, *stack(unit, out, count - 1)))
            if i <= len(modules):
                depth = 4 - i  # down to 7x7 from 56x56, 28x28, 14x14; to 4x4 on CIFAR
                stage = [Attention(unit, out, depth, ptr, **options) for _ in range(modules[i - 1])]
                self.body.add_module(f"attention{i}", nn.Sequential(*stage))
            first = out
        if not unit.grouped:
            self.body.add_module("norm", nn.Sequential(*norm(first)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(first, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.body(x)).flatten(1))
        return logits


def build(
    net: str,
    width: float = 1.0,
    classes: int = 0,
    modules: int = 0,
    units: int = 0,
    p: int = 0,
    t: int = 0,
    r: int = 0,
    attention: str = "residual",
    mask: str = "encoder-decoder",
    activation: str = "mixed",
) -> ResidualAttention:
    """Net `net`; `modules` and `units` stand for the number in each stage, in place of the net's own."""
    options = {"attention": attention, "mask": mask, "activation": activation}
    for (name, value), known in zip(options.items(), (ATTENTIONS, MASKS, ACTIVATIONS), strict=True):
        if value not in known:
            raise ReproError(f"{name} is {', '.join(known)}, not {value}")
    imagenet = not net.startswith("cifar-")
    unit: Kind = NeXtUnit if net.startswith("NeXt") else Unit
    step = 64 if unit.grouped else 4  # a width that its groups and the quarter divide
    channels = [256, 512, 1024, 2048] if imagenet else [64, 128, 256]
    counts = [1, 1, 1, 3] if imagenet else [2, 2, 2]
    own = (2, 4, 3) if net == "cifar-452" else (1, 2, 1)
    return ResidualAttention(
        unit,
        first=max(1, round((64 if imagenet else 16) * width)),
        channels=[max(step, round(c * width) // step * step) for c in channels],
        units=[units] * len(counts) if units else counts,
        modules=[modules] * 3 if modules else MODULES[net],
        imagenet=imagenet,
        classes=classes or (1000 if imagenet else 10),
        options=options,
        ptr=(p or own[0], t or own[1], r or own[2]),
    )
