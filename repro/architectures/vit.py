"""ViT: Dosovitskiy et al., arXiv 2010.11929v2, Section 3.1 and Table 1; Zhai et al., arXiv 2106.04560v2, Table 2.

`B/16` and so on are the nets of the first paper: a class token, learned 1D position embeddings, pre-norm encoder
blocks, and a head on the class token, which is one hidden layer in pre-training (`head=mlp`) and linear in
fine-tuning. `scaling-B/16` and so on are those of the second: no class token, the same encoder, and multihead
attention pooling, MAP, before the classifier (Section 3.2 there). The hybrids of the first put a ResNet-50 before
the encoder (`R50-B/16`: its stage 3 drawn out to nine blocks, no stage 4; `R50-B/32`: the plain four stages).
`R50x1` to `R200x3` are the ResNets that it compares with: group norm for batch norm, the width after the x.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError

# fmt: off
NETS = (
    "B/16", "B/32", "L/16", "L/32", "H/14", "R50-B/16", "R50-B/32", "R50-L/16", "R50-L/32",
    "scaling-s/28", "scaling-s/16", "scaling-S/32", "scaling-Ti/16", "scaling-B/32", "scaling-S/16",
    "scaling-B/28", "scaling-B/16", "scaling-L/16", "scaling-g/14", "scaling-G/14",
    "R50x1", "R50x2", "R101x1", "R152x1", "R152x2", "R200x3",
)
# fmt: on
ARGS = ("classes", "depth", "head", "heads", "input", "patch", "width")

# Table 1 of each paper's own nets: layers, hidden size D, MLP size, heads.
VIT = {"B": (12, 768, 3072, 12), "L": (24, 1024, 4096, 16), "H": (32, 1280, 5120, 16)}
SCALING = {
    "s": (6, 256, 1024, 8),
    "Ti": (12, 192, 768, 3),
    "S": (12, 384, 1536, 6),
    "B": VIT["B"],
    "L": VIT["L"],
    "g": (40, 1408, 6144, 16),
    "G": (48, 1664, 8192, 16),
}
RESNETS = {"R50": [3, 4, 6, 3], "R101": [3, 4, 23, 3], "R152": [3, 8, 36, 3], "R200": [3, 24, 36, 3]}


class Split(nn.Module):
    """(N, T, D) to (N, heads, T, D / heads)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, size = x.shape
        return x.view(n, tokens, self.heads, size // self.heads).transpose(1, 2)


class Attention(nn.Module):
    """Multihead attention of `x` (N, T, D) to itself, or of the queries `of` (N, Q, D) to `x` (Appendix A)."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.split = Split(heads)
        self.out = nn.Linear(size, size)

    def forward(self, x: Tensor, of: Tensor | None = None) -> Tensor:
        q, k, v = (self.split(t) for t in (self.query(x if of is None else of), self.key(x), self.value(x)))
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Sequential):
    """Two layers with a GELU between; `drop` does nothing until a recipe sets its probability (Appendix B.1)."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.gelu, self.drop, self.fc2 = (
            nn.Linear(size, hidden),
            nn.GELU(),
            nn.Dropout(0),
            nn.Linear(hidden, size),
        )


class Layer(nn.Module):
    """A block of the encoder, equations 2 and 3."""

    def __init__(self, size: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(size, 1e-6), Attention(size, heads)
        self.norm2, self.mlp, self.drop = nn.LayerNorm(size, 1e-6), MLP(size, hidden), nn.Dropout(0)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x)))
        out: Tensor = x + self.drop(self.mlp(self.norm2(x)))
        return out


