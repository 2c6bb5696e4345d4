"""Squeeze-and-excitation networks: Hu et al., arXiv 1709.01507v4, Section 3, Table 1, Section 6 and appendix.

SE blocks in ResNet and ResNeXt (32x4d), after each nonlinearity of VGG-16 with batch normalisation, on each module
of BN-Inception, in MobileNet (arXiv 1704.04861, Table 1) and ShuffleNet (1707.01083, Table 1, one times the width in
3 groups), in the ResNets for CIFAR, of which 110 and 164 are those of 1603.05027 with activation before
convolution, and in SENet-154. ResNets stride in the first 1x1, ResNeXts and SENet-154 in the 3x3.

Options of the ablations: reduction ratio `r` (Table 10), `squeeze` avg, max or none, which is NoSqueeze (11, 16),
`excitation` sigmoid, tanh or relu (12), `stages` all or one of 2 to 5 (13), the place `se` of the block: standard,
pre, post, identity (14), 3x3 (15), or none for the net without any; `bias` 1 for biases in its two layers, which
the ablations lack. `blocks` is for all stages the number of blocks, or of convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError
from . import _mobile, bn_inception, resnet, vgg
from .resnet import Basic, Bottleneck, ResNet

NETS = (
    "resnet-18", "resnet-34", "resnet-50", "resnet-101", "resnet-152", "resnext-50", "resnext-101", "senet-154",
    "vgg-16", "bn-inception", "mobilenet", "shufflenet", "cifar-20", "cifar-110", "cifar-164",
)  # fmt: skip
ARGS = ("bias", "blocks", "classes", "excitation", "r", "se", "squeeze", "stages", "width")

PLACES = ("standard", "pre", "post", "identity", "3x3", "none")
GATES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": F.relu}


class SE(nn.Module):
    """Channels scaled by the gate of two layers on their means over the map (equations 2 to 4). (N, C, H, W)."""

    def __init__(self, channels: int, r: int, squeeze: str, excitation: str, bias: bool) -> None:
        super().__init__()
        hidden = max(1, channels // r)
        self.squeeze, self.gate = squeeze, GATES[excitation]
        if squeeze == "none":
            self.fc1: nn.Module = nn.Conv2d(channels, hidden, 1, bias=bias)
            self.fc2: nn.Module = nn.Conv2d(hidden, channels, 1, bias=bias)
        else:
            self.fc1, self.fc2 = nn.Linear(channels, hidden, bias), nn.Linear(hidden, channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        z = x if self.squeeze == "none" else x.mean((2, 3)) if self.squeeze == "avg" else x.amax((2, 3))
        s = self.gate(self.fc2(F.relu(self.fc1(z))))
        return x * (s if self.squeeze == "none" else s[:, :, None, None])


class SEBlock(nn.Module):
    """A residual block with an SE block in one of the places of Figure 5; or any module with one after it."""

    def __init__(self, block: nn.Module, se: SE, place: str) -> None:
        super().__init__()
        self.block, self.se, self.place = block, se, place

    def forward(self, x: Tensor) -> Tensor:
        block: Any = self.block
        out: Tensor
        if self.place == "post":
            out = self.se(block(x))
            return out
        branch, side = block.branch(self.se(x) if self.place == "pre" else x), block.shortcut(x)
        if self.place == "standard":
            branch = self.se(branch)
        out = block.join(branch, self.se(side) if self.place == "identity" else side)
        return out


class PreActivation(nn.Module):
    """Normalisation and ReLU before each convolution, as in arXiv 1603.05027; the shortcut is bare. Shapes of `of`."""

    def __init__(self, channels: int, of: Basic | Bottleneck) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1, self.bn2, self.conv2 = of.conv1, of.bn1, of.conv2
        if isinstance(of, Bottleneck):
            self.bn3, self.conv3 = of.bn2, of.conv3
        self.shortcut = of.shortcut[0] if isinstance(of.shortcut, nn.Sequential) else of.shortcut

    def branch(self, x: Tensor) -> Tensor:
        x = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return self.conv3(F.relu(self.bn3(x))) if hasattr(self, "conv3") else x

    def join(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        return branch + shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.branch(x), self.shortcut(x))


class Wide(Bottleneck):
    """SENet-154 (appendix): 64 groups, the first 1x1 halved, projections by 3x3 where the stride is 2."""

    def __init__(self, channels: int, middle: int, stride: int) -> None:
        out = 4 * middle
        super().__init__(channels, out, stride, "B", first=False, groups=min(64, middle), out=out)
        self.conv1 = nn.Conv2d(channels, out // 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out // 2)
        self.conv2 = nn.Conv2d(out // 2, out, 3, stride, 1, groups=self.conv2.groups, bias=False)
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out))


def residual(net: str, blocks: int | str | None, width: float, classes: int | None) -> nn.Module:
    """A net of residual blocks, still without SE blocks; those of SENet-154 come with its stem and dropout."""
    depth, expansion = net.rpartition("-")[2], 1 if net in ("resnet-18", "resnet-34", "cifar-20", "cifar-110") else 4
    like = {"senet-154": "152", "cifar-164": "cifar-110"}.get(net, net if net.startswith("cifar") else depth)

    def make(channels: int, middle: int, stride: int) -> nn.Module:
        if net == "senet-154":
            return Wide(2 * channels if channels == middle else channels, middle, stride)  # its stem is twice as wide
        if net.startswith("resnext"):
            inner = max(32, middle * 2 // 32 * 32)
            return Bottleneck(channels, inner, stride, "B", first=False, groups=32, out=4 * middle)
        option = "A" if net in ("cifar-20", "cifar-110") else "B"
        block = (
            Bottleneck(channels, middle, stride, option) if expansion == 4 else Basic(channels, middle, stride, option)
        )
        return PreActivation(channels, block) if net in ("cifar-110", "cifar-164") else block

    small = net.startswith("cifar")
    found: Any = ResNet(make, resnet.depths(like, blocks), expansion, width, classes or (10 if small else 1000))
    if not small:
        found.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)  # as the authors' models have it
    if net in ("cifar-110", "cifar-164"):
        last = found.fc.in_features
        found.bn1, found.relu1 = nn.Identity(), nn.Identity()
        found.average_pool = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    if net == "senet-154":
        c = found.conv1.out_channels
        sizes = ((3, c, 2), (c, c, 1), (c, 2 * c, 1))
        found.conv1 = nn.Sequential()
        for i, (before, after, stride) in enumerate(sizes, 1):
            found.conv1.add_module(f"conv{i}", nn.Conv2d(before, after, 3, stride, 1, bias=False))
            if i < 3:
                found.conv1.add_module(f"bn{i}", nn.BatchNorm2d(after))
                found.conv1.add_module(f"relu{i}", nn.ReLU())
        found.bn1 = nn.BatchNorm2d(2 * c)
        found.average_pool = nn.Sequential(found.average_pool, nn.Dropout(0.2))
    return found  # type: ignore[no-any-return]


def vgg16(blocks: int | str | None, width: float, classes: int) -> nn.Module:
    """VGG-16 with batch normalisation; each convolution with what follows it is a module of its own."""
    layout = [" ".join([b.split()[0]] * int(blocks)) if blocks else b for b in vgg.CONFIGURATIONS["D"]]
    net = vgg.VGG(layout, width, classes=classes)
    for name, block in list(net.features.named_children()):
        stage = nn.Sequential()
        for layer in block.children():
            if isinstance(layer, nn.Conv2d):
                parts = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU())
                stage.add_module(f"conv{len(stage) + 1}", parts)
            elif isinstance(layer, nn.MaxPool2d):
                stage.add_module("pool", layer)
        setattr(net.features, name, stage)
    return net


def recalibrated(block: nn.Module, place: str, se: Callable[[int], SE]) -> nn.Module:
    """`block` with an SE block of the fitting size; modules without a shortcut have it behind them."""
    b: Any = block
    if not hasattr(block, "branch"):
        if place != "standard":
            raise ReproError(f"se is standard or none where there are no residual blocks, not {place}")
        convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
        return SEBlock(block, se(getattr(block, "out", convs[-1].out_channels)), "post")
    if place == "3x3":
        if not isinstance(block, Bottleneck):
            raise ReproError("se is 3x3 in bottlenecks alone")
        b.bn2 = nn.Sequential(b.bn2)
        b.bn2.add_module("se", se(b.conv2.out_channels))
        return block
    before, branch = b.conv1.in_channels, (b.conv3 if hasattr(b, "conv3") else b.conv2).out_channels
    joined = isinstance(block, _mobile.Shuffle) and block.stride > 1
    sizes = {"pre": before, "identity": before if joined else branch, "post": before + branch if joined else branch}
    return SEBlock(block, se(sizes.get(place, branch)), place)


def build(
    net: str,
    se: str = "standard",
    r: int = 16,
    stages: int | str = "all",
    squeeze: str = "avg",
    excitation: str = "sigmoid",
    bias: int = 0,
    blocks: int | str | None = None,
    width: float = 1.0,
    classes: int | None = None,
) -> nn.Module:
    """Net `net` with SE blocks; the docstring of this module names the options."""
    if se not in PLACES or squeeze not in ("avg", "max", "none") or excitation not in GATES:
        known = f"se is one of {', '.join(PLACES)}, squeeze of avg, max, none, excitation of {', '.join(GATES)}"
        raise ReproError(f"{known}; not {se}, {squeeze}, {excitation}")
    many = classes or 1000
    found: nn.Module
    if net == "vgg-16":
        found = vgg16(blocks, width, many)
    elif net == "bn-inception":
        found = bn_inception.build("bn-inception", width=width, classes=many, depth=int(blocks or 5) / 5)
    elif net in ("mobilenet", "shufflenet"):
        found = (_mobile.mobilenet if net == "mobilenet" else _mobile.shufflenet)(blocks, width, many)
    else:
        found = residual(net, blocks, width, classes)
    if se == "none":
        return found
    make = partial(SE, r=r, squeeze=squeeze, excitation=excitation, bias=bool(bias))
    parts, changed = found.features if isinstance(found, vgg.VGG) else found, 0
    for name, stage in list(parts.named_children()):
        number = re.fullmatch(r"(?:conv|stage|block|inception_)(\d)(?:_x)?", name)
        if number and name != "conv1" and stages in ("all", int(number[1])):
            for key, block in list(stage.named_children()):
                if key != "pool":
                    setattr(stage, key, recalibrated(block, se, make))
                    changed += 1
    if not changed:
        raise ReproError(f"stages is all, or the number of one that {net} has, not {stages}")
    return found
