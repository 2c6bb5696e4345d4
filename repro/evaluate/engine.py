"""A net and view sets to scores per image, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .. import protocols
from ..errors import JobError, ReproError
from ..protocols import View
from ..schema import ViewSet
from .dense import Dense
from .machines import machine
from .shared import FirstBlock

Limits = tuple[Tensor, Tensor]  # the least and the largest input of each channel
Sink = Callable[[ViewSet, NDArray[np.int64], NDArray[np.float32]], None]


def scores(
    net: nn.Module, images: Iterable[NDArray[np.uint8]], view_sets: Sequence[ViewSet], mean: ArrayLike,
    scale: ArrayLike, *, batch: int = 0, pixels: int = 0, device: str | torch.device = "cpu", dtype: str = "float32",
    progress: Callable[[int], None] | None = None, sink: Sink | None = None,
) -> dict[ViewSet, NDArray[np.float32]]:  # fmt: skip
    """Averaged softmax of each image under each view set: (N, classes), float32, in the order of `images`.

    `images` are uint8 RGB, (H, W, 3) of mixed sizes. The net sees (pixel - mean) * scale, mean RGB in 0..255, scale
    one number or three, taken after the rescale, which is done once for each Q, in float on the device. `dtype` is
    that of the net's parameters, "bfloat16" for autocast, or "tf32" on a GPU; see `changed_share`. The net moves to
    `device`; its modes and weights stay as they are. A `sink` is given rows (n, classes) with their places (n,) in
    `images` batch by batch, and nothing is kept then; `progress` the number of images done.

    At most `batch` images of a size are rescaled and `pixels` input pixels (at least one view) forwarded at
    once, by default what `machines` says. Batches are cut in the same places whatever N is; an image's scores depend
    on those beside it only through the rounding of another batch size. Raises ReproError for a view set or dtype that
    cannot be served, JobError for images that are not uint8 RGB.
    """
    by_scale: dict[tuple[object, ...], list[ViewSet]] = {}
    for view_set in dict.fromkeys(view_sets):
        for key, known in protocols.CHOICES.items():
            if key != "flips" and getattr(view_set, key) not in known:
                raise ReproError(f"view set {view_set}: {key} is one of {', '.join(known)}")
        rescale = (view_set.Q, view_set.side, view_set.rounding, view_set.resize)
        by_scale.setdefault(rescale, []).append(view_set)
    own = next(net.parameters()).dtype
    place, ours = torch.device(device), machine(str(device))
    if dtype != "bfloat16" and f"torch.{dtype}" != str(own) and (dtype, place.type) != ("tf32", "cuda"):
        raise ReproError(f"dtype {dtype!r} does not go with a net in {own}; it is that, 'bfloat16', or 'tf32' on a GPU")
    net.to(place)
    exact = torch.float64 if own is torch.float64 else torch.float32  # of pixels, whatever the net's
    colour, gain = (torch.tensor(np.resize(v, 3), device=place, dtype=exact).view(1, 3, 1, 1) for v in (mean, scale))
    limits = (0 - colour) * gain, (255 - colour) * gain  # which bicubic rescaling oversteps
    done, found = 0, {view_set: list[tuple[Any, Any]]() for view_set in view_sets}
    give = sink or (lambda view_set, places, rows: found[view_set].append((places, rows)))
    with (
        _settled(net, dtype),
        torch.inference_mode(),
        torch.autocast(place.type, torch.bfloat16, dtype == "bfloat16"),
    ):
        for bucket in _batches(images, batch or ours.batch, ours.held):
            places = np.array([i for i, _ in bucket])
            stack = np.stack([image for _, image in bucket])
            # Planes of one colour are rescaled twice as fast as pixels of three.
            whole = torch.tensor(stack, device=place).permute(0, 3, 1, 2).contiguous().to(exact)
            height, width = whole.shape[2:]
            for sets in by_scale.values():
                size = protocols.rescaled(height, width, sets[0])
                x = _resize(whole, size, sets[0].resize).clamp(0, 255).sub_(colour).mul_(gain)
                for view_set in sets:
                    views = protocols.views(view_set, height, width)
                    mean_softmax = _dense if view_set.kind == "dense" else _crops
                    together = pixels or ours.pixels(*views[0].box[2:])
                    rows = mean_softmax(net, x, views, view_set, together, limits).float().cpu().numpy()
                    give(view_set, places, rows)
            done += len(places)
            if progress is not None:
                progress(done)
    if not done:
        raise JobError("there is no image to score")
    if sink:
        return {}
    kept = {view_set: [np.concatenate(part) for part in zip(*parts, strict=True)] for view_set, parts in found.items()}
    return {view_set: rows[places.argsort()] for view_set, (places, rows) in kept.items()}


@contextmanager
def _settled(net: nn.Module, dtype: str) -> Iterator[None]:
    """Evaluation mode, and TF32 only where asked for: torch lets cuDNN use it. Afterwards all is as it was.

    Under bfloat16 the weights of plain layers are cast once, to what autocast makes of them at every batch.
    """
    modes, matmul = [(module, module.training) for module in net.modules()], torch.backends.cuda.matmul
    layers = [m for m in net.modules() if type(m) in (nn.Conv2d, nn.Linear) and dtype == "bfloat16"]
    own, before = [(p, p.data) for layer in layers for p in layer.parameters(recurse=False)], matmul.allow_tf32
    try:
        net.eval()
        matmul.allow_tf32 = dtype == "tf32"
        for p, data in own:
            p.data = data.bfloat16()
        with torch.backends.cudnn.flags(True, False, deterministic=True, allow_tf32=dtype == "tf32"):
            yield
    finally:
        for p, data in own:
            p.data = data
        for module, training in modes:
            module.training = training
        matmul.allow_tf32 = before


def _batches(
    images: Iterable[NDArray[np.uint8]], batch: int, held: int
) -> Iterator[list[tuple[int, NDArray[np.uint8]]]]:
    """Up to `batch` images of one size and `held` pixels at a time, each with its place.

    Rare sizes wait for their batch to fill; with more than four batches of them waiting, the fullest goes first.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
    for i, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise JobError(f"image {i} is {image.dtype} of shape {image.shape}; expected uint8 (height, width, 3)")
        waiting.setdefault(image.shape, []).append((i, image))
        most = max(1, min(batch, held // (image.shape[0] * image.shape[1])))
        if len(waiting[image.shape]) == most:
            yield waiting.pop(image.shape)
        elif sum(len(bucket) for bucket in waiting.values()) > 4 * most:
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
    first = FirstBlock(net, x, views)
    if first.pays and len(x) > 1:  # the maps of one image are large enough
        return torch.cat([_crops(net, one, views, view_set, pixels, limits) for one in x.tensor_split(len(x))])
    _, _, height, width = views[0].box
    together = max(1, pixels // (height * width * len(x)))
    total = torch.zeros((), device=x.device)
    for i in range(0, len(views), together):
        some = views[i : i + together]
        if first.pays:
            maps = first.maps(some)
            with first.left_out():
                found = _forward(net, maps, pixels // 4)
        else:
            found = _forward(net, torch.cat([_cut(x, view, view_set, limits) for view in some]), pixels)
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
