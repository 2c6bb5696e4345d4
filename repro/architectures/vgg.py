"""VGG: Simonyan & Zisserman, arXiv 1409.1556v6, Table 1 and Section 2.

Written here for A-LRN and C, which no library holds, for the shallow 5x5 net of Section 4.1, and
for the width and input size that the proxy needs. A, B, D and E equal torchvision's vgg11, 13, 16
and 19 when weights are copied across. Local response normalisation is AlexNet's (Section 3.3
there): its alpha is not divided by the window, which torch's is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError

NETS = ("A", "A-LRN", "B", "C", "D", "E")
ARGS = ("classes", "dropout", "filters", "input", "pools", "width")

# Table 1, block by block: conv<receptive field>-<channels>.
CONFIGURATIONS: dict[str, list[str]] = {
    "A": ["3-64", "3-128", "3-256 3-256", "3-512 3-512", "3-512 3-512"],
    "A-LRN": ["3-64 LRN", "3-128", "3-256 3-256", "3-512 3-512", "3-512 3-512"],
    "B": ["3-64 3-64", "3-128 3-128", "3-256 3-256", "3-512 3-512", "3-512 3-512"],
    "C": ["3-64 3-64", "3-128 3-128", "3-256 3-256 1-256", "3-512 3-512 1-512", "3-512 3-512 1-512"],
    "D": ["3-64 3-64", "3-128 3-128", "3-256 3-256 3-256", "3-512 3-512 3-512", "3-512 3-512 3-512"],
    "E": [
        "3-64 3-64",
        "3-128 3-128",
        "3-256 3-256 3-256 3-256",
        "3-512 3-512 3-512 3-512",
        "3-512 3-512 3-512 3-512",
    ],
}


class LRN(nn.Module):
    """Local response normalisation across channels: a / (k + alpha * sum of squares) ** beta.

    Input and output (N, C, H, W). Constants n, k, alpha, beta of AlexNet, Section 3.3. The sum
    over `n` neighbouring channels is a 1x1 convolution with a band matrix, several times faster
    on a CPU than torch's own.
    """

    def __init__(self, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75) -> None:
        super().__init__()
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        index = torch.arange(channels, device=x.device)
        band = ((index[:, None] - index[None, :]).abs() <= self.n // 2).to(x.dtype)
        squares = F.conv2d(x * x, band[:, :, None, None])
        return x / (self.k + self.alpha * squares) ** self.beta


class VGG(nn.Module):
    """A VGG net. Input (N, 3, input, input); output (N, classes) of logits.

    `features` holds `block1` to `block5`, `classifier` the three fully connected layers `fc6`,
    `fc7`, `fc8`, the names of the authors' own release.
    """

    def __init__(
        self,
        blocks: list[str],
        width: float = 1.0,
        input: int = 224,
        classes: int = 1000,
        pools: int = 5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels = 3
        self.features = nn.Sequential()
        for i, block in enumerate(blocks, 1):
            layers: list[nn.Module] = []
            for word in block.split():
                if word == "LRN":
                    layers.append(LRN())
                    continue
                size, out = (int(v) for v in word.split("-"))
                out = round(out * width)
                layers += [nn.Conv2d(channels, out, size, padding=size // 2), nn.ReLU(inplace=True)]
                channels = out
            if i <= pools:
                layers.append(nn.MaxPool2d(2, 2))
            self.features.add_module(f"block{i}", nn.Sequential(*layers))
        side, hidden = input >> pools, round(4096 * width)
        self.classifier = nn.Sequential()
        self.classifier.add_module("fc6", nn.Linear(channels * side * side, hidden))
        self.classifier.add_module("relu6", nn.ReLU(inplace=True))
        self.classifier.add_module("drop6", nn.Dropout(dropout))
        self.classifier.add_module("fc7", nn.Linear(hidden, hidden))
        self.classifier.add_module("relu7", nn.ReLU(inplace=True))
        self.classifier.add_module("drop7", nn.Dropout(dropout))
        self.classifier.add_module("fc8", nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def build(net: str, filters: str = "3x3", **args: float) -> VGG:
    """Net `net` of Table 1; `filters="5x5"` puts one 5x5 in place of each pair of 3x3 (Section 4.1)."""
    blocks = CONFIGURATIONS[net]
    if filters == "5x5":
        blocks = [b.replace(f"{b.split()[0]} {b.split()[0]}", b.split()[0].replace("3-", "5-")) for b in blocks]
    elif filters != "3x3":
        raise ReproError(f"filters is 3x3 or 5x5, not {filters}")
    return VGG(blocks, **args)  # type: ignore[arg-type]
