"""All-CNN: Springenberg, Dosovitskiy, Brox & Riedmiller, arXiv 1412.6806v3, Sections 2 and 3, Tables 1, 2 and 5.

`A`, `B`, `C` are the base nets of Table 1. Three derived forms each (Section 2.1, Table 2): `strided` drops the
pooling and gives the layer before it a stride of 2; `convpool` puts a 3x3 layer before each pooling; `all` puts one
of stride 2 in the place of each pooling. Layers keep the size of the map, but for the 3x3 layer after the second
pooling: only without padding there the global average is over the 6x6 that Table 1 prints (`padding=1`: over 8x8).
The last 1x1 layer gives the maps of the classes, with a ReLU as printed, and these are averaged.

`large` is the net of Table 5 for CIFAR-10 images in a frame of 126x126; no layer is padded, so that 126 ends as 1x1.
A 1x1 layer to the classes follows conv17; the leak of its ReLUs is not printed, 1/3 is taken. `imagenet` is the
adapted All-CNN-B of Section 3.4: twelve layers, whose list is recalled of the paper's appendix, not read. No library
holds these nets.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from ..errors import ReproError

NETS = (
    "A",
    "strided-A",
    "convpool-A",
    "all-A",
    "B",
    "strided-B",
    "convpool-B",
    "all-B",
    "C",
    "strided-C",
    "convpool-C",
    "all-C",
    "large",
    "imagenet",
)
ARGS = ("classes", "padding", "width")

# <side>-<maps>/<stride>p<padding> is a convolution, P a pooling of 3x3 with stride 2, D50 a dropout of 50 %.
BASE: dict[str, list[str]] = {
    "A": ["5-96 P D50", "5-192 P D50", "3-192p0 1-192 1-0"],
    "B": ["5-96 1-96 P D50", "5-192 1-192 P D50", "3-192p0 1-192 1-0"],
    "C": ["3-96 3-96 P D50", "3-192 3-192 P D50", "3-192p0 1-192 1-0"],
}
LARGE = """
    2-320p0 2-320p0 2-320/2p0
    2-640p0 D10 2-640p0 D10 2-640/2p0
    2-960p0 D20 2-960p0 D20 2-960/2p0
    2-1280p0 D30 2-1280p0 D30 2-1280/2p0
    2-1600p0 D40 2-1600p0 D40 2-1600/2p0
    2-1920p0 D50 1-1920 D50
"""
IMAGENET = """
    11-96/4p2 1-96 3-96/2p0
    5-256 1-256 3-256/2p0
    3-384 1-384 3-384/2p0 D50
    3-1024 1-1024 1-0
"""
_CONV = re.compile(r"(\d+)-(\d+)(?:/(\d+))?(?:p(\d+))?")


def derived(block: str, form: str) -> str:
    """A block of a base net in another form; a block without pooling stays as it is."""
    if "P" not in block.split():
        return block
    convs, _, after = block.partition(" P")
    maps = convs.rpartition("-")[2]
    return {
        "base": block,
        "strided": f"{convs}/2{after}",
        "convpool": f"{convs} 3-{maps} P{after}",
        "all": f"{convs} 3-{maps}/2{after}",
    }[form]


class Layers(nn.Sequential):
    """The layers of a list: conv1, conv2, ..., each with its `act`, and `pool` and `drop` where they stand.

    From (N, channels, H, W) to (N, self.channels, H', W'); 0 maps stand for the classes.
    """

    def __init__(self, words: str, channels: int, classes: int, width: float, leak: float) -> None:
        super().__init__()
        count = 0
        for i, word in enumerate(words.split()):
            if word == "P":
                self.add_module("pool", nn.MaxPool2d(3, 2, ceil_mode=True))
            elif word[0] == "D":
                self.add_module(f"drop{i}", nn.Dropout(int(word[1:]) / 100))
            elif found := _CONV.fullmatch(word):
                side, maps, stride, padding = found.groups()
                out, count = max(1, round(int(maps) * width)) if int(maps) else classes, count + 1
                pad = int(side) // 2 if padding is None else int(padding)
                self.add_module(f"conv{count}", nn.Conv2d(channels, out, int(side), int(stride or 1), pad))
                self.add_module(f"act{count}", nn.LeakyReLU(leak, inplace=True) if leak else nn.ReLU(inplace=True))
                channels = out
        self.channels = channels


class AllCNN(nn.Module):
    """An All-CNN. Input (N, 3, H, W); output (N, classes) of logits, the means of the last maps.

    `features` holds block1 to block3, the last of them without pooling; of a net that is one list of layers, the
    layers. `output` gives the classes where the list does not end in them.
    """

    def __init__(self, blocks: list[str], classes: int, width: float, leak: float = 0.0, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(drop)
        if len(blocks) == 1:
            self.features: nn.Sequential = Layers(blocks[0], 3, classes, width, leak)
            channels = self.features.channels
        else:
            self.features, channels = nn.Sequential(), 3
            for i, words in enumerate(blocks, 1):
                block = Layers(words, channels, classes, width, leak)
                self.features.add_module(f"block{i}", block)
                channels = block.channels
        whole = blocks[-1].split()[-1] == "1-0"
        self.output: nn.Module = nn.Identity() if whole else nn.Conv2d(channels, classes, 1)
        self.average = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.average(self.output(self.features(self.drop(x)))).flatten(1)
        return logits


def build(net: str, padding: int = 0, width: float = 1.0, classes: int | None = None) -> AllCNN:
    """Net `net`; `padding` is that of the 3x3 layer after the second pooling of A, B and C, 0 or 1."""
    if padding not in (0, 1):
        raise ReproError(f"padding is 0 or 1, not {padding}")
    if net == "imagenet":
        return AllCNN([IMAGENET], classes or 1000, width)
    if net == "large":
        return AllCNN([LARGE], classes or 10, width, leak=1 / 3)
    form, _, name = net.rpartition("-")
    blocks = [derived(block, form or "base").replace("p0", f"p{padding}") for block in BASE[name]]
    return AllCNN(blocks, classes or 10, width, drop=0.2)
