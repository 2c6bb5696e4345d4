"""What a net sees of the training set, and when: random crops of rescaled images, flips, colour shifts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Sampler:
    """Crops of `crop` pixels from images of short side S, one of `sizes`, drawn per image and epoch.

    `flip` is the probability of a mirrored crop; `colour` the standard deviation of AlexNet's shift
    along the principal components of the training set's RGB, pixels from 0 to 1 (AlexNet, Section
    4.1). Every draw depends on (seed, epoch, image index) alone. Source: VGG, Section 3.1.
    """

    images: int
    batch: int
    epochs: int
    seed: int
    sizes: tuple[int, ...]
    crop: int
    flip: float
    colour: float

    @classmethod
    def of(cls, spec: Mapping[str, Any], images: int) -> Sampler:
        """That of a job. `spec["S"]` is one scale or the two ends of a range, taken by `augment.step` pixels."""
        recipe, S = spec["recipe"], spec["S"]
        augment = recipe["augment"]
        sizes = tuple(range(min(S), max(S) + 1, augment["step"]))
        order = images, recipe["batch"], recipe["epochs"], spec.get("seed", 0)
        return cls(*order, sizes, spec["input"], augment["flip"], augment["colour"])

    @property
    def iterations(self) -> int:
        """Batches of all epochs; the last one of an epoch may be smaller, and counts."""
        return self.epochs * math.ceil(self.images / self.batch)

    def order(self, epoch: int) -> list[np.ndarray]:
        """The image numbers of each batch of an epoch."""
        order = self._stream(epoch, 2).permutation(self.images)
        return np.array_split(order, range(self.batch, self.images, self.batch))

    def draws(self, epoch: int) -> tuple[np.ndarray, ...]:
        """A row an image: S, top and left of the crop on the image rescaled to S, mirrored or not, alpha (3)."""
        scale, top, left, flip = self._stream(epoch, 0).random((self.images, 4)).T
        S = np.asarray(self.sizes)[(scale * len(self.sizes)).astype(np.int64)]
        places = S - self.crop + 1
        alpha = self._stream(epoch, 1).standard_normal((self.images, 3)) * self.colour
        return S, (top * places).astype(np.int64), (left * places).astype(np.int64), flip < self.flip, alpha

    def _stream(self, epoch: int, kind: int) -> np.random.Generator:
        """Uniforms, normals and the order have a stream each, so that a row never depends on their number."""
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch], counter=[0, 0, 0, kind]))


class Batches:
    """Batches of images in memory, rescaled once to each S as uint8; `scale` multiplies pixels less their mean."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, sampler: Sampler, scale: float) -> None:
        self.sampler, self.scale = sampler, scale
        self.mean, covariance = statistics(images)
        values, vectors = np.linalg.eigh(covariance)
        self.components = vectors * values
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.pyramid = {S: rescale(images, S) for S in sampler.sizes}

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (n, 3, crop, crop) float32 in `channels_last` order of memory, and labels (n,)."""
        S, top, left, flip, alpha = self.sampler.draws(epoch)
        side, pyramid = self.sampler.crop, self.pyramid
        offset = torch.from_numpy((alpha @ self.components.T * 255 - self.mean).astype(np.float32))
        for index in self.sampler.order(epoch):
            crops = np.stack([pyramid[S[i]][i, top[i] : top[i] + side, left[i] : left[i] + side] for i in index])
            crops[flip[index]] = crops[flip[index], :, ::-1]
            x = (torch.from_numpy(crops).to(torch.float32) + offset[index][:, None, None, :]) * self.scale
            yield x.permute(0, 3, 1, 2), self.labels[index]


def statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (3,) of a set's RGB, 0..255, and its covariance (3, 3) with pixels from 0 to 1."""
    total, products, pixels = np.zeros(3), np.zeros((3, 3)), images.size // 3
    for start in range(0, len(images), 256):
        flat = images[start : start + 256].reshape(-1, 3).astype(np.float64)  # whole numbers below 2**53: exact sums
        total += flat.sum(0)
        products += flat.T @ flat
    mean = total / pixels
    return mean, (products / pixels - np.outer(mean, mean)) / 255**2


def rescale(images: np.ndarray, S: int) -> np.ndarray:
    """Square images (N, H, H, 3) uint8 rescaled to side S: bilinear with antialias, rounded to uint8."""
    if images.shape[1] == S:
        return images
    out = np.empty((len(images), S, S, 3), np.uint8)
    for start in range(0, len(images), 256):
        x = torch.from_numpy(images[start : start + 256]).permute(0, 3, 1, 2).to(torch.float32)
        x = F.interpolate(x, size=(S, S), mode="bilinear", antialias=True).round().to(torch.uint8)
        out[start : start + 256] = x.permute(0, 2, 3, 1).numpy()
    return out
