"""The first block shared between overlapping crops: exact, only where it is, and only where it pays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_evaluate import MEAN, SCALE, make, one_by_one, pictures
from torch import nn

from repro import protocols
from repro.evaluate import shared
from repro.evaluate.engine import scores
from repro.evaluate.shared import FirstBlock
from repro.schema import ViewSet

SMALL = "+width=1/16+input=64+classes=10+pools=3"
GRID = ViewSet("grid", 75, 64, 5)  # offsets of both parities


def pays(net: nn.Module, at: ViewSet = GRID, height: int = 75, width: int = 100, device: str = "cpu") -> bool:
    x = torch.zeros(1, 3, height, width, device=device)
    return FirstBlock(net, x, protocols.views(at, height, width)).pays


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("vgg:A", GRID),
        ("vgg:A-LRN", ViewSet("grid", 67, 64, 3)),
        ("vgg:B", ViewSet("grid", 66, 64, 5, side="both")),
        ("vgg:B+filters=5x5", ViewSet("grid", 71, 64, 3, views="logits")),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.Q),
)
def test_crops_score_as_each_by_itself(text, at):
    """At odd and even offsets, at the image's own border, mirrored, several images, several chunks: in float64."""
    net, images = make(text + SMALL), pictures(2, 81, 107)
    found = scores(net, images, [at], MEAN, SCALE, dtype="float64", pixels=7 * 64 * 64)[at]

    assert pays(net, at, *protocols.rescaled(81, 107, at))
    np.testing.assert_allclose(found, [one_by_one(net, image, at) for image in images], rtol=0, atol=2e-7)


@pytest.mark.parametrize(("dtype", "least"), [("float32", 1e-4), ("bfloat16", 0.1)])
def test_sharing_changes_scores_by_rounding_only(monkeypatch, dtype, least):
    """The largest difference of a log-score over the spread across images, at 224 pixels."""
    net, at = make("vgg:B+width=1/16+classes=10", torch.float32), ViewSet("grid", 256, 224, 3)
    images = pictures(4, 270, 300)
    assert pays(net, at, height=256, width=284)
    found = np.log(scores(net, images, [at], MEAN, SCALE, dtype=dtype)[at])
    monkeypatch.setattr(shared, "_first_layers", lambda net: ([], 0))
    plain = np.log(scores(net, images, [at], MEAN, SCALE, dtype=dtype)[at])

    assert np.abs(found - plain).max() < least * plain.std(axis=0).mean()


def begins(*layers: nn.Module) -> nn.Module:
    """A net with these first layers, and as many outputs as channels."""
    net = nn.Module()
    net.features = nn.Sequential(nn.Sequential(*layers), nn.Conv2d(4, 4, 3))
    return net


def conv(**more: object) -> nn.Module:
    return nn.Conv2d(3, 4, 3, **{"padding": 1, **more})  # type: ignore[arg-type]


POOL, RELU = nn.MaxPool2d(2, 2), nn.ReLU()


@pytest.mark.parametrize(
    "layers",
    [
        (conv(stride=2), POOL),
        (conv(padding=0), POOL),
        (conv(padding=2, dilation=2), POOL),
        (conv(padding_mode="reflect"), POOL),
        (nn.Conv2d(3, 4, (1, 3), padding=(0, 1)), POOL),
        (nn.Conv2d(3, 4, 2, padding=1), POOL),
        (conv(), nn.MaxPool2d(3, 2)),
        (conv(), nn.MaxPool2d(2, 2, ceil_mode=True)),
        (conv(), nn.AvgPool2d(2, 2)),
        (conv(), nn.InstanceNorm2d(4), POOL),
        (conv(), nn.ReLU()),
        (nn.Conv2d(3, 4, 1), POOL),
        (conv(), RELU, nn.Conv2d(4, 4, 3, padding=1), RELU, POOL),
    ],
    ids=repr,
)
def test_other_first_layers_are_not_shared(layers):
    """Whatever sees the border in another way, or the whole map, runs on each crop as before."""
    assert pays(begins(conv(), nn.BatchNorm2d(4), nn.ReLU(), POOL))
    assert not pays(begins(*layers))


def test_sharing_is_for_where_it_saves_half():
    """Not for the proxy's crops of 32, of which the borders are half; not for odd or resized ones, nor on a GPU."""
    net = make("vgg:A" + SMALL)

    assert pays(net)
    assert not pays(net, ViewSet("grid", 40, 32, 5), height=40, width=40)
    assert not pays(net, ViewSet("grid", 75, 63, 5))
    assert not pays(net, ViewSet("six", 75, 64))
    assert not pays(net, ViewSet("grid", 75, 64, 1, flips=False))
    assert not pays(net, device="meta")
    assert not pays(make("resnet:cifar-20+width=1/4"))


def test_the_net_is_whole_again_also_where_it_breaks():
    """The layers that were left out run again afterwards."""
    net, image = make("vgg:A" + SMALL), pictures(1, 75, 100)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        before = net(x)
        scores(net, image, [GRID], MEAN, SCALE, dtype="float64")
        assert torch.equal(net(x), before)
    net.classifier.fc8.forward = None
    with pytest.raises(TypeError):
        scores(net, image, [GRID], MEAN, SCALE, dtype="float64")
    del net.classifier.fc8.__dict__["forward"]
    with torch.inference_mode():
        assert torch.equal(net(x), before)
