"""Inception-v3: agreement with torchvision, the sizes of Table 1, the variants of Table 3 and Section 9."""

from __future__ import annotations

import pytest
import torch
from nets import fill_all as fill
from torch import nn
from torchvision.models import Inception3

from repro import architectures
from repro.errors import ReproError
from repro.measure import measure
from repro.schema import Build

# For each argument of the family another value than its default.
OTHER: dict[str, str] = {
    "aux": "0",
    "aux_norm": "no",
    "classes": "7",
    "depth": "1/2",
    "dropout": "0.1",
    "first": "1",
    "input": "267",
    "pool": "no",
    "stem": "7x7",
    "width": "1/2",
}
SMALL = "+width=1/16+input=107+classes=10"


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse("inception_v3:" + text))


def meta(text: str) -> nn.Module:
    with torch.device("meta"):
        return make(text)


def params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_those_of_the_released_net():
    """23,834,568 without the head; with its head of 768 units 27,161,264, as torchvision has it."""
    with torch.device("meta"):
        theirs = Inception3(init_weights=False)

    assert params(meta("v3+aux=0")) == 23834568
    assert params(meta("v3+aux=768")) == params(theirs) == 27161264


def test_v3_agrees_with_torchvision():
    """The same weights copied across in order, in float64, at 299 pixels: equal logits, and those of the head."""
    net = make("v3+aux=768+classes=10").double().eval()
    fill(net)
    other = Inception3(num_classes=10, init_weights=False).double().eval()
    other.load_state_dict(dict(zip(other.state_dict(), net.state_dict().values(), strict=True)))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 3, 299, 299, generator=generator, dtype=torch.float64)
    grid = torch.randn(2, 768, 17, 17, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        pairs = [(net(x), other(x)), (net.aux1(grid), other.AuxLogits(grid))]

    for ours, theirs in pairs:
        assert ours.std() > 0.01
        assert (ours - theirs).abs().max() < 1e-12 * ours.abs().max()


def test_table_1_holds_its_own_sizes():
    """Every layer takes what the one before gives out, 299 to 1000, as the column of input sizes says."""
    net = meta("table1").eval()
    sizes = []
    for module in [*net.stem, net.reduction_17, net.reduction_8, net.inception_8, net.avg_pool]:
        module.register_forward_hook(lambda module, args, out: sizes.append((out.shape[2], out.shape[1])))
    with torch.device("meta"):
        net(torch.zeros(1, 3, 299, 299))

    rows = [(149, 32), (147, 32), (147, 64), (73, 64), (71, 80), (35, 192), (35, 288), (17, 768), (8, 1280), (8, 2048)]
    assert sizes == [*rows, (1, 2048)]


@pytest.mark.parametrize(
    ("text", "input", "macs"),
    [
        ("v3", 299, 5713216096),
        ("v3+first=1+input=151", 151, 5713216096),
        ("v3+stem=7x7", 299, 5713216096 - 27 * 32 * 149**2 - 288 * (32 + 64) * 147**2 + 147 * 64 * 147**2),
        ("table1", 299, 6482774624),
    ],
)
def test_multiply_adds_of_the_variants(text, input, macs):
    """The released net; no stride at half the input costs the same (Section 9); one 7x7 costs 413 million less."""
    assert measure(Build.parse("inception_v3:" + text), input)["stages"][""]["macs"] == macs


@pytest.mark.parametrize("net", ["v3", "table1"])
@pytest.mark.parametrize("options", ["", "+stem=7x7+aux_norm=no", "+aux=0+depth=1/3", "+first=1+pool=no+input=59"])
def test_the_net_runs_forward_and_backward(net, options):
    """A batch of two at 107 pixels (or 59) and a sixteenth of the width: every weight has a finite gradient."""
    side = 59 if "input" in options else 107
    built = make(net + SMALL.replace("+input=107", "") + options + ("" if "input" in options else "+input=107"))
    out = built(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    outs = out if isinstance(out, tuple) else (out,)
    sum(o.square().sum() for o in outs).backward()

    assert [tuple(o.shape) for o in outs] == [(2, 10)] * (1 if "aux=0" in options else 2)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())
    assert built.eval()(torch.zeros(1, 3, side, side)).shape == (1, 10)


def test_an_unknown_option_is_refused_with_those_there_are():
    """The message names the options and their values."""
    with pytest.raises(ReproError, match="stem is 3x3 or 7x7, first 1 or 2, pool yes or no; not 5x5, 2, yes"):
        make("v3+stem=5x5")
