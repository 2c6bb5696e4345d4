"""Protocols: weights, sizes, boxes, flips and pixels, against each paper's own words, PIL and torchvision."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.transforms import functional as tv

from repro import protocols
from repro.errors import ReproError
from repro.evaluate.engine import scores
from repro.protocols import PROTOCOLS
from repro.schema import ViewSet

sides = st.integers(1, 300)
# Height and width of a photograph, no side more than four times the other.
photographs = st.tuples(st.integers(90, 360), st.integers(90, 360))


def numbered(height: int, width: int) -> torch.Tensor:
    """An image (1, height, width) in which no two pixels are alike."""
    return torch.arange(height * width).view(1, height, width)


def cut(image: torch.Tensor, view: protocols.View) -> torch.Tensor:
    top, left, height, width = view.box
    crop = image[:, top : top + height, left : left + width]
    return crop.flip(2) if view.flip else crop


# Every protocol again, from the words of its paper and as plainly as can be. A cut takes the height and width of the
# rescaled image and gives boxes (top, left, height, width), each with the side that it is fitted to (0 for none).

Cut = Callable[[int, int], list[tuple[tuple[int, int, int, int], int]]]
# Weight of the scale, size after the rescale, cut, whether mirrored too.
Scale = tuple[int, tuple[int, int], Cut, bool]


def half(pixels: int) -> int:
    """A middle: to the nearest pixel, to the even one where two are as near."""
    return round(pixels / 2)


def short(image: tuple[int, int], q: int, cut: Cut, flips: bool = True, weight: int = 1) -> Scale:
    """The image with its shorter side at q, the longer one rounded down."""
    height, width = image
    return weight, (q, width * q // height) if height <= width else (height * q // width, q), cut, flips


def everything(height: int, width: int):
    return [((0, 0, height, width), 0)]


def middle(c: int) -> Cut:
    return lambda height, width: [((half(height - c), half(width - c), c, c), 0)]


def corners_and_centre(c: int, top: int = 0, left: int = 0) -> Cut:
    def cut(height: int, width: int):
        bottom, right = top + height - c, left + width - c
        centre = (top + half(height - c), left + half(width - c))
        return [((y, x, c, c), 0) for y, x in ((top, left), (top, right), (bottom, left), (bottom, right), centre)]

    return cut


def of_the_central_square(c: int) -> Cut:
    """AlexNet: cut out the central square, and then corners and centre of it."""

    def cut(height: int, width: int):
        side = min(height, width)
        return corners_and_centre(c, half(height - side), half(width - side))(side, side)

    return cut


def six_of_squares(c: int, names: str) -> Cut:
    """GoogLeNet: of each named square the corners, the centre, and the square itself resized."""

    def cut(height: int, width: int):
        side, far = min(height, width), abs(height - width)
        offsets = {"first": 0, "middle": half(far), "last": far}
        found = []
        for name in names.split():
            top, left = (offsets[name], 0) if height > width else (0, offsets[name])
            found += corners_and_centre(c, top, left)(side, side)
            found.append(((top, left, side, side), 0 if side == c else c))
        return found

    return cut


def lattice(n: int, c: int) -> Cut:
    """n x n boxes from edge to edge."""

    def offsets(span: int) -> list[int]:
        three = [0, half(span), span]
        return three if n == 3 else [0, round(span / 4), half(span), span - round(span / 4), span]

    return lambda height, width: [((y, x, c, c), 0) for y in offsets(height - c) for x in offsets(width - c)]


ALL_SQUARES = "first middle last"
# Pictures, and what becomes of the papers' numbers of pixels: themselves, or those of a proxy.
PAPERS: dict[str, Callable[[tuple[int, int], Callable[[int], int]], list[Scale]]] = {
    # At the scales 256 and 384 of a table, with a window of 224.
    "dense": lambda image, s: [short(image, s(q), everything) for q in (256, 384)],
    "grid": lambda image, s: [short(image, s(q), lattice(5, s(224))) for q in (256, 384)],
    "ten": lambda image, s: [short(image, s(q), corners_and_centre(s(224))) for q in (256, 384)],
    "centre": lambda image, s: [short(image, s(q), middle(s(224)), False) for q in (256, 384)],
    "full": lambda image, s: [short(image, s(q), everything, False) for q in (256, 384)],
    # "four corner patches and the center patch as well as their horizontal reflections" of the central 256x256
    "alexnet10": lambda image, s: [short(image, s(256), of_the_central_square(s(224)))],
    "googlenet1": lambda image, s: [short(image, s(256), middle(s(224)), False)],
    "googlenet10": lambda image, s: [short(image, s(256), corners_and_centre(s(224)))],
    # "4 scales where the shorter dimension is 256, 288, 320 and 352 ... left, center and right square"
    "googlenet144": lambda image, s: [
        short(image, s(q), six_of_squares(s(224), ALL_SQUARES)) for q in (256, 288, 320, 352)
    ],
    "inception1": lambda image, s: [short(image, s(342), middle(s(299)), False)],
    "inception12": lambda image, s: [short(image, s(342), six_of_squares(s(299), "middle"))],
    "inception144": lambda image, s: [
        short(image, s(q), six_of_squares(s(299), ALL_SQUARES)) for q in (342, 384, 427, 470)
    ],
    "resnet10": lambda image, s: [short(image, s(256), corners_and_centre(s(224)))],
    # "images are resized such that the shorter side is in {224, 256, 384, 480, 640}"
    "resnet-dense": lambda image, s: [short(image, s(q), everything) for q in (224, 256, 384, 480, 640)],
    "prelu-dense": lambda image, s: [short(image, s(q), everything) for q in (256, 384, 480)],
    "spp10": lambda image, s: [short(image, s(256), corners_and_centre(s(224)))],
    "spp-full": lambda image, s: [short(image, s(256), everything, False)],
    # "18 views for each scale: one at the center, four at the corners, and four on the middle of each side", mirrored;
    # 6 at 224: that is 96
    "spp96": lambda image, s: [
        short(image, s(q), lattice(3, s(224)), True, 18 if q > 224 else 6) for q in (224, 256, 300, 360, 448, 560)
    ],
    "densenet1": lambda image, s: [short(image, s(256), middle(s(224)), False)],
    "densenet10": lambda image, s: [short(image, s(256), corners_and_centre(s(224)))],
    "senet224": lambda image, s: [short(image, s(256), middle(s(224)), False)],
    "senet299": lambda image, s: [short(image, s(352), middle(s(299)), False)],
    "senet320": lambda image, s: [short(image, s(366), middle(s(320)), False)],
    "senet331": lambda image, s: [short(image, s(378), middle(s(331)), False)],
    "vit224": lambda image, s: [(1, (s(224), s(224)), everything, False)],
    "vit384": lambda image, s: [(1, (s(384), s(384)), everything, False)],
    "vit512": lambda image, s: [(1, (s(512), s(512)), everything, False)],
    "coatnet224": lambda image, s: [short(image, s(256), middle(s(224)), False)],
    "coatnet384": lambda image, s: [(1, (s(384), s(384)), everything, False)],
    "coatnet512": lambda image, s: [(1, (s(512), s(512)), everything, False)],
    "cifar": lambda image, s: [(1, image, everything, False)],
}
# How many views the papers count, of an image that is no square; at two scales where the table states them.
COUNTS = {
    **{"dense": 4, "grid": 100, "ten": 20, "centre": 2, "full": 2},
    **{"alexnet10": 10, "googlenet1": 1, "googlenet10": 10, "googlenet144": 4 * 3 * 6 * 2},
    **{"inception1": 1, "inception12": 12, "inception144": 144, "resnet10": 10, "resnet-dense": 10},
    **{"prelu-dense": 6, "spp10": 10, "spp-full": 1, "spp96": 5 * 18 + 6, "densenet1": 1, "densenet10": 10},
    **{f"senet{q}": 1 for q in (224, 299, 320, 331)},
    **{f"{net}{q}": 1 for net in ("vit", "coatnet") for q in (224, 384, 512)},
    "cifar": 1,
}


def whole(name: str, size: Callable[[int], int] = int):
    """A protocol resolved as `PAPERS` words it."""
    return protocols.resolve([name], [size(256), size(384)], size(224), size)


def picture_for(name: str, image: tuple[int, int]) -> tuple[int, int]:
    """CIFAR's images are of one size."""
    return (32, 32) if name == "cifar" else image


