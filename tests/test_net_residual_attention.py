"""Residual attention networks: counts of the authors' released nets, the mask written out, the options."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro import architectures
from repro.architectures.residual_attention import NETS, Attention, Mask, Unit
from repro.errors import ReproError
from repro.schema import Build

OTHER: dict[str, str] = {
    "modules": "4",
    "units": "4",
    "width": "1/2",
    "activation": "spatial",
    "attention": "no",
    "classes": "7",
    "mask": "local",
    "p": "3",
    "r": "2",
    "t": "3",
}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse("residual_attention:" + text))


@pytest.mark.parametrize(("net", "params"), [("56", 31810728), ("92", 52466344), ("NeXt-56", 31318824)])
def test_parameters_are_those_of_the_released_nets(net, params):
    """To the unit, with the scale and shift of batch normalisation."""
    with torch.device("meta"):
        found = make(net)

    assert sum(p.numel() for p in found.parameters()) == params


@pytest.mark.parametrize(("m", "net"), [(1, "56"), (2, "92"), (3, "128"), (4, "164"), (6, "236")])
def test_the_trunk_of_a_cifar_net_has_36_m_and_20_layers(m, net):
    """Section 4.1: three convolutions a unit, without mask and shortcuts, and the first and last layer."""
    with torch.device("meta"):
        trunk = make(f"cifar-{net}+attention=no")
    names = [n for n, c in trunk.named_modules() if isinstance(c, nn.Conv2d | nn.Linear) and "shortcut" not in n]

    assert len(names) == 36 * m + 20 == int(net)


def test_attention_452_has_as_many_layers_in_its_trunk():
    """With p = 2, t = 4 and 6 modules a stage."""
    with torch.device("meta"):
        trunk = make("cifar-452+attention=no")
    names = [n for n, c in trunk.named_modules() if isinstance(c, nn.Conv2d | nn.Linear) and "shortcut" not in n]

    assert len(names) == 452


def test_the_mask_goes_down_and_up_as_in_figure_2():
    """Three poolings, with every step written out in order."""
    mask = Mask(Unit, 16, depth=3, r=1, mask="encoder-decoder", activation="mixed").eval()
    x = torch.randn(2, 16, 24, 20)

    def grow(small, like):
        return F.interpolate(small, like.shape[2:], mode="bilinear", align_corners=True)

    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    first = mask.down[0](pool(x))
    second = mask.down[1](pool(first))
    third = mask.down[2](pool(second))
    up = mask.up[1](mask.skip[1](second) + grow(third, second))
    up = mask.up[0](mask.skip[0](first) + grow(up, first))
    expected = mask.linear(grow(up, x)).sigmoid()

    assert [len(units) for units in mask.down] == [1, 1, 2]
    assert third.shape[2:] == (3, 2)
    torch.testing.assert_close(mask(x), expected)


@pytest.mark.parametrize("activation", ["mixed", "channel", "spatial"])
def test_masks_are_activated_as_in_equations_3_to_5(activation):
    """Sigmoid; division by the length over channels; each map brought to mean 0 and deviation 1, then sigmoid."""
    mask = Mask(Unit, 32, depth=1, r=1, mask="encoder-decoder", activation=activation).eval()
    mask.linear[-1].weight.data *= 100  # far above the epsilon of the normalisation
    x = torch.randn(2, 32, 6, 6)
    raw = mask.linear(mask.nested(x, 0))
    mean, deviation = raw.mean((2, 3), keepdim=True), raw.std((2, 3), correction=0, keepdim=True)
    expected = {
        "mixed": raw.sigmoid(),
        "channel": raw / raw.pow(2).sum(1, keepdim=True).sqrt(),
        "spatial": ((raw - mean) / deviation).sigmoid(),
    }[activation]

    torch.testing.assert_close(mask(x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("attention", "plus"), [("residual", 1), ("naive", 0)])
def test_attention_residual_learning_is_one_plus_the_mask(attention, plus):
    """Equations 1 and 3: M T for naive stacking, (1 + M) T for attention residual learning."""
    module = Attention(Unit, 8, 2, (1, 2, 1), attention, "encoder-decoder", "mixed").eval()
    x = torch.randn(2, 8, 8, 8)
    inner = module.before(x)
    weighted = (plus + module.mask(inner)) * module.trunk(inner)

    torch.testing.assert_close(module(x), module.after(weighted))


def test_a_local_mask_has_the_parameters_of_the_nested_one():
    """Table 4: as many units, none of them at a lower resolution."""
    with torch.device("meta"):
        nested, local = make("cifar-56"), make("cifar-56+mask=local")
    mask = Mask(Unit, 8, 3, 1, "local", "mixed").eval()
    mask.pool = None

    assert [p.shape for p in nested.parameters()] == [p.shape for p in local.parameters()]
    assert mask(torch.randn(1, 8, 5, 5)).shape == (1, 8, 5, 5)


@pytest.mark.parametrize("net", NETS)
def test_every_net_learns(net):
    """Two images of 64 or 16 pixels, narrow: all gradients are there and finite."""
    cifar = net.startswith("cifar")
    found = make(f"{net}+width={'1/8' if cifar else '1/16'}+classes=5")
    found(torch.randn(2, 3, *[16 if cifar else 64] * 2)).logsumexp(1).sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


@pytest.mark.parametrize("options", ["attention=naive", "attention=no", "activation=channel", "mask=local"])
def test_every_form_learns(options):
    """As above, with the options of the ablation tables."""
    found = make(f"cifar-56+width=1/8+{options}")
    found(torch.randn(2, 3, 16, 16)).logsumexp(1).sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


@pytest.mark.parametrize("option", ["attention=soft", "mask=deep", "activation=relu"])
def test_an_option_that_the_paper_does_not_have_is_refused(option):
    """The message lists those that there are."""
    with pytest.raises(ReproError, match=f"{option.partition('=')[0]} is .*, not"):
        make(f"56+{option}")


@pytest.mark.parametrize("key", OTHER)
def test_every_argument_changes_the_net(key):
    """Another value of an argument gives other modules, other sizes or another output."""
    x = torch.randn(2, 3, 16, 16)
    nets = []
    for text in ("cifar-56+width=1/4", f"cifar-56+width=1/4+{key}={OTHER[key]}"):
        torch.manual_seed(0)
        nets.append(make(text.replace("+width=1/4+width", "+width")).eval())

    assert str(nets[0]) != str(nets[1]) or not torch.equal(nets[0](x), nets[1](x))
