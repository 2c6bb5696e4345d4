"""BN-Inception: counts of Figure 5, a module written out by hand, the variants of Section 4.2."""

from __future__ import annotations

import pytest
import torch
from nets import fill_all as fill
from torch import nn
from torch.nn import functional as F

from repro import architectures
from repro.architectures.bn_inception import MODULES, Inception
from repro.architectures.vgg import LRN
from repro.errors import ReproError
from repro.schema import Build

# For each argument of the family another value than its default.
OTHER: dict[str, str] = {
    "activation": "sigmoid",
    "classes": "7",
    "depth": "1/2",
    "double": "5x5",
    "dropout": "0.1",
    "input": "192",
    "multiplier": "4",
    "stride": "2",
    "width": "1/2",
}
SMALL = "+width=1/16+input=64+classes=10"


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse("bn_inception:" + text))


def meta(text: str) -> nn.Module:
    with torch.device("meta"):
        return make(text)


def params(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_parameters_are_those_of_the_widths_of_figure_5():
    """11,285,224 with a full 7x7 and all scales and shifts, without which 11,265,192."""
    net = meta("bn-inception+multiplier=0")
    norms = sum(params(m) for m in net.modules() if isinstance(m, nn.BatchNorm2d))

    assert params(net) == 11285224
    assert params(net) - norms == 11265192
    # The separable first layer has 3 * 8 filters of 7x7 and 24 * 64 weights of 1x1, not 9408.
    assert params(meta("bn-inception")) == 11285224 - 3 * 64 * 49 + 3 * 8 * 49 + 24 * 64


def test_without_batch_norm_each_convolution_has_biases():
    """The net called Inception in Figure 3: as many weights, a bias for each of two numbers of a norm, LRN twice."""
    norms, biases = meta("bn-inception"), meta("inception")

    assert sum(p.numel() for p in norms.parameters() if p.dim() > 1) == sum(
        p.numel() for p in biases.parameters() if p.dim() > 1
    )
    assert params(norms) - params(biases) == sum(
        m.num_features for m in norms.modules() if isinstance(m, nn.BatchNorm2d)
    )
    assert sum(isinstance(m, LRN) for m in biases.modules()) == 2
    assert (norms.dropout.p, biases.dropout.p) == (0.0, 0.4)


@pytest.mark.parametrize(
    ("stage", "channels"),
    [
        ("3a", 256),
        ("3b", 320),
        ("3c", 576),
        ("4a", 576),
        ("4b", 576),
        ("4c", 608),
        ("4d", 608),
        ("4e", 1056),
        ("5a", 1024),
        ("5b", 1024),
    ],
)
def test_a_module_has_the_sum_of_its_widths(stage, channels):
    """As Figure 5 prints its output, save 4c, 4d (576 there) and 4e (1024 there)."""
    assert meta("bn-inception").get_submodule(f"inception_{stage[0]}.inception_{stage}").out == channels


@pytest.mark.parametrize("name", ["3a", "3c", "5b"])
def test_a_module_is_its_branches_written_out(name):
    """Batch norm before each ReLU, two 3x3 of which the last strides, average or maximum pooling, pass through."""
    *widths, pool, proj = MODULES[f"inception_{name[0]}"][name]
    stride = 1 if proj else 2
    small = tuple(int(v) // 16 for v in (*widths, proj))
    block = Inception(6, small, pool, stride, "3x3", True, nn.ReLU).double().eval()
    fill(block)
    x = noise(2, 6, 8, 8)

    def layer(conv: nn.Conv2d, v: torch.Tensor, stride: int = 1) -> torch.Tensor:
        norm = conv.norm
        out = F.conv2d(v, conv.weight, None, stride, conv.kernel_size[0] // 2)
        scale = norm.weight / (norm.running_var + 0.001).sqrt()
        return ((out - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]).clamp(min=0)

    expected = [layer(block.conv1x1, x)] if widths[0] else []
    expected.append(layer(block.conv3x3, layer(block.reduce3x3, x), stride))
    first, last = block.double3x3
    expected.append(layer(last, layer(first, layer(block.reduce_double, x)), stride))
    pooled = F.avg_pool2d(x, 3, stride, 1) if pool == "avg" else F.max_pool2d(x, 3, stride, 1)
    expected.append(layer(block.get_submodule(f"{pool}_proj"), pooled) if proj else pooled)

    torch.testing.assert_close(block(x), torch.cat(expected, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "bn-inception" + SMALL,
        "inception" + SMALL,
        "bn-inception+activation=sigmoid" + SMALL,
        "bn-inception+multiplier=0+double=5x5" + SMALL,
        "bn-inception+width=1/16+classes=10+stride=8+input=32",
        "bn-inception+depth=1/4" + SMALL,
    ],
)
def test_the_net_runs_forward_and_backward(text):
    """A batch of two at 64 pixels (32 at stride 8) and a sixteenth of the width: every weight has a finite gradient."""
    net = make(text)
    side = 32 if "input=32" in text else 64
    out = net(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    out.square().sum().backward()

    assert out.shape == (2, 10)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_an_unknown_option_is_refused_with_those_there_are():
    """The message names the options and their values."""
    with pytest.raises(ReproError, match=r"activation is relu or sigmoid, double 3x3 or 5x5; not tanh, 3x3"):
        make("bn-inception+activation=tanh")
