"""AlexNet: Krizhevsky, Sutskever & Hinton, NIPS 2012, Sections 3.1 to 3.5 and Figure 2 (arXiv has no copy).

Two groups where a kernel sees the maps of its own GPU only (conv2, conv4, conv5), local response normalisation
after the ReLU of conv1 and conv2, overlapping pooling (z = 3, s = 2). A 224x224 image does not give the 55x55 map
of Figure 2 at a stride of 4 without padding; conv1 is padded by 2 here. torchvision's `alexnet` is another net
(64-192-384-256-256 kernels, no groups, no LRN, 61,100,840 parameters; "one weird trick", arXiv 1404.5997): it has
the same pooling, kernel sizes, strides and fully connected layers, and these agree.

`one-gpu` is the net of Section 3.2 that two GPUs are compared with: half the kernels in conv1 to conv4, no groups.
`convs=4` leaves out conv4 (Section 7), `convs=6` adds a convolution over the last pooling layer (Section 6: its size
is not printed, 256 kernels of 3x3 are taken); `lrn=0` and `pool=2` are the comparisons of Sections 3.3 and 3.4.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import ReproError
from .vgg import LRN

NETS = ("alexnet", "one-gpu")
ARGS = ("classes", "convs", "dropout", "groups", "hidden", "input", "lrn", "pool", "width")

# Section 3.5: number of kernels, side, stride, padding, and whether a kernel sees its own group only.
LAYERS = {
    "conv1": (96, 11, 4, 2, False),
    "conv2": (256, 5, 1, 2, True),
    "conv3": (384, 3, 1, 1, False),
    "conv4": (384, 3, 1, 1, True),
    "conv5": (256, 3, 1, 1, True),
    "conv6": (256, 3, 1, 1, True),
}
CONVS = {
    4: ("conv1", "conv2", "conv3", "conv5"),
    5: ("conv1", "conv2", "conv3", "conv4", "conv5"),
    6: ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6"),
}


class Conv(nn.Conv2d):
    """A convolution that knows how many maps each of its kernels sees (`depth`), those of its own group."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int, padding: int, groups: int) -> None:
        super().__init__(inputs, outputs, side, stride, padding, groups=groups)
        self.depth: int = self.weight.shape[1]


class AlexNet(nn.Module):
    """AlexNet. Input (N, 3, input, input); output (N, classes) of logits.

    `features` holds conv1 to conv5, each with its ReLU, `norm` and `pool`; `classifier` fc6, fc7, fc8. `kernels`
    gives the number of kernels of each convolution before `width` multiplies it.
    """

    def __init__(
        self,
        kernels: dict[str, int],
        width: float = 1.0,
        input: int = 224,
        classes: int = 1000,
        convs: int = 5,
        hidden: int = 2,
        groups: int = 2,
        lrn: int = 1,
        pool: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.features, channels, map_side = nn.Sequential(), 3, input
        for name in CONVS[convs]:
            _, side, stride, padding, grouped = LAYERS[name]
            out, index = groups * max(1, round(kernels[name] * width / groups)), name[-1]
            self.features.add_module(name, Conv(channels, out, side, stride, padding, groups if grouped else 1))
            self.features.add_module(f"relu{index}", nn.ReLU(inplace=True))
            channels, map_side = out, (map_side + 2 * padding - side) // stride + 1
            if name in ("conv1", "conv2") and lrn:
                self.features.add_module(f"norm{index}", LRN())
            if name in ("conv1", "conv2", "conv5"):
                self.features.add_module(f"pool{index}", nn.MaxPool2d(pool, 2))
                map_side = (map_side - pool) // 2 + 1
        self.classifier, size = nn.Sequential(), channels * map_side * map_side
        for i in range(6, 6 + hidden):
            self.classifier.add_module(f"fc{i}", nn.Linear(size, round(4096 * width)))
            self.classifier.add_module(f"relu{i}", nn.ReLU(inplace=True))
            self.classifier.add_module(f"drop{i}", nn.Dropout(dropout))
            size = round(4096 * width)
        self.classifier.add_module(f"fc{6 + hidden}", nn.Linear(size, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def build(net: str, **args: Any) -> AlexNet:
    """AlexNet, or the net on one GPU of Section 3.2, which keeps all kernels in its last convolution."""
    if args.get("convs", 5) not in CONVS:
        raise ReproError(f"convs is 4, 5 or 6, not {args['convs']}")
    kernels = {name: layer[0] for name, layer in LAYERS.items()}
    if net == "one-gpu":
        kernels |= {name: kernels[name] // 2 for name in ("conv1", "conv2", "conv3", "conv4")}
        args = {"groups": 1, **args}
    return AlexNet(kernels, **args)
