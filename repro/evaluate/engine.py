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
Limits = tuple[Tensor, Tensor]  # the least and the largest input of each channel


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
    by_scale: dict[tuple[object, ...], list[ViewSet]] = {}
    for view_set in dict.fromkeys(view_sets):
        for key, known in protocols.CHOICES.items():
            if key != "flips" and getattr(view_set, key) not in known:
                raise ReproError(f"view set {view_set}: {key} is one of {', '.join(known)}")
        rescale = (view_set.Q, view_set.side, view_set.rounding, view_set.resize)
        by_scale.setdefault(rescale, []).append(view_set)
    own = next(net.parameters()).dtype
    if dtype != "bfloat16" and f"torch.{dtype}" != str(own):
        raise ReproError(f"dtype {dtype!r} does not go with a net in {own}; it is that or 'bfloat16'")
    place = torch.device(device)
    net.to(place)
    exact = torch.float64 if own is torch.float64 else torch.float32  # of pixels, whatever the net's
    colour = torch.tensor(np.asarray(mean, dtype=np.float64), device=place, dtype=exact).view(1, 3, 1, 1)
    limits = (0 - colour) * scale, (255 - colour) * scale  # which bicubic rescaling oversteps
    order: list[int] = []
    found: dict[ViewSet, list[NDArray[np.float32]]] = {view_set: [] for view_set in view_sets}
    with (
        _evaluating(net),
        _cast_once(net, dtype),
        # A GPU's float32 is float32: no TF32, which torch lets cuDNN use.
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        torch.inference_mode(),
        torch.autocast(place.type, torch.bfloat16, dtype == "bfloat16"),
    ):
        for bucket in _batches(images, batch):
            order += [i for i, _ in bucket]
            stack = np.stack([image for _, image in bucket])
            # Planes of one colour are rescaled twice as fast as pixels of three.
            whole = torch.tensor(stack, device=place).permute(0, 3, 1, 2).contiguous().to(exact)
            height, width = whole.shape[2:]
            for sets in by_scale.values():
                size = protocols.rescaled(height, width, sets[0])
                x = (_resize(whole, size, sets[0].resize).clamp(0, 255) - colour) * scale
                for view_set in sets:
                    views = protocols.views(view_set, height, width)
                    mean_softmax = _dense if view_set.kind == "dense" else _crops
                    found[view_set].append(mean_softmax(net, x, views, view_set, pixels, limits).float().cpu().numpy())
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


@contextmanager
def _cast_once(net: nn.Module, dtype: str) -> Iterator[None]:
    """Under bfloat16 the weights of plain layers cast once, to what autocast makes of them at every batch."""
    layers = [m for m in net.modules() if type(m) in (nn.Conv2d, nn.Linear) and dtype == "bfloat16"]
    own = [(p, p.data) for layer in layers for p in layer.parameters(recurse=False)]
    try:
        for p, data in own:
            p.data = data.bfloat16()
        yield
    finally:
        for p, data in own:
            p.data = data


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


def _resize(x: Tensor, size: tuple[int, int], rule: str) -> Tensor:
    """(N, C, H, W) in float at another size; what has that size stays as it is."""
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size, mode=rule.split()[0], antialias="antialias" in rule)


def _dense(net: nn.Module, x: Tensor, views: list[View], view_set: ViewSet, pixels: int, limits: Limits) -> Tensor:
    """The class map's cells averaged, then the flips, each in logits or softmax as stated: (N, classes)."""
    dense, means = Dense(net, view_set.crop), []
    if view_set.cells == "softmax" and not dense.is_windowed:
        raise ReproError("softmax over cells needs the cells; this net's are averaged before its last layer")
    for view in views:
        cells = _forward(dense, _cut(x, view, view_set, limits), pixels)
        if view_set.cells == "logits":
            mean = cells.mean(dim=(2, 3))
            means.append(mean if view_set.views == "logits" else mean.softmax(1))
        else:
            mean = cells.softmax(1).mean(dim=(2, 3))
            means.append(mean.log() if view_set.views == "logits" else mean)
    return _mean(torch.stack(means).sum(0), len(views), view_set)


def _crops(net: nn.Module, x: Tensor, views: list[View], view_set: ViewSet, pixels: int, limits: Limits) -> Tensor:
    """The crops averaged, in softmax or logits as stated: (N, classes). Cuts as many views at once as fill a batch."""
    _, _, height, width = views[0].box
    together = max(1, pixels // (height * width * len(x)))
    total = torch.zeros((), device=x.device)
    for i in range(0, len(views), together):
        some = views[i : i + together]
        crops = torch.cat([_cut(x, view, view_set, limits) for view in some])
        found = _forward(net, crops, pixels)
        found = found if view_set.views == "logits" else found.softmax(1)
        counts = torch.tensor([view.count for view in some], device=x.device, dtype=found.dtype)
        total = total + (found.view(-1, len(x), found.shape[1]) * counts[:, None, None]).sum(0)
    return _mean(total, sum(view.count for view in views), view_set)


def _mean(total: Tensor, count: int, view_set: ViewSet) -> Tensor:
    """The mean of `count` summed views, as probabilities."""
    return (total / count).softmax(1) if view_set.views == "logits" else total / count


def _cut(x: Tensor, view: View, view_set: ViewSet, limits: Limits) -> Tensor:
    top, left, height, width = view.box
    crop = x[:, :, top : top + height, left : left + width]
    if view.out:
        crop = _resize(crop, (view.out, view.out), view_set.resize).clamp(*limits)
    return crop.flip(3) if view.flip else crop
