"""Protocols: weights of view sets, sizes, boxes and flips, against torchvision and by properties."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional as tv

from repro import protocols
from repro.errors import ReproError
from repro.schema import ViewSet

sides = st.integers(1, 300)


def numbered(height: int, width: int) -> torch.Tensor:
    """An image (1, height, width) in which no two pixels are alike."""
    return torch.arange(height * width).view(1, height, width)


def cut(image: torch.Tensor, view: protocols.View) -> torch.Tensor:
    top, left, height, width = view.box
    crop = image[:, top : top + height, left : left + width]
    return crop.flip(2) if view.flip else crop


def test_two_protocols_at_three_scales_are_six_view_sets_of_one_sixth():
    """Weights are equal over names, then over scales, in the order that was asked for."""
    found = protocols.resolve(["grid", "dense"], [256, 384, 512], 224)

    assert [w for w, _ in found] == [Fraction(1, 6)] * 6
    assert [(v.kind, v.Q) for _, v in found] == [(k, q) for k in ("grid", "dense") for q in (256, 384, 512)]


@given(st.lists(st.sampled_from(list(protocols.PROTOCOLS)), min_size=1), st.lists(st.integers(32, 99), min_size=1))
def test_weights_add_up_to_one_and_no_view_set_comes_twice(names, Q):
    """Whatever is asked for, repeated or not, the weights are those of a mean."""
    found = protocols.resolve(names, Q, 32)

    assert sum(w for w, _ in found) == 1
    assert len({v for _, v in found}) == len(found)


def test_a_scale_named_twice_counts_twice():
    """Two printed scales that are one on the proxy keep the weight of both."""
    found = {v.Q: w for w, v in protocols.resolve(["dense"], [48, 48, 64], 32)}

    assert found == {48: Fraction(2, 3), 64: Fraction(1, 3)}


@pytest.mark.parametrize(
    ("names", "Q", "text"),
    [
        (["dens"], [256], "unknown protocol 'dens'; did you mean 'dense'? Known: dense, grid, ten, centre"),
        (["zzz"], [256], "unknown protocol 'zzz'. Known: dense, grid, ten, centre"),
        (["grid"], [200], "protocol 'grid': a window of 224 does not fit an image of short side 200"),
        ([], [256], "a protocol needs at least one name and one Q, not [] at [256]"),
        (["grid"], [], "a protocol needs at least one name and one Q, not ['grid'] at []"),
    ],
    ids=["near", "far", "small", "no name", "no scale"],
)
def test_a_protocol_that_cannot_be_is_refused_in_one_line(names, Q, text):
    """The error says what was wrong and which names there are."""
    with pytest.raises(ReproError) as e:
        protocols.resolve(names, Q, 224)

    assert str(e.value) == text


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 100))
def test_the_rescaled_size_is_torchvisions(height, width, Q):
    """The long side is rounded down, as `Resize` does with one number."""
    if Q * max(height, width) // min(height, width) > 1000:
        return
    expected = tuple(tv.resize(torch.empty(1, height, width, device="meta"), [Q], antialias=True).shape[1:])

    assert protocols.rescaled(height, width, Q) == expected


def test_rescaling_keeps_the_papers_own_example():
    """A photograph of 375 x 500 at Q = 256 is 256 x 341, not 342."""
    assert protocols.rescaled(375, 500, 256) == (256, 341)
    assert protocols.rescaled(500, 375, 256) == (341, 256)


@given(sides, sides, st.integers(2, 9))
def test_windows_run_from_edge_to_edge_evenly_and_mirrored(a, b, n):
    """First at 0, last at size - crop, none further than half a pixel from its place, mirrored but for the middle."""
    crop, size = sorted((a, b))
    found, span = protocols.positions(size, crop, n), size - crop

    assert (found[0], found[-1], len(found)) == (0, span, n)
    assert all(abs(at - Fraction(i * span, n - 1)) <= Fraction(1, 2) for i, at in enumerate(found))
    assert found == sorted(found)
    unpaired = {n // 2} if n % 2 and span % 2 else set()
    assert all(found[i] == span - found[-1 - i] for i in range(n) if i not in unpaired)


@given(st.sampled_from(list(protocols.PROTOCOLS)), sides, sides, st.integers(32, 80))
def test_every_view_lies_inside_and_has_its_mirror(name, height, width, Q):
    """Boxes are inside the rescaled image, as many as the paper says, each with both flips where there are flips."""
    [(_, view_set)] = protocols.resolve([name], [Q], 32)
    found = protocols.views(view_set, height, width)
    size = protocols.rescaled(height, width, Q)

    assert len(found) == {"dense": 2, "grid": 50, "ten": 10, "centre": 1}[name]
    for view in found:
        top, left, h, w = view.box
        assert view.size == size
        assert (h, w) == (size if name == "dense" else (32, 32))
        assert top >= 0 <= left
        assert top + h <= size[0]
        assert left + w <= size[1]
    if view_set.flips:
        assert sorted(v.box for v in found if v.flip) == sorted(v.box for v in found if not v.flip)


@given(st.sampled_from(["grid", "ten"]), st.integers(32, 80), st.integers(16, 40).map(lambda half: 2 * half))
def test_a_mirrored_image_has_the_same_crops_where_the_margin_is_even(name, height, width):
    """No side of the image is favoured: the crops of the mirror image are those of the image."""
    view_set = ViewSet(name, min(height, width), 32, 5)
    image = numbered(height, width)
    found = protocols.views(view_set, height, width)
    of_image, of_mirror = ({tuple(cut(i, v).flatten().tolist()) for v in found} for i in (image, image.flip(2)))

    assert of_image == of_mirror


@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 54), (62, 40)])
def test_ten_crops_are_torchvisions(height, width):
    """Where margins are even the ten views are `ten_crop`'s, as sets of pixels."""
    found = protocols.views(ViewSet("ten", 40, 32), height, width)
    image = numbered(height, width)
    expected = {tuple(c.flatten().tolist()) for c in tv.ten_crop(image, [32])}

    assert {tuple(cut(image, v).flatten().tolist()) for v in found} == expected
    assert all(torch.equal(cut(image, v), c) for v, c in zip(found[:5], tv.five_crop(image, [32]), strict=True))