def in_words(name: str, image: tuple[int, int], size: Callable[[int], int] = int):
    """Each view of the paper's in its order: (weight of the scale, size, box, side it is fitted to, flip)."""
    found = []
    for weight, after, cut, flips in PAPERS[name](image, size):
        for flip in (False, True) if flips else (False,):
            found += [(weight, after, box, out, flip) for box, out in cut(*after)]
    return found


def test_every_protocol_has_its_words():
    """A new protocol comes with its reference here, and with what the paper counts."""
    assert list(PAPERS) == list(PROTOCOLS) == list(COUNTS)
    assert all(rule.source for rule in PROTOCOLS.values())


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=25, deadline=None)
@given(photographs)
@example((375, 500))
@example((500, 375))
@example((333, 500))
@example((487, 301))
@example((400, 500))  # crops of neighbouring squares fall together, and count twice
@example((256, 257))
@example((300, 300))
def test_the_views_and_their_weights_are_those_of_the_papers_words(name, image):
    """Size, box, fit and flip of each view, and its share in the mean of all."""
    image = picture_for(name, image)
    expected: dict[object, Fraction] = defaultdict(Fraction)
    words = in_words(name, image)
    views, scales = Counter(after for _, after, *_ in words), {(w, after) for w, after, *_ in words}
    for weight, *view in words:
        after = view[0]
        expected[tuple(view)] += Fraction(weight, views[after] * sum(w for w, _ in scales))
    found: dict[object, Fraction] = defaultdict(Fraction)
    for weight, view_set in whole(name):
        shots = protocols.views(view_set, *image)
        for view in shots:
            key = (view.size, view.box, view.out, view.flip)
            found[key] += weight * Fraction(view.count, sum(v.count for v in shots))

    assert found == expected
    assert sum(found.values()) == 1


