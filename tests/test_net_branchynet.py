"""BranchyNet: the authors' counts, what an exit costs, the main nets by themselves, branches where the paper says."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro import architectures
from repro.architectures.branchynet import NETS
from repro.errors import ReproError
from repro.schema import Build

# For each argument another value that changes the net.
OTHER: dict[str, str] = {
    "blocks": "2",
    "classes": "7",
    "exit": "1",
    "input": "40",
    "placement": "code",
    "width": "1/2",
}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(f"branchynet:{text}"))


def fill(net: nn.Module) -> nn.Module:
    """Weights in float64 that keep signals of unit size, and statistics of BN that are not trivial."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, t in [*net.double().named_parameters(), *net.named_buffers()]:
            if t.dim() > 1:
                bound = (6 / t[0].numel()) ** 0.5
                t.uniform_(-bound, bound, generator=generator)
            elif t.is_floating_point():
                t.uniform_(-0.2, 0.2, generator=generator)
                t.add_(1 if name.endswith(("weight", "var")) else 0)
    return net.eval()


def params(*modules: nn.Module) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


def image(net: nn.Module, side: int, batch: int = 2) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, net.channels, side, side, generator=g, dtype=next(net.parameters()).dtype)


def test_parameters_are_those_of_the_authors_code():
    """Main nets and branches to the unit; in AlexNet with the branches where the code has them."""
    with torch.device("meta"):
        lenet, alexnet = make("lenet"), make("alexnet+placement=code")

    assert params(lenet.features, lenet.classifier) == 67_824
    assert params(lenet.branch1) == 6_870
    assert params(alexnet.features, alexnet.classifier) == 544_074
    assert params(alexnet.branch1) == 32_842
    assert params(alexnet.branch2) == 28_970


@pytest.mark.parametrize(("net", "convolutions", "linear"), [("lenet", 3, 2), ("alexnet", 5, 3), ("resnet", 109, 1)])
def test_main_nets_have_the_layers_of_section_iv(net, convolutions, linear):
    """Convolutions and fully connected layers, branches apart."""
    with torch.device("meta"):
        found = make(net)
    main = [*found.features.modules(), *found.classifier.modules()]

    assert sum(isinstance(m, nn.Conv2d) for m in main) == convolutions
    assert sum(isinstance(m, nn.Linear) for m in main) == linear


@pytest.mark.parametrize(
    ("net", "after"),
    [
        ("lenet+exit=1", 1),
        ("alexnet+exit=1", 1),
        ("alexnet+exit=2", 2),
        ("alexnet+exit=1+placement=code", 2),
        ("alexnet+exit=2+placement=code", 3),
        ("resnet+exit=1", 2),
        ("resnet+exit=2", 37),
        ("resnet+exit=1+placement=code", 1),
    ],
)
def test_an_early_exit_computes_nothing_behind_its_branch(net, after):
    """As many convolutions of the main net run as the paper (or the code) puts before that branch."""
    found, ran = make(net).eval(), []
    for name, m in found.features.named_modules():
        if isinstance(m, nn.Conv2d):
            m.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.inference_mode():
        logits = found(image(found, 28 if "lenet" in net else 32))

    assert logits.shape == (2, 10)
    assert len(ran) == after


@pytest.mark.parametrize("net", NETS)
def test_each_exit_alone_gives_what_all_give_together(net):
    """Evaluated at exit k: the logits that exit has among all of them, the last exit's being the default."""
    found = fill(make(f"{net}+width=1/2"))
    x = image(found, 28 if net == "lenet" else 32)
    with torch.inference_mode():
        last = found(x)
        whole = found.exits(x)
        alone = []
        for k in range(1, len(whole)):
            found.exit = k
            alone.append(found(x))

    assert last.std() > 0.01
    assert torch.equal(last, whole[0])
    assert len(alone) == (1 if net == "lenet" else 2)
    assert all(torch.equal(a, b) for a, b in zip(alone, whole[1:], strict=True))


def test_resnet_is_the_resnet_110_of_its_own_paper():
    """The main net with the weights of `resnet:cifar-110`, half as wide, gives its logits."""
    found = fill(make("resnet+width=1/2"))
    other = architectures.make(Build.parse("resnet:cifar-110+width=1/2")).double().eval()
    main = [t for name, t in found.state_dict().items() if not name.startswith("branch")]
    other.load_state_dict(dict(zip(other.state_dict(), main, strict=True)))
    x = image(found, 32)
    with torch.inference_mode():
        a, b = found(x), other(x)

    assert a.std() > 0.01
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_lenet_is_its_layers_one_after_another():
    """Main net and branch by plain functions; poolings keep an odd last column."""
    found = fill(make("lenet"))
    x = image(found, 28)

    def pool(x: torch.Tensor) -> torch.Tensor:
        odd = x.shape[-1] % 2
        return F.max_pool2d(F.pad(x, (0, odd, 0, odd), value=-torch.inf), 2).relu()

    def conv(x: torch.Tensor, m: nn.Conv2d) -> torch.Tensor:
        return F.conv2d(x, m.weight, m.bias, padding=m.padding)

    f, c = found.features, found.classifier
    with torch.inference_mode():
        early = y = conv(x, f.conv1)
        for m in (f.conv2, f.conv3):
            y = conv(pool(y), m)
        last = c.fc5(c.fc4(pool(y).flatten(1)))
        conv1, fc = found.branch1[2], found.branch1[5][1]
        first = fc(pool(conv(pool(early), conv1)).flatten(1))
        whole = found(x)
        found.exit = 1
        branch = found(x)

    torch.testing.assert_close(whole, last, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(branch, first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("placement", ["paper", "code"])
@pytest.mark.parametrize("net", NETS)
def test_every_net_runs_forward_and_backward(net, placement):
    """Two images at their own size, narrow: in training the logits of all exits, finite gradients everywhere."""
    found = make(f"{net}+width=1/4+classes=7+placement={placement}" + ("+blocks=2" if net == "resnet" else ""))
    exits = found.train()(image(found, 28 if net == "lenet" else 32))
    sum(logits.square().sum() for logits in exits).backward()

    assert [tuple(logits.shape) for logits in exits] == [(2, 7)] * (2 if net == "lenet" else 3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


@pytest.mark.parametrize(
    ("text", "message"),
    [("lenet+exit=3", "exit is 1 to 2, not 3"), ("alexnet+placement=here", "placement is paper or code, not here")],
)
def test_what_cannot_be_built_is_refused(text, message):
    """The message names what there is."""
    with pytest.raises(ReproError, match=message):
        make(text)
