"""The nets of Dive into Deep Learning (Zhang, Lipton, Li & Smola, d2l.ai), PyTorch, editions 0.17 and 1.0.

LeNet (Section 6.6 of 0.17), AlexNet, VGG-11, NiN, GoogLeNet, LeNet with batch normalisation, ResNet-18 and
DenseNet (Sections 7.1 to 7.7 of 0.17, 8.1 to 8.7 of 1.0), for the one channel and ten classes of Fashion-MNIST.
They are the book's own: convolutions have biases, AlexNet has neither groups nor LRN, a residual shortcut is not
normalised, DenseNet has no bottlenecks. The blocks that the book runs by themselves stand at the end of `NETS`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NETS = (
    "lenet",
    "alexnet",
    "vgg11",
    "nin",
    "googlenet",
    "bn-lenet",
    "resnet18",
    "densenet",
    "residual",
    "dense",
    "transition",
)
ARGS = ("channels", "classes", "depth", "groups", "growth", "hidden", "input", "out", "ratio", "strides", "width")

# How a layer is called; any other is a block.
KINDS: dict[type[nn.Module], str] = {nn.Conv2d: "conv", nn.Linear: "fc", nn.ReLU: "relu", nn.Sigmoid: "sigmoid"}
KINDS |= {nn.MaxPool2d: "pool", nn.AvgPool2d: "pool", nn.AdaptiveAvgPool2d: "gap", nn.Dropout: "drop"}
KINDS |= {nn.BatchNorm1d: "bn", nn.BatchNorm2d: "bn", nn.Flatten: "flatten"}


class Net(nn.Sequential):
    """Layers one after another, on images of `planes` channels: input (N, planes, H, W).

    A layer is called by its kind and by the weight layer or block that it is or follows: conv1 relu1 pool1 conv2.
    """

    def __init__(self, *layers: nn.Module, planes: int = 1) -> None:
        super().__init__()
        self.planes, number = planes, 0
        for m in layers:
            kind = KINDS.get(type(m), "block")
            number += kind in ("conv", "fc", "block")
            self.add_module(f"{kind}{number or ''}", m)

    def example(self, batch: int, input: int) -> Tensor:
        return torch.zeros(batch, self.planes, input, input)


def side(input: int, *layers: nn.Module) -> int:
    """The side of the map that `input` x `input` pixels become in convolutions and poolings one after another."""
    for m in nn.Sequential(*layers).modules():
        if isinstance(m, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            kernel, stride, padding = (v if isinstance(v, int) else v[0] for v in (m.kernel_size, m.stride, m.padding))
            input = (input + 2 * int(padding) - int(kernel)) // int(stride) + 1
    return input


def lenet(width: float = 1.0, input: int = 28, classes: int = 10, norm: bool = False) -> Net:
    """Section 6.6; with `norm`, batch normalisation before each sigmoid, Section 7.5, which also drops the padding."""
    a, b, c, d = (round(n * width) for n in (6, 16, 120, 84))
    features: list[nn.Module] = []
    for conv in (nn.Conv2d(1, a, 5, padding=0 if norm else 2), nn.Conv2d(a, b, 5)):
        between = [nn.BatchNorm2d(conv.out_channels)] * norm
        features += [conv, *between, nn.Sigmoid(), nn.AvgPool2d(2, 2)]
    layers = [*features, nn.Flatten()]
    for fc in (nn.Linear(b * side(input, *features) ** 2, c), nn.Linear(c, d)):
        layers += [fc, *[nn.BatchNorm1d(fc.out_features)] * norm, nn.Sigmoid()]
    return Net(*layers, nn.Linear(d, classes))


def connected(features: list[nn.Module], channels: int, input: int, hidden: int, units: int, classes: int) -> Net:
    """`features`, and the fully connected layers of AlexNet and VGG: `hidden` with ReLU and dropout, and the last."""
    layers, into = [*features, nn.Flatten()], channels * side(input, *features) ** 2
    for _ in range(hidden):
        layers += [nn.Linear(into, units), nn.ReLU(), nn.Dropout(0.5)]
        into = units
    return Net(*layers, nn.Linear(into, classes))


def alexnet(width: float = 1.0, input: int = 224, classes: int = 10, depth: int = 3, hidden: int = 2) -> Net:
    """Section 7.1, with `depth` 3x3 convolutions before the last pooling."""
    a, b, c, units = (round(n * width) for n in (96, 256, 384, 4096))
    layers = [nn.Conv2d(1, a, 11, 4, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    channels = [b, *[c] * (depth - 1), b]
    for into, out in pairwise(channels):
        layers += [nn.Conv2d(into, out, 3, padding=1), nn.ReLU()]
    return connected([*layers, nn.MaxPool2d(3, 2)], b, input, hidden, units, classes)


def vgg11(
    width: float = 1.0, ratio: int = 1, input: int = 224, classes: int = 10, depth: int = 2, hidden: int = 2
) -> Net:
    """Section 7.2; `ratio` divides the channels of the blocks, of which the last three have `depth` convolutions."""
    blocks: list[nn.Module] = []
    into = 1
    for convolutions, channels in ((1, 64), (1, 128), (depth, 256), (depth, 512), (depth, 512)):
        layers, out = [], round(channels * width) // ratio
        for _ in range(convolutions):
            layers += [nn.Conv2d(into, out, 3, padding=1), nn.ReLU()]
            into = out
        blocks.append(Net(*layers, nn.MaxPool2d(2, 2)))
    return connected(blocks, into, input, hidden, round(4096 * width), classes)


def nin(width: float = 1.0, classes: int = 10) -> Net:
    """Section 7.3: each block a convolution and two 1x1; no fully connected layer."""

    def block(into: int, out: int, kernel: int, stride: int, padding: int) -> Net:
        first, second = nn.Conv2d(into, out, kernel, stride, padding), nn.Conv2d(out, out, 1)
        return Net(first, nn.ReLU(), second, nn.ReLU(), nn.Conv2d(out, out, 1), nn.ReLU())

    a, b, c = (round(n * width) for n in (96, 256, 384))
    layers: list[nn.Module] = []
    for convolutions in (block(1, a, 11, 4, 0), block(a, b, 5, 1, 2), block(b, c, 3, 1, 1)):
        layers += [convolutions, nn.MaxPool2d(3, 2)]
    return Net(*layers, nn.Dropout(0.5), block(c, classes, 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Inception(nn.Module):
    """Section 7.4: four branches, their channels side by side. Input (N, into, H, W)."""

    def __init__(self, into: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int) -> None:
        super().__init__()
        self.p1 = Net(nn.Conv2d(into, one, 1), nn.ReLU())
        self.p2 = Net(nn.Conv2d(into, reduce3, 1), nn.ReLU(), nn.Conv2d(reduce3, three, 3, padding=1), nn.ReLU())
        self.p3 = Net(nn.Conv2d(into, reduce5, 1), nn.ReLU(), nn.Conv2d(reduce5, five, 5, padding=2), nn.ReLU())
        self.p4 = Net(nn.MaxPool2d(3, 1, 1), nn.Conv2d(into, pool, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.p1(x), self.p2(x), self.p3(x), self.p4(x)], 1)


def googlenet(width: float = 1.0, classes: int = 10) -> Net:
    """Section 7.4: five blocks and a fully connected layer; no auxiliary heads."""
    into = round(64 * width)

    def inceptions(*rows: tuple[int, ...]) -> list[nn.Module]:
        nonlocal into
        out: list[nn.Module] = []
        for row in rows:
            one, reduce3, three, reduce5, five, pool = (round(n * width) for n in row)
            out.append(Inception(into, one, reduce3, three, reduce5, five, pool))
            into = one + three + five + pool
        return out

    stem = Net(nn.Conv2d(1, into, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    out = round(192 * width)
    layers = [nn.Conv2d(into, into, 1), nn.ReLU(), nn.Conv2d(into, out, 3, padding=1), nn.ReLU()]
    second, into = Net(*layers, nn.MaxPool2d(3, 2, 1)), out
    third = inceptions((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64))
    fourth = inceptions((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64))
    fourth += inceptions((112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128))
    fifth = inceptions((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128))
    pooled = [Net(*inception, nn.MaxPool2d(3, 2, 1)) for inception in (third, fourth)]
    fifth += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Net(stem, second, *pooled, Net(*fifth), nn.Linear(into, classes))


class Residual(nn.Module):
    """Section 7.6; with `groups` the bottleneck of ResNeXt, Section 8.6.5 of 1.0, in groups of so many channels."""

    def __init__(self, into: int, out: int, strides: int = 1, groups: int = 0) -> None:
        super().__init__()
        kernels = [(1, 1), (3, strides), (1, 1)] if groups else [(3, strides), (3, 1)]
        layers: list[nn.Module] = []
        for i, (kernel, stride) in enumerate(kernels):
            parts = out // groups if groups and kernel == 3 else 1
            layers.append(nn.Conv2d(out if i else into, out, kernel, stride, kernel // 2, groups=parts))
            layers += [nn.BatchNorm2d(out), nn.ReLU()]
        self.residual = Net(*layers[:-1])
        self.shortcut = nn.Conv2d(into, out, 1, strides) if strides > 1 or into != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


def stem(channels: int) -> Net:
    """The first block of ResNet-18 and DenseNet."""
    return Net(nn.Conv2d(1, channels, 7, 2, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1))


def resnet18(width: float = 1.0, classes: int = 10, depth: int = 2) -> Net:
    """Section 7.6: `depth` residual blocks a stage."""
    channels = [round(n * width) for n in (64, 64, 128, 256, 512)]
    stages: list[nn.Module] = [stem(channels[0])]
    for i, (into, out) in enumerate(pairwise(channels)):
        rest = [Residual(out, out) for _ in range(depth - 1)]
        stages.append(Net(Residual(into, out, 2 if i else 1), *rest))
    return Net(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes))


class Dense(nn.Module):
    """Section 7.7: each 3x3 convolution sees all channels before it. Output (N, into + depth * growth, H, W)."""

    def __init__(self, into: int, depth: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for channels in range(into, into + depth * growth, growth):
            conv = nn.Conv2d(channels, growth, 3, padding=1)
            self.layers.append(Net(nn.BatchNorm2d(channels), nn.ReLU(), conv))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def densenet(width: float = 1.0, classes: int = 10, depth: int = 4, growth: int = 32) -> Net:
    """Section 7.7: four dense blocks of `depth` convolutions, transitions between them that halve the channels."""
    channels, growth = round(64 * width), round(growth * width)
    net = Net(stem(channels))
    for i in range(1, 5):
        net.add_module(f"dense{i}", Dense(channels, depth, growth))
        channels += depth * growth
        if i < 4:
            net.add_module(f"transition{i}", transition(channels, channels // 2))
            channels //= 2
    last = (nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    for name, layer in zip(("bn", "relu", "gap", "flatten", "fc"), last, strict=True):
        net.add_module(name, layer)
    return net


def transition(channels: int = 23, out: int = 10, width: float = 1.0) -> Net:
    """Section 7.7: fewer channels by a 1x1 convolution, half the side by pooling."""
    channels, out = round(channels * width), round(out * width)
    layers = [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, out, 1), nn.AvgPool2d(2, 2)]
    return Net(*layers, planes=channels)


def residual(channels: int = 3, out: int = 3, strides: int = 1, groups: int = 0, width: float = 1.0) -> Net:
    """A residual block by itself, on its own number of channels."""
    channels, out = round(channels * width), round(out * width)
    return Net(Residual(channels, out, strides, groups), planes=channels)


def dense(channels: int = 3, depth: int = 2, growth: int = 10, width: float = 1.0) -> Net:
    """A dense block by itself."""
    channels, growth = round(channels * width), round(growth * width)
    return Net(Dense(channels, depth, growth), planes=channels)


_NETS = (lenet, alexnet, vgg11, nin, googlenet, partial(lenet, norm=True), resnet18, densenet)
BUILDERS: dict[str, Callable[..., Net]] = dict(zip(NETS, (*_NETS, residual, dense, transition), strict=True))


def build(net: str, **args: float) -> Net:
    """Net or block `net` of the book; each takes only the arguments that its function above names."""
    return BUILDERS[net](**args)
