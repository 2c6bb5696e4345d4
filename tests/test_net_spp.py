"""SPP-net: counts by Table 1, the pyramid against loops over its bins, images of any size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro import architectures
from repro.architectures.spp import NETS, SPP
from repro.errors import ReproError
from repro.schema import Build

OTHER = {"classes": "7", "depth": "6", "dropout": "0.2", "input": "227", "pyramid": "5-3-1", "width": "1/2"}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


@pytest.mark.parametrize(
    ("net", "plain", "pyramid"),
    [
        ("ZF-5", 62357608, 77037672),
        ("Convnet-5", 62378344, 77058408),
        ("Overfeat-5", 102908520, 132268648),
        ("Overfeat-7", 107628136, 136988264),
    ],
)
def test_parameters_follow_from_table_1(net, plain, pyramid):
    """To the unit, without the pyramid and with one of 50 bins, which changes the first FC layer alone."""
    with torch.device("meta"):
        found = [make(f"spp:{net}+pyramid={levels}") for levels in ("none", "6-3-2-1")]

    assert [sum(p.numel() for p in f.parameters()) for f in found] == [plain, pyramid]


def test_convnet_5_is_alexnet_without_groups_but_for_a_pooling():
    """Its pooling after conv1 stands after conv3: the parameters are those of AlexNet in one group."""
    with torch.device("meta"):
        one, other = make("spp:Convnet-5+pyramid=none"), make("alexnet:alexnet+groups=1")

    assert [p.shape for p in one.parameters()] == [p.shape for p in other.parameters()]


@pytest.mark.parametrize("side", [13, 10, 7, 18, 29])
def test_a_bin_is_the_maximum_from_floor_to_ceil(side):
    """Section 4.1: bin (i, j) of n x n spans rows floor((i-1) h / n) to ceil(i h / n), columns likewise."""
    levels, h, w = [6, 3, 2, 1], side, side + 3
    maps = torch.randn(2, 4, h, w, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bins = []
    for n in levels:
        for i in range(n):
            for j in range(n):
                rows = slice(math.floor(i * h / n), math.ceil((i + 1) * h / n))
                columns = slice(math.floor(j * w / n), math.ceil((j + 1) * w / n))
                bins.append(maps[:, :, rows, columns].amax((2, 3)))

    assert torch.equal(SPP(levels)(maps), torch.stack(bins, 1))


@pytest.mark.parametrize("n", [3, 2, 1])
def test_on_13x13_the_bins_are_the_sliding_windows_of_section_2_3(n):
    """There the window is ceil(13 / n) and the stride floor(13 / n)."""
    maps = torch.randn(2, 4, 13, 13, generator=torch.Generator().manual_seed(0))
    windows = F.max_pool2d(maps, math.ceil(13 / n), math.floor(13 / n)).flatten(2).transpose(1, 2)

    assert torch.equal(SPP([n])(maps), windows)


@pytest.mark.parametrize(("net", "side"), [("ZF-5", 13), ("Convnet-5", 13), ("Overfeat-5", 18), ("Overfeat-7", 18)])
def test_on_224_the_6x6_level_is_the_pooling_of_the_baseline(net, side):
    """Section 3.1.2: the finest level pools as the net without a pyramid does."""
    with_pyramid, without = (make(f"spp:{net}+width=1/16+pyramid={p}").eval() for p in ("6", "none"))
    maps = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0))

    assert torch.equal(with_pyramid.spp(maps), without.spp(maps))


@pytest.mark.parametrize("net", NETS)
def test_any_size_of_image_works_with_the_pyramid(net):
    """The same weights give logits for square and oblong images; the baseline refuses another size."""
    found = make(f"spp:{net}+width=1/16+classes=7").eval()
    baseline = make(f"spp:{net}+width=1/16+classes=7+pyramid=none").eval()
    with torch.no_grad():
        for height, width in ((224, 224), (180, 180), (150, 260)):
            assert found(torch.zeros(1, 3, height, width)).shape == (1, 7)
        assert baseline(torch.zeros(1, 3, 224, 224)).shape == (1, 7)
        with pytest.raises(RuntimeError):
            baseline(torch.zeros(1, 3, 280, 280))


@pytest.mark.parametrize("pyramid", ["6-3-2-1", "none"])
@pytest.mark.parametrize("net", NETS)
def test_every_net_learns_from_a_batch(net, pyramid):
    """Forward and backward on two images of 112 pixels at an eighth of the width: all gradients are finite."""
    found = make(f"spp:{net}+width=1/8+classes=7+input=112+pyramid={pyramid}")
    logits = found(torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)))
    F.cross_entropy(logits, torch.tensor([1, 2])).backward()

    assert logits.shape == (2, 7)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


@pytest.mark.parametrize("depth", [4, 5, 6])
def test_depth_is_the_number_of_convolutions(depth):
    """The last convolution stays the last."""
    net = make(f"spp:ZF-5+width=1/16+depth={depth}")
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]

    assert len(convs) == depth
    assert convs[-1].out_channels == 16


@pytest.mark.parametrize(
    ("args", "message"), [("pyramid=6-x", "pyramid is none or levels"), ("depth=3", "depth is 4 convolutions or more")]
)
def test_a_pyramid_or_depth_that_cannot_be_is_refused(args, message):
    """The message shows what is expected."""
    with pytest.raises(ReproError, match=message):
        make(f"spp:ZF-5+{args}")
