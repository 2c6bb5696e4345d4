"""PReLU-nets: counts by Tables 1 and 3, the activation against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro import architectures
from repro.architectures.prelu import NETS
from repro.errors import ReproError
from repro.schema import Build

OTHER = {
    "activation": "relu",
    "classes": "7",
    "depth": "4",
    "dropout": "0.2",
    "pyramid": "5-3-1",
    "width": "1/2",
}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


@pytest.mark.parametrize(("net", "params"), [("A", 178017384), ("B", 183327080), ("C", 330603368)])
def test_parameters_follow_from_table_3(net, params):
    """Weights and biases together, to the unit, without the coefficients of the activations."""
    with torch.device("meta"):
        found = make(f"prelu:{net}+activation=relu")

    assert sum(p.numel() for p in found.parameters()) == params


@pytest.mark.parametrize(("activation", "extra"), [("channel-shared", 13), ("channel-wise", 10304)])
def test_prelu_adds_a_coefficient_for_each_layer_or_channel(activation, extra):
    """Section 2.1: the channel-shared version of the 14-layer model has 13 parameters more than ReLU."""
    with torch.device("meta"):
        relu, prelu = (make(f"prelu:small+activation={a}") for a in ("relu", activation))

    assert sum(p.numel() for p in prelu.parameters()) - sum(p.numel() for p in relu.parameters()) == extra


def test_the_activation_is_the_formula_of_section_2_1():
    """max(0, y) + a min(0, y), with a of the channel; a starts at 0.25."""
    act = make("prelu:small+width=1/16").features.act_conv1
    assert act.weight.tolist() == [0.25] * 4
    nn.init.uniform_(act.weight, -1, 1)
    y = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(act(y), y.clamp(min=0) + act.weight[:, None, None] * y.clamp(max=0))


@pytest.mark.parametrize(("net", "layers"), [("A", 19), ("B", 22), ("C", 22), ("small", 14), ("small+depth=22", 30)])
def test_depths_are_those_of_the_paper(net, layers):
    """Convolutions and fully connected layers; the 30-layer model of Section 2.2 has 16 convolutions more."""
    with torch.device("meta"):
        found = make("prelu:" + net)

    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in found.modules()) == layers


def test_the_2x2_convolutions_keep_the_map():
    """Padded by 0 and 1 in turn: 36 pixels before and after conv2, 18 before and after conv3."""
    with torch.device("meta"):
        net, x, sides = make("prelu:small"), torch.zeros(1, 3, 224, 224), {}
        for name, layer in net.features.named_children():
            x = layer(x)
            sides[name] = x.shape[-1]

    assert [sides[n] for n in ("pool1", "conv2_4", "pool2", "conv3_6")] == [36, 36, 18, 18]


@pytest.mark.parametrize("activation", ["channel-wise", "channel-shared", "relu"])
@pytest.mark.parametrize("net", NETS)
def test_every_net_learns_from_a_batch(net, activation):
    """Forward and backward on two images of 112 pixels at 1/16 of the width: all gradients are finite."""
    found = make(f"prelu:{net}+width=1/16+classes=7+activation={activation}")
    logits = found(torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)))
    F.cross_entropy(logits, torch.tensor([1, 2])).backward()

    assert logits.shape == (2, 7)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


def test_any_size_of_image_works():
    """The pyramid gives the first fully connected layer the same number of values."""
    net = make("prelu:A+width=1/16+classes=7").eval()
    with torch.no_grad():
        for height, width in ((224, 224), (112, 150)):
            assert net(torch.zeros(1, 3, height, width)).shape == (1, 7)


def test_an_unknown_activation_is_refused():
    """The message says what there is."""
    with pytest.raises(ReproError, match="activation is channel-wise, channel-shared or relu, not elu"):
        make("prelu:A+activation=elu")