@pytest.mark.parametrize("name", PROTOCOLS)
def test_there_are_as_many_views_as_the_paper_counts(name):
    """144 is 4 scales x 3 squares x 6 x 2, 96 is 5 x 18 + 6; no two alike on a photograph of 375 x 500."""
    found = [v for _, view_set in whole(name) for v in protocols.views(view_set, *picture_for(name, (375, 500)))]

    assert len(found) == len(set(found)) == COUNTS[name]
    assert all(v.count == (3 if name == "spp96" and v.size[0] == 224 else 1) for v in found)


def test_views_that_fall_together_count_as_many():
    """At 320 x 256 neighbouring squares share four crops and their mirrors, which the paper's 144 have twice."""
    [view_set] = {v for _, v in whole("googlenet144") if v.Q == 256}
    found = protocols.views(view_set, 320, 256)

    assert sum(v.count for v in found) == 36
    assert Counter(v.count for v in found) == {1: 20, 2: 8}


def test_what_the_papers_leave_open_is_the_first_choice():
    """Filter, rounding and the levels of the mean of every protocol; sides are named where they are not short."""
    for name in PROTOCOLS:
        for _, v in whole(name):
            taken = (v.rounding, v.resize, v.cells, v.views)
            assert taken == ("down", "bilinear antialias", "logits", "softmax")
            is_square = name.startswith(("vit", "coatnet")) and name != "coatnet224"
            assert v.side == ("none" if name == "cifar" else "both" if is_square else "short")


# The pixels of every view, cut by PIL


class Seen(nn.Module):
    """A net that keeps what it is shown, and has a dense form."""

    def __init__(self) -> None:
        super().__init__()
        self.views: list[torch.Tensor] = []
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.views += list(x.clone())
        return self.fc(self.pool(x).flatten(1))


def shown(image: np.ndarray, view_set: ViewSet) -> list[np.ndarray]:
    """What a net is shown of an image (H, W, 3), in grey levels of 0 to 255, view by view."""
    net = Seen()
    scores(net, [image], [view_set], [0.0] * 3, 1.0)
    return [x.permute(1, 2, 0).numpy() for x in net.views]


def by_pil(image: np.ndarray, size, box, out: int, flip: bool, rule=Image.Resampling.BILINEAR) -> np.ndarray:
    """One view cut from the image on its own, in bytes from end to end."""
    top, left, height, width = box
    found = Image.fromarray(image).resize(size[::-1], rule).crop((left, top, left + width, top + height))
    if out:
        found = found.resize((out, out), rule)
    if flip:
        found = found.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(found, dtype=np.float64)


def near(found: np.ndarray, expected: np.ndarray, out: int) -> None:
    """Agreement with PIL: 1.2 grey levels, or 2.4 for a box that is fitted, and 0.5 in the mean of a view.

    PIL rounds to bytes after both passes of a rescale; a fitted box is rescaled twice. On noise a pixel aside or
    another filter is off by tens of levels.
    """
    assert found.shape == expected.shape
    difference = np.abs(found - expected)
    assert difference.max() < (2.4 if out else 1.2)
    assert difference.mean() < 0.5


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3)).astype(np.uint8)


