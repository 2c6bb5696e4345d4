"""BranchyNet: Teerapittayanon, McDanel & Kung, arXiv 1709.01686, Sections III and IV: nets with early exits.

`lenet` for MNIST, `alexnet` and `resnet` (ResNet-110) for CIFAR-10. A branch leaves the main net behind a layer and
ends in an exit: a fully connected layer. The paper prints how many layers each branch has and behind which layer it
stands; the sizes are of the authors' code (kunglab/branchynet, folder networks). There the branches of AlexNet stand
one layer later than the paper says, and the first of ResNet one earlier: `placement=code`. Poolings cover the last
column (Chainer's rule), LRN is over 3 channels, and no ReLU stands between LeNet's fully connected layers.

The code's ResNet has biases and no padding in its first convolution; here it is ResNet-110 as its own paper has it
(arXiv 1512.03385, shortcut option A), with branches of the printed numbers of layers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError
from .vgg import LRN

NETS = ("lenet", "alexnet", "resnet")
ARGS = ("blocks", "classes", "exit", "input", "placement", "width")

# Behind which layer each branch leaves; block1.conv1 is ResNet-110's second convolution, block18 ends in its 37th.
PLACES: dict[str, dict[str, list[str]]] = {
    "lenet": {"paper": ["conv1"], "code": ["conv1"]},
    "alexnet": {"paper": ["conv1", "conv2"], "code": ["conv2", "conv3"]},
    "resnet": {"paper": ["block1.conv1", "block18"], "code": ["relu1", "block18"]},
}
# Children of `features` in order: convolutions as (channels, side, padding), poolings as their side, the rest by name.
LENET: dict[str, tuple[int, int, int] | int | str] = {
    "conv1": (5, 5, 3),
    "pool1": 2,
    "relu1": "relu",
    "conv2": (10, 5, 3),
    "pool2": 2,
    "relu2": "relu",
    "conv3": (20, 5, 3),
    "pool3": 2,
    "relu3": "relu",
}
ALEXNET: dict[str, tuple[int, int, int] | int | str] = {
    "conv1": (32, 5, 2),
    "relu1": "relu",
    "pool1": 3,
    "norm1": "lrn",
    "conv2": (64, 5, 2),
    "relu2": "relu",
    "pool2": 3,
    "norm2": "lrn",
    "conv3": (96, 3, 1),
    "relu3": "relu",
    "conv4": (96, 3, 1),
    "relu4": "relu",
    "conv5": (64, 3, 1),
    "relu5": "relu",
    "pool5": 3,
}
# A branch by its net and number; FC is the fully connected layer to the classes.
BRANCHES: dict[tuple[str, int], list[tuple[int, int, int] | int | str]] = {
    ("lenet", 1): [2, "relu", (10, 3, 1), 2, "relu", "FC"],
    ("alexnet", 1): ["relu", 3, "lrn", (32, 3, 1), "relu", (32, 3, 1), "relu", 3, "FC"],
    ("alexnet", 2): ["relu", 3, "lrn", (32, 3, 1), "relu", 3, "FC"],
    ("resnet", 1): [(64, 5, 2), "relu", "lrn", (32, 3, 1), "relu", (32, 3, 1), "relu", "FC"],
    ("resnet", 2): ["block", "FC"],
}


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, (N, channels, H, W) to (N, out, H / stride, W / stride).

    In two halves, for a branch may leave between them. Where the shape changes the shortcut is the input,
    subsampled, with channels of zeros behind it.
    """

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.more, self.step = out - channels, stride

    def first(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)))

    def second(self, inner: Tensor, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, :: self.step, :: self.step], (0, 0, 0, 0, 0, self.more))
        return F.relu(self.bn2(self.conv2(inner)) + shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x), x)


