"""ResNet: counts of the paper, parity with torchvision, shortcut options against their words."""

from __future__ import annotations

import pytest
import torch
import torchvision
from nets import stir
from torch import nn

from repro import architectures
from repro.architectures.resnet import NETS
from repro.errors import ReproError
from repro.schema import Build

OTHER = {"blocks": "1", "classes": "7", "option": "C", "stride": "3x3", "width": "1/2"}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


def params(text: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in make(text).parameters())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("resnet:18", 11689512),
        ("resnet:34", 21797672),
        ("resnet:34+option=A", 21623848),
        ("resnet:34+option=C", 22716840),
        ("resnet:plain-34", 21623848),
        ("resnet:50", 25557032),
        ("resnet:101", 44549160),
        ("resnet:152", 60192808),
        ("resnet:cifar-20", 269722),
        ("resnet:cifar-32", 464154),
        ("resnet:cifar-44", 658586),
        ("resnet:cifar-56", 853018),
        ("resnet:cifar-110", 1727962),
        ("resnet:cifar-1202", 19421274),
    ],
)
def test_parameters_are_those_of_the_paper(text, count):
    """To the unit; they round to Table 6's, and on ImageNet are the well-known ones."""
    assert params(text) == count


@pytest.mark.parametrize(("text", "theirs"), [("18", "resnet18"), ("50+stride=3x3", "resnet50")])
def test_logits_are_torchvisions_with_the_same_weights(text, theirs):
    """Weights copied in order, in float64: the later variant of option B is the library's net to the last bit."""
    ours = make(f"resnet:{text}").double().eval()
    stir(ours)
    other = torchvision.models.get_model(theirs, weights=None).double().eval()
    other.load_state_dict(dict(zip(other.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        a, b = ours(x), other(x)

    assert a.std() > 0.1
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_published_bottleneck_strides_in_its_first_convolution():
    """Of the blocks that halve the map the first 1x1 has stride 2 as published, the 3x3 in the later variant."""
    with torch.device("meta"):
        published, later = make("resnet:50"), make("resnet:50+stride=3x3")
    strides = [(b.conv1.stride[0], b.conv2.stride[0]) for b in (published.conv3_x[0], later.conv3_x[0])]

    assert strides == [(2, 1), (1, 2)]


@pytest.mark.parametrize(("option", "projections"), [("A", 0), ("B", 3), ("C", 16)])
def test_an_option_says_which_shortcuts_are_projections(option, projections):
    """ResNet-34 has 16 blocks, three of which change shapes."""
    with torch.device("meta"):
        net = make(f"resnet:34+option={option}")

    assert sum(isinstance(m.shortcut, nn.Sequential) for s in net.stages for m in getattr(net, s)) == projections


def test_shortcut_a_takes_every_second_pixel_and_adds_channels_of_zeros():
    """The first block of conv3_x, by a plain loop."""
    net = make("resnet:18+option=A+width=1/16")
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 8, 3, 3)
    for n in range(2):
        for c in range(4):
            for i in range(3):
                for j in range(3):
                    expected[n, c, i, j] = x[n, c, 2 * i, 2 * j]

    assert torch.equal(net.conv3_x[0].shortcut(x), expected)


def test_a_block_is_the_relu_of_branch_plus_shortcut_and_a_plain_one_of_its_branch():
    """With a branch scaled to nothing a residual block is the ReLU of its input, a plain one is nothing."""
    residual, plain = (make(f"resnet:{net}+width=1/16").eval().conv2_x[0] for net in ("18", "plain-18"))
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    for block in (residual, plain):
        nn.init.zeros_(block.bn2.weight)

    assert torch.equal(residual(x), x.relu())
    assert torch.equal(plain(x), torch.zeros_like(x))


@pytest.mark.parametrize("net", NETS)
def test_every_net_runs_forward_and_backward(net):
    """A batch of 2 at 32 pixels, an eighth of the width; the deepest ones with two blocks a stage."""
    short = "+blocks=2" if net in ("101", "152") or net.endswith(("1202", "110")) else ""
    found = make(f"resnet:{net}+width=1/8+classes=5{short}")
    logits = found(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    logits.square().mean().backward()

    assert logits.shape == (2, 5)
    assert all(torch.isfinite(p.grad).all() for p in found.parameters())


@pytest.mark.parametrize("arg", ["option=D", "stride=5x5", "blocks=1-2"])
def test_an_option_that_the_paper_does_not_have_is_refused(arg):
    """Rather than built as something else."""
    with pytest.raises(ReproError, match=r" is .* not "):
        make(f"resnet:18+{arg}")
