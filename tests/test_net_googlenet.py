"""GoogLeNet: counts of Table 1, agreement with torchvision's branches, its heads and its options."""

from __future__ import annotations

import pytest
import torch
from nets import fill_all as fill
from torch import nn
from torchvision.models import GoogLeNet

from repro import architectures
from repro.architectures.googlenet import Inception, opening
from repro.errors import ReproError
from repro.schema import Build

# For each argument of the family another value than its default.
OTHER: dict[str, str] = {
    "aux": "none",
    "classes": "7",
    "depth": "1/2",
    "dropout": "0.1",
    "filters": "3x3",
    "input": "192",
    "module": "naive",
    "multiplier": "4",
    "norm": "batch",
    "stride": "2",
    "width": "1/2",
}
SMALL = "+width=1/16+input=64+classes=10"


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse("googlenet:googlenet" + text))


def meta(text: str = "") -> nn.Module:
    with torch.device("meta"):
        return make(text)


def params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_parameters_are_those_of_the_widths_of_table_1():
    """6,998,552 with biases for the net at test, and 3,188,840 and 3,190,888 for the two heads of Section 5."""
    net = meta()

    assert params(net.aux1) == 3188840
    assert params(net.aux2) == 3190888
    assert params(net) - params(net.aux1) - params(net.aux2) == 6998552
    assert params(meta("+aux=none")) == 6998552


@pytest.mark.parametrize(
    ("stage", "weights"),
    [
        ("3a", 163328),
        ("3b", 388096),
        ("4a", 375552),
        ("4b", 448512),
        ("4c", 509440),
        ("4d", 604672),
        ("4e", 867328),
        ("5a", 1042432),
        ("5b", 1442816),
    ],
)
def test_weights_of_a_module_are_the_sum_of_the_products_of_its_widths(stage, weights):
    """Without biases, each module has what the six widths of its row of Table 1 make."""
    module = meta().get_submodule(f"inception_{stage[0]}.inception_{stage}")

    assert sum(p.numel() for n, p in module.named_parameters() if n.endswith("weight")) == weights


def test_the_separable_first_layer_has_the_printed_2712_weights():
    """3 x 8 filters of 7x7 and 24 x 64 of 1x1: the 2.7K that Table 1 prints for a layer of 9408."""
    conv1 = meta("+multiplier=8").conv1

    assert sum(p.numel() for n, p in conv1.named_parameters() if n.endswith("weight")) == 2712


def test_the_separable_convolution_is_a_full_one_with_the_product_of_its_filters():
    """The 1x1 over the filtered channels is one 7x7 whose filters are sums of products, written out here."""
    conv = opening(4, 2, 2, norm=False).double()
    fill(conv)
    x = noise(1, 3, 9, 9)
    depthwise, pointwise = conv.depthwise.weight, conv.pointwise.weight
    full = torch.zeros(4, 3, 7, 7, dtype=torch.float64)
    for out in range(4):
        for between in range(6):
            full[out, between // 2] += pointwise[out, between, 0, 0] * depthwise[between, 0]
    expected = torch.relu(nn.functional.conv2d(x, full, conv.pointwise.bias, 2, 3))

    torch.testing.assert_close(conv(x), expected, rtol=1e-12, atol=1e-12)


def test_with_batch_norm_the_net_agrees_with_torchvision():
    """With 5x5 filters and a fourth pooling of 3x3 put into torchvision's net, the same weights, equal logits."""
    net = make("+norm=batch+classes=10+aux=none").double().eval()
    fill(net)
    other = GoogLeNet(num_classes=10, aux_logits=False, init_weights=False)
    other.maxpool4 = nn.MaxPool2d(3, 2, ceil_mode=True)
    for name, module in other.named_children():
        if name.startswith("inception"):
            old = module.branch3[1].conv
            module.branch3[1].conv = nn.Conv2d(old.in_channels, old.out_channels, 5, padding=2, bias=False)
    other = other.double().eval()
    other.load_state_dict(dict(zip(other.state_dict(), net.state_dict().values(), strict=True)))
    x = noise(1, 3, 224, 224)
    with torch.inference_mode():
        a, b = net(x), other(x)

    assert a.std() > 0.01
    assert (a - b).abs().max() < 1e-12 * a.abs().max()


def test_a_module_concatenates_its_four_branches():
    """By hand: 1x1, reduced 3x3, reduced 5x5 and the projection of a pooled map, each after its ReLU."""
    block = Inception(5, (2, 3, 4, 2, 3, 1)).double()
    fill(block)
    x = noise(2, 5, 6, 6)

    def conv(layer: nn.Conv2d, v: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(v, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2).clamp(min=0)

    pooled = nn.functional.max_pool2d(x, 3, 1, 1)
    expected = [
        conv(block.conv1x1, x),
        conv(block.conv3x3, conv(block.reduce3x3, x)),
        conv(block.conv5x5, conv(block.reduce5x5, x)),
        conv(block.pool_proj, pooled),
    ]

    torch.testing.assert_close(block(x), torch.cat(expected, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        "",
        "+aux=none",
        "+module=naive",
        "+norm=batch",
        "+filters=3x3",
        "+multiplier=8",
        "+stride=8+input=32",
        "+depth=1/4",
    ],
)
def test_the_net_runs_forward_and_backward(options):
    """A batch of two at 64 pixels (32 at stride 8) and a sixteenth of the width: every weight has a finite gradient."""
    net = make(SMALL + options) if "input" not in options else make("+width=1/16+classes=10" + options)
    side = 32 if "input" in options else 64
    out = net(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    outs = out if isinstance(out, tuple) else (out,)
    sum(o.square().sum() for o in outs).backward()

    assert [tuple(o.shape) for o in outs] == [(2, 10)] * (1 if "none" in options else 3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_heads_run_in_training_alone_unless_asked():
    """In evaluation one tensor of logits, with `aux=always` three."""
    x = torch.zeros(1, 3, 64, 64)

    assert isinstance(make(SMALL).eval()(x), torch.Tensor)
    assert len(make(SMALL).train()(torch.cat([x, x]))) == 3
    assert len(make(SMALL + "+aux=always").eval()(x)) == 3


def test_a_larger_image_is_the_mean_over_windows():
    """At 96 pixels a net for 64 has 2x2 windows of its average pooling; the logits are their mean."""
    net = make(SMALL + "+aux=none").double().eval()
    fill(net)
    x = noise(1, 3, 96, 96)
    maps = []
    net.inception_5.register_forward_hook(lambda module, args, out: maps.append(out))
    out = net(x)
    windows = [net.linear(maps[0][:, :, i : i + 2, j : j + 2].mean((2, 3))) for i in (0, 1) for j in (0, 1)]

    torch.testing.assert_close(out, torch.stack(windows).mean(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("text", ["+aux=sometimes", "+module=wide", "+norm=layer", "+filters=7x7"])
def test_an_unknown_option_is_refused_with_those_there_are(text):
    """The message names the option and its values."""
    name, value = text[1:].split("=")
    with pytest.raises(ReproError, match=rf"{name} is \w+.* or \w+, not {value}"):
        make(text)
