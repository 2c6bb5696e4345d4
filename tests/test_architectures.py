"""VGG: parameters to the unit, agreement with torchvision, LRN against a plain loop."""

from __future__ import annotations

import pytest
import torch
from nets import fill
from torch import nn
from torchvision.models import vgg as theirs

from repro import architectures
from repro.architectures.vgg import CONFIGURATIONS, LRN
from repro.errors import ReproError
from repro.schema import Build

PROXY = "+width=1/8+input=32+classes=10+pools=3"


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


def twin(net: nn.Module, layers: list[int | str], classifier: nn.Module | None = None) -> nn.Module:
    """torchvision's VGG of that configuration, with the very tensors of `net` in it."""
    with torch.device("meta"):
        other = theirs.VGG(theirs.make_layers(layers), init_weights=False)
        if classifier is not None:
            other.classifier = classifier
    names = list(other.state_dict())
    other.load_state_dict(dict(zip(names, net.state_dict().values(), strict=True)), assign=True)
    return other.eval()


@pytest.mark.parametrize(
    ("net", "params"),
    [
        ("A", 132863336),
        ("A-LRN", 132863336),
        ("B", 133047848),
        ("C", 133638952),
        ("D", 138357544),
        ("E", 143667240),
        ("B+filters=5x5", 134503528),
    ],
)
def test_parameters_are_those_of_table_2(net, params):
    """Weights and biases together, to the unit, on the meta device."""
    with torch.device("meta"):
        found = make("vgg:" + net)

    assert sum(p.numel() for p in found.parameters()) == params


@pytest.mark.parametrize(("net", "configuration"), [("A", "A"), ("B", "B"), ("D", "D"), ("E", "E")])
def test_narrow_nets_agree_with_torchvision(net, configuration):
    """With the same weights the features of torchvision's configuration, narrowed, are ours to the last bit."""
    ours = make(f"vgg:{net}+width=1/16+classes=10").double().eval()
    fill(ours)
    layers = [v if v == "M" else int(v) // 16 for v in theirs.cfgs[configuration]]
    with torch.device("meta"):
        classifier = nn.Sequential(
            nn.Linear(32 * 49, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
        )
    other = twin(ours, layers, classifier)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        a, b = ours(x), other(x)

    assert a.std() > 0.1
    assert torch.equal(a, b)


def test_the_whole_of_d_agrees_with_torchvisions_vgg16():
    """All 138 million weights in float64, one image of 224: the logits do not differ at all."""
    with torch.device("meta"):
        ours = make("vgg:D").double()
    ours = ours.to_empty(device="cpu").eval()
    fill(ours)
    other = twin(ours, theirs.cfgs["D"])
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        a, b = ours(x), other(x)

    assert a.shape == (1, 1000)
    assert a.std() > 0.1
    assert (a - b).abs().max() == 0


@pytest.mark.parametrize("net", [*CONFIGURATIONS, "B+filters=5x5"])
def test_the_proxy_net_keeps_the_layers_and_pools_three_times(net):
    """Width, input, classes and poolings change sizes alone: as many layers as at full scale, stride 8."""
    proxy = make("vgg:" + net + PROXY)
    with torch.device("meta"):
        full = make("vgg:" + net)
    kinds = (nn.Conv2d, nn.Linear)

    assert [type(m) for m in proxy.modules() if isinstance(m, kinds)] == [
        type(m) for m in full.modules() if isinstance(m, kinds)
    ]
    assert proxy.features(torch.zeros(2, 3, 32, 32)).shape == (2, 64, 4, 4)
    assert proxy(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vvg:D", "unknown family 'vvg' in build 'vvg:D'; did you mean 'vgg'?"),
        ("vgg:A-LRM", "unknown net 'A-LRM' in build 'vgg:A-LRM'; did you mean 'A-LRN'?"),
        ("vgg:F", "unknown net 'F' in build 'vgg:F'"),
        ("vgg:D+widht=1/8", "unknown argument 'widht' in build 'vgg:D+widht=1/8'; did you mean 'width'?"),
    ],
)
def test_an_unknown_build_is_refused_with_the_nearest_name(text, message):
    """Family, net and argument are each checked against what there is, which the message lists."""
    with pytest.raises(ReproError) as e:
        architectures.check(Build.parse(text))

    assert str(e.value).startswith(message)
    assert "Known: " in str(e.value)


@pytest.mark.parametrize("text", ["vgg", "vgg:", ":D", "vgg:D+width", "vgg:D+"])
def test_a_build_of_another_form_is_refused(text):
    """The form is told with an example."""
    with pytest.raises(ReproError) as e:
        Build.parse(text)

    assert str(e.value) == f"build {text!r} is not of the form family:net+name=value, e.g. vgg:D+width=1/8"


def test_a_filter_size_that_the_paper_does_not_have_is_refused():
    """Section 4.1 has 3x3 and 5x5."""
    with pytest.raises((ValueError, ReproError), match="filters is 3x3 or 5x5, not 7x7"):
        make("vgg:B+filters=7x7")


def test_lrn_is_the_formula_of_alexnet():
    """a / (k + alpha * sum over n neighbouring channels of a^2) ** beta, by a plain loop over channels."""
    a = 100 * torch.randn(2, 7, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.empty_like(a)
    for i in range(7):
        total = torch.zeros(2, 3, 4, dtype=torch.float64)
        for j in range(max(0, i - 2), min(6, i + 2) + 1):
            total += a[:, j] ** 2
        expected[:, i] = a[:, i] / (2 + 1e-4 * total) ** 0.75

    torch.testing.assert_close(LRN()(a), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 4, 64])
def test_lrn_is_torchs_with_alpha_times_n(channels):
    """torch divides alpha by the window, the AlexNet paper does not."""
    a = 100 * torch.randn(2, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    other = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    torch.testing.assert_close(LRN()(a), other(a), rtol=1e-5, atol=1e-5)
