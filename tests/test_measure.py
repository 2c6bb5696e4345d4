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

    assert found["macs"] == found["macs_fvcore"] == counted_by_hand(build, 32)


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

    assert measure(build, 224)["macs"] == macs == counted_by_hand(build, 224)


def test_all_that_is_counted_of_c():
    """Layers and their notation are those of Table 1, with nothing but plain data in the answer."""
    found = measure(Build.parse("vgg:C"), 224)

    assert (found["params"], found["layers"]) == (133638952, 16)
    assert found["composition"] == {
        "block1": ["conv3-64", "conv3-64"],
        "block2": ["conv3-128", "conv3-128"],
        "block3": ["conv3-256", "conv3-256", "conv1-256"],
        "block4": ["conv3-512", "conv3-512", "conv1-512"],
        "block5": ["conv3-512", "conv3-512", "conv1-512"],
        "fc6": ["FC-4096"],
        "fc7": ["FC-4096"],
        "fc8": ["FC-1000"],
    }
    assert json.loads(json.dumps(found)) == found


def test_normalisation_stands_in_the_composition_and_is_no_layer():
    """A-LRN has A's layers and counts, and LRN where Table 1 prints it."""
    plain, normalised = (measure(Build.parse(f"vgg:{net}{PROXY}"), 32) for net in ("A", "A-LRN"))

    assert normalised["composition"]["block1"] == ["conv3-8", "LRN"]
    assert {**normalised, "composition": None} == {**plain, "composition": None}


def test_the_shallow_net_has_one_large_filter_for_each_pair():
    """B with 5x5 filters has five convolutions, as Section 4.1 says."""
    found = measure(Build.parse("vgg:B+filters=5x5" + PROXY), 32)

    assert found["layers"] == 5 + 3
    assert found["composition"]["block2"] == ["conv5-16"]


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

    assert cross_check(build, 32) == by_operator["conv"] + by_operator["linear"]
