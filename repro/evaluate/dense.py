"""A classifier made fully convolutional, its weights untouched (VGG, arXiv 1409.1556v6, Section 3.2)."""

from __future__ import annotations

from math import isqrt

from torch import Tensor, nn

from ..errors import ReproError


class Dense(nn.Module):
    """`net` slid over larger images. Input (N, 3, H, W); output the class map (N, classes, h, w) of logits.

    The fully connected layers are applied at every place of the last feature map: the first to
    windows of the size that it was trained on, laid out as rows of one matrix product, which is
    several times faster than a convolution of that size; the others row by row, as 1x1
    convolutions. At the training size the map is 1 x 1 and equals the plain classifier.
    Zero padding inside the net stands for the mean colour, since inputs have the mean subtracted.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        features, classifier = getattr(net, "features", None), getattr(net, "classifier", None)
        linear = [m for m in classifier.modules() if isinstance(m, nn.Linear)] if classifier is not None else []
        if features is None or classifier is None or not linear:
            raise ReproError(
                f"dense evaluation needs a net with `features` and a `classifier` of linear layers; "
                f"{type(net).__name__} has none: use the protocol grid, ten or centre"
            )
        self.features, self.classifier = features, classifier
        self.inputs = linear[0].in_features

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.features(x)
        channels, side = maps.shape[1], isqrt(self.inputs // maps.shape[1])
        if channels * side * side != self.inputs:
            raise ReproError(f"the first linear layer takes {self.inputs} inputs: no square window of {channels} maps")
        if min(maps.shape[2:]) < side:
            size, least = tuple(x.shape[2:]), tuple(maps.shape[2:])
            raise ReproError(f"an image of {size} leaves a map of {least}, smaller than the window of {side} x {side}")
        windows = maps.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)
        n, height, width = windows.shape[:3]
        logits: Tensor = self.classifier(windows.reshape(n * height * width, self.inputs))
        return logits.view(n, height, width, -1).permute(0, 3, 1, 2)


def fully_convolutional(net: nn.Module) -> Dense:
    """`net` as a fully convolutional one that shares its layers. Raises ReproError where it has no such form."""
    return Dense(net)
