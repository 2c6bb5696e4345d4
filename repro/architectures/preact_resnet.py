"""Pre-activation ResNets, narrow and wide, which other papers' tables quote.

He et al., arXiv 1603.05027, Figure 4 (e) and Sections 3 and 4: `164` and `1001` for CIFAR (bottleneck units, 18 and
111 in each of three stages) and `200` for ImageNet. Zagoruyko & Komodakis, arXiv 1605.07146, Table 1:
`wide-<depth>-<k>` for CIFAR, basic units k times as wide; its depth counts all convolutions, projections too.
The stride lies in the first convolution of a unit; `stride=3x3` moves that of bottlenecks into the second.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ReproError

NETS = ("164", "200", "1001", "wide-16-4", "wide-16-8", "wide-28-10")
ARGS = ("classes", "dropout", "stride", "units", "width")


class Unit(nn.Module):
    """BN-ReLU-Conv, twice or as a bottleneck three times, and the sum with the shortcut.

    Where shapes change the shortcut is a 1x1 convolution of the activated input, else the input itself.
    """

    def __init__(self, channels: int, widths: list[int], sides: list[int], strides: list[int], dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module | None = None
        if channels != widths[-1] or max(strides) > 1:
            self.shortcut = nn.Conv2d(channels, widths[-1], 1, max(strides), bias=False)
        self.layers = nn.Sequential()
        for i, (out, side, stride) in enumerate(zip(widths, sides, strides, strict=True), 1):
            if i > 1:
                self.layers.extend([nn.BatchNorm2d(channels), nn.ReLU()])
                self.layers.extend([nn.Dropout(dropout)] if dropout and i == len(widths) else [])
            self.layers.add_module(f"conv{i}", nn.Conv2d(channels, out, side, stride, side // 2, bias=False))
            channels = out

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm(x).relu()
        out: Tensor = self.layers(a)
        return out + (x if self.shortcut is None else self.shortcut(a))


class PreActResNet(nn.Module):
    """A pre-activation ResNet. Input (N, 3, H, W); output (N, classes) of logits.

    Children: `conv1`, for ImageNet `pool1`, the stages `conv2_x` and so on, `norm`, `fc`.
    """

    def __init__(
        self,
        first: int,
        channels: list[int],
        units: list[int],
        wide: bool,
        imagenet: bool,
        stride: str,
        classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.body = nn.Sequential()
        if imagenet:
            self.body.add_module("conv1", nn.Conv2d(3, first, 7, 2, 3, bias=False))
            self.body.add_module("norm1", nn.Sequential(nn.BatchNorm2d(first), nn.ReLU()))
            self.body.add_module("pool1", nn.MaxPool2d(3, 2, 1))
        else:
            self.body.add_module("conv1", nn.Conv2d(3, first, 3, padding=1, bias=False))
        for i, (out, count) in enumerate(zip(channels, units, strict=True)):
            stage = nn.Sequential()
            for j in range(count):
                step = 2 if i > 0 and j == 0 else 1
                if wide:
                    stage.append(Unit(first, [out, out], [3, 3], [step, 1], dropout))
                else:
                    strides = [1, step, 1] if stride == "3x3" else [step, 1, 1]
                    stage.append(Unit(first, [out // 4, out // 4, out], [1, 3, 1], strides, dropout))
                first = out
            self.body.add_module(f"conv{i + 2}_x", stage)
        self.norm = nn.BatchNorm2d(first)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(first, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.body(x)).relu()).flatten(1)
        logits: Tensor = self.fc(x)
        return logits


def build(
    net: str, width: float = 1.0, units: int = 0, classes: int = 0, stride: str = "1x1", dropout: float = 0.0
) -> PreActResNet:
    """Net `net`; `units` is the number in every stage, in place of the net's own."""
    if stride not in ("1x1", "3x3"):
        raise ReproError(f"stride is 1x1 or 3x3, not {stride}")
    imagenet, wide = net == "200", net.startswith("wide-")
    if wide:
        depth, k = (int(word) for word in net.split("-")[1:])
        channels, counts = [16 * k, 32 * k, 64 * k], [(depth - 4) // 6] * 3
    elif imagenet:
        channels, counts = [256, 512, 1024, 2048], [3, 24, 36, 3]
    else:
        channels, counts = [64, 128, 256], [(int(net) - 2) // 9] * 3
    return PreActResNet(
        first=max(1, round((64 if imagenet else 16) * width)),
        channels=[max(4, round(c * width) // 4 * 4) for c in channels],
        units=[units] * len(counts) if units else counts,
        wide=wide,
        imagenet=imagenet,
        stride=stride,
        classes=classes or (1000 if imagenet else 10),
        dropout=dropout,
    )
