"""Network in Network: Lin, Chen & Yan, arXiv 1312.4400v3, Sections 3 and 4.

An mlpconv layer is a perceptron of three layers that slides over the map: a convolution and two of 1x1, each with
a ReLU. Maximum pooling by 2 and dropout follow all but the last; a global average over each map of the last gives
the scores of the classes, with no fully connected layer. The paper prints no widths: those of CIFAR-10, CIFAR-100,
SVHN and MNIST are of the authors' own definition files (mavenlin/cuda-convnet, folder NIN), the ImageNet form, of
which the paper says nothing, is their later Caffe model. No library holds these nets.

`head=fc` and `head=fc-dropout` put a fully connected layer in the place of the global average (Table 5); the size
of the image is then `input`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ReproError

NETS = ("cifar10", "cifar100", "svhn", "mnist", "imagenet")
ARGS = ("classes", "depth", "dropout", "head", "input", "layers", "width")

# Each mlpconv layer: side, stride and padding of its window, widths of its perceptron; 0 stands for the classes.
Layer = tuple[int, int, int, tuple[int, ...]]
_CIFAR: list[Layer] = [(5, 1, 2, (192, 160, 96)), (5, 1, 2, (192, 192, 192)), (3, 1, 1, (192, 192, 0))]
MLPCONVS: dict[str, list[Layer]] = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "svhn": [(5, 1, 2, (128, 96, 64)), (5, 1, 2, (320, 256, 128)), (5, 1, 2, (384, 256, 0))],
    "mnist": [(5, 1, 2, (96, 64, 48)), (5, 1, 2, (128, 96, 48)), (5, 1, 2, (128, 96, 0))],
    "imagenet": [
        (11, 4, 0, (96, 96, 96)),
        (5, 1, 2, (256, 256, 256)),
        (3, 1, 1, (384, 384, 384)),
        (3, 1, 1, (1024, 1024, 0)),
    ],
}
CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "mnist": 10, "imagenet": 1000}
SIDES = {"cifar10": 32, "cifar100": 32, "svhn": 32, "mnist": 28, "imagenet": 224}


class MLPConv(nn.Sequential):
    """A perceptron over windows of `side`: (N, inputs, H, W) to (N, widths[-1], H', W').

    `conv` is its first layer, `cccp1`, `cccp2` the others, by the authors' word: cascaded cross-channel pooling.
    """

    def __init__(self, inputs: int, widths: list[int], side: int, stride: int, padding: int) -> None:
        super().__init__()
        for i, out in enumerate(widths):
            conv = nn.Conv2d(inputs, out, 1) if i else nn.Conv2d(inputs, out, side, stride, padding)
            self.add_module(f"cccp{i}" if i else "conv", conv)
            self.add_module(f"relu{i}", nn.ReLU(inplace=True))
            inputs = out


class NiN(nn.Module):
    """Network in Network. Input (N, channels, input, input); output (N, classes) of logits.

    `features` holds mlpconv1, mlpconv2, ..., each but the last with the pooling and the dropout after it. `depth`
    and `layers` are the number of mlpconv layers and of layers in their perceptrons, where not the paper's.
    """

    def __init__(
        self,
        mlpconvs: list[Layer],
        channels: int = 3,
        input: int = 32,
        classes: int = 10,
        width: float = 1.0,
        depth: int = 0,
        layers: int = 3,
        head: str = "average",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.channels, side_of_map, inputs = channels, input, channels
        depth = depth or len(mlpconvs)
        middle = [mlpconvs[min(i, len(mlpconvs) - 2)] for i in range(depth - 1)]
        self.features = nn.Sequential()
        for i, (side, stride, padding, printed) in enumerate([*middle, mlpconvs[-1]], 1):
            whole = [printed[0]] * (layers - 3) + list(printed[-layers:])
            widths = [max(1, round(n * width)) if n else classes for n in whole]
            mlpconv = MLPConv(inputs, widths, side, stride, padding)
            inputs, side_of_map = widths[-1], (side_of_map + 2 * padding - side) // stride + 1
            if i < depth:
                mlpconv.add_module("pool", nn.MaxPool2d(3, 2, ceil_mode=True))
                mlpconv.add_module("drop", nn.Dropout(dropout))
                side_of_map = -(-(side_of_map - 3) // 2) + 1
            self.features.add_module(f"mlpconv{i}", mlpconv)
        if head == "average":
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        else:
            self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout if head == "fc-dropout" else 0.0))
            self.head.add_module("fc", nn.Linear(inputs * side_of_map**2, classes))

    def example(self, batch: int, input: int) -> Tensor:
        """Images of the net's own number of channels: one for MNIST, three elsewhere."""
        return torch.zeros(batch, self.channels, input, input)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def build(net: str, **args: Any) -> NiN:
    """The form of `net` for its data set's images and classes."""
    if args.get("head", "average") not in ("average", "fc", "fc-dropout"):
        raise ReproError(f"head is average, fc or fc-dropout, not {args['head']}")
    if args.get("depth", 3) < 2 or args.get("layers", 3) < 1:
        raise ReproError("a net has 2 mlpconv layers at least, and their perceptrons 1 layer")
    channels = 1 if net == "mnist" else 3
    return NiN(MLPCONVS[net], channels, **{"input": SIDES[net], "classes": CLASSES[net], **args})
