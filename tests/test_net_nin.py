"""Network in Network: counts by the authors' definitions, mlpconv against a perceptron at each window."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro import architectures
from repro.architectures.nin import CLASSES, NETS, SIDES
from repro.errors import ReproError
from repro.schema import Build

OTHER = {
    "classes": "7",
    "depth": "5",
    "dropout": "0.2",
    "head": "fc",
    "input": "40",
    "layers": "2",
    "width": "1/2",
}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


@pytest.mark.parametrize(
    ("net", "params"),
    [
        ("cifar10", 966986),
        ("cifar100", 966986 + 90 * 193),
        ("svhn", 1986026),
        ("mnist", 349674),
        ("imagenet", 7595176),
        ("cifar10+head=fc", 966986 + 10 * (10 * 8 * 8 + 1)),
        ("mnist+head=fc-dropout", 349674 + 10 * (10 * 7 * 7 + 1)),
    ],
)
def test_parameters_are_those_of_the_authors_definitions(net, params):
    """Weights and biases together, to the unit; a fully connected head sees all of the last map."""
    with torch.device("meta"):
        found = make("nin:" + net)

    assert sum(p.numel() for p in found.parameters()) == params


@pytest.mark.parametrize(("net", "side"), [("cifar10", 8), ("svhn", 8), ("mnist", 7), ("imagenet", 6)])
def test_maps_are_halved_after_all_but_the_last_layer(net, side):
    """The global average is over 8x8, 7x7 or 6x6 pixels, as in the authors' definitions."""
    with torch.device("meta"):
        found = make("nin:" + net)
        maps = found.features(architectures.example(found, SIDES[net]))

    assert maps.shape == (1, CLASSES[net], side, side)


def test_an_mlpconv_layer_is_a_perceptron_of_three_layers_at_each_window():
    """Unfolded windows through three matrices with a ReLU after each give the same map."""
    layer = make("nin:cifar10+width=1/16").double().features.mlpconv1
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    windows = F.unfold(x, 5, padding=2).transpose(1, 2)
    for conv in (layer.conv, layer.cccp1, layer.cccp2):
        windows = (windows @ conv.weight.flatten(1).T + conv.bias).clamp(min=0)
    expected = windows.transpose(1, 2).unflatten(2, (9, 9))
    found = x
    for name in ("conv", "relu0", "cccp1", "relu1", "cccp2", "relu2"):
        found = getattr(layer, name)(found)

    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert len([m for m in layer.modules() if isinstance(m, nn.Conv2d)]) == 3


def test_the_head_is_the_mean_of_each_map():
    """No weights are between the last map and the logits."""
    net = make("nin:mnist+width=1/8").eval()
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(net(x), net.features(x).mean((2, 3)))


@pytest.mark.parametrize(("depth", "layers"), [(2, 1), (3, 2), (4, 3), (5, 4)])
def test_depth_and_layers_change_the_number_of_convolutions(depth, layers):
    """`depth` mlpconv layers of `layers` convolutions each, the last with a map for each class."""
    net = make(f"nin:cifar10+width=1/16+depth={depth}+layers={layers}")
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]

    assert len(net.features) == depth
    assert len(convs) == depth * layers
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("net", [*NETS, "cifar10+head=fc", "cifar10+head=fc-dropout"])
def test_every_net_learns_from_a_batch(net):
    """Forward and backward on two images at an eighth of the width: all gradients are finite."""
    side = 67 if net == "imagenet" else SIDES[net.partition("+")[0]]
    found = make(f"nin:{net}+width=1/8+classes=7+input={side}")
    x = architectures.example(found, side, 2)
    logits = found(torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
    F.cross_entropy(logits, torch.tensor([1, 2])).backward()

    assert logits.shape == (2, 7)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


@pytest.mark.parametrize(
    ("args", "message"),
    [("head=mean", "head is average, fc or fc-dropout, not mean"), ("depth=1", "2 mlpconv layers at least")],
)
def test_an_unknown_head_or_depth_is_refused(args, message):
    """The message says what there is."""
    with pytest.raises(ReproError, match=message):
        make(f"nin:cifar10+{args}")
