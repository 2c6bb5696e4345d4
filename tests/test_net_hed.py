"""HED: the trunk is torchvision's VGG-16, side outputs are upsampled bilinearly, and their fusion starts as a mean."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from repro import architectures
from repro.architectures.hed import NETS, Upsample
from repro.schema import Build

OTHER: dict[str, str] = {"classes": "3", "stride": "2", "trim": "no", "width": "1/2"}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse("hed:" + text))


def test_parameters_are_the_trunk_five_side_outputs_and_the_fusion():
    """14,714,688 of VGG-16's convolutions, 1x1 convolutions to one map, and one over five maps."""
    with torch.device("meta"):
        net = make("vgg16")
    learned = sum(p.numel() for p in net.parameters() if p.requires_grad)

    assert learned == 14714688 + (64 + 128 + 256 + 512 + 512 + 5) + 6


def test_the_trunk_is_torchvisions_vgg16_cut_after_its_last_convolution():
    """With the same weights the maps of all five stages are equal to the last bit."""
    net = make("vgg16").eval()
    other = torchvision.models.vgg16(weights=None).features.eval()
    trunk = [p for n, p in net.named_parameters() if n.startswith("conv")]
    with torch.no_grad():
        for theirs, ours in zip(other.parameters(), trunk, strict=True):
            theirs.copy_(ours)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    a = b = x
    with torch.inference_mode():
        for i, (start, end) in enumerate([(0, 4), (4, 9), (9, 16), (16, 23), (23, 30)], 1):
            a = getattr(net, f"conv{i}")(getattr(net, f"p{i - 1}")(a) if i > 1 else a)
            b = other[start:end](b)
            assert a.std() > 0
            assert torch.equal(a, b)


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_the_deconvolution_is_bilinear_interpolation(factor):
    """Away from the border it equals torch's, whose border repeats where a deconvolution has zeros."""
    x = torch.randn(1, 1, 6, 5)
    a = Upsample(factor, 1)(x)
    b = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

    assert a.shape == b.shape
    torch.testing.assert_close(a[..., factor:-factor, factor:-factor], b[..., factor:-factor, factor:-factor])


def test_a_fresh_fusion_is_the_mean_of_the_side_outputs():
    """Its weights begin at 1/5 each; in training the side outputs are given too, of the image's size."""
    net = make("vgg16+width=1/8")
    fused, *sides = net(torch.randn(2, 3, 37, 50))

    assert [s.shape for s in [fused, *sides]] == [(2, 1, 37, 50)] * 6
    torch.testing.assert_close(fused, sum(sides) / 5 + net.fuse.bias)


def test_in_evaluation_there_is_one_map():
    """The fused one, for any size."""
    net = make("vgg16+width=1/8").eval()
    x = torch.randn(1, 3, 33, 40)

    assert net(x).shape == (1, 1, 33, 40)
    assert torch.equal(net(x), net.train()(x)[0])


def test_the_fifth_pooling_changes_nothing_where_it_is_kept():
    """Nothing follows it."""
    net, whole = make("vgg16+width=1/8").eval(), make("vgg16+width=1/8+trim=no").eval()
    whole.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 32, 32)

    assert torch.equal(net(x), whole(x))


@pytest.mark.parametrize("net", NETS)
def test_every_net_learns(net):
    """A quarter of the width, two images of 48 pixels: all gradients are there and finite, none of the upsampling."""
    found = make(f"{net}+width=1/4")
    maps = found(torch.rand(2, 3, 48, 48))
    sum(F.binary_cross_entropy_with_logits(m, torch.ones_like(m)) for m in maps).backward()
    learned = {n: p for n, p in found.named_parameters() if p.requires_grad}

    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned.values())
    assert not any(name.startswith("up") for name in learned)


@pytest.mark.parametrize(("key", "value"), OTHER.items())
def test_every_argument_changes_the_net(key, value):
    """Another value of an argument gives other modules or other sizes."""
    with torch.device("meta"):
        plain, other = make("vgg16"), make(f"vgg16+{key}={value}")

    assert str(plain) != str(other)
