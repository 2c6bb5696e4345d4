"""Batches of images that are read as they are needed: decoded, cut and distorted by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ..data import ImageSet, Unreadable
from ..fields import Augment
from .augment import Batch, Sampler
from .parallel import reading_workers

V: Any = functional


class Cuts(Dataset[Tensor | str]):
    """A crop (crop, crop, 3) uint8 of each image, or why there is none.

    What is drawn, here or by torchvision, comes from (seed, epoch, image index) alone.
    """

    def __init__(self, images: ImageSet, sampler: Sampler, augment: Augment, mean: np.ndarray, epoch: int = 0) -> None:
        self.images, self.sampler, self.augment, self.epoch = images, sampler, augment, epoch
        self.fill = [float(c) for c in mean.round()]
        # GoogLeNet, Section 6, draws the rule among bilinear, area, nearest and cubic; antialiased bilinear is area.
        rules = [("bilinear", False), ("bilinear", True), ("nearest", False), ("bicubic", False)]
        self.areas = [
            v2.RandomResizedCrop(
                sampler.crop, augment.area, augment.aspect, v2.InterpolationMode(rule), antialias=smooth
            )
            for rule, smooth in (rules if augment.interpolation == "random" else [(augment.interpolation, True)])
        ]
        self.area = self.areas[0]
        self.distort: list[Any] = [v2.ColorJitter(*[augment.jitter] * 3)] if augment.jitter else []
        if augment.randaugment:
            self.distort.append(v2.RandAugment(*augment.randaugment, fill=self.fill))

    def __getitem__(self, i: int) -> Any:
        try:
            x: Any = torch.from_numpy(self.images[i]).permute(2, 0, 1)
        except Unreadable as error:
            return str(error)
        row = self.sampler.uniforms(self.epoch, i)
        with torch.random.fork_rng(devices=[]):
            seed = np.random.SeedSequence((self.sampler.seed, self.epoch, i)).generate_state(1, np.uint64)[0]
            torch.default_generator.manual_seed(int(seed >> 1))
            area = self.areas[int(torch.randint(len(self.areas), ()))]
            x = area(x) if self.augment.crop == "area" else self._window(x, *row[:3])
            x = V.horizontal_flip(x) if row[3] < self.sampler.flip else x
            for transform in self.distort:
                x = transform(x)
        return x.permute(1, 2, 0).contiguous()

    def _window(self, x: Tensor, scale: float, top: float, left: float) -> Any:
        """A window of the image (3, H, W) rescaled to short side S, the long side rounded down."""
        crop, sizes, pad = self.sampler.crop, self.sampler.sizes, self.sampler.pad
        if self.augment.crop == "whole":
            return V.resize(x, [crop, crop], antialias=True)
        x = V.pad(V.resize(x, [sizes[int(scale * len(sizes))]], antialias=True), [pad], self.fill)
        height, width = x.shape[1:]
        return V.crop(x, int(top * (height - crop + 1)), int(left * (width - crop + 1)), crop, crop)


class Stream:
    """As `augment.Arrays`, for sets of which not all is in memory and for what is cut image by image."""

    def __init__(self, images: ImageSet, sampler: Sampler, augment: Augment, mean: np.ndarray, shift: np.ndarray):
        self.images, self.sampler, self.augment, self.mean, self.shift = images, sampler, augment, mean, shift
        self.labels = torch.from_numpy(np.asarray(images.labels).astype(np.int64))

    def epoch(self, epoch: int, parts: Sequence[np.ndarray]) -> Iterator[Batch]:
        """A batch for each of `parts`, the numbers of its images, without those that cannot be read."""
        offset, workers = self.sampler.offsets(epoch, self.mean, self.shift), reading_workers()
        loader = DataLoader(
            Cuts(self.images, self.sampler, self.augment, self.mean, epoch),
            batch_sampler=[part.tolist() for part in parts],
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # its own, so that it takes nothing from the generator of dropout
        )
        for part, (crops, kept, left_out) in zip(parts, loader, strict=True):
            there = part[kept]
            yield Batch(crops, offset[there], self.labels[there], left_out)


def _collate(cuts: list[Tensor | str]) -> tuple[Tensor, list[int], list[str]]:
    kept = [i for i, cut in enumerate(cuts) if not isinstance(cut, str)]
    crops = torch.stack([torch.as_tensor(cuts[i]) for i in kept]) if kept else torch.empty(0)
    return crops, kept, [cut for cut in cuts if isinstance(cut, str)]
