"""CoAtNet: Dai et al., arXiv 2106.04803v2, Sections 2.1 and 2.2, Table 3, Appendices A.1 and A.2, Tables 11 and 12.

Five stages: S0 two convolutions, then MBConv (C) or transformer (T) blocks, `layout=CCTT` unless said. All are
pre-activation, x + Module(Norm(x)). The first block of each stage from S1 halves the map: pooling (and a projection,
where channels grow) on the shortcut, a stride in the first 1x1 of an MBConv (`stride=conv`, Equation 5) or in its
depthwise 3x3 (`stride=depthwise`, Table 9), pooling before the attention. timm's `coatnet_N` have the latter stride,
and a hidden layer before the classifier that the paper does not mention (`head=mlp`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError

NETS = ("0", "1", "2", "3", "4", "5", "6", "7")
ARGS = ("blocks", "classes", "depth", "head", "head_size", "input", "layout", "norm", "relative", "stride", "width")

# Blocks and channels of S0 to S4: Table 3, 11 and 12. In 6 and 7, S3 has MBConv blocks of its own first.
TABLE: dict[str, tuple[list[int], list[int]]] = {
    "0": ([2, 2, 3, 5, 2], [64, 96, 192, 384, 768]),
    "1": ([2, 2, 6, 14, 2], [64, 96, 192, 384, 768]),
    "2": ([2, 2, 6, 14, 2], [128, 128, 256, 512, 1024]),
    "3": ([2, 2, 6, 14, 2], [192, 192, 384, 768, 1536]),
    "4": ([2, 2, 12, 28, 2], [192, 192, 384, 768, 1536]),
    "5": ([2, 2, 12, 28, 2], [192, 256, 512, 1280, 2048]),
    "6": ([2, 2, 4, 42, 2], [192, 192, 384, 1536, 2048]),
    "7": ([2, 2, 4, 42, 2], [192, 256, 512, 2048, 3072]),
}
MIXED = {"6": (8, 768), "7": (8, 1024)}
HEAD_SIZE = {"5": 64, "6": 128, "7": 128}


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x.movedim(1, -1)).movedim(-1, 1)
        return out


def shortcut(inputs: int, channels: int, down: bool, pool: type[nn.Module]) -> nn.Sequential:
    """Proj(Pool(x)) where the map shrinks, else x."""
    layers: list[nn.Module] = [pool(2)] if down else []
    if inputs != channels:
        layers.append(nn.Conv2d(inputs, channels, 1))
    return nn.Sequential(*layers)


class SE(nn.Module):
    """Squeeze and excitation: channel weights from the mean of the map."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, reduced, 1), nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(F.silu(self.reduce(x.mean((2, 3), keepdim=True)))))


