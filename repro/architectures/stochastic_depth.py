"""ResNets with stochastic depth: Huang et al., arXiv 1603.09382, Section 3, equations 2 to 5.

Any residual block of `resnet` is wrapped. In training it is dropped for a whole mini-batch with probability
1 - p_l, and its shortcut stays; in testing its branch is there, multiplied by p_l. With the linear decay rule the
survival probability falls from 1 at the input to `survival` (p_L) at the last block; with `decay=uniform` it is
`survival` throughout.

`cifar-110` is the net for CIFAR-10 and CIFAR-100, `cifar-152` for SVHN, `cifar-1202` the deepest, `152` that for
ImageNet. Where the CIFAR nets change shapes their shortcut is average pooling and channels of zeros (Section 4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError
from . import resnet
from .resnet import Basic, Bottleneck, Pad, ResNet

NETS = ("cifar-110", "cifar-152", "cifar-1202", "152")
ARGS = ("blocks", "classes", "decay", "survival", "width")


class StochasticDepth(nn.Module):
    """A residual block that survives a mini-batch with probability `survival`. Shapes are the block's."""

    def __init__(self, block: Basic | Bottleneck, survival: float) -> None:
        super().__init__()
        self.block, self.survival = block, survival

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = self.block.shortcut(x)
        if not self.training:
            return self.block.join(self.survival * self.block.branch(x), shortcut)
        if torch.rand(()) < self.survival:
            return self.block.join(self.block.branch(x), shortcut)
        return F.relu(shortcut)


class PooledPad(Pad):
    """The shortcut of Section 4: the mean over `stride` x `stride` pixels, with channels of zeros behind it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(F.avg_pool2d(x, self.step), (0, 0, 0, 0, 0, self.more))


def survivals(blocks: int, last: float, decay: str) -> list[float]:
    """p_1 to p_L of `blocks` blocks (equation 4), or the same for all."""
    return [last if decay == "uniform" else 1 - (i + 1) / blocks * (1 - last) for i in range(blocks)]


def build(
    net: str,
    survival: float = 0.5,
    decay: str = "linear",
    blocks: int | str | None = None,
    width: float = 1.0,
    classes: int | None = None,
) -> ResNet:
    """Net `net` of `resnet` with its blocks wrapped; `expected_blocks` is the rounded sum of their probabilities."""
    if decay not in ("linear", "uniform") or not 0 < survival <= 1:
        raise ReproError(f"decay is linear or uniform and survival in (0, 1], not {decay} and {survival}")
    found = resnet.build(net, blocks=blocks, width=width, classes=classes)
    stages: list[nn.Sequential] = [getattr(found, name) for name in found.stages]
    probabilities = survivals(sum(map(len, stages)), survival, decay)
    left = iter(probabilities)
    for stage in stages:
        for name, block in list(stage.named_children()):
            assert isinstance(block, Basic | Bottleneck)
            if isinstance(old := block.shortcut, Pad):
                block.shortcut = PooledPad(0, old.more, old.step)
            setattr(stage, name, StochasticDepth(block, next(left)))
    found.expected_blocks = round(sum(probabilities))  # type: ignore[assignment]
    return found
