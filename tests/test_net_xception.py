"""Xception: the printed count, agreement with timm, the options of its figures."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from repro import architectures
from repro.architectures.xception import NETS
from repro.errors import ReproError
from repro.schema import Build

OTHER: dict[str, str] = {
    "width": "1/2",
    "depth": "3",
    "activation": "relu",
    "classes": "7",
    "convolution": "regular",
    "dropout": "0.1",
    "fc": "2",
    "residual": "no",
}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse("xception:" + text))


def test_parameters_are_those_of_table_3():
    """22,855,952, to the unit."""
    with torch.device("meta"):
        net = make("xception")

    assert sum(p.numel() for p in net.parameters()) == 22855952


def test_logits_are_timms():
    """With the same weights and non-trivial statistics, in float64, on an image of 75 pixels."""
    ours = make("xception+classes=10").double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for t in ours.state_dict().values():
            if t.dim() == 1 and t.is_floating_point():
                t.copy_(torch.rand(t.shape, generator=generator) + 0.5)
    other = timm.create_model("legacy_xception", pretrained=False, num_classes=10).double().eval()
    state = dict(zip(other.state_dict(), ours.state_dict().values(), strict=True))
    other.load_state_dict(state)
    x = torch.randn(2, 3, 75, 75, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        a, b = ours(x), other(x)

    assert a.std() > 0.01
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_flows_give_the_sizes_of_figure_5():
    """At 299 x 299: 19 x 19 x 728 after the entry flow, 2048 maps of 10 x 10 after the exit flow."""
    with torch.device("meta"):
        net = make("xception")
        entry = net.entry(torch.zeros(1, 3, 299, 299))
        middle = net.middle(entry)

    assert entry.shape == middle.shape == (1, 728, 19, 19)
    assert net.exit(middle).shape == (1, 2048, 10, 10)


def test_without_residual_connections_only_the_shortcuts_are_gone():
    """Figure 9: as many parameters less as the four 1x1 shortcuts and their normalisation have."""
    with torch.device("meta"):
        net, other = make("xception"), make("xception+residual=no")
    shortcuts = sum(p.numel() for name, p in net.named_parameters() if "shortcut" in name)

    assert shortcuts == 64 * 128 + 128 * 256 + 256 * 728 + 728 * 1024 + 2 * (128 + 256 + 728 + 1024)
    assert sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in other.parameters()) == shortcuts


def test_an_activation_stands_between_depthwise_and_pointwise():
    """Figure 10: in each of the 34 separable convolutions, and none without the option."""
    with torch.device("meta"):
        net, other = make("xception"), make("xception+activation=elu")

    assert not any(isinstance(m, nn.ELU) for m in net.modules())
    assert [type(m) for m in other.entry.block2.layers.sep1] == [nn.Conv2d, nn.ELU, nn.Conv2d, nn.BatchNorm2d]
    assert sum(isinstance(m, nn.ELU) for m in other.modules()) == 34


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("options", ["", "+residual=no", "+activation=relu", "+fc=2", "+convolution=regular"])
def test_every_form_learns(net, options):
    """An eighth of the width, two images of 64 pixels: all gradients are there and finite."""
    found = make(f"{net}+width=1/8+classes=5+depth=2{options}")
    found(torch.randn(2, 3, 64, 64)).logsumexp(1).sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


@pytest.mark.parametrize("text", ["xception+activation=tanh", "xception+convolution=dense"])
def test_an_option_that_the_paper_does_not_have_is_refused(text):
    """The message lists those that there are."""
    with pytest.raises(ReproError, match=r"is (no, relu, elu|separable or regular), not"):
        make(text)


@pytest.mark.parametrize(("key", "value"), OTHER.items())
def test_every_argument_changes_the_net(key, value):
    """Another value of an argument gives other modules or other sizes."""
    with torch.device("meta"):
        plain, other = make("xception"), make(f"xception+{key}={value}")

    assert str(plain) != str(other)
