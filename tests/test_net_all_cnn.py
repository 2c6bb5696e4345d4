"""All-CNN: counts to the unit, the maps of each form, agreement with a net written layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro import architectures
from repro.architectures.all_cnn import NETS
from repro.errors import ReproError
from repro.schema import Build

# For each argument another value that changes the net.
OTHER: dict[str, str] = {"classes": "7", "padding": "1", "width": "1/2"}
SIDES = {"large": 126, "imagenet": 224}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


def fill(net: nn.Module) -> nn.Module:
    """Weights in float64 that keep signals of unit size; biases that are not trivial."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in net.double().named_parameters():
            p.uniform_(0, 0.2, generator=generator)
            if not name.endswith("bias"):
                bound = (6 / p[0].numel()) ** 0.5
                p.uniform_(-bound, bound, generator=generator)
    return net.eval()


def convs(net: nn.Module) -> list[nn.Conv2d]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize(
    ("nets", "params"),
    [
        (["A", "strided-A"], 839_242),
        (["convpool-A", "all-A"], 1_254_250),
        (["B", "strided-B"], 885_610),
        (["convpool-B", "all-B"], 1_300_618),
        (["C", "strided-C"], 954_730),
        (["convpool-C", "all-C"], 1_369_738),
        (["all-C+classes=100"], 1_387_108),
        (["large"], 77_455_690),
        (["imagenet"], 9_372_840),
    ],
)
def test_parameters_to_the_unit(nets, params):
    """Two nets whose layers differ by a stride alone have the same parameters."""
    with torch.device("meta"):
        assert {sum(p.numel() for p in make(f"all_cnn:{net}").parameters()) for net in nets} == {params}


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("C", "3-96 3-96 3-192 3-192 3-192 1-192 1-10"),
        ("strided-C", "3-96 3-96/2 3-192 3-192/2 3-192 1-192 1-10"),
        ("convpool-C", "3-96 3-96 3-96 3-192 3-192 3-192 3-192 1-192 1-10"),
        ("all-C", "3-96 3-96 3-96/2 3-192 3-192 3-192/2 3-192 1-192 1-10"),
        ("all-A", "5-96 3-96/2 5-192 3-192/2 3-192 1-192 1-10"),
        ("all-B", "5-96 1-96 3-96/2 5-192 1-192 3-192/2 3-192 1-192 1-10"),
    ],
)
def test_the_forms_are_those_of_table_2(net, expected):
    """Kernel, maps and stride of each convolution; the pooling stays in the base and the convpool form alone."""
    with torch.device("meta"):
        found = make(f"all_cnn:{net}")
    words = [f"{m.kernel_size[0]}-{m.out_channels}" + ("/2" if m.stride[0] == 2 else "") for m in convs(found)]
    pools = sum(isinstance(m, nn.MaxPool2d) for m in found.modules())

    assert " ".join(words) == expected
    assert pools == (0 if "/2" in expected else 2)


@pytest.mark.parametrize("net", [n for n in NETS if n not in SIDES])
def test_the_last_maps_are_of_6_by_6(net):
    """As Table 1 prints; with padding in the layer after the second pooling they are of 8 by 8."""
    with torch.device("meta"):
        x = torch.zeros(1, 3, 32, 32)

        assert make(f"all_cnn:{net}").features(x).shape == (1, 10, 6, 6)
        assert make(f"all_cnn:{net}+padding=1").features(x).shape == (1, 10, 8, 8)


def test_the_large_net_ends_in_one_pixel():
    """126 by 126 without padding through fifteen layers of 2x2 in threes, and one more."""
    with torch.device("meta"):
        found = make("all_cnn:large")
        y = found.features(torch.zeros(1, 3, 126, 126))
    drops = [round(10 * m.p) for m in found.features if isinstance(m, nn.Dropout)]

    assert y.shape == (1, 1920, 1, 1)
    assert [m.out_channels for m in convs(found)] == [320 * k for k in range(1, 6) for _ in "123"] + [1920, 1920, 10]
    assert drops == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("net", ["C", "strided-C", "convpool-C", "all-C"])
def test_a_net_is_its_layers_one_after_another(net):
    """The same tensors through plain functions, in the order of Tables 1 and 2, give the same logits."""
    found = fill(make(f"all_cnn:{net}+width=1/8"))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layers, y = iter(convs(found)), x
    plan = {
        "C": "1 1 P 1 1 P V 1 1",
        "strided-C": "1 2 1 2 V 1 1",
        "convpool-C": "1 1 1 P 1 1 1 P V 1 1",
        "all-C": "1 1 2 1 1 2 V 1 1",
    }[net]
    with torch.inference_mode():
        for word in plan.split():
            if word == "P":
                # 32 to 16 to 8: the window at the far edge has two pixels of each side.
                y = F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=-torch.inf), 3, 2)
                continue
            m = next(layers)
            padding = 0 if word == "V" or m.kernel_size[0] == 1 else 1
            y = F.conv2d(y, m.weight, m.bias, stride=2 if word == "2" else 1, padding=padding).relu()
        logits = found(x)

    assert logits.std() > 1e-3
    torch.testing.assert_close(logits, y.mean((2, 3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_every_net_runs_forward_and_backward(net):
    """Two images at the paper's own size, a sixteenth of the width: logits of the classes, finite gradients."""
    found = make(f"all_cnn:{net}+width=1/16+classes=7")
    side = SIDES.get(net, 32)
    logits = found(torch.randn(2, 3, side, side))
    logits.square().sum().backward()

    assert logits.shape == (2, 7)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


def test_another_padding_is_refused():
    """The layer is padded or it is not."""
    with pytest.raises(ReproError, match="padding is 0 or 1, not 2"):
        make("all_cnn:C+padding=2")
