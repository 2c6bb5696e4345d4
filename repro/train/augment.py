"""What a net sees of the training set: random crops of rescaled images, flips, colour shifts.

Every draw depends on (seed, epoch, image index) alone, never on batches, workers or order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augment:
    """Crops of `crop` pixels from images of short side S, one of `sizes`, drawn per image.

    `flip` is the probability of a mirrored crop; `colour` the standard deviation of AlexNet's
    shift along the principal components of the training set's RGB (AlexNet, Section 4.1), with
    components of pixels from 0 to 1. Source: VGG, arXiv 1409.1556, Section 3.1.
    """

    sizes: tuple[int, ...]
    crop: int
    flip: float
    colour: float

    def draws(self, seed: int, epoch: int, count: int) -> Draws:
        """The draws of one epoch, a row an image."""
        uniform = _stream(seed, epoch, 0).random((count, 4))
        sizes = np.asarray(self.sizes)
        S = sizes[(uniform[:, 0] * len(sizes)).astype(np.int64)]
        return Draws(
            S=S,
            top=(uniform[:, 1] * (S - self.crop + 1)).astype(np.int64),
            left=(uniform[:, 2] * (S - self.crop + 1)).astype(np.int64),
            flip=uniform[:, 3] < self.flip,
            alpha=_stream(seed, epoch, 1).standard_normal((count, 3)) * self.colour,
        )


@dataclass(frozen=True)
class Draws:
    """For each image: S, the crop's place on the image rescaled to S, mirrored or not, alpha (3)."""

    S: np.ndarray
    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray
    alpha: np.ndarray


def sizes(S: tuple[int, ...] | list[int], augment: Mapping[str, Any]) -> tuple[int, ...]:
    """The scales that S is drawn from: S_min to S_max by `augment.step` pixels, 1 unless said."""
    return tuple(range(min(S), max(S) + 1, int(augment.get("step", 1))))


@dataclass(frozen=True)
class Statistics:
    """The mean (3,) of a set's RGB, 0..255, and its covariance (3, 3) with pixels from 0 to 1."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray) -> Statistics:
        total, products, pixels = np.zeros(3), np.zeros((3, 3)), images.size // 3
        for chunk in _chunks(images, 256):
            flat = chunk.reshape(-1, 3).astype(np.float64)  # sums of whole numbers below 2**53: exact
            total += flat.sum(0)
            products += flat.T @ flat
        mean = total / pixels
        return cls(mean, (products / pixels - np.outer(mean, mean)) / 255**2)

    @property
    def components(self) -> np.ndarray:
        """(3, 3): a column for each principal component, times its eigenvalue."""
        values, vectors = np.linalg.eigh(self.covariance)
        scaled: np.ndarray = vectors * values
        return scaled


@dataclass(frozen=True)
class Order:
    """In which order `images` images come, `batch` at a time, over `epochs` epochs."""

    images: int
    batch: int
    epochs: int
    seed: int

    def __len__(self) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return -(-self.images // self.batch)

    @property
    def iterations(self) -> int:
        return self.epochs * len(self)

    def indices(self, epoch: int) -> list[np.ndarray]:
        """The image numbers of each batch of an epoch."""
        order = _stream(self.seed, epoch, 2).permutation(self.images)
        return np.array_split(order, range(self.batch, self.images, self.batch))


class Batches:
    """Where batches come from: images in memory, rescaled once to each S as uint8.

    `scale` multiplies pixels once the mean is taken off. Another class with `epoch` and
    `statistics` can stand beside it for sets that are streamed.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, augment: Augment, order: Order, scale: float) -> None:
        self.augment, self.order, self.scale = augment, order, scale
        self.statistics = Statistics.of(images)
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.pyramid = {S: rescale(images, S) for S in augment.sizes}

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (n, 3, crop, crop) float32 in `channels_last` order of memory, and labels (n,)."""
        draws = self.augment.draws(self.order.seed, epoch, self.order.images)
        shifts = draws.alpha @ self.statistics.components.T * 255
        offset = torch.from_numpy((shifts - self.statistics.mean).astype(np.float32))
        for index in self.order.indices(epoch):
            x = torch.from_numpy(self.crops(index, draws)).to(torch.float32)
            x = (x + offset[index][:, None, None, :]) * self.scale
            yield x.permute(0, 3, 1, 2), self.labels[index]

    def crops(self, index: np.ndarray, draws: Draws) -> np.ndarray:
        """The crops (n, crop, crop, 3) uint8 of these images."""
        side = self.augment.crop
        out = np.empty((len(index), side, side, 3), np.uint8)
        for row, i in enumerate(index):
            top, left = draws.top[i], draws.left[i]
            out[row] = self.pyramid[int(draws.S[i])][i, top : top + side, left : left + side]
        mirrored = draws.flip[index]
        out[mirrored] = out[mirrored, :, ::-1]
        return out


def rescale(images: np.ndarray, S: int) -> np.ndarray:
    """Square images (N, H, H, 3) uint8 rescaled to side S: bilinear with antialias, rounded to uint8."""
    if images.shape[1] == S:
        return images
    out = np.empty((len(images), S, S, 3), np.uint8)
    for start, chunk in enumerate(_chunks(images, 256)):
        x = torch.from_numpy(chunk).permute(0, 3, 1, 2).to(torch.float32)
        x = F.interpolate(x, size=(S, S), mode="bilinear", antialias=True).round().to(torch.uint8)
        out[start * 256 : start * 256 + len(chunk)] = x.permute(0, 2, 3, 1).numpy()
    return out


def _stream(seed: int, epoch: int, kind: int) -> np.random.Generator:
    """Uniforms, normals and the order have a stream each, so that a row never depends on their number."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, kind]))


def _chunks(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(images), size):
        yield images[start : start + size]
