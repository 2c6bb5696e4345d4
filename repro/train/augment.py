"""What a net sees of the training set, and when: random crops of rescaled images, flips, colour shifts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import JobError
from ..fields import Recipe


class Batch(NamedTuple):
    """Crops (n, crop, crop, 3) uint8, the colour (n, 3) to add to each, labels (n,), and what could not be read."""

    crops: Tensor
    offset: Tensor
    labels: Tensor
    left_out: Sequence[str] = ()

    def pixels(self, scale: Tensor | float, device: torch.device) -> Tensor:
        """(n, 3, crop, crop) float32 as the net sees them, in `channels_last` order of memory."""
        crops, offset = (t.to(device, non_blocking=True) for t in (self.crops, self.offset))
        return ((crops.to(torch.float32) + offset[:, None, None, :]) * scale).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Sampler:
    """Crops of `crop` pixels from images of short side S, one of `sizes`, framed by `pad` pixels (VGG, Section 3.1).

    `flip` is the probability of a mirrored crop, `colour` the standard deviation of AlexNet's shift of RGB, pixels
    from 0 to 1 (Section 4.1). Every draw depends on (seed, epoch, image index) alone. `limit` batches end the
    training, `together` images pass the net at once; 0 is all.
    """

    images: int
    batch: int
    epochs: int
    seed: int
    sizes: tuple[int, ...]
    crop: int
    flip: float
    colour: float
    pad: int = 0
    limit: int = 0
    together: int = 0

    @classmethod
    def of(cls, spec: Mapping[str, Any], images: int) -> Sampler:
        """That of a job. `spec["S"]` is one scale or the ends of a range, by `augment.step` pixels."""
        recipe, S, crop = Recipe.of(spec["recipe"]), spec["S"], spec["input"]
        augment, limit, batch = recipe.augment, recipe.iterations, recipe.batch
        sizes = (crop,) if augment.crop == "whole" else tuple(range(min(S), max(S) + 1, augment.step))
        epochs = math.ceil(limit / math.ceil(images / batch)) if limit and images else recipe.epochs
        pad = augment.pad if augment.crop == "pad" else 0
        order = images, batch, epochs, spec.get("seed", 0)
        return cls(*order, sizes, crop, augment.flip, augment.colour, pad, limit, recipe.bn_batch)

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch; the last one may be smaller, and counts."""
        return math.ceil(self.images / self.batch)

    @property
    def iterations(self) -> int:
        return self.limit or self.epochs * self.per_epoch

    def order(self, epoch: int) -> list[np.ndarray]:
        """The image numbers of each batch of an epoch."""
        order = self._stream(epoch, 2).permutation(self.images)
        batches = np.array_split(order, range(self.batch, self.images, self.batch))
        return batches[: self.iterations - epoch * self.per_epoch]

    def slices(self, batch: np.ndarray, rank: int = 0, size: int = 1) -> list[tuple[int, np.ndarray]]:
        """Of a batch what one of `size` processes takes: numbered parts, the same for any `size`."""
        together = self.together or len(batch)
        parts = np.array_split(batch, range(together, len(batch), together))
        return [(int(i), parts[i]) for i in np.array_split(np.arange(len(parts)), size)[rank]]

    def uniforms(self, epoch: int, image: int | None = None) -> np.ndarray:
        """A row an image, each from 0 to 1: for S, for top and left of the crop, for the flip; or one image's row."""
        return self._stream(epoch, 0, image or 0).random(4 if image is not None else (self.images, 4))

    def draws(self, epoch: int) -> tuple[np.ndarray, ...]:
        """A row an image: S, top and left of the crop on the square image of side S, mirrored or not."""
        scale, top, left, flip = self.uniforms(epoch).T
        S = np.asarray(self.sizes)[(scale * len(self.sizes)).astype(np.int64)]
        places = S + 2 * self.pad - self.crop + 1
        return S, (top * places).astype(np.int64), (left * places).astype(np.int64), flip < self.flip

    def offsets(self, epoch: int, mean: np.ndarray, shift: np.ndarray) -> Tensor:
        """What is added to the pixels (0..255) of each image, (N, 3): its colour, drawn, less the mean."""
        alpha = self._stream(epoch, 1).standard_normal((self.images, 3)) * self.colour
        return torch.from_numpy((alpha @ shift.T * 255 - mean).astype(np.float32))

    def _stream(self, epoch: int, kind: int, image: int = 0) -> np.random.Generator:
        """Uniforms (kind 0), normals (1) and the order (2) have a stream each."""
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch], counter=[image, 0, 0, kind]))


class Arrays:
    """Batches of images in memory, rescaled once to each S as uint8; `shift` (3, 3) maps draws to a shift of RGB."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, sampler: Sampler, mean: np.ndarray, shift: np.ndarray):
        self.sampler, self.mean, self.shift = sampler, mean, shift
        self.labels = torch.from_numpy(labels.astype(np.int64))
        whole = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)
        self.pyramid = {S: rescale(whole, S, sampler.pad, mean) for S in sampler.sizes}

    def epoch(self, epoch: int, parts: Iterable[np.ndarray]) -> Iterator[Batch]:
        """A batch for each of `parts`, the numbers of its images."""
        S, top, left, flip = self.sampler.draws(epoch)
        side, pyramid = self.sampler.crop, self.pyramid
        offset = self.sampler.offsets(epoch, self.mean, self.shift)
        for index in parts:
            crops = np.stack([pyramid[S[i]][i, top[i] : top[i] + side, left[i] : left[i] + side] for i in index])
            crops[flip[index]] = crops[flip[index], :, ::-1]
            yield Batch(torch.from_numpy(crops), offset[index], self.labels[index])


def statistics(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean (3,) of the RGB of images, 0..255, and its covariance (3, 3) with pixels from 0 to 1.

    Raises JobError where there is none.
    """
    total, products, pixels = np.zeros(3), np.zeros((3, 3)), 0
    for image in images:
        flat = image.reshape(-1, 3).astype(np.float64)  # whole numbers below 2**53: exact sums
        total += flat.sum(0)
        products += flat.T @ flat
        pixels += len(flat)
    if not pixels:
        raise JobError("none of the training images can be read")
    mean = total / pixels
    return mean, (products / pixels - np.outer(mean, mean)) / 255**2


def rescale(images: np.ndarray, S: int, pad: int = 0, mean: np.ndarray | float = 0) -> np.ndarray:
    """Square images (N, H, H, 3) uint8 rescaled to side S: bilinear with antialias, rounded to uint8.

    A frame of `pad` pixels of the mean colour is zero to the net (ResNet, Section 4.2).
    """
    if images.shape[1] == S and not pad:
        return images
    out = np.empty((len(images), S + 2 * pad, S + 2 * pad, 3), np.uint8)
    out[:] = np.round(mean)
    for start in range(0, len(images), 256):
        x = torch.from_numpy(images[start : start + 256]).permute(0, 3, 1, 2).to(torch.float32)
        x = F.interpolate(x, size=(S, S), mode="bilinear", antialias=True).round().to(torch.uint8)
        out[start : start + 256, pad : pad + S, pad : pad + S] = x.permute(0, 2, 3, 1).numpy()
    return out
