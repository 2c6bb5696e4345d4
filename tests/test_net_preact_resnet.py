"""Pre-activation ResNets: counts of the papers, a unit against timm's, depth as it is counted."""

from __future__ import annotations

import pytest
import torch
from timm.models.resnetv2 import DownsampleConv, PreActBottleneck
from torch import nn

from repro import architectures
from repro.architectures.preact_resnet import NETS, Unit
from repro.errors import ReproError
from repro.schema import Build

OTHER: dict[str, str] = {"units": "2", "width": "1/2", "classes": "7", "dropout": "0.4", "stride": "3x3"}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse("preact_resnet:" + text))


@pytest.mark.parametrize(
    ("net", "params"),
    [
        ("164", 1703258),
        ("1001", 10327706),
        ("200", 64666280),
        ("wide-16-4", 2748890),
        ("wide-16-8", 10961370),
        ("wide-28-10", 36479194),
    ],
)
def test_parameters_round_to_what_the_papers_print(net, params):
    """1.7M, 10.3M, 64.7M; 2.7M, 11.0M and 36.5M."""
    with torch.device("meta"):
        found = make(net)

    assert sum(p.numel() for p in found.parameters()) == params


@pytest.mark.parametrize("net", ["164", "1001", "200"])
def test_depth_is_the_number_of_layers_without_shortcuts(net):
    """Convolutions and the fully connected layer."""
    with torch.device("meta"):
        found = make(net)
    names = [n for n, c in found.named_modules() if isinstance(c, nn.Conv2d | nn.Linear) and "shortcut" not in n]

    assert len(names) == int(net)


@pytest.mark.parametrize("net", ["wide-16-8", "wide-28-10"])
def test_depth_of_a_wide_net_counts_all_convolutions(net):
    """The three projections among them, the fully connected layer not."""
    with torch.device("meta"):
        found = make(net)

    assert sum(isinstance(c, nn.Conv2d) for c in found.modules()) == int(net.split("-")[1])


@pytest.mark.parametrize(("channels", "stride"), [(16, 1), (16, 2), (32, 1)])
def test_a_unit_is_timms_bottleneck(channels, stride):
    """With the same weights and statistics, in float64, the output differs by rounding at most."""
    ours = Unit(channels, [8, 8, 32], [1, 3, 1], [1, stride, 1], 0).double().eval()
    plain = channels == 32
    other = PreActBottleneck(
        channels,
        32,
        stride=stride,
        bottle_ratio=0.25,
        conv_layer=lambda i, o, k, **kw: nn.Conv2d(i, o, k, padding=k // 2, bias=False, **kw),
        norm_layer=lambda c, **kw: nn.Sequential(nn.BatchNorm2d(c), nn.ReLU()),
        proj_layer=None if plain else DownsampleConv,
    )
    other = other.double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for t in ours.state_dict().values():
            if t.dim() == 1:
                t.copy_(torch.rand(t.shape, generator=generator) + 0.5)
    pairs = [(ours.norm, other.norm1[0]), (ours.layers.conv1, other.conv1), (ours.layers.conv2, other.conv2)]
    pairs += [(ours.layers.conv3, other.conv3), (ours.layers[1], other.norm2[0]), (ours.layers[4], other.norm3[0])]
    pairs += [] if plain else [(ours.shortcut, other.downsample.conv)]
    for mine, theirs in pairs:
        theirs.load_state_dict(mine.state_dict())
    x = torch.randn(2, channels, 8, 8, generator=generator, dtype=torch.float64)

    assert (ours.shortcut is None) == plain
    torch.testing.assert_close(ours(x), other(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_every_net_learns(net):
    """An eighth of the width, two images of 16 or 64 pixels: all gradients are there and finite."""
    found = make(f"{net}+width=1/8+classes=5+dropout=0.3")
    found(torch.randn(2, 3, *[64 if net == "200" else 8] * 2)).logsumexp(1).sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


def test_a_stride_that_the_papers_do_not_have_is_refused():
    """It lies in the first 1x1 or in the 3x3."""
    with pytest.raises(ReproError, match="stride is 1x1 or 3x3, not 5x5"):
        make("164+stride=5x5")


@pytest.mark.parametrize(("key", "value"), OTHER.items())
def test_every_argument_changes_the_net(key, value):
    """Another value of an argument gives other modules or other sizes."""
    with torch.device("meta"):
        plain, other = make("164"), make(f"164+{key}={value}")

    assert str(plain) != str(other)
