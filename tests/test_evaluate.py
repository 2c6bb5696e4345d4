"""Scores per image: the fast engine beside slow twins, and ranks beside a plain sort."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from math import ceil, floor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F

from repro import architectures, protocols
from repro.errors import JobError, ReproError
from repro.evaluate import rank_of_truth
from repro.evaluate.dense import Dense
from repro.evaluate.engine import scores
from repro.provenance import NUMERICS
from repro.schema import Build, ViewSet

PROXY = "+width=1/8+input=32+classes=10+pools=3"
MEAN, SCALE = [120.0, 110.0, 100.0], 1 / 64


def view_set(name: str, Q: int, crop: int = 32) -> ViewSet:
    return protocols.resolve([name], [Q], crop)[0][1]


def make(text: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A net with weights that keep signals of unit size, in evaluation mode."""
    net = architectures.make(Build.parse(text)).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in net.named_parameters():
            bound = 0.1 if name.endswith("bias") else (6 / p[0].numel()) ** 0.5
            p.uniform_(-bound, bound, generator=generator)
    return net.eval()


def pictures(n: int, height: int = 72, width: int = 72) -> np.ndarray:
    """Noise that is coarse enough to survive a rescale, uint8 (n, height, width, 3)."""
    small = np.random.default_rng(0).integers(0, 256, (n, 9, 9, 3))
    return small.repeat(height // 9 + 1, 1).repeat(width // 9 + 1, 2)[:, :height, :width].astype(np.uint8)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return make("vgg:B" + PROXY)


# The class map


def convolved(net: nn.Module, x: torch.Tensor, side: int) -> torch.Tensor:
    """The class map the slow way: fc6 as a convolution with windows of `side`, fc7 and fc8 as 1x1."""
    x = net.features(x)
    for layer in net.classifier:
        if isinstance(layer, nn.Linear):
            x = F.conv2d(x, layer.weight.view(layer.out_features, -1, side, side), layer.bias)
            side = 1
        else:
            x = layer(x)
    return x


@pytest.mark.parametrize("text", ["vgg:A-LRN" + PROXY, "vgg:C" + PROXY, "vgg:D+width=1/16+classes=10"])
def test_at_the_training_size_dense_is_the_plain_classifier(text):
    """One cell, and the very logits of the net."""
    net = make(text)
    side = 32 if PROXY in text else 224
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    with torch.inference_mode():
        found = Dense(net)(x)

        assert found.shape == (2, 10, 1, 1)
        assert torch.equal(found[:, :, 0, 0], net(x))


@pytest.mark.parametrize(
    ("text", "height", "width"),
    [
        ("vgg:B" + PROXY, 40, 40),
        ("vgg:B" + PROXY, 72, 72),
        ("vgg:B" + PROXY, 45, 61),
        ("vgg:C" + PROXY, 33, 79),
        ("vgg:D+width=1/16+classes=10", 256, 301),
        ("vgg:A+width=1/16+classes=10", 225, 289),
    ],
)
def test_the_class_map_is_that_of_a_plain_convolution(text, height, width):
    """fc6 over unfolded windows equals fc6 as a 4x4 or 7x7 convolution, and the map has the size of the arithmetic."""
    net, x = make(text), torch.randn(2, 3, height, width, dtype=torch.float64)
    stride, window = (8, 4) if PROXY in text else (32, 7)
    with torch.inference_mode():
        found, expected = Dense(net)(x), convolved(net, x, window)

    assert tuple(found.shape[2:]) == (height // stride - window + 1, width // stride - window + 1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_maps_have_the_sizes_of_the_paper_and_of_the_proxy():
    """VGG's map is 1, 2, 6, 10 cells wide at 224, 256, 384, 512; the proxy's 1, 2, 4, 6 at 32, 40, 56, 72."""
    for text, sides in (("vgg:D", (224, 256, 384, 512)), ("vgg:D" + PROXY, (32, 40, 56, 72))):
        with torch.device("meta"):
            net = Dense(architectures.make(Build.parse(text)))
            maps = [tuple(net(torch.empty(1, 3, side, side)).shape[2:]) for side in sides]

        assert maps == [(n, n) for n in ((1, 2, 6, 10) if text == "vgg:D" else (1, 2, 4, 6))]


class Unpadded(nn.Module):
    """A classifier of 12x12 pixels without padding, stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 2))
        self.classifier = nn.Sequential(nn.Linear(4 * 16, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def test_without_padding_each_cell_is_the_net_on_the_window_under_it():
    """What dense evaluation stands for, where no padding comes between."""
    net, x = Unpadded().double(), torch.randn(2, 3, 20, 26, dtype=torch.float64)
    with torch.inference_mode():
        found = Dense(net)(x)

        assert tuple(found.shape[2:]) == (5, 8)
        for i in range(5):
            for j in range(8):
                window = x[:, :, 2 * i : 2 * i + 12, 2 * j : 2 * j + 12]
                torch.testing.assert_close(found[:, :, i, j], net(window), rtol=1e-12, atol=1e-12)


def test_an_image_below_the_window_is_refused():
    """The message gives the image, the map and the window."""
    with pytest.raises(ReproError, match=r"an image of \(24, 40\) leaves a map of \(3, 5\), smaller than .* 4 x 4"):
        Dense(make("vgg:A" + PROXY))(torch.zeros(1, 3, 24, 40, dtype=torch.float64))


# Windows of the map with a pyramid of their own


def pyramid_by_loops(window: torch.Tensor, levels: list[int]) -> torch.Tensor:
    """The maxima over n x n bins of (channels, side, side), bin by bin: floor((i-1) s / n) to ceil(i s / n)."""
    side = window.shape[1]
    edges = {n: [(floor(i * side / n), ceil((i + 1) * side / n)) for i in range(n)] for n in levels}
    bins = [window[:, a:b, c:d].amax((1, 2)) for n in levels for a, b in edges[n] for c, d in edges[n]]
    return torch.cat(bins)


@pytest.mark.parametrize(
    ("text", "levels", "crop", "height", "width"),
    [
        ("spp:ZF-5", [6, 3, 2, 1], 160, 193, 251),
        ("spp:ZF-5+pyramid=4-3-2-1", [4, 3, 2, 1], 128, 160, 128),
        ("spp:Overfeat-5", [6, 3, 2, 1], 128, 131, 167),
        ("prelu:small", [6, 3, 2, 1], 128, 149, 171),
        ("prelu:A+depth=1", [7, 3, 2, 1], 128, 128, 177),
    ],
)
def test_each_window_of_the_map_is_pooled_by_itself(text, levels, crop, height, width):
    """Windows of the side that a crop leaves, one pixel of the map apart; each through its own pyramid and the rest."""
    net, x = make(f"{text}+width=1/32+classes=5"), torch.randn(2, 3, height, width, dtype=torch.float64)
    with torch.inference_mode():
        found, maps = Dense(net, crop)(x), net.features(x)
        side = net.features(torch.zeros(1, 3, crop, crop, dtype=torch.float64)).shape[2]

        assert tuple(found.shape) == (2, 5, maps.shape[2] - side + 1, maps.shape[3] - side + 1)
        assert found.shape[2] * found.shape[3] > 1
        for n, i, j in np.ndindex(2, *found.shape[2:]):
            expected = net.classifier(pyramid_by_loops(maps[n, :, i : i + side, j : j + side], levels)[None])
            torch.testing.assert_close(found[n, :, i, j], expected[0], rtol=1e-9, atol=1e-9)


def test_an_image_below_the_window_of_a_pyramid_is_refused():
    """A pyramid would take any map, but not for the window that was asked for."""
    net = make("spp:ZF-5+width=1/32+classes=5")
    with pytest.raises(ReproError, match=r"an image of \(128, 192\) leaves a map of \(7, 11\), smaller than .* 9 x 9"):
        Dense(net, 160)(torch.zeros(1, 3, 128, 192, dtype=torch.float64))


# Nets that end in average pooling


def cell_by_cell(net: nn.Module, pool: nn.Module, last: nn.Module | None, x: torch.Tensor) -> torch.Tensor:
    """Logits of every place where the pooling can stand, averaged; all of one cell where it adapts to the map."""
    maps: list[torch.Tensor] = []
    hook = pool.register_forward_pre_hook(lambda module, args: maps.append(args[0]))
    net(x)
    hook.remove()
    [found] = maps
    side = pool.kernel_size if isinstance(pool, nn.AvgPool2d) else 1
    logits = []
    for i in range(found.shape[2] - side + 1):
        for j in range(found.shape[3] - side + 1):
            cell = found[:, :, i : i + side, j : j + side].mean((2, 3))
            logits.append(cell if last is None else last(cell))
    return torch.stack(logits).mean(0)


POOLED = {
    "torchvision:resnet18+num_classes=10": (64, lambda net: (net.avgpool, net.fc)),
    "timm:legacy_seresnet18+num_classes=10": (64, lambda net: (net.global_pool.pool, net.last_linear)),
    "resnet:18+width=1/8+classes=10": (64, lambda net: (net.average_pool, net.fc)),
    "resnet:cifar-20+width=1/4": (32, lambda net: (net.average_pool, net.fc)),
    "preact_resnet:wide-16-4+width=1/8": (32, lambda net: (net.pool, net.fc)),
    "nin:imagenet+width=1/16+classes=10": (96, lambda net: (net.head[0], None)),
    "nin:cifar10+width=1/16": (32, lambda net: (net.head[0], None)),
    "googlenet:googlenet+width=1/8+classes=10+input=64": (64, lambda net: (net.avg_pool, net.linear)),
    "bn_inception:bn-inception+width=1/8+classes=10+input=64": (64, lambda net: (net.avg_pool, net.linear)),
    "densenet:40-12+width=1/4": (32, lambda net: (net.pool, net.fc)),
    "senet:resnet-18+width=1/8+classes=10": (64, lambda net: (net.average_pool, net.fc)),
}


@pytest.mark.parametrize("text", POOLED)
def test_a_pooled_net_is_the_mean_over_the_cells_of_its_map(text):
    """The last layer on each cell or window of the map, and the mean, at odd sizes; plain at the training size."""
    side, parts = POOLED[text]
    net = make(text)
    with torch.inference_mode():
        for height, width in ((side + 37, side + 73), (2 * side + 1, side)):
            x = torch.randn(2, 3, height, width, dtype=torch.float64)
            found = Dense(net)(x)

            assert found.shape == (2, 10, 1, 1)
            expected = cell_by_cell(net, *parts(net), x)
            torch.testing.assert_close(found[:, :, 0, 0], expected, rtol=1e-9, atol=1e-9)
        x = torch.randn(2, 3, side, side, dtype=torch.float64)

        torch.testing.assert_close(Dense(net)(x)[:, :, 0, 0], net(x), rtol=1e-12, atol=1e-12)


WINDOWED = {
    "alexnet:alexnet+width=1/16+classes=10": 224,
    "branchynet:alexnet+width=1/4": 32,
    "prelu:small+width=1/16+classes=10": 224,
    "senet:vgg-16+width=1/16+classes=10": 224,
    "spp:Convnet-5+width=1/16+classes=10": 224,
    "spp:ZF-5+pyramid=none+width=1/16+classes=10": 224,
    "torchvision:alexnet+num_classes=10": 224,
    "xception:xception+width=1/8+classes=10": 96,
    "all_cnn:C+width=1/8": 32,
    "timm:densenet121+num_classes=10+growth_rate=4": 64,
    "torchvision:squeezenet1_1+num_classes=10": 64,
}


@pytest.mark.parametrize("text", WINDOWED)
def test_at_the_training_size_any_dense_net_is_the_plain_one(text):
    """The rule that a dense form must keep, whatever the net is made of."""
    net, side = make(text), WINDOWED[text]
    x = torch.randn(1, 3, side, side, dtype=torch.float64)
    with torch.inference_mode():
        found = Dense(net, side)(x)

        assert found.shape == (1, 10, 1, 1)
        torch.testing.assert_close(found[:, :, 0, 0], net(x), rtol=1e-12, atol=1e-12)


def test_the_pooling_hook_does_not_stay():
    """After a dense pass the net itself is as it was, also where the pass fails."""
    net = make("googlenet:googlenet+width=1/8+classes=10+input=64")
    x = torch.randn(1, 3, 97, 129, dtype=torch.float64)
    with torch.inference_mode():
        before = net(x)
        Dense(net)(x)
        with pytest.raises(RuntimeError):
            Dense(net)(torch.zeros(1, 3, 2, 2, dtype=torch.float64))

        assert torch.equal(net(x), before)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    "text",
    [
        "vit:B/32+width=1/8",  # no pooling
        "coatnet:0+width=1/8",  # pooling in its shortcuts only, and a norm after the mean
        "d2l:lenet",  # pooling, then flattened
        "nin:cifar10+head=fc",
        "torchvision:densenet121",  # the modules hold no other pooling than that of the transitions
        "torchvision:mobilenet_v3_small",  # two layers with a nonlinearity after the pooling
        "torchvision:convnext_tiny",  # a norm after the pooling
    ],
)
def test_a_net_that_has_no_dense_form_is_refused(text):
    """No net is averaged at another place than before its one last layer; the message says which protocols remain."""
    with torch.device("meta"):
        net = architectures.make(Build.parse(text))
    with pytest.raises(ReproError, match=f"{type(net).__name__} has neither: use the protocol grid, ten or centre"):
        Dense(net)
    with pytest.raises(ReproError, match="dense evaluation needs a net with `features` and a `classifier` of linear"):
        Dense(nn.Sequential(nn.Linear(3, 3)))


# The engine beside slow twins


def weights_along(size: int, target: int) -> np.ndarray:
    """Bilinear weights with antialias, (target, size): a triangle as wide as the step, cut at the edges."""
    step = size / target
    reach = max(step, 1.0)
    found = np.zeros((target, size))
    for i in range(target):
        centre = (i + 0.5) * step
        for j in range(size):
            if int(max(centre - reach + 0.5, 0)) <= j < int(min(centre + reach + 0.5, size)):
                found[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / reach)
        found[i] /= found[i].sum()
    return found


def by_loops(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (H, W, 3) rescaled by the weights above, in float64."""
    rows, columns = weights_along(image.shape[0], height), weights_along(image.shape[1], width)
    return np.stack([rows @ image[:, :, c].astype(np.float64) @ columns.T for c in range(3)], axis=2)


def by_pil(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (H, W, 3) rescaled by PIL in its float mode, which does not round pixels."""
    planes = [Image.fromarray(image[:, :, c].astype(np.float32)) for c in range(3)]
    return np.stack([np.asarray(p.resize((width, height), Image.Resampling.BILINEAR)) for p in planes], axis=2)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the first axis."""
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def one_by_one(
    net: nn.Module,
    image: np.ndarray,
    views: ViewSet,
    rescale: Callable[[np.ndarray, int, int], np.ndarray] = by_loops,
    map_of: Callable[[nn.Module, torch.Tensor], torch.Tensor] = lambda net, x: convolved(net, x, 4),
) -> np.ndarray:
    """Scores of one image the slow way: each view cut by itself from a fresh rescale and forwarded alone.

    Its cells are averaged as logits or as probabilities. Views are averaged as probabilities, or as logits (the
    logarithms of probabilities, which differ from logits by a constant) and then made probabilities.
    """
    found = []
    for view in protocols.views(views, *image.shape[:2]):
        top, left, height, width = view.box
        pixels = rescale(image, *view.size)[top : top + height, left : left + width]
        if view.out:
            pixels = rescale(pixels, view.out, view.out)
        if view.flip:
            pixels = pixels[:, ::-1]
        x = torch.tensor(((pixels - MEAN) * SCALE).transpose(2, 0, 1)[None], dtype=torch.float64)
        with torch.inference_mode():
            cells = (map_of(net, x) if views.kind == "dense" else net(x)[:, :, None, None])[0].flatten(1).numpy()
        if views.cells == "logits":
            score = softmax(np.mean(cells, axis=1))
        else:
            score = np.mean([softmax(cell) for cell in cells.T], axis=0)
        found += [score] * view.count
    if views.views == "softmax":
        return np.mean(found, axis=0)
    return softmax(np.mean(np.log(found), axis=0))


@pytest.mark.parametrize("rescale", [by_loops, by_pil])
@pytest.mark.parametrize("shape", [(72, 72), (37, 50), (90, 61)], ids=str)
@pytest.mark.parametrize("name", ["dense", "grid", "ten", "centre"])
def test_scores_are_those_of_each_view_taken_alone(net, name, shape, rescale):
    """Batches, buckets and shared rescales change nothing but rounding: up and down, square and not."""
    views, images = view_set(name, 43), pictures(2, *shape)
    found = scores(net, images, [views], MEAN, SCALE, dtype="float64")[views]

    expected = [one_by_one(net, image, views, rescale) for image in images]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


AVERAGES = [(cells, views) for cells in protocols.CHOICES["cells"] for views in protocols.CHOICES["views"]]


@pytest.mark.parametrize(("cells", "views"), AVERAGES)
@pytest.mark.parametrize("flips", [True, False], ids=["flips", "plain"])
@pytest.mark.parametrize("kind", ["dense", "ten"])
def test_each_level_is_averaged_as_it_is_stated(net, kind, cells, views, flips):
    """Cells in logits or softmax, then views in logits or softmax, against loops in float64."""
    at, images = ViewSet(kind, 59, 32, flips=flips, cells=cells, views=views), pictures(2, 61, 83)
    found = scores(net, images, [at], MEAN, SCALE, dtype="float64")[at]

    np.testing.assert_allclose(found, [one_by_one(net, i, at) for i in images], rtol=0, atol=2e-7)
    np.testing.assert_allclose(found.sum(1), 1, rtol=0, atol=1e-6)


def test_the_ways_to_average_are_told_apart(net):
    """The four of a class map, and the two of crops, differ by far more than rounding on these pictures."""
    for kind, least in (("dense", 4), ("ten", 2)):
        sets = [ViewSet(kind, 59, 32, cells=cells, views=views) for cells, views in AVERAGES]
        found = list(scores(net, pictures(2, 61, 83), sets, MEAN, SCALE, dtype="float64").values())
        apart = [f for i, f in enumerate(found) if all(np.abs(f - g).max() > 1e-4 for g in found[:i])]

        assert len(apart) == least


@pytest.mark.parametrize("views", protocols.CHOICES["views"])
@pytest.mark.parametrize("region", protocols.CHOICES["region"])
@pytest.mark.parametrize("kind", ["grid", "ten", "six"])
def test_crops_of_every_region_are_those_taken_alone(net, kind, region, views):
    """With the region itself fitted to the window, and crops of two squares that fall together counted twice."""
    at = ViewSet(kind, 40, 32, grid=3, flips=kind == "six", region=region, views=views)
    image = pictures(1, 60, 48)[0]  # 50 x 40: squares at 0, 5 and 10, crops at 0 and 8 (ten) in each
    found = scores(net, [image], [at], MEAN, SCALE, dtype="float64", pixels=5 * 32 * 32)[at]

    np.testing.assert_allclose(found[0], one_by_one(net, image, at), rtol=0, atol=2e-7)


@pytest.mark.parametrize("views", protocols.CHOICES["views"])
def test_crops_that_fall_together_count_as_many(net, views):
    """On 34 x 36 at windows of 32 the five rows stand at 0, 0, 1, 2 and 2: the mean is of 25 boxes, not of 15."""
    at = ViewSet("grid", 34, 32, grid=5, flips=False, views=views, side="none")
    image = pictures(1, 34, 36)[0]
    found = scores(net, [image], [at], MEAN, SCALE, dtype="float64")[at][0]
    logits = []
    for top in (0, 0, 1, 2, 2):
        for left in (0, 1, 2, 3, 4):
            pixels = (image[top : top + 32, left : left + 32] - MEAN) * SCALE
            with torch.inference_mode():
                logits.append(net(torch.tensor(pixels.transpose(2, 0, 1)[None]))[0].numpy())
    expected = np.mean([softmax(x) for x in logits], 0) if views == "softmax" else softmax(np.mean(logits, 0))

    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("rounding", protocols.CHOICES["rounding"])
@pytest.mark.parametrize("side", protocols.CHOICES["side"])
@pytest.mark.parametrize("kind", ["full", "dense", "ten"])
def test_every_rescale_is_that_of_a_view_taken_alone(kind, side, rounding):
    """Short side, both or none, of any kind of view, with a net that takes images of any size."""
    net = make("resnet:cifar-20+width=1/4")
    at, image = ViewSet(kind, 40, 32, side=side, rounding=rounding), pictures(1, 47, 61)[0]
    found = scores(net, [image], [at], MEAN, SCALE, dtype="float64")[at]
    expected = one_by_one(net, image, at, map_of=lambda net, x: net(x)[:, :, None, None])

    np.testing.assert_allclose(found[0], expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("text", ["spp:ZF-5+width=1/32+classes=5", "prelu:small+width=1/32+classes=5"])
@pytest.mark.parametrize("cells", protocols.CHOICES["cells"])
def test_a_pyramids_windows_are_as_large_as_the_crop_of_the_view_set(text, cells):
    """The engine gives the crop to the dense form; at a scale of that crop a square image is the plain net."""
    net, image = make(text), pictures(1, 131, 150)[0]
    at, plain = ViewSet("dense", 160, 128, cells=cells), ViewSet("dense", 128, 128, side="both", cells=cells)
    found = scores(net, [image], [at, plain], MEAN, SCALE, dtype="float64")

    expected = one_by_one(net, image, at, map_of=lambda net, x: Dense(net, 128)(x))
    np.testing.assert_allclose(found[at][0], expected, rtol=0, atol=2e-7)
    expected = one_by_one(net, image, replace(plain, kind="full"))
    np.testing.assert_allclose(found[plain][0], expected, rtol=0, atol=2e-7)


def test_cells_that_are_not_there_are_not_averaged_in_softmax():
    """A pooled net's cells meet before its last layer; the switch would do nothing without a word."""
    net = make("resnet:cifar-20+width=1/4")
    with pytest.raises(ReproError, match="softmax over cells needs the cells; this net's are averaged before its last"):
        scores(net, pictures(1), [ViewSet("dense", 40, 32, cells="softmax")], MEAN, SCALE, dtype="float64")


def test_float32_scores_are_near_the_float64_ones(net):
    """The default precision is good for five digits of a probability."""
    images, sets = pictures(3), [view_set("dense", 56), view_set("grid", 40)]
    exact = scores(net, images, sets, MEAN, SCALE, dtype="float64")
    found = scores(copy.deepcopy(net).float(), images, sets, MEAN, SCALE)

    for views in sets:
        np.testing.assert_allclose(found[views], exact[views], rtol=0, atol=1e-5)


def test_bfloat16_scores_are_near_and_still_float32(net):
    """Autocast is good for two digits; averaging is done in float32."""
    images, views = pictures(3), view_set("ten", 40)
    exact = scores(net, images, [views], MEAN, SCALE, dtype="float64")[views]
    found = scores(copy.deepcopy(net).float(), images, [views], MEAN, SCALE, dtype="bfloat16")[views]

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.05)
    np.testing.assert_allclose(found.sum(1), 1, rtol=0, atol=1e-5)


def test_view_sets_asked_for_together_equal_those_asked_for_alone(net):
    """Sharing one pass changes nothing at all, and each row is a distribution."""
    images = pictures(5)
    sets = [view_set(name, Q) for name in ("dense", "grid", "centre") for Q in (40, 72)]
    together = scores(net, images, sets, MEAN, SCALE, dtype="float64")

    assert list(together) == sets
    for views in sets:
        assert np.array_equal(together[views], scores(net, images, [views], MEAN, SCALE, dtype="float64")[views])
        np.testing.assert_allclose(together[views].sum(1), 1, rtol=0, atol=1e-6)


def test_a_rescale_is_shared_only_where_all_of_it_is_the_same(net):
    """View sets of one Q that differ in side, rounding or filter alone, asked for together and alone."""
    images, at = pictures(2, 77, 101), ViewSet("ten", 64, 32)
    choices = [(key, value) for key in ("side", "rounding", "resize") for value in protocols.CHOICES[key]]
    sets = list(dict.fromkeys(replace(at, **{key: value}) for key, value in choices))
    together = scores(net, images, sets, MEAN, SCALE, dtype="float64")

    assert len({found.tobytes() for found in together.values()}) == len(sets) == 6
    for views in sets:
        assert np.array_equal(together[views], scores(net, images, [views], MEAN, SCALE, dtype="float64")[views])


@pytest.mark.parametrize(("batch", "pixels"), [(1, 1), (3, 32 * 32), (4, 10_000), (64, 10**7)])
def test_batches_change_scores_by_rounding_only(net, batch, pixels):
    """However few images or pixels go at once, the scores are the same."""
    images, sets = pictures(7), [view_set("dense", 48), view_set("grid", 40)]
    expected = scores(net, images, sets, MEAN, SCALE, dtype="float64")
    found = scores(net, images, sets, MEAN, SCALE, dtype="float64", batch=batch, pixels=pixels)

    for views in sets:
        np.testing.assert_allclose(found[views], expected[views], rtol=0, atol=1e-6)


def test_the_first_images_score_the_same_among_more(net):
    """Full batches are cut in the same places whatever comes after them, so that their scores are equal to the bit."""
    images, views = pictures(11), view_set("grid", 40)
    few = scores(net, images[:8], [views], MEAN, SCALE, dtype="float64", batch=4)[views]
    more = scores(net, images, [views], MEAN, SCALE, dtype="float64", batch=4)[views]

    assert np.array_equal(few, more[:8])


def test_images_of_mixed_sizes_come_back_in_their_order(net):
    """Buckets by size do not show in the result."""
    shapes = [(72, 72), (50, 61), (72, 72), (61, 50), (50, 61), (72, 72), (40, 90)]
    images = [pictures(len(shapes), *shape)[i] for i, shape in enumerate(shapes)]
    sets = [view_set("dense", 40), view_set("ten", 48)]
    found = scores(net, iter(images), sets, MEAN, SCALE, dtype="float64", batch=2)

    for views in sets:
        alone = [scores(net, image[None], [views], MEAN, SCALE, dtype="float64")[views][0] for image in images]
        np.testing.assert_allclose(found[views], alone, rtol=0, atol=1e-6)


def test_images_in_flight_are_bounded(net):
    """An endless variety of sizes never waits for more than four batches and the image at hand."""
    drawn, most = 0, 0

    def source():
        nonlocal drawn
        for i in range(40):
            drawn += 1
            yield pictures(1, 32 + i, 40)[0]

    def watch(done: int) -> None:
        nonlocal most
        most = max(most, drawn - done)

    views = view_set("centre", 32)
    found = scores(net, source(), [views], MEAN, SCALE, dtype="float64", batch=2, progress=watch)[views]

    assert found.shape == (40, 10)
    assert most <= 4 * 2 + 1


def test_progress_counts_up_to_all_images(net):
    """The callable is told how many images are done after each batch."""
    seen: list[int] = []
    scores(net, pictures(5), [view_set("centre", 40)], MEAN, SCALE, dtype="float64", batch=2, progress=seen.append)

    assert seen == [2, 4, 5]


@pytest.mark.parametrize("name", ["dense", "grid", "ten"])
def test_a_mirrored_image_has_the_same_scores(net, name):
    """With flips, left and right are alike."""
    images, views = pictures(3), view_set(name, 48)
    found, mirrored = (
        scores(net, i, [views], MEAN, SCALE, dtype="float64")[views] for i in (images, images[:, :, ::-1])
    )

    np.testing.assert_allclose(found, mirrored, rtol=0, atol=1e-6)


def test_an_image_of_the_mean_colour_is_the_padding_itself(net):
    """The mean is subtracted before the net, so that zero padding stands for the mean colour: inputs are all zero."""
    images, views = np.full((1, 72, 72, 3), 100, np.uint8), view_set("dense", 40)
    found = scores(net, images, [views], [100.0] * 3, SCALE, dtype="float64")[views]
    with torch.inference_mode():
        logits = convolved(net, torch.zeros(1, 3, 40, 40, dtype=torch.float64), 4).mean((2, 3))

    np.testing.assert_allclose(found, logits.softmax(1), rtol=0, atol=1e-6)


def test_the_net_is_left_as_it_was():
    """Dropout is off while scoring; modes, weights and their layout come back as they were, each module's own."""
    net = make("vgg:A" + PROXY, torch.float32).train()
    net.features.block2.eval()
    modes = [m.training for m in net.modules()]
    before = {name: (p.clone(), p.stride()) for name, p in net.state_dict().items()}
    images, views = pictures(2), view_set("dense", 40)
    first, second = (scores(net, images, [views], MEAN, SCALE)[views] for _ in range(2))

    assert np.array_equal(first, second)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(p, before[k][0]) and p.stride() == before[k][1] for k, p in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((2, 40, 40, 3), np.float32), r"image 0 is float32 of shape \(40, 40, 3\); expected uint8"),
        (np.zeros((2, 40, 40), np.uint8), r"image 0 is uint8 of shape \(40, 40\); expected uint8 \(height, width, 3\)"),
        (np.zeros((0, 40, 40, 3), np.uint8), "there is no image to score"),
    ],
    ids=["float", "grey", "none"],
)
def test_images_that_are_not_rgb_bytes_are_a_failed_job(net, images, text):
    """Pixels of another range would be scored without a word otherwise."""
    with pytest.raises(JobError, match=text):
        scores(net, images, [view_set("centre", 40)], MEAN, SCALE, dtype="float64")


