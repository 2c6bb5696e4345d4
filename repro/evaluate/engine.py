"""A net and view sets to scores per image, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .. import protocols
from ..errors import JobError, ReproError
from ..protocols import View
from ..schema import ViewSet
from .dense import fully_convolutional
from .ranks import error, rank_of_truth

BATCH = 64  # images rescaled together
PIXELS = 128 * 1024  # input pixels that go through the net together: fastest for small nets on one CPU thread


def scores(
    net: nn.Module,
    images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]],
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

    `images` is uint8 RGB, (N, H, W, 3) or any iterable of (H, W, 3) of mixed sizes. The net sees
    (pixel - mean) * scale, mean RGB in 0..255, taken after the rescale. Each image is rescaled once
    for each Q, in float on the device, and all view sets of that Q are served from it. `dtype` is
    that of the net's parameters, or "bfloat16" for autocast; TF32 is off. The net moves to `device`,
    is put in evaluation mode and back again; its weights stay as they are.

    At most `batch` images of a size and `pixels` input pixels (at least one view) are in flight, so
    memory does not grow with N. Batches are cut in the same places whatever N is; an image's scores
    depend on those beside it only through the rounding of another batch size.

    `progress` is called with the number of images done. Raises ReproError for a view set that cannot
    be served, JobError for pixels that are not uint8 RGB.
    """
    place = torch.device(device)
    rescales: dict[tuple[int, str], list[ViewSet]] = {}
    for view_set in dict.fromkeys(view_sets):
        _check(view_set)
        rescales.setdefault((view_set.Q, view_set.resize), []).append(view_set)
    net.to(place)
    kind = _input_dtype(net, dtype)
    colour = torch.tensor(np.asarray(mean, dtype=np.float64), device=place, dtype=kind).view(1, 3, 1, 1)
    dense = fully_convolutional(net) if any(v.kind == "dense" for v in view_sets) else None
    order: list[NDArray[np.int64]] = []
    found: dict[ViewSet, list[NDArray[np.float32]]] = {view_set: [] for view_set in view_sets}
    done = 0
    with (
        _evaluating(net),
        _plain_convolutions(),
        torch.inference_mode(),
        torch.autocast(place.type, torch.bfloat16, dtype == "bfloat16"),
    ):
        for where, stack in _batches(images, batch):
            whole = torch.tensor(stack, device=place).permute(0, 3, 1, 2).to(kind)
            height, width = whole.shape[2:]
            for (Q, _), sets in rescales.items():
                x = (_rescale(whole, protocols.rescaled(height, width, Q)) - colour) * scale
                for view_set in sets:
                    views = protocols.views(view_set, height, width)
                    if view_set.kind == "dense":
                        assert dense is not None
                        mean_softmax = _dense(dense, x, views, pixels)
                    else:
                        mean_softmax = _crops(net, x, views, pixels)
                    found[view_set].append(mean_softmax.float().cpu().numpy())
            order.append(where)
            done += len(where)
            if progress is not None:
                progress(done)
    if not order:
        raise JobError("there is no image to score")
    back = np.argsort(np.concatenate(order))
    return {view_set: np.concatenate(rows)[back] for view_set, rows in found.items()}


def validation_error(
    net: nn.Module, images: NDArray[np.uint8], labels: ArrayLike, Q: int, mean: ArrayLike, scale: float
) -> float:
    """Top-1 error in % of one dense pass with flips at short side `Q`, on the device of the net.

    Raises JobError, final, for a net whose scores are not finite or all the same.
    """
    view_set = ViewSet("dense", Q, Q)
    device = next(net.parameters()).device
    found = scores(net, images, [view_set], mean, scale, device=device)[view_set]
    return error(rank_of_truth(found, labels), 1)


def _check(view_set: ViewSet) -> None:
    """Raise ReproError where a view set asks for what this engine does not do."""
    served = ("bilinear antialias", "logits", "softmax")
    if (view_set.resize, view_set.cells, view_set.views) != served:
        raise ReproError(f"view set {view_set}: only {served} are known for resize, cells and views")


def _input_dtype(net: nn.Module, dtype: str) -> torch.dtype:
    """The dtype of the net's inputs. Raises ReproError where `dtype` is not what the net can run in."""
    own = next(net.parameters()).dtype
    if dtype != "bfloat16" and f"torch.{dtype}" != str(own):
        raise ReproError(f"dtype {dtype!r} does not go with a net in {own}; it is that or 'bfloat16'")
    return own


def _plain_convolutions() -> AbstractContextManager[None]:
    """No TF32, which torch lets cuDNN use, and no benchmarking: a GPU's float32 is float32. Nothing on a CPU."""
    found: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return found


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


def _batches(
    images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]], batch: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Places (n,) and pixels (n, H, W, 3) of up to `batch` images of one size at a time.

    Images of rarer sizes wait until their batch is full; with more than four batches of them
    waiting, the fullest goes first.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
    for i, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise JobError(f"image {i} is {image.dtype} of shape {image.shape}; expected uint8 (height, width, 3)")
        waiting.setdefault(image.shape, []).append((i, image))
        full = image.shape if len(waiting[image.shape]) == batch else None
        if full is None and sum(len(bucket) for bucket in waiting.values()) > 4 * batch:
            full = max(waiting, key=lambda shape: len(waiting[shape]))
        if full is not None:
            yield _stack(waiting.pop(full))
    for bucket in waiting.values():
        yield _stack(bucket)


def _stack(bucket: list[tuple[int, NDArray[np.uint8]]]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    return np.array([i for i, _ in bucket], dtype=np.int64), np.stack([image for _, image in bucket])


def _rescale(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with antialias, on floats 0..255 that are not rounded again."""
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)


def _forward(net: nn.Module, x: Tensor, pixels: int) -> Tensor:
    """The net on (N, 3, H, W) in equal parts of at most `pixels` pixels, channels last (twice as fast on a CPU)."""
    parts = -(-len(x) // max(1, pixels // (x.shape[2] * x.shape[3])))
    found = [net(part.contiguous(memory_format=torch.channels_last)) for part in x.tensor_split(parts)]
    return torch.cat(found).float() if found[0].dtype is torch.bfloat16 else torch.cat(found)


def _dense(dense: nn.Module, x: Tensor, views: list[View], pixels: int) -> Tensor:
    """Logits averaged over the cells of the class map, softmax, averaged over flips: (N, classes)."""
    logits = [_forward(dense, x.flip(3) if view.flip else x, pixels).mean(dim=(2, 3)) for view in views]
    return torch.stack(logits).softmax(2).mean(0)


def _crops(net: nn.Module, x: Tensor, views: list[View], pixels: int) -> Tensor:
    """Softmax of each crop, averaged over crops: (N, classes). Cuts as many views at once as fill a batch."""
    _, _, height, width = views[0].box
    together = max(1, pixels // (height * width * len(x)))
    total: Tensor | float = 0.0
    for i in range(0, len(views), together):
        crops = torch.cat([_cut(x, view) for view in views[i : i + together]])
        found = _forward(net, crops, pixels).softmax(1)
        total = total + found.view(-1, len(x), found.shape[1]).sum(0)
    assert isinstance(total, Tensor)
    return total / len(views)


def _cut(x: Tensor, view: View) -> Tensor:
    top, left, height, width = view.box
    crop = x[:, :, top : top + height, left : left + width]
    return crop.flip(3) if view.flip else crop
