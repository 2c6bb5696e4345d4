"""Batches of images that are read as they are needed: decoded, cut and distorted by worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, default_collate

from ..data import ImageSet, Unreadable
from ..fields import Augment
from .augment import Batch, Sampler, offsets

Item = tuple[int, int, float, float, float, float]  # epoch, image, and its row of `Sampler.uniforms`


class Cuts(Dataset[Tensor | str]):
    """A crop (crop, crop, 3) uint8 of one image, or why there is none.

    What is drawn here or by torchvision comes from a seed of (seed, epoch, image index) alone.
    """

    def __init__(self, images: ImageSet, sampler: Sampler, augment: Augment, mean: np.ndarray) -> None:
        from torchvision.transforms import v2  # takes a second to import, which the proxy can do without

        self.images, self.sampler, self.augment = images, sampler, augment
        self.fill = [float(c) for c in mean.round()]
        self.area = v2.RandomResizedCrop(sampler.crop, augment.area, augment.aspect)
        self.distort: list[Any] = [v2.ColorJitter(*[augment.jitter] * 3)] if augment.jitter else []
        if augment.randaugment:
            self.distort.append(v2.RandAugment(*augment.randaugment, fill=self.fill))

    def __getitem__(self, item: Item) -> Any:
        from torchvision.transforms.v2 import functional as V

        epoch, i, scale, top, left, flip = item
        try:
            x: Any = torch.from_numpy(self.images[i]).permute(2, 0, 1)
        except Unreadable as error:
            return str(error)
        with torch.random.fork_rng(devices=[]):
            seed = np.random.SeedSequence((self.sampler.seed, epoch, i)).generate_state(1, np.uint64)[0]
            torch.default_generator.manual_seed(int(seed >> 1))
            x = self._area(x) if self.augment.crop == "area" else self._window(x, scale, top, left)
            x = V.horizontal_flip(x) if flip < self.sampler.flip else x
            for transform in self.distort:
                x = transform(x)
        return x.permute(1, 2, 0).contiguous()

    def _window(self, x: Tensor, scale: float, top: float, left: float) -> Any:
        """A window of the image (3, H, W) rescaled to short side S, the long side rounded down."""
        from torchvision.transforms.v2 import functional as V

        crop, sizes, pad = self.sampler.crop, self.sampler.sizes, self.sampler.pad
        if self.augment.crop == "whole":
            return V.resize(x, [crop, crop], antialias=True)
        x = V.pad(V.resize(x, [sizes[int(scale * len(sizes))]], antialias=True), [pad], self.fill)
        height, width = x.shape[1:]
        return V.crop(x, int(top * (height - crop + 1)), int(left * (width - crop + 1)), crop, crop)

    def _area(self, x: Tensor) -> Any:
        """A part of the image of random area and aspect, rescaled; GoogLeNet also draws the rule (Section 6)."""
        from torchvision.transforms.v2 import functional as V

        size, rule = [self.sampler.crop] * 2, str(self.augment.interpolation)
        x = V.crop(x, **self.area.make_params([x]))
        if rule == "random":
            rule = ("bilinear", "area", "nearest", "bicubic")[int(torch.randint(4, ()))]
        if rule == "area":
            return F.interpolate(x[None].float(), size, mode="area")[0].round().to(torch.uint8)
        return V.resize(x, size, V.InterpolationMode(rule), antialias=True)


class _Order:
    """The items of each batch of the epoch that comes next, made as they are asked for."""

    def __init__(self) -> None:
        self.epoch, self.uniforms, self.parts = 0, np.empty((0, 4)), list[np.ndarray]()

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[list[Item]]:
        for index in self.parts:
            yield [(self.epoch, int(i), *self.uniforms[i]) for i in index]


class Stream:
    """As `augment.Arrays`, for sets of which not all is in memory and for what is cut image by image."""

    def __init__(
        self, images: ImageSet, sampler: Sampler, augment: Augment, mean: np.ndarray, shift: np.ndarray, pin: bool
    ) -> None:
        self.sampler, self.mean, self.shift = sampler, mean, shift
        self.labels, self.order = torch.from_numpy(np.asarray(images.labels).astype(np.int64)), _Order()
        workers = reading_workers()
        self.loader = DataLoader(
            Cuts(images, sampler, augment, mean),
            batch_sampler=self.order,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # its own, so that it takes nothing from the generator of dropout
        )

    def epoch(self, epoch: int, parts: Iterable[np.ndarray]) -> Iterator[Batch]:
        """A batch for each of `parts`, the numbers of its images, without those that could not be read."""
        order, offset = self.order, offsets(self.sampler.alpha(epoch), self.shift, self.mean)
        order.epoch, order.uniforms, order.parts = epoch, self.sampler.uniforms(epoch), list(parts)
        for index, (crops, kept, left_out) in zip(order.parts, self.loader, strict=True):
            there = index[kept]
            yield Batch(crops, offset[there], self.labels[there], left_out)


def _collate(cuts: list[Tensor | str]) -> tuple[Tensor, list[int], list[str]]:
    kept = [i for i, cut in enumerate(cuts) if not isinstance(cut, str)]
    crops = default_collate([cuts[i] for i in kept]) if kept else torch.empty((0, 0, 0, 3), dtype=torch.uint8)
    return crops, kept, [cut for cut in cuts if isinstance(cut, str)]


def reading_workers() -> int:
    """Processes that decode for one training: REPRO_WORKERS, else this process's share of the cores, at most 16."""
    if "REPRO_WORKERS" in os.environ:
        return int(os.environ["REPRO_WORKERS"])
    return min(16, max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
