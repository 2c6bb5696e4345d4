"""Counts: pinned numbers, and a plain count by hooks beside the two counters."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from repro import architectures
from repro.errors import JobError, ReproError
from repro.measure import agree, cross_check, measure
from repro.schema import Build

NETS = ["A", "A-LRN", "B", "B+filters=5x5", "C", "D", "E"]
PROXY = "+width=1/8+input=32+classes=10+pools=3"


def counted_by_hand(build: Build, side: int) -> int:
    """Multiply-adds from the shapes that pass through each layer, one layer after another."""
    total = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            _, channels, height, width = output.shape
            kernel = module.kernel_size[0] * module.kernel_size[1] * module.in_channels // module.groups
            total += channels * height * width * kernel
        elif isinstance(module, nn.Linear):
            total += module.in_features * module.out_features

    with torch.device("meta"):
        net = architectures.make(build)
        for module in net.modules():
            module.register_forward_hook(add)
        net(torch.empty(1, 3, side, side))
    return total


@pytest.mark.parametrize("net", NETS)
def test_three_ways_to_count_agree_to_the_unit(net):
    """The flop counter, fvcore and a count by hooks give one number for each net, LRN's own arithmetic left out."""
    build = Build.parse("vgg:" + net + PROXY)
    found = measure(build, 32)

    assert found["stages"][""]["macs"] == found["macs_fvcore"] == counted_by_hand(build, 32)


@pytest.mark.parametrize(
    ("net", "macs"),
    [
        ("A", 7609090048),
        ("A-LRN", 7609090048),
        ("B", 11308466176),
        ("B+filters=5x5", 9356017664),
        ("C", 11770888192),
        ("D", 15470264320),
        ("E", 19632062464),
    ],
)
def test_multiply_adds_at_the_papers_size_are_pinned(net, macs):
    """At 224, one multiply-add counted as one, for the nets as the paper has them."""
    build = Build.parse("vgg:" + net)

    assert measure(build, 224)["stages"][""]["macs"] == macs == counted_by_hand(build, 224)


def test_all_that_is_counted_of_c():
    """Layers and their notation are those of Table 1, with nothing but plain data in the answer."""
    found = measure(Build.parse("vgg:C"), 224)
    net, stages = found["stages"][""], found["stages"]

    assert (net["params"], net["layers"], net["weighted"]) == (133638952, 16, 16)
    assert net["biases"] == 2 * (64 + 128) + 3 * 256 + 6 * 512 + 2 * 4096 + 1000
    assert stages["features.block3"]["composition"] == "conv3-256 conv3-256 conv1-256"
    assert stages["features.block4"]["output"] == [512, 14, 14]
    assert stages["features.block1"]["field"] == 6  # two 3x3 see 5 pixels, the pooling one more
    assert stages["features.block5"]["jump"] == 32
    assert stages["classifier.fc6"]["params"] == 7 * 7 * 512 * 4096 + 4096
    parts = [stage for name, stage in stages.items() if name.count(".") == 1]
    assert sum(stage.get("macs", 0) for stage in parts) == net["macs"]
    assert json.loads(json.dumps(found)) == found


def test_normalisation_stands_in_the_composition_and_is_no_layer():
    """A-LRN has A's layers and counts, and LRN where Table 1 prints it."""
    plain, normalised = (measure(Build.parse(f"vgg:{net}{PROXY}"), 32) for net in ("A", "A-LRN"))

    assert normalised["stages"]["features.block1"].pop("composition") == "conv3-8 LRN"
    for key in ("params", "macs", "layers", "neurons", "field"):
        assert normalised["stages"][""][key] == plain["stages"][""][key]


def test_the_shallow_net_has_one_large_filter_for_each_pair():
    """B with 5x5 filters has five convolutions, as Section 4.1 says."""
    found = measure(Build.parse("vgg:B+filters=5x5" + PROXY), 32)

    assert found["stages"][""]["layers"] == 5 + 3
    assert found["stages"]["features.block2"]["composition"] == "conv5-16"