class MBConv(nn.Module):
    """Inverted bottleneck: 1x1 to four times the channels, depthwise 3x3, squeeze and excitation, 1x1 back."""

    def __init__(self, inputs: int, channels: int, down: bool, stride: str, norm: type[nn.Module]) -> None:
        super().__init__()
        first, second = ((2, 1) if stride == "conv" else (1, 2)) if down else (1, 1)
        middle = 4 * channels
        self.shortcut = shortcut(inputs, channels, down, nn.AvgPool2d)
        self.norm = norm(inputs)
        self.expand, self.norm1 = nn.Conv2d(inputs, middle, 1, first, bias=False), norm(middle)
        self.depthwise = nn.Conv2d(middle, middle, 3, second, 1, groups=middle, bias=False)
        self.norm2, self.se = norm(middle), SE(middle, max(1, channels // 4))
        self.project = nn.Conv2d(middle, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.gelu(self.norm1(self.expand(self.norm(x))))
        out = self.se(F.gelu(self.norm2(self.depthwise(out))))
        out = self.shortcut(x) + self.project(out)
        return out


class Attention(nn.Module):
    """Self-attention over a map (N, C, H, W) with a learned bias by offset, Equation 3; without it if not `relative`.

    A head has a table of (2 side - 1)^2 offsets for the side that it is built for. For a map of another side the
    table is interpolated, as for fine-tuning at a larger size (Appendix A.1).
    """

    def __init__(self, inputs: int, channels: int, side: int, head_size: int, relative: bool) -> None:
        super().__init__()
        self.heads, self.side = max(1, channels // head_size), side
        self.query, self.key, self.value = (nn.Conv2d(inputs, channels, 1) for _ in range(3))
        self.out = nn.Conv2d(channels, channels, 1)
        self.table = nn.Parameter(0.02 * torch.randn(self.heads, 2 * side - 1, 2 * side - 1)) if relative else None

    def bias(self, side: int) -> Tensor | None:
        """Bias of each head for each pair of places, (heads, side^2, side^2): the entry of their offset."""
        if self.table is None:
            return None
        table: Tensor = self.table
        if side != self.side:
            table = F.interpolate(table[None], [2 * side - 1] * 2, mode="bilinear", align_corners=True)[0]
        place = torch.arange(side, device=table.device)
        offset = place[:, None] - place[None, :] + side - 1
        bias = table[:, offset[:, None, :, None], offset[None, :, None, :]]  # head, row, column, row, column
        return bias.flatten(3).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, side = len(x), x.shape[-1]
        maps = (self.query(x), self.key(x), self.value(x))
        q, k, v = (t.reshape(n, self.heads, -1, side * side).transpose(2, 3) for t in maps)
        bias = self.bias(side)
        mixed = F.scaled_dot_product_attention(q, k, v, bias if bias is None else bias.expand(n, -1, -1, -1))
        out: Tensor = self.out(mixed.transpose(2, 3).reshape(n, -1, side, side))
        return out


class Transformer(nn.Module):
    """Relative attention, then two 1x1 layers with four times the channels between. Input and output are maps."""

    def __init__(self, inputs: int, channels: int, down: bool, side: int, head_size: int, relative: bool) -> None:
        super().__init__()
        self.shortcut = shortcut(inputs, channels, down, nn.MaxPool2d)
        self.norm1 = nn.Sequential(ChannelNorm(inputs), nn.MaxPool2d(2) if down else nn.Identity())
        self.attention = Attention(inputs, channels, side, head_size, relative)
        self.norm2 = ChannelNorm(channels)
        self.ffn = nn.Sequential(nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shortcut(x) + self.attention(self.norm1(x))
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class CoAtNet(nn.Module):
    """Input (N, 3, input, input), output (N, classes) of logits; stages `s0` to `s4` of `blocks` and `channels`.

    `s3_mbconv` and `s3_tfm` stand for `s3` where it has blocks of both kinds, `mixed` (blocks, channels) of MBConv.
    """

    def __init__(
        self,
        blocks: list[int],
        channels: list[int],
        mixed: tuple[int, int],
        layout: str,
        head_size: int,
        norm: str,
        stride: str,
        relative: bool,
        input: int,
        head: str,
        classes: int,
    ) -> None:
        super().__init__()
        kind: type[nn.Module] = nn.BatchNorm2d if norm == "bn" else ChannelNorm
        inputs = channels[0]
        self.s0 = nn.Sequential(nn.Sequential(nn.Conv2d(3, inputs, 3, 2, 1, bias=False)))
        for _ in range(blocks[0] - 1):
            self.s0.append(nn.Sequential(kind(inputs), nn.GELU(), nn.Conv2d(inputs, inputs, 3, 1, 1, bias=False)))
        self.body = nn.Sequential()
        for i, letter in enumerate(layout, 1):
            parts = [(f"s{i}", letter, blocks[i], channels[i])]
            if i == 3 and mixed[0]:
                parts = [("s3_mbconv", "C", *mixed), ("s3_tfm", letter, blocks[i], channels[i])]
            for j, (name, letter, n, width) in enumerate(parts):
                stage = nn.Sequential()
                for b in range(n):
                    down = not b and not j
                    if letter == "C":
                        stage.append(MBConv(inputs, width, down, stride, kind))
                    else:
                        stage.append(Transformer(inputs, width, down, max(1, input >> i + 1), head_size, relative))
                    inputs = width
                self.body.add_module(name, stage)
        self.norm = nn.LayerNorm(inputs, 1e-6)
        self.head = nn.Sequential()
        if head == "mlp":
            self.head.add_module("hidden", nn.Linear(inputs, inputs))
            self.head.add_module("tanh", nn.Tanh())
        self.head.add_module("logits", nn.Linear(inputs, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.s0(x))
        logits: Tensor = self.head(self.norm(x.mean((2, 3))))
        return logits


def build(
    net: str,
    blocks: str = "",
    classes: int = 1000,
    depth: float = 1.0,
    head: str = "linear",
    head_size: int = 0,
    input: int = 224,
    layout: str = "CCTT",
    norm: str = "bn",
    relative: int = 1,
    stride: str = "conv",
    width: float = 1.0,
) -> CoAtNet:
    """CoAtNet-`net`. `width` multiplies channels, `depth` the blocks; `blocks=2-2-8-12-2` (Table 7),
    `norm=ln` (Table 8), `head_size` (Table 8), `relative=0` (Table 6) and `layout=CTTT` (Table 2) are the ablations."""
    for word, known in ((norm, ("bn", "ln")), (stride, ("conv", "depthwise")), (head, ("linear", "mlp"))):
        if word not in known:
            raise ReproError(f"{word} is none of {', '.join(known)}")
    if len(layout) != 4 or set(layout) - set("CT"):
        raise ReproError(f"layout is four letters C or T for S1 to S4, not {layout}")
    counts, channels = TABLE[net]
    counts = [int(n) for n in blocks.split("-")] if blocks else counts
    counts = [max(1, round(n * depth)) for n in counts]
    n, c = MIXED.get(net, (0, 0))
    mixed = (max(1, round(n * depth)), round(c * width)) if n else (0, 0)
    sizes = [round(c * width) for c in channels]
    head_size = head_size or HEAD_SIZE.get(net, 32)
    return CoAtNet(counts, sizes, mixed, layout, head_size, norm, stride, bool(relative), input, head, classes)