class Maker:
    """Makes layers one behind another, and knows the channels and the side of the map behind the last."""

    def __init__(self, channels: int, side: int, classes: int, width: float) -> None:
        self.channels, self.side, self.classes, self.width = channels, side, classes, width

    def layer(self, what: tuple[int, int, int] | int | str) -> nn.Module:
        if isinstance(what, tuple):
            inputs, self.channels = self.channels, max(1, round(what[0] * self.width))
            self.side += 2 * what[2] - what[1] + 1
            return nn.Conv2d(inputs, self.channels, what[1], padding=what[2])
        if isinstance(what, int):
            self.side = -(-(self.side - what) // 2) + 1
            return nn.MaxPool2d(what, 2, ceil_mode=True)
        if what == "FC":
            return nn.Sequential(nn.Flatten(), nn.Linear(self.channels * self.side**2, self.classes))
        if what == "block":
            return Block(self.channels, self.channels)
        return LRN(n=3, k=2.0, alpha=5e-5, beta=0.75) if what == "lrn" else nn.ReLU()


class BranchyNet(nn.Module):
    """A net with exits. Input (N, channels, input, input); output (N, classes) of logits.

    `features` and `classifier` are the main net; `branch1`, `branch2` leave it behind `places`. In evaluation it
    returns the logits of the last exit, or those of exit number `exit` alone, without what lies behind it. In training
    it returns the logits of all exits, the last one first.
    """

    def __init__(
        self,
        net: str,
        places: list[str],
        exit: int | None = None,
        width: float = 1.0,
        input: int = 32,
        classes: int = 10,
        blocks: int = 18,
    ) -> None:
        super().__init__()
        self.channels = 1 if net == "lenet" else 3
        self.places, exits = places, len(places) + 1
        self.exit = None if exit in (None, exits) else exit
        if exit is not None and not 1 <= exit <= exits:
            raise ReproError(f"exit is 1 to {exits}, not {exit}")
        make = Maker(self.channels, input, classes, width)
        self.features, self.classifier = nn.Sequential(), nn.Sequential(nn.Flatten())
        for name, layer in _main(net, make, blocks):
            self.features.add_module(name, layer)
            for place in (f"{name}.conv1", name):
                if place in places:
                    number, branch = places.index(place) + 1, Maker(make.channels, make.side, classes, width)
                    layers = [branch.layer(what) for what in BRANCHES[net, number]]
                    self.add_module(f"branch{number}", nn.Sequential(*layers))
        size = make.channels * make.side**2
        for name, out in {"lenet": {"fc4": 84}, "alexnet": {"fc6": 256, "fc7": 128}, "resnet": {}}[net].items():
            out = max(1, round(out * width))
            self.classifier.add_module(name, nn.Linear(size, out))
            if net == "alexnet":
                self.classifier.extend([nn.ReLU(), nn.Dropout(0.5)])
            size = out
        self.classifier.add_module({"lenet": "fc5", "alexnet": "fc8", "resnet": "fc"}[net], nn.Linear(size, classes))

    def example(self, batch: int, input: int) -> Tensor:
        """Images of the net's own number of channels: one for MNIST, three elsewhere."""
        return torch.zeros(batch, self.channels, input, input)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.training:
            return self.exits(x)
        logits: Tensor
        if self.exit is None:
            logits = self.classifier(self.features(x))
        else:
            place = self.places[self.exit - 1]
            logits = self._branch(place, next(y for name, y in self._maps(x) if name == place))
        return logits

    def exits(self, x: Tensor) -> tuple[Tensor, ...]:
        """The logits of all exits, the last one first."""
        early, y = [], x
        for place, y in self._maps(x):
            if place in self.places:
                early.append(self._branch(place, y))
        return self.classifier(y), *early

    def _branch(self, place: str, y: Tensor) -> Tensor:
        logits: Tensor = getattr(self, f"branch{self.places.index(place) + 1}")(y)
        return logits

    def _maps(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The map behind each layer, with the layer's name, computed when it is asked for."""
        for name, layer in self.features.named_children():
            if isinstance(layer, Block):
                inner = layer.first(x)
                yield f"{name}.conv1", inner
                x = layer.second(inner, x)
            else:
                x = layer(x)
            yield name, x


def _main(net: str, make: Maker, blocks: int) -> Iterator[tuple[str, nn.Module]]:
    """The layers of the main net up to the fully connected ones, by name, each made when it is asked for."""
    if net != "resnet":
        for name, what in (LENET if net == "lenet" else ALEXNET).items():
            yield name, make.layer(what)
        return
    inputs, make.channels = make.channels, max(1, round(16 * make.width))
    yield "conv1", nn.Conv2d(inputs, make.channels, 3, padding=1, bias=False)
    yield "bn1", nn.BatchNorm2d(make.channels)
    yield "relu1", nn.ReLU()
    for i in range(3 * blocks):
        first_of_stage = i > 0 and i % blocks == 0
        inputs, step = make.channels, 2 if first_of_stage else 1
        make.channels, make.side = inputs * step, -(-make.side // step)
        yield f"block{i + 1}", Block(inputs, make.channels, step)
    make.side = 1
    yield "average_pool", nn.AdaptiveAvgPool2d(1)


def build(
    net: str,
    placement: str = "paper",
    exit: int | None = None,
    width: float = 1.0,
    input: int | None = None,
    classes: int = 10,
    blocks: int = 18,
) -> BranchyNet:
    """Net `net` for images of `input` pixels; `blocks` are those of each of ResNet's three stages."""
    if placement not in ("paper", "code"):
        raise ReproError(f"placement is paper or code, not {placement}")
    places = [place.replace("block18", f"block{blocks}") for place in PLACES[net][placement]]
    return BranchyNet(net, places, exit, width, input or (28 if net == "lenet" else 32), classes, blocks)
