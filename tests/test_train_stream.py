"""Images that are read as they are needed: where they are cut, what is drawn, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from repro.data import Images, Unreadable
from repro.fields import Augment
from repro.train.augment import Arrays, Sampler, statistics
from repro.train.stream import Cuts, Stream

MEAN = np.array([120.4, 110.0, 99.6])


class Files:
    """Images of many sizes; those in `broken` cannot be read."""

    def __init__(self, sizes: list[tuple[int, int]], broken: tuple[int, ...] = ()) -> None:
        self.labels, self.broken = np.arange(len(sizes)) % 4, broken
        self.images_ = [np.random.default_rng(i).integers(0, 256, (*s, 3), np.uint8) for i, s in enumerate(sizes)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> np.ndarray:
        if i in self.broken:
            raise Unreadable(f"n01/{i}.JPEG", "image file is truncated")
        return self.images_[i]


def augment(**words: Any) -> Augment:
    return Augment(**{"flip": 0.5, "colour": 0.1, **words})


def sampler(count: int, crop: int = 16, sizes: tuple[int, ...] = (20, 24), **words: Any) -> Sampler:
    return Sampler(count, 8, 3, 7, sizes, crop, 0.5, 0.1, **words)


def stream(images: Any, how: Augment, draw: Sampler) -> Stream:
    return Stream(images, draw, how, MEAN, np.eye(3))


def cut(image: np.ndarray, how: Augment, crop: int, sizes: tuple[int, ...], row: tuple[float, ...], **words: Any):
    files = Files([image.shape[:2]])
    files.images_ = [image]
    draw = sampler(1, crop, sizes, **words)
    object.__setattr__(draw, "uniforms", lambda epoch, i: np.array(row))
    return Cuts(files, draw, how, MEAN)[0].numpy()


@given(
    size=st.tuples(st.integers(17, 70), st.integers(17, 70)),
    S=st.lists(st.integers(16, 40), min_size=1, max_size=3),
    row=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4),
)
@settings(max_examples=60, deadline=None)
def test_a_window_is_where_a_plain_reading_of_the_paper_puts_it(size, S, row) -> None:
    """Short side to S by PIL, long side rounded down, a window drawn evenly over all places, mirrored or not."""
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    found = cut(image, augment(), 16, tuple(S), row)
    side = S[int(row[0] * len(S))]
    height, width = (side, side * size[1] // size[0]) if size[0] <= size[1] else (side * size[0] // size[1], side)
    rescaled = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    top, left = int(row[1] * (height - 16 + 1)), int(row[2] * (width - 16 + 1))
    window = rescaled[top : top + 16, left : left + 16]
    window = window[:, ::-1] if row[3] < 0.5 else window
    assert found.shape == (16, 16, 3)
    assert np.abs(found - window).max() <= 1


@given(pad=st.integers(0, 5), row=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4))
@settings(max_examples=40, deadline=None)
def test_a_padded_window_has_the_mean_colour_round_the_image(pad, row) -> None:
    """CIFAR's crop: the image framed by the mean, which is zero to the net, and a window of its own size."""
    image = np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8)
    framed = np.empty((16 + 2 * pad, 16 + 2 * pad, 3), np.uint8)
    framed[:] = MEAN.round()
    framed[pad : pad + 16, pad : pad + 16] = image
    top, left = int(row[1] * (2 * pad + 1)), int(row[2] * (2 * pad + 1))
    window = framed[top : top + 16, left : left + 16]
    window = window[:, ::-1] if row[3] < 0.5 else window
    assert np.array_equal(cut(image, augment(crop="pad", pad=pad), 16, (16,), row, pad=pad), window)


def test_areas_and_aspects_are_those_of_inception() -> None:
    """Seen from the pixels alone: 8 to 100 % of the area, aspect 3/4 to 4/3, at all places, half of them mirrored."""
    ramp = np.zeros((256, 256, 3), np.uint8)  # red is the column, green the row
    ramp[..., 0], ramp[..., 1] = np.arange(256)[None, :], np.arange(256)[:, None]
    files = Files([(256, 256)])
    files.images_ = [ramp]
    draw, how = sampler(1, 32), augment(crop="area")
    found = torch.stack([Cuts(files, draw, how, MEAN, epoch)[0] for epoch in range(600)]).numpy().astype(float)
    step = np.diff(found, axis=2)[:, :, 8:24, 0].mean((1, 2)), np.diff(found, axis=1)[:, 8:24, :, 1].mean((1, 2))
    width, height = np.abs(step[0]) * 32, step[1] * 32
    share, aspect = width * height / 256**2, width / height
    assert 0.07 < share.min() < 0.12
    assert 0.9 < share.max() < 1.03
    assert 0.72 < aspect.min() < 0.78
    assert 1.28 < aspect.max() < 1.37
    assert abs(share.mean() - 0.48) < 0.05  # of 0.54: large ones that stick out are drawn again, and so are rarer
    assert ((step[0] < 0) == [draw.uniforms(epoch, 0)[3] < 0.5 for epoch in range(600)]).all()
    assert abs((step[0] < 0).mean() - 0.5) < 0.1
    assert found[..., 0].min() < 5
    assert found[..., 1].max() > 250


