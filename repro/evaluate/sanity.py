"""What is found out before a whole set goes through a net: labels, classes, colours, and what another dtype changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtrc
from torch import Tensor, nn

from ..data import ImageSet, Unreadable, balanced, stream
from ..errors import JobError
from ..schema import ViewSet
from .engine import scores

FIRST = 320  # images that are looked at
CHANGED = 0.005  # the largest share of top-1 decisions that another dtype than float32 may change


def check(
    net: nn.Module, images: ImageSet, view_set: ViewSet, mean: ArrayLike, scale: ArrayLike, *,
    limit: int = 0, published: bool = False, device: str | torch.device = "cpu",
) -> None:  # fmt: skip
    """Raise JobError, with the likely cause, for what would come out wrong: to be called before the first batch.

    Each label belongs to a class; not all to one, as in a folder that is not sorted; no class lacks images, unless a
    `limit` takes a part of the set; 1000 classes named by wnid stand in ImageNet's order; the net has as many outputs.

    `published` weights must be right more often than by chance (binomial, 1e-6) on one crop in the middle of each of
    320 images of some 16 classes; if not, the reason says whether another order of the labels would fit. And what the
    first batch normalisation sees must have the mean and variance that it kept from training (median over channels
    within one deviation and a factor of 3), which another mean or scale than the net's own would change.
    """
    labels, classes = np.asarray(images.labels), list(images.classes)
    own, count = np.unique(labels, return_counts=True)
    if own[0] < 0 or own[-1] >= len(classes):
        raise JobError(f"labels go from {own[0]} to {own[-1]}, and there are {len(classes)} classes")
    if len(own) == 1 < count[0]:
        raise JobError(f"all {len(labels)} images are of class {classes[own[0]]}: expected a folder for each class")
    if len(own) < len(classes) and not limit:
        lacking = [classes[i] for i in sorted(set(range(len(classes))) - set(own.tolist()))]
        raise JobError(f"{len(lacking)} of {len(classes)} classes have no image, {lacking[0]} the first")
    if len(classes) == 1000 and classes[0][1:].isdigit() and (order := sorted(classes)) != classes:
        i, its = next((i, its) for i, its in enumerate(order) if classes[i] != its)
        raise JobError(f"label {i} is {classes[i]} in the data set and {its} in ImageNet's order, of sorted wnids")
    places = np.flatnonzero(np.isin(labels, own[:: -(-len(own) // 16)]))
    some = stream(images, places[balanced(labels[places], min(limit or FIRST, FIRST))].tolist(), 0)
    found = [(image, labels[i]) for i, image in some if not isinstance(image, Unreadable)]
    given, truth = [image for image, _ in found], np.array([label for _, label in found])
    view = replace(view_set, flips=False)
    view = replace(view, kind="grid", grid=1) if view.crop else view
    outputs = scores(net, given[:1], [view], mean, scale, device=device)[view].shape[1]
    if outputs != len(classes):
        raise JobError(f"the net has {outputs} outputs, and the data set {len(classes)} classes")
    if not published or bdtrc(len(given) // 2 - 1, len(given), 1 / outputs) > 1e-6:  # or too few to tell
        return
    seen = list[Tensor]()
    if norm := next((m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats), None):
        hook = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].float()))
        few = np.random.default_rng(0).permutation(len(given))[:24]
        scores(net, [given[i] for i in few], [view], mean, scale, device=device)
        hook.remove()
        variance, average = torch.var_mean(torch.cat(seen), (0, 2, 3))
        kept = norm.get_buffer("running_var") + norm.eps
        gap = float(((average - norm.get_buffer("running_mean")).abs() / kept.sqrt()).median())
        ratio = float(((variance + norm.eps) / kept).median())
        if gap > 1 or not 1 / 3 < ratio < 3:
            told = f"a mean {gap:.1f} deviations off and {ratio:.2g} times the variance that it kept from training"
            raise JobError(f"the net's first BatchNorm sees {told}: are mean and scale those of these weights?")
    top = scores(net, given, [view], mean, scale, device=device)[view].argmax(1)
    hits = int((top == truth).sum())
    if bdtrc(hits - 1, len(top), 1 / outputs) < 1e-6:
        return
    often = {c: int(np.bincount(top[truth == c]).argmax()) for c in np.unique(truth).tolist()}
    alike = np.mean([often[c] == answer for c, answer in zip(truth, top, strict=True)])
    cause = "are these the weights of this net, and mean and scale theirs?"
    if alike > 0.5 and len(set(often.values())) > 0.75 * len(often) and len(top) >= 8 * len(often):
        pairs = ", ".join(f"{classes[c]} as {classes[answer]}" for c, answer in list(often.items())[:3])
        cause = f"the labels stand in another order ({pairs}, ...)"
    raise JobError(f"{hits} of {len(top)} images are right, no more than by chance: {cause}")


def changed_share(
    net: nn.Module, images: Iterable[NDArray[np.uint8]], view_sets: Sequence[ViewSet], mean: ArrayLike,
    scale: ArrayLike, *, dtype: str, device: str | torch.device = "cpu", most: int = 400, limit: float = CHANGED,
) -> float:  # fmt: skip
    """Share of the first `most` images whose top-1 class `dtype` changes against float32; the largest of the view sets.

    Other arguments as of `scores`. Raises JobError, final, where the share is above `limit`.
    """
    first = list(islice(images, most))
    exact, other = (scores(net, first, view_sets, mean, scale, dtype=d, device=device) for d in ("float32", dtype))
    share = max(float(np.mean(exact[v].argmax(1) != other[v].argmax(1))) for v in view_sets)
    if share > limit:
        told = f"{100 * share:.2g} % of the first {len(first)} images, more than {100 * limit:g} %"
        raise JobError(f"{dtype} changes the top-1 class of {told}; use float32", final=True)
    return share
