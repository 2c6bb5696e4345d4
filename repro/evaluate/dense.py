"""A classifier made fully convolutional, its weights untouched (VGG, arXiv 1409.1556v6, Section 3.2)."""

from __future__ import annotations

import re
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ReproError


class Dense(nn.Module):
    """`net`, its layers shared, slid over larger images: input (N, 3, H, W), output (N, classes, h, w) of logits.

    A net with `features` and a `classifier` of several linear layers: the first sees windows of the size that it
    was trained on, as rows of one matrix product (several times faster than a convolution of that size), the
    others each row, as 1x1 convolutions. With a pyramid `spp` between them each window of the map that an image
    of `crop` pixels leaves is pooled by itself (PReLU-nets, arXiv 1502.01852, Section 3). Any other net must
    end in average pooling and one linear layer: by linearity the mean over its cells is one cell, so h = w = 1. A
    pooling window of fixed size stands at every place of the map.

    At the training size the map is 1 x 1 and equals the plain classifier. Zero padding inside the net stands
    for the mean colour. Raises ReproError where the net has no such form or the image is too small.
    """

    def __init__(self, net: nn.Module, crop: int = 0) -> None:
        super().__init__()
        classifier = getattr(net, "classifier", None)
        linear = [m for m in classifier.modules() if isinstance(m, nn.Linear)] if classifier is not None else []
        is_pooled = any(getattr(m, "output_size", None) in (1, (1, 1)) for m in net.children())
        self.is_windowed = hasattr(net, "features") and len(linear) > 1 and not is_pooled
        self.net, self.crop = net, crop
        if self.is_windowed:
            self.features: Any = net.features
            self.classifier: Any = classifier
            self.inputs, self.pyramid = linear[0].in_features, getattr(net, "spp", None)
            return
        modules = list(net.modules())
        pools = [i for i, m in enumerate(modules) if re.search(r"AvgPool2d|AdaptivePool2d", type(m).__name__)]
        after = [m for m in modules[pools[-1] + 1 :] if [*m.parameters(recurse=False)]] if pools else []
        if not pools or len(after) > 1 or not all(isinstance(m, nn.Linear) for m in after):
            needs = "`features` and a `classifier` of linear layers, or average pooling and a linear layer at its end"
            neither = f"{type(net).__name__} has neither: use the protocol grid, ten or centre"
            raise ReproError(f"dense evaluation needs a net with {needs}; {neither}")
        self.pool = modules[pools[-1]]

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_windowed:
            hook = self.pool.register_forward_hook(_mean_of_windows)
            try:
                pooled: Tensor = self.net(x)[:, :, None, None]
            finally:
                hook.remove()
            return pooled
        maps: Tensor = self.features(x)
        side = isqrt(self.inputs // maps.shape[1])
        if self.pyramid is not None:
            side = self.features(torch.zeros_like(x[:1, :, :1, :1]).expand(1, -1, self.crop, self.crop)).shape[2]
        if min(maps.shape[2:]) < side:
            size, least = tuple(x.shape[2:]), tuple(maps.shape[2:])
            raise ReproError(f"an image of {size} leaves a map of {least}, smaller than the window of {side} x {side}")
        windows = maps.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)
        n, height, width = windows.shape[:3]
        rows = windows.reshape(n * height * width, -1)
        if self.pyramid is not None:
            rows = self.pyramid(rows.view(-1, maps.shape[1], side, side)).flatten(1)
        logits: Tensor = self.classifier(rows)
        return logits.view(n, height, width, -1).permute(0, 3, 1, 2)


def _mean_of_windows(pool: nn.Module, args: tuple[Tensor], pooled: Tensor) -> Tensor:
    """A forward hook: the mean over all windows of a pooling layer, (N, C, 1, 1), whatever its own stride is."""
    if isinstance(pool, nn.AvgPool2d):
        pooled = F.avg_pool2d(args[0], pool.kernel_size, 1)
    return pooled.mean((2, 3), keepdim=True) if pooled.dim() == 4 else pooled
