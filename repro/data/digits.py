"""The proxy's images: real handwritten digits at random size and place on coloured, cluttered grounds.

The digits are scikit-learn's `load_digits`, 1,797 of 8x8 pixels, none of them in two sets. An image depends on the
seed, its set and its index alone, and only on arithmetic that is the same on every processor.
"""

from __future__ import annotations

import numpy as np

SEED = 1409_1556
SIZE = 72  # pixels, the largest S and Q of the proxy
# set: (its number, first and last source digit after shuffling, images)
SETS = {
    "digits-train": (0, 0, 1000, 2000),
    "digits-val": (1, 1000, 1200, 1000),
    "digits-test": (2, 1200, 1797, 3000),
}


def make(name: str) -> dict[str, np.ndarray]:
    """Images (N, 72, 72, 3) uint8, labels (N,) and source (N,) int64 of a set; 2 s for the largest.

    Image i shows source digit i modulo their number; `source` is a digit's place in scikit-learn's order.
    """
    from sklearn.datasets import load_digits

    number, first, last, count = SETS[name]
    bunch = load_digits()
    digits = (bunch.images / 16).astype(np.float32)
    order = np.random.Generator(np.random.Philox(key=SEED)).permutation(len(digits))
    source = order[first:last][np.arange(count) % (last - first)].astype(np.int64)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for i in range(count):
        stream = np.random.Philox(key=SEED, counter=[0, 0, i, number + 1])
        images[i] = draw(digits[source[i]], np.random.Generator(stream))
    return {"images": images, "labels": bunch.target[source].astype(np.int64), "source": source}


def draw(digit: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One image (72, 72, 3) uint8 of a digit (8, 8) float32 from 0 to 1, on a sloping ground with squares and noise."""
    ground, ink = _uniform(random, 0.15, 0.5, 3), _uniform(random, 0.7, 1.0, 3)
    down, right = _uniform(random, -0.1, 0.1, 2)
    ramp = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
    image = (down * ramp[:, None] + right * ramp)[..., None] + ground
    for _ in range(3):
        side = int(random.integers(3, 9))
        top, left = random.integers(0, SIZE - side + 1, 2)
        image[top : top + side, left : left + side] += _uniform(random, -0.12, 0.12, 3)
    side = int(random.integers(26, 58))
    # The mean of two draws: digits lie toward the middle, as things do in photographs.
    top, left = random.integers(0, SIZE - side + 1, (2, 2)).sum(axis=0) // 2
    place = image[top : top + side, left : left + side]
    place += enlarge(digit, side)[..., None] * (ink - place)
    # Two whole numbers 0..255 added up: a triangle, near enough to normal, and exact everywhere.
    noise = random.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8).astype(np.float32)
    image += (noise[0] + noise[1] - 255) * np.float32(0.03 / 104.5)
    pixels: np.ndarray = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return pixels


def enlarge(digit: np.ndarray, side: int) -> np.ndarray:
    """The digit (8, 8) drawn `side` pixels wide, bilinear, fading to zero at its border."""
    place = (np.arange(side) + 0.5) * (8 / side) + 0.5
    below = np.floor(place).astype(np.int64)  # for each pixel of an axis, the padded digit's pixel before it
    weight = (place - below).astype(np.float32)  # of the next one
    padded = np.pad(digit, 1)
    rows = padded[below] * (1 - weight)[:, None] + padded[below + 1] * weight[:, None]
    drawn: np.ndarray = rows[:, below] * (1 - weight) + rows[:, below + 1] * weight
    return drawn


def _uniform(random: np.random.Generator, low: float, high: float, count: int) -> np.ndarray:
    return (low + (high - low) * random.random(count)).astype(np.float32)