@pytest.mark.parametrize("field", [key for key in protocols.CHOICES if key != "flips"])
def test_a_view_set_that_the_engine_does_not_know_is_refused(net, field):
    """A record never says one thing of its averaging where the engine did another."""
    views = ViewSet("grid", 40, 32, 5, **{field: "other"})
    with pytest.raises(ReproError, match=f"{field} is one of {', '.join(protocols.CHOICES[field])}$"):
        scores(net, pictures(1), [views], MEAN, SCALE, dtype="float64")


def test_a_dtype_that_is_not_the_nets_is_refused(net):
    """The dtype of a record is the one that was used."""
    with pytest.raises(ReproError, match=r"dtype 'float32' does not go with a net in torch.float64"):
        scores(net, pictures(1), [view_set("centre", 40)], MEAN, SCALE, dtype="float32")


def test_a_short_evaluation_comes_to_the_numbers_of_its_numerics():
    """Where this fails on purpose, raise `provenance.NUMERICS["evaluate"]` and write the new scores beside it."""
    golden = {
        2: {  # 1 had the same to four digits
            "dense": [[0.38472, 0.00459, 0.05053], [0.49923, 0.00441, 0.05505]],
            "grid": [[0.41383, 0.05738, 0.08657], [0.48474, 0.03434, 0.09652]],
            "ten": [[0.44668, 0.07677, 0.06946], [0.50663, 0.03648, 0.09245]],
            "centre": [[0.54634, 0.04367, 0.07871], [0.6128, 0.01341, 0.075]],
        }
    }
    images, expected = pictures(2, 60, 77), golden[NUMERICS["evaluate"]]
    sets = {name: view_set(name, 47) for name in expected}
    found = scores(make("vgg:A" + PROXY, torch.float32), images, list(sets.values()), MEAN, SCALE)

    for name, views in sets.items():
        np.testing.assert_allclose(found[views][:, :3], expected[name], rtol=0, atol=1e-4)