def test_whole_images_are_rescaled_whole() -> None:
    """The corners of the image are the corners of what the net sees."""
    image = np.zeros((40, 20, 3), np.uint8)
    image[:16, :8], image[-16:, -8:] = 200, 100
    found = cut(image, augment(crop="whole"), 10, (10,), (0.5, 0.5, 0.5, 0.9))
    assert (found[0, 0] == 200).all()
    assert (found[-1, -1] == 100).all()
    assert found.shape == (10, 10, 3)


STRONG = {"crop": "area", "interpolation": "random", "jitter": 0.5, "randaugment": [2, 15]}


@pytest.mark.parametrize("words", [{}, {"crop": "pad"}, STRONG], ids=["scale", "pad", "strong"])
def test_draws_depend_on_seed_epoch_and_image_alone(words: dict[str, Any], monkeypatch: Any) -> None:
    """Not on the worker, on what came before, on the order, or on the batch; another epoch or seed draws anew."""
    files, draw = Files([(30 + i, 50 - i) for i in range(12)]), sampler(12)

    def crops(workers: int, epoch: int, parts: list[list[int]], seed: int = 7) -> dict[int, Any]:
        monkeypatch.setenv("REPRO_WORKERS", str(workers))
        made = stream(files, augment(**words), replace(draw, seed=seed))
        torch.manual_seed(workers)
        before = torch.get_rng_state()
        batches = list(made.epoch(epoch, [np.array(p) for p in parts]))
        assert torch.equal(before, torch.get_rng_state())
        assert all(b.offset.shape == (len(p), 3) for b, p in zip(batches, parts, strict=True))
        images = [i for p in parts for i in p]
        pixels, colours = (torch.cat([getattr(b, name) for b in batches]) for name in ("crops", "offset"))
        return {i: (x.numpy(), o.numpy()) for i, x, o in zip(images, pixels, colours, strict=True)}

    one = crops(0, 1, [list(range(12))])
    two = crops(2, 1, [[11, 3], [0, 5, 7], [2]])
    assert all(np.array_equal(one[i][k], two[i][k]) for i in two for k in (0, 1))
    for other in (crops(0, 2, [list(range(12))]), crops(0, 1, [list(range(12))], seed=8)):
        for k in (0, 1):
            assert sum(np.array_equal(one[i][k], other[i][k]) for i in one) < 2  # a window may be drawn twice


def test_streamed_images_are_those_from_memory(monkeypatch: Any) -> None:
    """The same crops, mirrors, colours and labels, to one level of rounding in the rescale, and exactly without it."""
    monkeypatch.setenv("REPRO_WORKERS", "0")
    pixels = np.random.default_rng(0).integers(0, 256, (10, 24, 24, 3), np.uint8)
    images = Images(pixels, np.arange(10) % 4)
    mean, shift = statistics(images)
    for how, draw in ((augment(), sampler(10)), (augment(crop="pad", pad=3), sampler(10, 24, (24,), pad=3))):
        parts = draw.order(2)
        memory = Arrays(images.images, images.labels, draw, mean, shift).epoch(2, parts)
        files = Stream(images, draw, how, mean, shift).epoch(2, parts)
        for a, b in zip(memory, files, strict=True):
            assert (a.crops.int() - b.crops.int()).abs().max() <= (1 if how.crop == "scale" else 0)
            assert torch.equal(a.offset, b.offset)
            assert torch.equal(a.labels, b.labels)


def test_an_image_that_cannot_be_read_is_left_out_and_named(monkeypatch: Any) -> None:
    """Its batch is smaller, and the others keep their labels and colours."""
    monkeypatch.setenv("REPRO_WORKERS", "0")
    files, draw = Files([(20, 20)] * 6, broken=(1, 4)), sampler(6)
    (whole,) = stream(Files([(20, 20)] * 6), augment(), draw).epoch(0, [np.arange(6)])
    batch, none = list(stream(files, augment(), draw).epoch(0, [np.arange(6), np.array([4])]))
    assert batch.left_out == [f"n01/{i}.JPEG: image file is truncated" for i in (1, 4)]
    kept = [0, 2, 3, 5]
    assert batch.labels.tolist() == whole.labels[kept].tolist()
    assert torch.equal(batch.crops, whole.crops[kept])
    assert torch.equal(batch.offset, whole.offset[kept])
    assert len(none.labels) == 0


@given(batch=st.integers(1, 40), together=st.integers(0, 12), size=st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_processes_share_a_batch_without_rest_or_double(batch, together, size) -> None:
    """All images once; with `together` the same parts whatever the number of processes, in their order."""
    draw = sampler(40, together=together)
    images = np.arange(100, 100 + batch)
    shares = [draw.slices(images, rank, size) for rank in range(size)]
    flat = [part for share in shares for part in share]
    assert np.concatenate([index for _, index in flat]).tolist() == images.tolist()
    assert [number for number, _ in flat] == list(range(len(flat)))
    if together:
        alone = draw.slices(images)
        assert all((a[1] == b[1]).all() for a, b in zip(flat, alone, strict=True))
        assert all(len(index) <= together for _, index in flat)
