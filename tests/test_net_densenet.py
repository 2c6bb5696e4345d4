"""DenseNet: counts to the unit, agreement with torchvision, dense connections against a plain loop."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from repro import architectures
from repro.architectures.densenet import NETS, DenseBlock, DenseLayer
from repro.schema import Build

OTHER: dict[str, str] = {
    "layers": "5",
    "width": "1/2",
    "growth": "9",
    "input": "64",
    "bottleneck": "no",
    "classes": "7",
    "compression": "0.3",
    "dropout": "0.5",
}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse("densenet:" + text))


def stir(net: nn.Module) -> nn.Module:
    """Weights, and statistics of batch normalisation, that are not those of a fresh net."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for t in [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]:
            t.copy_(torch.rand(t.shape, generator=generator) + 0.5) if t.dim() == 1 else None
    return net


@pytest.mark.parametrize(
    ("net", "params"),
    [
        ("121", 7978856),
        ("161", 28681000),
        ("169", 14149480),
        ("201", 20013928),
        ("264", 33337704),
        ("40-12", 1019722),
        ("100-12", 6979642),
        ("100-24", 27249082),
        ("BC-100-12", 769162),
        ("BC-250-24", 15324406),
        ("BC-190-40", 25624430),
    ],
)
def test_parameters_are_those_of_the_paper(net, params):
    """Tables 1 and 2, to the unit."""
    with torch.device("meta"):
        found = make(net)

    assert sum(p.numel() for p in found.parameters()) == params


@pytest.mark.parametrize("net", ["121", "161", "169", "201"])
def test_logits_are_torchvisions(net):
    """With the same weights and statistics, in float64, on images of 64 pixels."""
    ours = stir(make(f"{net}+input=64+classes=10")).double().eval()
    other = torchvision.models.get_model(f"densenet{net}", weights=None, num_classes=10).double().eval()
    names = list(other.state_dict())
    other.load_state_dict(dict(zip(names, ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        a, b = ours(x), other(x)

    assert a.std() > 0.01
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_each_layer_is_fed_with_all_maps_before_it():
    """Equation 2, with the list of all earlier maps written out."""
    block = DenseBlock(*(DenseLayer(5 + 3 * i, 3, bottleneck=False, dropout=0) for i in range(4))).eval()
    x = torch.randn(2, 5, 6, 6)
    maps = [x]
    for layer in block:
        maps.append(layer(torch.cat(maps, 1)))

    assert torch.equal(block(x), torch.cat(maps, 1))
    assert block(x).shape == (2, 17, 6, 6)


def test_a_larger_image_gives_the_mean_over_cells():
    """The last pooling keeps its size, as in dense evaluation; at the net's own size there is one cell."""
    net = make("40-12+width=1/4+layers=2").eval()
    x = torch.randn(1, 3, 64, 64)
    maps = net.norm(net.features(x)).relu()

    assert net.pool(maps).shape[2:] == (2, 2)
    assert net.pool(net.features(x[..., :32, :32])).shape[2:] == (1, 1)
    torch.testing.assert_close(net(x), net.fc(maps.mean((2, 3))))


@pytest.mark.parametrize("net", NETS)
def test_every_net_learns(net):
    """A quarter of the width, two images of 32 or 16 pixels: all gradients are there and finite."""
    side = 32 if net.isdigit() else 16
    found = make(f"{net}+width=1/4+classes=5+input={side}+dropout=0.2")
    found(torch.randn(2, 3, side, side)).logsumexp(1).sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


@pytest.mark.parametrize("net", ["121", "BC-100-12"])
@pytest.mark.parametrize(("key", "value"), OTHER.items())
def test_every_argument_changes_the_net(net, key, value):
    """Another value of an argument gives other modules or other sizes."""
    with torch.device("meta"):
        plain, other = make(net), make(f"{net}+{key}={value}")

    assert str(plain) != str(other)
