"""Xception: Chollet, arXiv 1610.02357v3, Figure 5 and Sections 3 and 4.

The 14 modules of Figure 5 are `block1` to `block14`, in the entry flow (4), the middle flow (8, each of three
separable convolutions) and the exit flow (2). A separable convolution is a depthwise 3x3 and a pointwise 1x1
with no activation between. Equal to timm's `legacy_xception` when weights are copied across.

Options: `residual=no` is Figure 9; `activation` of relu or elu between depthwise and pointwise is Figure 10;
`fc=2` puts two fully connected layers of 4096 units before the logistic regression (Section 4.5);
`convolution=regular` has one plain 3x3 for each separable one, the other end of the spectrum of Section 1.4.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ReproError

NETS = ("xception",)
ARGS = ("activation", "classes", "convolution", "depth", "dropout", "fc", "residual", "width")

ACTIVATIONS: dict[str, type[nn.Module]] = {"no": nn.Identity, "relu": nn.ReLU, "elu": nn.ELU}


def separable(channels: int, out: int, convolution: str, activation: str) -> nn.Sequential:
    """A separable 3x3 convolution, or a regular one, and its batch normalisation; padding keeps the size."""
    layers = nn.Sequential()
    if convolution == "regular":
        layers.add_module("conv", nn.Conv2d(channels, out, 3, padding=1, bias=False))
    else:
        layers.add_module("depthwise", nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False))
        if activation != "no":
            layers.add_module("activation", ACTIVATIONS[activation]())
        layers.add_module("pointwise", nn.Conv2d(channels, out, 1, bias=False))
    layers.add_module("norm", nn.BatchNorm2d(out))
    return layers


class Block(nn.Module):
    """One module of Figure 5: `outs` separable convolutions, each after a ReLU where `first`, with a shortcut.

    A pooling module ends in a 3x3 max pooling of stride 2, and its shortcut is a 1x1 convolution of stride 2.
    """

    def __init__(
        self, channels: int, outs: list[int], pool: bool, residual: bool, convolution: str, activation: str, first: bool
    ) -> None:
        super().__init__()
        self.shortcut: nn.Module | None = None
        if residual:
            self.shortcut = nn.Identity()
            if pool:
                conv = nn.Conv2d(channels, outs[-1], 1, 2, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outs[-1]))
        self.layers = nn.Sequential()
        for i, out in enumerate(outs, 1):
            if first or i > 1:
                self.layers.add_module(f"relu{i}", nn.ReLU())
            self.layers.add_module(f"sep{i}", separable(channels, out, convolution, activation))
            channels = out
        if pool:
            self.layers.add_module("pool", nn.MaxPool2d(3, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out if self.shortcut is None else out + self.shortcut(x)


class Xception(nn.Module):
    """Xception. Input (N, 3, 299, 299) or another size; output (N, classes) of logits."""

    def __init__(
        self,
        width: float,
        depth: int,
        classes: int,
        residual: bool,
        convolution: str,
        activation: str,
        fc: int,
        p: float,
    ) -> None:
        super().__init__()
        c = {n: max(1, round(n * width)) for n in (32, 64, 128, 256, 728, 1024, 1536, 2048, 4096)}
        same = {"convolution": convolution, "activation": activation}

        def block(channels: int, outs: list[int], pool: bool = False, first: bool = True) -> Block:
            return Block(c[channels], [c[n] for n in outs], pool, residual, **same, first=first)

        first = nn.Sequential()
        first.add_module("conv1", nn.Conv2d(3, c[32], 3, 2, bias=False))
        first.extend([nn.BatchNorm2d(c[32]), nn.ReLU()])
        first.add_module("conv2", nn.Conv2d(c[32], c[64], 3, bias=False))
        first.extend([nn.BatchNorm2d(c[64]), nn.ReLU()])

        self.entry = nn.Sequential()
        self.entry.add_module("block1", first)
        self.entry.add_module("block2", block(64, [128, 128], pool=True, first=False))
        self.entry.add_module("block3", block(128, [256, 256], pool=True))
        self.entry.add_module("block4", block(256, [728, 728], pool=True))
        self.middle = nn.Sequential()
        for i in range(depth):
            self.middle.add_module(f"block{5 + i}", block(728, [728, 728, 728]))
        self.exit = nn.Sequential()
        self.exit.add_module(f"block{5 + depth}", block(728, [728, 1024], pool=True))
        last = nn.Sequential()
        last.add_module("sep1", separable(c[1024], c[1536], **same))
        last.add_module("relu1", nn.ReLU())
        last.add_module("sep2", separable(c[1536], c[2048], **same))
        last.add_module("relu2", nn.ReLU())
        self.exit.add_module(f"block{6 + depth}", last)
        self.pool = nn.AdaptiveAvgPool2d(1)
        channels = c[2048]
        self.hidden = nn.Sequential()
        for i in range(fc):
            self.hidden.add_module(f"fc{i + 1}", nn.Linear(channels, c[4096]))
            self.hidden.add_module(f"relu{i + 1}", nn.ReLU())
            channels = c[4096]
        self.dropout = nn.Dropout(p)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.exit(self.middle(self.entry(x)))).flatten(1)
        logits: Tensor = self.fc(self.dropout(self.hidden(x)))
        return logits


def build(
    net: str,
    width: float = 1.0,
    depth: int = 8,
    classes: int = 1000,
    residual: str = "yes",
    convolution: str = "separable",
    activation: str = "no",
    fc: int = 0,
    dropout: float = 0.5,
) -> Xception:
    """Xception with `depth` modules in the middle flow."""
    if convolution not in ("separable", "regular"):
        raise ReproError(f"convolution is separable or regular, not {convolution}")
    if activation not in ACTIVATIONS:
        raise ReproError(f"activation is {', '.join(ACTIVATIONS)}, not {activation}")
    return Xception(width, depth, classes, residual != "no", convolution, activation, fc, dropout)