# Ranks


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=6), st.data())
def test_the_rank_is_the_worst_place_in_any_sorted_order(rows, data):
    """Sorted by falling score with the truth behind its equals, the rank is where the truth stands."""
    table = np.array([*rows, [3, 2, 1, 0]], dtype=np.float32)
    labels = data.draw(st.lists(st.integers(0, 3), min_size=len(table), max_size=len(table)))
    expected = []
    for row, label in zip(table, labels, strict=True):
        order = sorted(range(4), key=lambda c, row=row, label=label: (-row[c], c == label))
        expected.append(order.index(label))

    assert rank_of_truth(table, labels).tolist() == expected


def test_a_tie_counts_against_the_net():
    """Two classes with the highest score: neither is right."""
    table = np.array([[0.4, 0.4, 0.2], [0.5, 0.3, 0.2]])

    assert rank_of_truth(table, [0, 0]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ([[0.5, np.nan], [0.4, 0.6]], "scores of 1 of 2 images are not finite: the net has diverged"),
        ([[0.5, np.inf], [np.nan, 0.6]], "scores of 2 of 2 images are not finite: the net has diverged"),
        ([[0.5, 0.5], [0.5, 0.5]], "every image has the same score for all classes: the net is dead"),
    ],
)
def test_scores_that_tell_nothing_are_a_failure_for_good(table, text):
    """NaN and constant scores would have no error at all under a count of greater scores."""
    with pytest.raises(JobError) as e:
        rank_of_truth(np.array(table), [0, 0])

    assert e.value.reason == text
    assert e.value.final


@pytest.mark.parametrize(
    ("table", "labels", "text"),
    [
        (np.zeros((0, 3)), [], r"scores of shape \(0, 3\) do not go with labels of shape \(0,\)"),
        (np.eye(3), [0, 1, 3], "labels from 0 to 3 do not fit 3 classes"),
        (np.eye(3), [0, 1, -1], "labels from -1 to 1 do not fit 3 classes"),
        (np.eye(3), [0, 1], r"scores of shape \(3, 3\) do not go with labels of shape \(2,\)"),
    ],
)
def test_labels_that_do_not_fit_are_told(table, labels, text):
    """A label -1 would be read as the last class otherwise."""
    with pytest.raises(JobError, match=text):
        rank_of_truth(table, labels)