def test_the_mirrored_centre_is_the_mirror_of_the_same_box():
    """With an odd margin torchvision takes the mirrored centre one pixel aside; AlexNet mirrors the patches."""
    found = protocols.views(ViewSet("ten", 41, 32), 41, 41)
    image = numbered(41, 41)
    theirs = tv.ten_crop(image, [32])
    ours = {tuple(cut(image, v).flatten().tolist()) for v in found}

    assert len(ours & {tuple(c.flatten().tolist()) for c in theirs}) == 9
    assert torch.equal(cut(image, found[9]), cut(image, found[4]).flip(2))


@given(st.integers(32, 90), st.integers(32, 90))
def test_the_centre_crop_is_torchvisions(height, width):
    """An odd margin is rounded half to even, as `center_crop` does."""
    view_set = ViewSet("centre", min(height, width), 32, 1, flips=False)
    [view] = protocols.views(view_set, height, width)
    image = numbered(height, width)

    assert torch.equal(cut(image, view), tv.center_crop(image, [32]))


def test_a_window_larger_than_the_image_is_refused():
    """The error names the window, the side and what to do."""
    with pytest.raises(ReproError) as e:
        protocols.views(ViewSet("grid", 30, 32, 5), 30, 60)

    assert str(e.value) == "a window of 32 does not fit a side of 30 pixels; use a Q of 32 or more"


def test_a_kind_of_view_that_is_not_known_is_refused():
    """A view set read from an old record cannot be taken for another kind."""
    with pytest.raises(ReproError, match=r"unknown kind of view 'five'. Known: dense, grid, ten, centre"):
        protocols.views(ViewSet("five", 40, 32), 40, 40)
