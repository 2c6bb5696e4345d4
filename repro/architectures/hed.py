"""HED: Xie & Tu, Holistically-Nested Edge Detection, arXiv 1504.06375, Section 3 and Figure 3.

VGG-16 cut after its last convolution: the fifth pooling and the fully connected layers are gone (Section 3.1).
A side output, a 1x1 convolution to one map, is joined to the last convolution of each stage; it is brought to
the size of the image by a fixed bilinear deconvolution, and a 1x1 convolution fuses the five. Layers bear the
names of Table 1: `c1_2` is the second convolution of the first stage, `p1` the pooling behind it. `trim=no` leaves
the fifth pooling, which Table 1 lists, where it was; nothing follows it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NETS = ("vgg16",)
ARGS = ("classes", "stride", "trim", "width")

STAGES = ([64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512])


class Upsample(nn.ConvTranspose2d):
    """Bilinear upsampling by a whole `factor`, as a deconvolution whose weights are not learned."""

    def __init__(self, factor: int, maps: int) -> None:
        super().__init__(maps, maps, 2 * factor, factor, factor // 2, groups=maps, bias=False)
        # A triangle, 1 at its middle and 0 one step away, sampled at the middles of the cells.
        steps = (torch.arange(2 * factor) + 0.5) / factor - 1
        triangle = 1 - steps.abs()
        self.weight = nn.Parameter((triangle[:, None] * triangle).expand(maps, 1, -1, -1).clone(), False)


class HED(nn.Module):
    """HED. Input (N, 3, H, W); output the fused map (N, classes, H, W) of logits.

    In training: that and the five side outputs, the fused one first. Any size works: pooling rounds up, and
    what the deconvolutions give beyond H and W is cut off.
    """

    def __init__(self, width: float, classes: int, stride: int, trim: bool) -> None:
        super().__init__()
        channels = 3
        for i, stage in enumerate(STAGES, 1):
            convs = nn.Sequential()
            for j, out in enumerate((max(1, round(c * width)) for c in stage), 1):
                step = stride if i == j == 1 else 1
                convs.add_module(f"c{i}_{j}", nn.Conv2d(channels, out, 3, step, 1))
                convs.add_module(f"relu{i}_{j}", nn.ReLU())
                channels = out
            if i > 1:
                self.add_module(f"p{i - 1}", nn.MaxPool2d(2, 2, ceil_mode=True))
            self.add_module(f"conv{i}", convs)
            self.add_module(f"side{i}", nn.Conv2d(channels, classes, 1))
            factor = stride * 2 ** (i - 1)
            self.add_module(f"up{i}", Upsample(factor, classes) if factor > 1 else nn.Identity())
        self.p5 = None if trim else nn.MaxPool2d(2, 2, ceil_mode=True)
        self.fuse = nn.Conv2d(len(STAGES) * classes, classes, 1, groups=classes)
        with torch.no_grad():
            self.fuse.weight.fill_(1 / len(STAGES))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        height, width = x.shape[-2:]
        sides = []
        for i in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"p{i - 1}")(x) if i > 1 else x
            x = self.get_submodule(f"conv{i}")(x)
            side = self.get_submodule(f"up{i}")(self.get_submodule(f"side{i}")(x))
            sides.append(side[..., :height, :width])
        if self.p5 is not None:
            self.p5(x)
        fused: Tensor = self.fuse(torch.stack(sides, 2).flatten(1, 2))
        return [fused, *sides] if self.training else fused


def build(net: str, width: float = 1.0, classes: int = 1, stride: int = 1, trim: str = "yes") -> HED:
    """HED on VGG-16; `classes` maps (1 in the paper), `stride` that of the first convolution (1)."""
    return HED(width, classes, stride, trim != "no")
