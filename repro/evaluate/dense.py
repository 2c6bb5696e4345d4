"""A classifier made fully convolutional, its weights untouched (VGG, arXiv 1409.1556v6, Section 3.2)."""

from __future__ import annotations

from math import isqrt

from torch import Tensor, nn

from ..errors import ReproError


class Dense(nn.Module):
    """`net`, its layers shared, slid over larger images: input (N, 3, H, W), output (N, classes, h, w) of logits.

    The first fully connected layer sees windows of the size that it was trained on, as rows of one matrix
    product (several times faster than a convolution of that size), the others each row, as 1x1 convolutions.
    At the training size the map is 1 x 1 and equals the plain classifier. Zero padding inside the net stands
    for the mean colour. Raises ReproError where the net has no such form or the image is too small.
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
        side = isqrt(self.inputs // maps.shape[1])
        if min(maps.shape[2:]) < side:
            size, least = tuple(x.shape[2:]), tuple(maps.shape[2:])
            raise ReproError(f"an image of {size} leaves a map of {least}, smaller than the window of {side} x {side}")
        windows = maps.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)
        n, height, width = windows.shape[:3]
        logits: Tensor = self.classifier(windows.reshape(n * height * width, self.inputs))
        return logits.view(n, height, width, -1).permute(0, 3, 1, 2)
