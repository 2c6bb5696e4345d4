"""A net and view sets to scores per image, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .. import protocols
from ..errors import JobError, ReproError
from ..protocols import View
from ..schema import ViewSet
from . import rank_of_truth
from .dense import Dense

BATCH = 64  # images rescaled together
PIXELS = 128 * 1024  # input pixels that go through the net together: fastest for small nets on one CPU thread
SERVED = ("bilinear antialias", "logits", "softmax")  # a view set's resize, cells and views


def scores(
    net: nn.Module,
    images: Iterable[NDArray[np.uint8]],
    view_sets: Sequence[ViewSet],
    mean: ArrayLike,
    scale: float,
    *,
    batch: int = BATCH,
    pixels: int = PIXELS,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    progress: Callable[[int], None] | None = None,
) -> dict[ViewSet, NDArray[np.float32]]:
    """Averaged softmax of each image under each view set: (N, classes), float32, in the order of `images`.

    `images` are uint8 RGB, (H, W, 3) of mixed sizes. The net sees (pixel - mean) * scale, mean RGB in 0..255,
    taken after the rescale, which is done once for each Q, in float on the device. `dtype` is that of the net's
    parameters, or "bfloat16" for autocast. The net moves to `device`; its modes and weights stay as they are.

    At most `batch` images of a size are rescaled and `pixels` input pixels (at least one view) forwarded at
    once. Batches are cut in the same places whatever N is; an image's scores depend on those beside it only
    through the rounding of another batch size. `progress` is called with the number of images done. Raises
    ReproError for a view set or dtype that cannot be served, JobError for images that are not uint8 RGB.
    """
    by_scale: dict[int, list[ViewSet]] = {}
    for view_set in dict.fromkeys(view_sets):
        if (view_set.resize, view_set.cells, view_set.views) != SERVED:
            raise ReproError(f"view set {view_set}: only {SERVED} are known for resize, cells and views")
        by_scale.setdefault(view_set.Q, []).append(view_set)
    own = next(net.parameters()).dtype
    if dtype != "bfloat16" and f"torch.{dtype}" != str(own):
        raise ReproError(f"dtype {dtype!r} does not go with a net in {own}; it is that or 'bfloat16'")
    place = torch.device(device)
    net.to(place)
    colour = torch.tensor(np.asarray(mean, dtype=np.float64), device=place, dtype=own).view(1, 3, 1, 1)
    order: list[int] = []
    found: dict[ViewSet, list[NDArray[np.float32]]] = {view_set: [] for view_set in view_sets}
    with (
        _evaluating(net),
        # A GPU's float32 is float32: no TF32, which torch lets cuDNN use.
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        torch.inference_mode(),
        torch.autocast(place.type, torch.bfloat16, dtype == "bfloat16"),
    ):
        for bucket in _batches(images, batch):
            order += [i for i, _ in bucket]
            stack = np.stack([image for _, image in bucket])
            whole = torch.tensor(stack, device=place).permute(0, 3, 1, 2).to(own)
            height, width = whole.shape[2:]
            for Q, sets in by_scale.items():
                size = protocols.rescaled(height, width, Q)
                same = size == (height, width)
                x = whole if same else F.interpolate(whole, size, mode="bilinear", antialias=True)
                x = (x - colour) * scale
                for view_set in sets:
                    views = protocols.views(view_set, height, width)
                    dense = view_set.kind == "dense"
                    mean_softmax = _dense(Dense(net), x, views, pixels) if dense else _crops(net, x, views, pixels)
                    found[view_set].append(mean_softmax.float().cpu().numpy())
            if progress is not None:
                progress(len(order))
    if not order:
        raise JobError("there is no image to score")
    back = np.argsort(order)
    return {view_set: np.concatenate(rows)[back] for view_set, rows in found.items()}


def validation_error(
    net: nn.Module, images: NDArray[np.uint8], labels: ArrayLike, Q: int, mean: ArrayLike, scale: float
) -> float:
    """Top-1 error in % of one dense pass with flips at short side `Q`, on the net's device. See `rank_of_truth`."""
    view_set = ViewSet("dense", Q, Q)
    found = scores(net, images, [view_set], mean, scale, device=next(net.parameters()).device)[view_set]
    return 100.0 * float(np.mean(rank_of_truth(found, labels) > 0))


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards for each module the mode that it was in."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _batches(images: Iterable[NDArray[np.uint8]], batch: int) -> Iterator[list[tuple[int, NDArray[np.uint8]]]]:
    """Up to `batch` images of one size at a time, each with its place.

    Rare sizes wait for their batch to fill; with more than four batches of them waiting, the fullest goes first.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
    for i, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise JobError(f"image {i} is {image.dtype} of shape {image.shape}; expected uint8 (height, width, 3)")
        waiting.setdefault(image.shape, []).append((i, image))
        if len(waiting[image.shape]) == batch:
            yield waiting.pop(image.shape)
        elif sum(len(bucket) for bucket in waiting.values()) > 4 * batch:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def _forward(net: nn.Module, x: Tensor, pixels: int) -> Tensor:
    """The net on (N, 3, H, W) in equal parts of at most `pixels` pixels, channels last (twice as fast on a CPU)."""
    parts = -(-len(x) // max(1, pixels // (x.shape[2] * x.shape[3])))
    found = torch.cat([net(part.contiguous(memory_format=torch.channels_last)) for part in x.tensor_split(parts)])
    return found.float() if found.dtype is torch.bfloat16 else found


def _dense(net: Dense, x: Tensor, views: list[View], pixels: int) -> Tensor:
    """Logits averaged over the cells of the class map, softmax, averaged over flips: (N, classes)."""
    logits = [_forward(net, _cut(x, view), pixels).mean(dim=(2, 3)) for view in views]
    return torch.stack(logits).softmax(2).mean(0)


def _crops(net: nn.Module, x: Tensor, views: list[View], pixels: int) -> Tensor:
    """Softmax of each crop, averaged over crops: (N, classes). Cuts as many views at once as fill a batch."""
    _, _, height, width = views[0].box
    together = max(1, pixels // (height * width * len(x)))
    sums = []
    for i in range(0, len(views), together):
        crops = torch.cat([_cut(x, view) for view in views[i : i + together]])
        found = _forward(net, crops, pixels).softmax(1)
        sums.append(found.view(-1, len(x), found.shape[1]).sum(0))
    return sum(sums, torch.zeros(())) / len(views)


def _cut(x: Tensor, view: View) -> Tensor:
    top, left, height, width = view.box
    crop = x[:, :, top : top + height, left : left + width]
    return crop.flip(3) if view.flip else crop