def test_counts_that_disagree_are_a_failed_job():
    """A difference above 0.1 % has to be explained before the number is believed."""
    build = Build.parse("vgg:A")
    agree(build, 100_000, 100_100)
    with pytest.raises(JobError) as e:
        agree(build, 100_000, 100_200)

    assert str(e.value) == "vgg:A: the flop counter says 100000 multiply-adds, fvcore 100200"
    assert e.value.final


def test_an_input_that_does_not_fit_is_a_failed_job():
    """A net of 32 pixels cannot be counted at 40."""
    with pytest.raises(JobError, match="does not run on an input of 40 x 40: "):
        measure(Build.parse("vgg:A" + PROXY), 40)


def test_an_unknown_build_is_told_as_such():
    """The name is checked before anything is built."""
    with pytest.raises(ReproError, match="unknown net 'F' in build 'vgg:F'"):
        measure(Build.parse("vgg:F"), 224)


def test_the_cross_check_does_not_depend_on_the_weights_being_there():
    """Expanded zeros give the count of a net with weights of its own."""
    from fvcore.nn import FlopCountAnalysis

    build = Build.parse("vgg:B" + PROXY)
    real = FlopCountAnalysis(architectures.make(build), torch.zeros(1, 3, 32, 32))
    real.unsupported_ops_warnings(False)
    by_operator = real.by_operator()

    with torch.device("meta"):
        net = architectures.make(build).eval()
    assert cross_check(net, 32) == by_operator["conv"] + by_operator["linear"]


class Branches(nn.Module):
    """A block of two paths, a 1x1 and two 3x3 of stride 2 behind a pooling, and a head with attention."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.short = nn.Conv2d(3, 8, 1, stride=4, bias=False)
        self.long = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.short(x) + self.long(self.pool(x))
        tokens = x.flatten(2).transpose(1, 2)
        return self.fc(self.attend(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_layers_and_fields_follow_the_longest_path():
    """Of two branches the deeper one counts, and the wider field: 3, then + 2 * 2, then + 2 * 4 pixels."""
    found = measure(Build.parse("py:tests.test_measure:Branches"), 32)
    net, stages = found["stages"][""], found["stages"]

    # Two 3x3 and the classifier: attention calls its projections as no layers.
    assert (net["layers"], net["weighted"]) == (3, 5)
    assert (stages["long"]["layers"], stages["long"]["field"], stages["long"]["jump"]) == (2, 3 + 4 + 8, 4)
    assert (stages["short"]["field"], stages["short"]["output"]) == (1, [8, 8, 8])
    assert (stages["pool"]["kernel"], stages["pool"]["field"]) == (3, 3)
    assert stages["long"]["norms"] == 16


def test_what_fvcore_leaves_out_is_explained_to_the_unit():
    """The two products of attention, 64 tokens by 64 by 8, are what the counters differ by."""
    found = measure(Build.parse("py:tests.test_measure:Branches"), 32)

    assert found["causes"] == {"fvcore does not count scaled_dot_product_attention": 2 * 64 * 64 * 8}
    assert found["macs_fvcore"] + 2 * 64 * 64 * 8 == found["stages"][""]["macs"]


def test_the_nets_of_the_libraries_are_counted_too():
    """A name of timm's or torchvision's is a build; one that they do not have is told with the nearest."""
    for build in ("torchvision:resnet18", "timm:resnet18"):
        net = measure(Build.parse(build), 224)["stages"][""]
        assert (net["params"], net["macs"], net["layers"], net["weighted"]) == (11689512, 1814073344, 18, 21)
    with pytest.raises(ReproError, match=r"unknown net 'resnet19' in build 'timm:resnet19'; did you mean 'resnet"):
        measure(Build.parse("timm:resnet19"), 224)
    with pytest.raises(ReproError, match="no module 'nowhere' is found from here"):
        measure(Build.parse("py:nowhere:net"), 224)
    with pytest.raises(ReproError, match=r"cannot be built: .*wings"):
        measure(Build.parse("timm:resnet18+wings=2"), 224)
