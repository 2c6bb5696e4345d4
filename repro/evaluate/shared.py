"""A net's first block, computed once for a whole image where its crops overlap, exactly.

A cell of the block's output that sees nothing beyond its crop is the same for the crop and for the whole image; the
outer cells, which see the crop's zero padding, come from strips along its borders. Later layers see the crop alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import torch
from torch import Tensor, nn

from ..protocols import View


class FirstBlock:
    """The layers of `net.features` as far as the first pooling, which see the images x (N, 3, H, W) first.

    `pays` says whether crops can share them, and save half of their work by it; on a CPU, where that was measured.
    """

    def __init__(self, net: nn.Module, x: Tensor, views: Sequence[View]) -> None:
        layers, margin = _first_layers(net)
        self.x, self.layers = x.contiguous(memory_format=torch.channels_last), nn.Sequential(*layers)
        self.whole: dict[bool, tuple[Tensor, dict[tuple[int, int], Tensor]]] = {}
        self.ring = -(-margin // 2)  # outer cells of the pooled map
        self.strip = 2 * self.ring + margin + margin % 2  # pixels that they come from
        (_, _, side, width), flips = views[0].box, len({view.flip for view in views})
        work = flips * x.shape[2] * x.shape[3] + len(views) * 4 * self.strip * side
        fits = self.ring > 0 and side == width and side % 2 == 0 and not any(view.out for view in views)
        self.pays = fits and x.device.type == "cpu" and work < len(views) * side * side / 2

    def maps(self, views: Sequence[View]) -> Tensor:
        """The block's output for views of one image: (views, channels, side / 2, side / 2)."""
        side, ring, found = views[0].box[2], self.ring, []
        for flip, some in groupby(views, lambda view: view.flip):
            x = self.x.flip(3) if flip else self.x
            corners = [(v.box[0], x.shape[3] - side - v.box[1] if flip else v.box[1]) for v in some]
            if flip not in self.whole:  # kept for one direction at a time: it is large
                self.whole = {flip: (self.layers[:-1](x), {})}
            y, pooled = self.whole[flip]
            for at in {(i % 2, j % 2) for i, j in corners} - pooled.keys():
                pooled[at] = self.layers[-1](y[:, :, at[0] :, at[1] :])
            inner = [pooled[i % 2, j % 2][:, :, i // 2 :, j // 2 :][..., : side // 2, : side // 2] for i, j in corners]
            maps, crops = torch.cat(inner), torch.cat([x[:, :, i : i + side, j : j + side] for i, j in corners])
            for near, cells in ((slice(self.strip), slice(ring)), (slice(-self.strip, None), slice(-ring, None))):
                maps[:, :, cells] = self.layers(crops[:, :, near])[:, :, cells]
                maps[..., cells] = self.layers(crops[..., near])[..., cells]
            found.append(maps)
        return torch.cat(found)

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Inside, the net takes the block's output in place of an image."""
        for layer in self.layers:
            layer.__dict__["forward"] = lambda x: x
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.__dict__["forward"]


def _first_layers(net: nn.Module) -> tuple[list[nn.Module], int]:
    """Convolutions that keep the size, layers of one pixel, a pooling of 2 x 2; the pixels that see beyond a border."""
    layers, margin, features = list[nn.Module](), 0, getattr(net, "features", None)
    for layer in features.modules() if isinstance(features, nn.Sequential) else ():
        layers += [] if isinstance(layer, nn.Sequential) else [layer]
        if isinstance(layer, nn.Conv2d):
            reach = layer.kernel_size[0] // 2
            size, rest = (layer.kernel_size, layer.padding), (layer.stride, layer.dilation, layer.padding_mode)
            if size != ((2 * reach + 1,) * 2, (reach,) * 2) or rest != ((1, 1), (1, 1), "zeros"):
                break
            margin += reach
        elif repr(layer) == repr(nn.MaxPool2d(2, 2)):
            every = [m for _, m in net.named_modules(remove_duplicate=False)]
            return (layers, margin) if all(every.count(m) == 1 for m in layers) else ([], 0)  # none is used again
        elif type(layer).__name__ not in ("Sequential", "ReLU", "LRN", "BatchNorm2d"):
            break
    return [], 0
