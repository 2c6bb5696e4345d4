"""SENet: counts of the paper, parity with timm, the SE block and its places against their formulas."""

from __future__ import annotations

import pytest
import timm
import torch
from nets import stir
from torch import nn
from torch.nn import functional as F

from repro import architectures
from repro.architectures._mobile import Shuffle
from repro.architectures.resnet import Bottleneck
from repro.architectures.senet import NETS, SE, SEBlock, Wide
from repro.errors import ReproError
from repro.schema import Build

OTHER = {
    "bias": "1",
    "blocks": "1",
    "classes": "7",
    "excitation": "tanh",
    "r": "4",
    "se": "none",
    "squeeze": "none",
    "stages": "3",
    "width": "1/2",
}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


def renamed(name: str) -> str:
    """A key of ours as timm's: layer1.0.se_module.fc1 for conv2_x.1.se.fc1."""
    parts = [p for p in name.split(".") if p != "block"]
    if parts[0].endswith("_x"):
        parts[:2] = [f"layer{int(parts[0][4]) - 1}", str(int(parts[1]) - 1)]
        parts[2] = {"se": "se_module", "shortcut": "downsample"}.get(parts[2], parts[2])
    elif parts[0] == "conv1" and len(parts) == 3:
        parts[0] = "layer0"
    elif parts[0] in ("conv1", "bn1"):
        parts = ["layer0", *parts]
    else:
        parts[0] = "last_linear"
    return ".".join(parts)


def agree(ours: nn.Module, other: nn.Module, names: dict[str, str], side: int) -> None:
    """The two nets have the same tensors, and the same logits of an image once those of ours are in the other."""
    stir(ours)
    shapes = other.state_dict()
    state = {names[k]: v.reshape(shapes[names[k]].shape) for k, v in ours.state_dict().items()}
    other.load_state_dict(state, assign=True)
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        a, b = ours.eval()(x), other.eval()(x)

    assert a.std() > 0.01
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("resnet-50+se=none", 25557032),
        ("resnet-50+r=2", 45676584),
        ("resnet-50+r=4", 35616808),
        ("resnet-50+r=8", 30586920),
        ("resnet-50", 28071976),
        ("resnet-50+r=32", 26814504),
        ("resnet-50+stages=2", 25581608),
        ("resnet-50+stages=3", 25688104),
        ("resnet-50+stages=4", 26343464),
        ("resnet-50+se=3x3", 25714216),
        ("resnet-50+squeeze=none", 28071976),
        ("mobilenet+se=none", 4231976),
        ("mobilenet", 4711720),
        ("vgg-16+se=none", 138365992),
    ],
)
def test_parameters_are_those_of_the_paper(text, params):
    """To the unit: 2/r times the sum of squared channels on top of the net (equation 5)."""
    with torch.device("meta"):
        assert sum(p.numel() for p in make(f"senet:{text}").parameters()) == params


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("resnet-18+bias=1", "legacy_seresnet18"),
        ("resnet-101+bias=1", "legacy_seresnet101"),
        ("resnext-101+bias=1", "legacy_seresnext101_32x4d"),
        ("senet-154+bias=1", "legacy_senet154"),
    ],
)
def test_the_published_nets_have_timms_tensors(text, name):
    """With biases, as they were published: every parameter's shape, whatever its place."""
    with torch.device("meta"):
        ours, other = make(f"senet:{text}"), timm.create_model(name)

    def shapes(net: nn.Module) -> list[list[int]]:
        return sorted([n for n in p.shape if n > 1] for p in net.parameters())

    assert shapes(ours) == shapes(other)


@pytest.mark.parametrize(
    ("net", "name"), [("resnet-50", "legacy_seresnet50"), ("resnext-50", "legacy_seresnext50_32x4d")]
)
def test_logits_are_timms_with_the_same_weights(net, name):
    """Weights copied by name, in float64; timm writes fully connected layers as 1x1 convolutions."""
    ours = make(f"senet:{net}+bias=1").double()
    with torch.device("meta"):
        other = timm.create_model(name).double()

    agree(ours, other, {k: renamed(k) for k in ours.state_dict()}, 96)


def test_logits_of_a_short_senet_154_are_timms():
    """One block a stage, all widths, the three convolutions of its stem and its 3x3 projections."""
    ours = make("senet:senet-154+bias=1+blocks=1").double()
    with torch.device("meta"):
        other = timm.create_model("legacy_senet154", layers=[1, 1, 1, 1]).double()
    names = {k: renamed(k) for k in ours.state_dict()}
    names |= {k: names[k].replace("bn1", "bn3") for k in names if k.startswith("bn1")}

    agree(ours, other, names, 64)


def test_logits_of_mobilenet_are_timms():
    """With ReLU in the place of its ReLU6, and tensors in the same order."""
    ours, other = make("senet:mobilenet+se=none").double(), timm.create_model("mobilenetv1_100").double()
    for m in other.modules():
        for name, child in m.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(m, name, nn.ReLU())

    agree(ours, other, dict(zip(ours.state_dict(), other.state_dict(), strict=True)), 64)