@pytest.mark.parametrize("image", [(75, 101), (113, 61), (40, 57), (64, 64), (50, 40)], ids=str)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_net_is_shown_what_pil_cuts(name, image):
    """Each view of each protocol in its order, at a quarter of the papers' pixels, odd and portrait images too."""

    def quarter(pixels: int) -> int:
        return pixels // 4

    picture = noise(*(quarter(32), quarter(32)) if name == "cifar" else image)
    expected = dict.fromkeys((*view, flip) for _, *view, flip in in_words(name, picture.shape[:2], quarter))
    found = [x for _, view_set in whole(name, quarter) for x in shown(picture, view_set)]

    for pixels, view in zip(found, expected, strict=True):
        near(pixels, by_pil(picture, *view), view[2])


FILTERS = {"bilinear antialias": Image.Resampling.BILINEAR, "bicubic antialias": Image.Resampling.BICUBIC}


@pytest.mark.parametrize("image", [(75, 101), (113, 61), (31, 44), (64, 70)], ids=str)
@pytest.mark.parametrize("resize", FILTERS)
def test_the_filters_are_pils(resize, image):
    """Smaller and larger, in one rescale and in two; of middling contrast, for PIL cuts off after each pass."""
    picture = 64 + noise(*image) // 2
    view_set = ViewSet("six", 64, 56, region="three", resize=resize)

    for pixels, view in zip(shown(picture, view_set), protocols.views(view_set, *image), strict=True):
        near(pixels, by_pil(picture, view.size, view.box, view.out, view.flip, FILTERS[resize]), view.out)


@pytest.mark.parametrize("image", [(75, 101), (31, 44)], ids=str)
@pytest.mark.parametrize("resize", FILTERS)
def test_a_rescale_never_leaves_the_range_of_pixels(resize, image):
    """On black and white, where bicubic oversteps, equal to PIL in float with each rescale cut off at 0 and 255."""
    picture = np.where(noise(*image) > 127, 255, 0).astype(np.uint8)
    view_set = ViewSet("six", 64, 56, region="three", resize=resize)

    def rescaled(planes: np.ndarray, height: int, width: int) -> np.ndarray:
        images = [Image.fromarray(planes[:, :, c].astype(np.float32)) for c in range(3)]
        return np.stack([i.resize((width, height), FILTERS[resize]) for i in images], axis=2).clip(0, 255)

    for pixels, view in zip(shown(picture, view_set), protocols.views(view_set, *image), strict=True):
        top, left, height, width = view.box
        expected = rescaled(picture, *view.size)[top : top + height, left : left + width]
        expected = rescaled(expected, view.out, view.out) if view.out else expected
        np.testing.assert_allclose(pixels, expected[:, ::-1] if view.flip else expected, rtol=0, atol=2e-3)


