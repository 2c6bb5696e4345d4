"""DenseNet: Huang, Liu, van der Maaten & Weinberger, arXiv 1608.06993, Section 3 and Table 1.

`121`, `169`, `201` and `264` are the ImageNet nets of Table 1 (k = 32), `161` (k = 48) stands there in
versions 1 to 3: all with bottleneck and compression (BC). The CIFAR and SVHN nets of Table 2 are named by
depth and growth rate, `40-12` to `BC-190-40`: three dense blocks, 16 channels in the first convolution,
or 2k with BC. With the blocks 6, 12, 64, 48 that the authors released, `264` has 265 weight layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NETS = ("121", "161", "169", "201", "264", "40-12", "100-12", "100-24", "BC-100-12", "BC-250-24", "BC-190-40")
ARGS = ("bottleneck", "classes", "compression", "dropout", "growth", "input", "layers", "width")

# Table 1: growth rate, and dense layers of each block.
IMAGENET: dict[str, tuple[int, list[int]]] = {
    "121": (32, [6, 12, 24, 16]),
    "161": (48, [6, 12, 36, 24]),
    "169": (32, [6, 12, 32, 32]),
    "201": (32, [6, 12, 48, 32]),
    "264": (32, [6, 12, 64, 48]),
}


class DenseLayer(nn.Module):
    """H of Section 3: BN-ReLU-Conv(3x3), after BN-ReLU-Conv(1x1) to 4k channels with a bottleneck.

    Input (N, channels, H, W); output the `growth` new maps alone.
    """

    def __init__(self, channels: int, growth: int, bottleneck: bool, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        if bottleneck:
            self.layers.extend([nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 4 * growth, 1, bias=False)])
            self.layers.extend([nn.Dropout(dropout)] if dropout else [])
            channels = 4 * growth
        self.layers.extend([nn.BatchNorm2d(channels), nn.ReLU()])
        self.layers.append(nn.Conv2d(channels, growth, 3, padding=1, bias=False))
        self.layers.extend([nn.Dropout(dropout)] if dropout else [])

    def forward(self, x: Tensor) -> Tensor:
        new: Tensor = self.layers(x)
        return new


class DenseBlock(nn.Sequential):
    """Dense layers, each fed with all maps before it (equation 2). Output: input and all new maps."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = torch.cat([x, layer(x)], 1)
        return x


class Transition(nn.Module):
    """BN-ReLU-Conv(1x1) and 2x2 average pooling; compression leaves `out` channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, out, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.pool(self.conv(self.norm(x).relu()))
        return maps


class DenseNet(nn.Module):
    """A DenseNet. Input (N, 3, input, input); output (N, classes) of logits.

    Children: `conv1`, for ImageNet `pool1`, then `dense1`, `transition1`, `dense2`, ..., and `norm`, `pool`, `fc`.
    The last pooling covers the whole map at `input`; on a larger image its cells are averaged.
    """

    def __init__(
        self,
        blocks: list[int],
        growth: int,
        first: int,
        imagenet: bool,
        bottleneck: bool,
        compression: float,
        input: int,
        classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        stem: list[nn.Module] = [nn.BatchNorm2d(first), nn.ReLU()]
        self.features = nn.Sequential()
        if imagenet:
            self.features.add_module("conv1", nn.Conv2d(3, first, 7, 2, 3, bias=False))
            self.features.add_module("norm1", stem[0])
            self.features.add_module("relu1", stem[1])
            self.features.add_module("pool1", nn.MaxPool2d(3, 2, 1))
        else:
            self.features.add_module("conv1", nn.Conv2d(3, first, 3, padding=1, bias=False))
        channels = first
        for i, layers in enumerate(blocks, 1):
            dense = [DenseLayer(channels + j * growth, growth, bottleneck, dropout) for j in range(layers)]
            self.features.add_module(f"dense{i}", DenseBlock(*dense))
            channels += layers * growth
            if i < len(blocks):
                out = int(channels * compression)
                self.features.add_module(f"transition{i}", Transition(channels, out))
                channels = out
        self.norm = nn.BatchNorm2d(channels)
        strides = len(blocks) + 1 if imagenet else len(blocks) - 1
        self.pool = nn.AvgPool2d(max(1, input >> strides))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.features(x)).relu())
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def build(
    net: str,
    width: float = 1.0,
    growth: int = 0,
    layers: int = 0,
    bottleneck: str = "",
    compression: float = 0.0,
    input: int = 0,
    classes: int = 0,
    dropout: float = 0.0,
) -> DenseNet:
    """Net `net` of Table 1 or 2; its own growth rate, layers of each block and options where none are given.

    `width` multiplies the growth rate and the first convolution; `bottleneck` is `yes` or `no`.
    """
    imagenet = net in IMAGENET
    bc = imagenet or net.startswith("BC-")
    if imagenet:
        k, blocks = IMAGENET[net]
    else:
        depth, k = (int(word) for word in net.removeprefix("BC-").split("-"))
        blocks = [(depth - 4) // (6 if bc else 3)] * 3
    k = max(1, round((growth or k) * width))
    narrow = bottleneck == "yes" if bottleneck else bc
    return DenseNet(
        [layers] * len(blocks) if layers else blocks,
        growth=k,
        first=2 * k if bc else max(1, round(16 * width)),
        imagenet=imagenet,
        bottleneck=narrow,
        compression=compression or (0.5 if bc else 1.0),
        input=input or (224 if imagenet else 32),
        classes=classes or (1000 if imagenet else 10),
        dropout=dropout,
    )
