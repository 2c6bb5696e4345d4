"""Stochastic depth: the rule of training and testing, survival probabilities, and the ResNet inside."""

from __future__ import annotations

import pytest
import torch
from nets import stir
from torch import nn
from torch.nn import functional as F

from repro import architectures
from repro.architectures.resnet import Basic
from repro.architectures.stochastic_depth import NETS, PooledPad, StochasticDepth, survivals
from repro.errors import ReproError
from repro.schema import Build

OTHER = {"blocks": "1", "classes": "7", "decay": "uniform", "survival": "0.8", "width": "1/2"}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


def test_in_testing_the_branch_is_there_times_its_probability():
    """Equation 5: ReLU(p f(x) + x), the same each time."""
    block = Basic(8, 8, 1)
    wrapped = StochasticDepth(block, 0.3).eval()
    stir(wrapped)
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))

    assert torch.equal(wrapped(x), F.relu(0.3 * block.branch(x) + x))
    assert torch.equal(wrapped(x), wrapped(x))


def test_in_training_a_block_is_dropped_or_whole_for_the_batch_as_often_as_its_probability_says():
    """Equation 2: of 2,000 passes a share of p within four deviations has the branch, unscaled, the others only x."""
    block = Basic(2, 2, 1)
    wrapped = StochasticDepth(block, 0.3)
    for m in block.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
    stir(wrapped)
    x = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    whole, dropped = F.relu(block.branch(x) + x), F.relu(x)
    torch.manual_seed(0)
    with torch.no_grad():
        kept = [torch.equal(y, whole) for y in (wrapped(x) for _ in range(2000)) if not torch.equal(y, dropped)]

    assert all(kept)
    assert abs(len(kept) - 600) < 4 * (2000 * 0.3 * 0.7) ** 0.5


def test_a_dropped_block_gets_no_gradient():
    """With a probability of nearly nothing its weights stay out of the graph: that is what saves the time."""
    torch.manual_seed(0)
    wrapped = StochasticDepth(Basic(2, 2, 1), 1e-9)
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    wrapped(x).sum().backward()

    assert x.grad is not None
    assert all(p.grad is None for p in wrapped.parameters())


def test_the_linear_rule_falls_from_one_to_the_last_blocks_probability():
    """Equation 4, and the expected number of blocks of Section 3, (3L - 1) / 4 of 54 at p_L = 0.5."""
    rule = survivals(54, 0.5, "linear")

    assert rule[0] == pytest.approx(1 - 0.5 / 54)
    assert rule[-1] == 0.5
    assert sum(rule) == pytest.approx((3 * 54 - 1) / 4)
    assert survivals(3, 0.5, "uniform") == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(("net", "blocks"), [("cifar-110", 54), ("cifar-152", 75), ("cifar-1202", 600), ("152", 50)])
def test_every_block_is_wrapped_in_order(net, blocks):
    """Probabilities fall along the whole net, and not stage by stage."""
    with torch.device("meta"):
        found = make(f"stochastic_depth:{net}")
    rule = [m.survival for m in found.modules() if isinstance(m, StochasticDepth)]

    assert rule == survivals(blocks, 0.5, "linear")
    assert found.expected_blocks == round((3 * blocks - 1) / 4)


def test_when_all_survive_it_is_the_resnet():
    """The ImageNet net with its weights, in float64, training and testing alike."""
    ours = make("stochastic_depth:152+survival=1+width=1/8+blocks=2").double()
    stir(ours)
    other = make("resnet:152+width=1/8+blocks=2").double()
    other.load_state_dict({k.replace(".block.", "."): v for k, v in ours.state_dict().items()})
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for a, b in ((ours.train(), other.train()), (ours.eval(), other.eval())):
        torch.testing.assert_close(a(x), b(x), rtol=1e-12, atol=1e-12)


def test_the_shortcut_between_groups_is_the_mean_of_four_pixels_and_channels_of_zeros():
    """By a plain loop; parameters are those of option A, for neither has any."""
    net = make("stochastic_depth:cifar-110+blocks=1")
    x = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 32, 2, 2)
    for i in range(2):
        for j in range(2):
            expected[:, :16, i, j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3))
    shortcut = net.conv3_x[0].block.shortcut

    assert isinstance(shortcut, PooledPad)
    torch.testing.assert_close(shortcut(x), expected)
    with torch.device("meta"):
        assert sum(p.numel() for p in make("stochastic_depth:cifar-110").parameters()) == 1727962


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("survival", ["1", "0.5"])
def test_every_net_runs_forward_and_backward(net, survival):
    """A batch of 2 at 32 pixels, an eighth of the width, two blocks a stage; dropped blocks have no gradient."""
    torch.manual_seed(0)
    found = make(f"stochastic_depth:{net}+survival={survival}+width=1/8+classes=5+blocks=2")
    logits = found(torch.randn(2, 3, 32, 32))
    logits.square().mean().backward()
    grads = [p.grad for p in found.parameters()]

    assert logits.shape == (2, 5)
    assert all(torch.isfinite(g).all() for g in grads if g is not None)
    assert survival == "0.5" or all(g is not None for g in grads)


@pytest.mark.parametrize("arg", ["decay=cosine", "survival=0", "survival=1.5"])
def test_a_rule_that_the_paper_does_not_have_is_refused(arg):
    """Rather than built as something else."""
    with pytest.raises(ReproError, match=r"decay is .* not "):
        make(f"stochastic_depth:cifar-110+{arg}")