class Bottleneck(nn.Module):
    """A residual unit of the hybrids' ResNet: 1x1, 3x3, 1x1 with group norm for batch norm."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.norm1 = nn.GroupNorm(math.gcd(32, planes), planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.norm2 = nn.GroupNorm(math.gcd(32, planes), planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.norm3 = nn.GroupNorm(math.gcd(32, planes), 4 * planes)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != 4 * planes:
            self.shortcut.append(nn.Conv2d(inputs, 4 * planes, 1, stride, bias=False))
            self.shortcut.append(nn.GroupNorm(math.gcd(32, planes), 4 * planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        out = F.relu(self.norm2(self.conv2(out)))
        return F.relu(self.norm3(self.conv3(out)) + self.shortcut(x))


class Backbone(nn.Sequential):
    """The ResNet of a hybrid: a stem of stride 4, and a stage for each number of blocks."""

    def __init__(self, blocks: list[int], width: float) -> None:
        super().__init__()
        planes = inputs = round(64 * width)
        stem = [nn.Conv2d(3, planes, 7, 2, 3, bias=False), nn.GroupNorm(math.gcd(32, planes), planes), nn.ReLU()]
        self.stem = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
        for i, n in enumerate(blocks):
            stage = nn.Sequential()
            for j in range(n):
                stage.append(Bottleneck(inputs, planes << i, 2 if i and not j else 1))
                inputs = 4 * (planes << i)
            self.add_module(f"stage{i + 1}", stage)
        self.channels = inputs


class ViT(nn.Module):
    """Input (N, 3, input, input), output (N, classes) of logits.

    `embedding` makes the patches into tokens, `encoder` holds the layers, `head` the classifier; `map`, where
    there is one, pools the tokens with a learned query.
    """

    def __init__(
        self,
        net: str,
        layers: int,
        size: int,
        hidden: int,
        heads: int,
        patch: int,
        input: int = 224,
        classes: int = 1000,
        head: str = "linear",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if head not in ("linear", "mlp"):
            raise ReproError(f"head is linear or mlp, not {head}")
        tokens, inputs = (input // patch) ** 2, 3
        self.backbone = nn.Sequential()
        if net.startswith("R50"):
            self.backbone = Backbone([3, 4, 9] if patch == 16 else RESNETS["R50"], width)
            inputs, patch = self.backbone.channels, 1
        self.embedding = nn.Conv2d(inputs, size, patch, patch)
        pooled = net.startswith("scaling")
        self.token = None if pooled else nn.Parameter(torch.zeros(1, 1, size))
        self.position, self.drop = nn.Parameter(0.02 * torch.randn(1, tokens + (not pooled), size)), nn.Dropout(0)
        self.encoder = nn.Sequential(*(Layer(size, hidden, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(size, 1e-6)
        self.map = MAP(size, hidden, heads) if pooled else None
        self.head = nn.Sequential()
        if head == "mlp":
            self.head.add_module("hidden", nn.Linear(size, size))
            self.head.add_module("tanh", nn.Tanh())
        self.head.add_module("logits", nn.Linear(size, classes))

    def positions(self, tokens: int) -> Tensor:
        """Position embeddings of so many tokens: for another grid they are interpolated (Section 3.2)."""
        own, extra = self.position.shape[1], 0 if self.token is None else 1
        if tokens == own:
            return self.position
        here, there = (math.isqrt(n - extra) for n in (own, tokens))
        grid = self.position[:, extra:].transpose(1, 2).unflatten(2, (here, here))  # type: ignore[no-untyped-call]
        moved = F.interpolate(grid, [there, there], mode="bilinear").flatten(2).transpose(1, 2)
        return torch.cat([self.position[:, :extra], moved], 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(self.backbone(x)).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.encoder(self.drop(x + self.positions(x.shape[1]))))
        logits: Tensor = self.head(x[:, 0] if self.map is None else self.map(x))
        return logits


class MAP(nn.Module):
    """Multihead attention pooling: one learned query attends to all tokens, an MLP follows. (N, T, D) to (N, D)."""

    def __init__(self, size: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, size))
        self.attention, self.norm, self.mlp = Attention(size, heads), nn.LayerNorm(size, 1e-6), MLP(size, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x, self.query.repeat(len(x), 1, 1))
        out: Tensor = (x + self.mlp(self.norm(x)))[:, 0]
        return out


class ResNet(nn.Sequential):
    """A ResNet of the comparison, in the shape of BiT. Input (N, 3, H, W), output (N, classes) of logits."""

    def __init__(self, blocks: list[int], width: float, classes: int = 1000) -> None:
        super().__init__()
        self.backbone = Backbone(blocks, width)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(self.backbone.channels, classes)


def build(net: str, depth: int = 0, heads: int = 0, patch: int = 0, width: float = 1.0, **args: Any) -> ViT | ResNet:
    """A net of either paper. `width` multiplies the hidden and MLP sizes and the heads, so that a head keeps its size;
    `depth`, `heads` and `patch` stand in for the table's own. A ResNet has only `classes`, `width`, and `depth`, the
    blocks of each stage."""
    if "x" in net:
        blocks, _, wider = net.partition("x")
        kept = {k: int(v) for k, v in args.items() if k == "classes"}
        return ResNet([depth] * 4 if depth else RESNETS[blocks], width * int(wider), **kept)
    family, _, patches = net.rpartition("-")[2].partition("/")
    layers, size, hidden, own = (SCALING if net.startswith("scaling") else VIT)[family]
    heads, side = heads or max(1, round(own * width)), patch or int(patches)
    size = -(-round(size * width) // heads) * heads
    return ViT(net, depth or layers, size, round(hidden * width), heads, side, width=width, **args)