def test_without_antialias_four_pixels_are_mixed():
    """The filter that PIL has not: each pixel from the four around its place, however far they are apart."""
    picture = noise(50, 41)
    found = shown(picture, ViewSet("grid", 20, 20, flips=False, side="both", resize="bilinear"))[0]
    for i in range(20):
        for j in range(20):
            y, x = (i + 0.5) * 50 / 20 - 0.5, (j + 0.5) * 41 / 20 - 0.5
            top, left = int(y), int(x)
            (a, b), (c, d) = picture[top : top + 2, left : left + 2].astype(float)
            down, right = y - top, x - left
            expected = (1 - down) * ((1 - right) * a + right * b) + down * ((1 - right) * c + right * d)
            np.testing.assert_allclose(found[i, j], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("side", ["short", "both", "none"])
@pytest.mark.parametrize("rounding", ["down", "nearest"])
def test_the_switches_of_the_rescale_show_in_the_pixels(side, rounding):
    """The long side of 77 x 101 at 64 would be 83.95 pixels: 83 or 84, or 64, or 101 where nothing is rescaled."""
    picture = noise(77, 101)
    after = {"short": (64, 84 if rounding == "nearest" else 83), "both": (64, 64), "none": (77, 101)}[side]
    [found] = shown(picture, ViewSet("full", 64, 56, flips=False, side=side, rounding=rounding))

    near(found, by_pil(picture, after, (0, 0, *after), 0, False), 0)


# Weights and choices


def test_two_protocols_at_three_scales_are_six_view_sets_of_one_sixth():
    """Weights are equal over names, then over scales, in the order that was asked for."""
    found = protocols.resolve(["grid", "dense"], [256, 384, 512], 224)

    assert [w for w, _ in found] == [Fraction(1, 6)] * 6
    assert [(v.kind, v.Q) for _, v in found] == [(k, q) for k in ("grid", "dense") for q in (256, 384, 512)]


@given(st.lists(st.sampled_from(list(protocols.PROTOCOLS)), min_size=1), st.lists(st.integers(32, 99), min_size=1))
def test_weights_add_up_to_one_and_no_view_set_comes_twice(names, Q):
    """Whatever is asked for, repeated or not, the weights are those of a mean."""
    found = protocols.resolve(names, Q, 32, lambda q: q // 4)

    assert sum(w for w, _ in found) == 1
    assert len({v for _, v in found}) == len(found)


def test_a_scale_named_twice_counts_twice():
    """Two printed scales that are one on the proxy keep the weight of both."""
    found = {v.Q: w for w, v in protocols.resolve(["dense"], [48, 48, 64], 32)}

    assert found == {48: Fraction(2, 3), 64: Fraction(1, 3)}


@pytest.mark.parametrize("key", protocols.CHOICES)
def test_a_choice_is_made_in_every_view_set(key):
    """`-o protocol.KEY=` overrides what the paper leaves open, and nothing else."""
    names = list(PROTOCOLS)
    before = protocols.resolve(names, [256, 384], 224)
    for value in protocols.CHOICES[key]:
        field = value == "yes" if key == "flips" else value
        expected = Counter()
        for weight, v in before:
            expected[replace(v, **{key: field})] += weight

        assert Counter({v: w for w, v in protocols.resolve(names, [256, 384], 224, choices={key: value})}) == expected


@pytest.mark.parametrize("choices", [{"resize": "nearest"}, {"sides": "short"}, {"views": "logits", "flips": "maybe"}])
def test_a_choice_that_is_none_is_refused(choices):
    """The error lists what there is to choose from."""
    key, value = list(choices.items())[-1]
    with pytest.raises(ReproError) as e:
        protocols.resolve(["ten"], [256], 224, choices=choices)

    assert str(e.value).startswith(f"protocol.{key}={value} is no choice. Known: side: short, both, none; rounding: ")


def test_a_whole_protocol_is_scaled_with_the_proxy():
    """Its own scales and window go through the size of the proxy, those of a table are given as they are."""
    found = protocols.resolve(["alexnet10", "ten"], [40], 32, lambda q: q // 8)

    assert [(v.Q, v.crop) for _, v in found] == [(32, 28), (40, 32)]


@pytest.mark.parametrize(
    ("names", "Q", "text"),
    [
        (["dens"], [256], "unknown protocol 'dens'; did you mean 'dense'? `repro protocols` lists them"),
        (["zzz"], [256], "unknown protocol 'zzz'. `repro protocols` lists them"),
        (["grid"], [200], "protocol 'grid': a window of 224 does not fit an image of short side 200"),
        ([], [256], "a protocol needs at least one name, not []"),
        (["grid"], [], "protocol 'grid' needs a Q: the short side that the image is brought to"),
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

    assert protocols.rescaled(height, width, ViewSet("dense", Q, Q)) == expected


def test_rescaling_keeps_the_papers_own_example():
    """A photograph of 375 x 500 at Q = 256 is 256 x 341 (from 341.33); of 333 x 500 it is 256 x 384 (from 384.38)."""
    at = ViewSet("dense", 256, 224)

    assert protocols.rescaled(375, 500, at) == (256, 341)
    assert protocols.rescaled(500, 375, at) == (341, 256)
    assert protocols.rescaled(333, 500, at) == (256, 384)
    assert protocols.rescaled(301, 487, at) == (256, 414)
    assert protocols.rescaled(487, 301, replace(at, Q=255, rounding="nearest")) == (413, 255)


@given(sides, sides, st.integers(1, 100))
def test_the_long_side_is_rounded_as_stated(height, width, Q):
    """Down, or to the nearest pixel: no further than half of one from the exact side."""
    short, long = sorted((height, width))
    exact = Fraction(Q * long, short)
    down, nearest = (
        protocols.rescaled(height, width, ViewSet("dense", Q, Q, rounding=word)) for word in ("down", "nearest")
    )

    assert down[height > width] == nearest[height > width] == min(nearest) == Q
    assert 0 <= exact - max(down) < 1
    assert abs(exact - max(nearest)) <= Fraction(1, 2)


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


@settings(deadline=None)
@given(st.sampled_from(list(PROTOCOLS)), photographs, st.integers(32, 80))
def test_every_view_lies_inside_and_has_its_mirror(name, image, Q):
    """Boxes are inside the rescaled image, as many as the paper says, each with both flips where there are flips."""
    found = protocols.resolve([name], [Q, Q], 32, lambda q: q // 7)
    listed = [(view_set, protocols.views(view_set, *image)) for _, view_set in found]

    for view_set, views in listed:
        size = protocols.rescaled(*image, view_set)
        for view in views:
            top, left, height, width = view.box
            assert view.size == size
            square = (min(size) if view.out else view_set.crop,) * 2
            assert (height, width) == (size if view_set.kind in ("dense", "full") else square)
            assert view.out in (0, view_set.crop)
            assert top >= 0 <= left
            assert top + height <= size[0]
            assert left + width <= size[1]
        boxes = [sorted((v.box, v.out, v.count) for v in views if v.flip == flip) for flip in (False, True)]
        assert boxes[1] == (boxes[0] if view_set.flips else [])
        counts = {"dense": 1, "full": 1, "grid": view_set.grid**2, "ten": 5, "six": 6}
        squares = 3 if view_set.region == "three" and size[0] != size[1] else 1
        assert sum(v.count for v in views if not v.flip) == counts[view_set.kind] * squares


view_sets = st.builds(
    ViewSet,
    kind=st.sampled_from(["dense", "full", "grid", "ten", "six"]),
    Q=st.integers(32, 80),
    crop=st.integers(16, 32),
    grid=st.integers(1, 6),
    region=st.sampled_from(protocols.CHOICES["region"]),
)


@given(view_sets, photographs)
def test_a_portrait_has_the_views_of_its_landscape(view_set, image):
    """Height and width are treated alike: the transposed image has the transposed boxes."""
    found, turned = (protocols.views(view_set, *size) for size in (image, image[::-1]))

    def key(view: protocols.View, step: int):
        top, left, height, width = view.box
        return (view.size[::step], (top, left)[::step], (height, width)[::step], view.out, view.flip, view.count)

    assert Counter(key(v, 1) for v in found) == Counter(key(v, -1) for v in turned)


@given(view_sets, photographs)
def test_a_mirrored_image_has_the_mirrored_views(view_set, image):
    """Box by box; only the middle of an odd margin moves, by one pixel, and so does a middle inside a middle."""
    found = [v for v in protocols.views(view_set, *image) for _ in range(v.count)]
    width = found[0].size[1]
    lefts = [sorted(at) for at in zip(*((v.box[1], width - v.box[1] - v.box[3]) for v in found), strict=True)]
    short = min(found[0].size)
    margins = [width - view_set.crop] if view_set.region == "image" else [width - short, short - view_set.crop]

    assert max(abs(a - b) for a, b in zip(*lefts, strict=True)) <= sum(margin % 2 for margin in margins)


def pixels(image: torch.Tensor, views: list[protocols.View]) -> Counter[tuple[object, ...]]:
    """The views of an image of numbered pixels, each as often as it counts."""
    found: Counter[tuple[object, ...]] = Counter()
    for v in views:
        found[v.out, *cut(image, v).flatten().tolist()] += v.count
    return found


@settings(deadline=None)
@given(
    st.sampled_from(["grid", "ten", "six"]),
    st.sampled_from(protocols.CHOICES["region"]),
    st.integers(16, 40).map(lambda half: 2 * half),
    st.integers(16, 40).map(lambda half: 2 * half),
)
def test_a_mirrored_image_has_the_same_crops_where_the_margin_is_even(name, region, height, width):
    """No side of the image is favoured: the crops of the mirror image are those of the image."""
    view_set = ViewSet(name, min(height, width), 32, 5, region=region)
    image = numbered(height, width)
    found = protocols.views(view_set, height, width)

    assert pixels(image, found) == pixels(image.flip(2), found)


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
    view_set = ViewSet("grid", min(height, width), 32, 1, flips=False)
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
    with pytest.raises(ReproError, match=r"unknown kind of view 'five'. Known: dense, full, grid, ten, six"):
        protocols.views(ViewSet("five", 40, 32), 40, 40)