@pytest.mark.parametrize("squeeze", ["avg", "max", "none"])
@pytest.mark.parametrize(("excitation", "gate"), [("sigmoid", torch.sigmoid), ("tanh", torch.tanh), ("relu", F.relu)])
def test_an_se_block_is_its_formula(squeeze, excitation, gate):
    """Equations 2 to 4 by a plain loop over images and channels; without squeeze one gate for each pixel."""
    se = SE(8, 4, squeeze, excitation, True).double()
    x = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, two = (layer.weight.reshape(layer.weight.shape[:2]) for layer in (se.fc1, se.fc2))
    expected = torch.empty_like(x)
    for n in range(2):
        for i in range(3):
            for j in range(4):
                z = {"avg": x[n].mean((1, 2)), "max": x[n].amax((1, 2)), "none": x[n, :, i, j]}[squeeze]
                s = gate(two @ F.relu(one @ z + se.fc1.bias) + se.fc2.bias)
                expected[n, :, i, j] = s * x[n, :, i, j]

    torch.testing.assert_close(se(x), expected, rtol=1e-12, atol=1e-12)


def test_the_places_of_an_se_block_are_those_of_figure_5():
    """Standard before the sum, pre before the unit, post after the ReLU, identity on the shortcut."""
    unit = Bottleneck(8, 4, 1).eval()
    se = SE(16, 4, "avg", "sigmoid", False)
    before = SE(8, 4, "avg", "sigmoid", False)
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    found = {p: SEBlock(unit, before if p == "pre" else se, p)(x) for p in ("standard", "pre", "post", "identity")}

    assert torch.equal(found["standard"], F.relu(se(unit.branch(x)) + unit.shortcut(x)))
    assert torch.equal(found["pre"], F.relu(unit.branch(before(x)) + unit.shortcut(x)))
    assert torch.equal(found["post"], se(F.relu(unit.branch(x) + unit.shortcut(x))))
    assert torch.equal(found["identity"], F.relu(unit.branch(x) + se(unit.shortcut(x))))


def test_se_3x3_stands_after_the_3x3_convolution():
    """With its gate at one half, the net is that whose second normalisation is halved."""
    net = make("senet:resnet-50+se=3x3+width=1/8").eval()
    block = net.conv2_x[0]
    nn.init.zeros_(block.bn2.se.fc2.weight)
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    middle = block.conv2(F.relu(block.bn1(block.conv1(x))))
    expected = F.relu(block.bn3(block.conv3(F.relu(block.bn2[0](middle) / 2))) + block.shortcut(x))

    torch.testing.assert_close(block(x), expected)


def test_a_shuffle_unit_mixes_groups_and_stride_2_concatenates():
    """Channel k of group g goes to place k * groups + g; at stride 2 the pooled input stands first."""
    unit = Shuffle(24, 240, 2, first=1).eval()
    x = torch.randn(2, 24, 6, 6, generator=torch.Generator().manual_seed(0))
    middle = F.relu(unit.bn1(unit.conv1(x)))
    mixed = torch.stack([middle[:, 20 * g + k] for k in range(20) for g in range(3)], 1)
    branch = unit.bn3(unit.conv3(unit.bn2(unit.conv2(mixed))))
    out = unit(x)

    assert out.shape == (2, 240, 3, 3)
    assert torch.equal(out[:, 24:], F.relu(branch))
    assert torch.equal(out[:, :24], F.relu(F.avg_pool2d(x, 3, 2, 1)))


def test_senet_154_halves_the_first_convolution_and_projects_by_3x3():
    """Appendix: half the channels in the first 1x1 of a unit, 3x3 of stride 2 on the shortcut where the map halves."""
    with torch.device("meta"):
        net = make("senet:senet-154")
    units = [m for m in net.modules() if isinstance(m, Wide)]

    assert [len(getattr(net, s)) for s in net.stages] == [3, 8, 36, 3]
    assert all(2 * u.conv1.out_channels == u.conv2.out_channels and u.conv2.groups == 64 for u in units)
    projections = [u.shortcut[0] for u in units if isinstance(u.shortcut, nn.Sequential)]
    assert [(p.kernel_size[0], p.stride[0]) for p in projections] == [(1, 1), (3, 2), (3, 2), (3, 2)]


SMALL = {"vgg-16": ("1/16", 224), "bn-inception": ("1/8", 224)}
CASES = [(net, se) for net in NETS for se in ("standard", "none")]
CASES += [
    (net, se) for net in ("resnet-18", "resnext-50", "shufflenet", "cifar-164") for se in ("pre", "post", "identity")
]


@pytest.mark.parametrize(("net", "se"), [*CASES, ("resnet-50", "3x3"), ("resnext-50", "3x3"), ("senet-154", "3x3")])
def test_every_net_runs_forward_and_backward(net, se):
    """A batch of 2 at 64 pixels (VGG-16 and BN-Inception at 224), narrow, the deep ones with two blocks a stage."""
    width, side = SMALL.get(net, ("1/8", 64))
    short = "" if net in ("vgg-16", "bn-inception", "mobilenet") else "+blocks=2"
    found = make(f"senet:{net}+se={se}+r=4+width={width}+classes=5{short}")
    logits = found(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    logits.square().mean().backward()

    assert logits.shape == (2, 5)
    assert any(isinstance(m, SE) for m in found.modules()) == (se != "none")
    assert all(torch.isfinite(p.grad).all() for p in found.parameters())


@pytest.mark.parametrize("arg", ["se=after", "se=pre", "squeeze=min", "excitation=gelu", "stages=7"])
def test_an_option_that_cannot_be_is_refused(arg):
    """VGG has no residual units for the places before and beside them."""
    with pytest.raises(ReproError, match=" not "):
        make(f"senet:vgg-16+{arg}+width=1/16")
