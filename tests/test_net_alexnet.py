"""AlexNet: counts of the paper, groups against two towers, layers that torchvision's net shares."""

from __future__ import annotations

import pytest
import torch
from nets import fill
from torch import nn
from torch.nn import functional as F
from torchvision.models import alexnet as torchvisions

from repro import architectures
from repro.architectures.alexnet import NETS
from repro.errors import ReproError
from repro.schema import Build

OTHER = {
    "classes": "7",
    "convs": "6",
    "dropout": "0.2",
    "groups": "1",
    "hidden": "1",
    "input": "227",
    "lrn": "0",
    "pool": "2",
    "width": "1/2",
}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("net", "params"),
    [
        ("alexnet", 60965224),
        ("alexnet+groups=1", 62378344),
        ("alexnet+convs=4", 60965224 - 384 * (192 * 9 + 1)),
        ("alexnet+convs=6", 60965224 + 256 * (128 * 9 + 1)),
        ("alexnet+hidden=1", 60965224 - 4096 * 4097),
        ("one-gpu", 59798312),
    ],
)
def test_parameters_are_those_of_the_paper(net, params):
    """Weights and biases together, to the unit, by the sizes of Section 3.5."""
    with torch.device("meta"):
        found = make("alexnet:" + net)

    assert sum(p.numel() for p in found.parameters()) == params


def test_maps_have_the_sizes_of_figure_2():
    """55, 27 and 13 pixels from an image of 224, and 6x6 after the last pooling."""
    with torch.device("meta"):
        net, x, sides = make("alexnet:alexnet"), torch.zeros(1, 3, 224, 224), {}
        for name, layer in net.features.named_children():
            x = layer(x)
            sides[name] = x.shape[-1]

    found = [sides[name] for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "pool5")]
    assert found == [55, 27, 13, 13, 13, 6]


def test_two_groups_are_two_towers_that_meet_at_conv3():
    """Kernels of one half see the maps of their own half, but in conv3 those of both."""
    net = make("alexnet:alexnet+width=1/8+classes=5+lrn=0").double().eval()
    fill(net)
    conv = dict(net.features.named_children())

    def towers(name: str, halves: list[torch.Tensor]) -> list[torch.Tensor]:
        weights, biases = conv[name].weight.chunk(2), conv[name].bias.chunk(2)
        return [F.relu(F.conv2d(h, w, b, padding="same")) for h, w, b in zip(halves, weights, biases, strict=True)]

    def pool(halves: list[torch.Tensor]) -> list[torch.Tensor]:
        return [F.max_pool2d(h, 3, 2) for h in halves]

    x = noise(2, 3, 224, 224)
    halves = pool(list(F.relu(F.conv2d(x, conv["conv1"].weight, conv["conv1"].bias, 4, 2)).chunk(2, 1)))
    halves = pool(towers("conv2", halves))
    both = torch.cat(halves, 1)
    halves = towers("conv3", [both, both])
    halves = pool(towers("conv5", towers("conv4", halves)))

    torch.testing.assert_close(net.features(x), torch.cat(halves, 1), rtol=1e-10, atol=1e-10)


def test_layers_that_torchvisions_net_shares_agree():
    """Its conv1 is the first 64 of our kernels, its pooling ours, its classifier ours with the weights copied."""
    theirs = torchvisions(dropout=0.0).double().eval()
    fill(theirs)
    with torch.device("meta"):
        ours = make("alexnet:alexnet").double().eval()
    fc = [m for m in theirs.classifier if isinstance(m, nn.Linear)]
    state = {f"fc{i}.{k}": v for i, layer in enumerate(fc, 6) for k, v in layer.state_dict().items()}
    ours.classifier.load_state_dict(state, assign=True)
    conv1 = nn.Conv2d(3, 96, 11, 4, 2).double()
    assert repr(conv1).replace("Conv2d", "Conv") == repr(ours.features.conv1)
    with torch.inference_mode():
        conv1.weight[:64], conv1.bias[:64] = theirs.features[0].weight, theirs.features[0].bias
        x, maps = noise(2, 3, 224, 224), noise(2, 256, 13, 13)

        assert (conv1(x)[:, :64] - theirs.features[0](x)).abs().max() < 1e-12
        assert torch.equal(ours.features.pool5(maps), theirs.features[12](maps))
        flat = theirs.features[12](maps).flatten(1)
        assert (ours.classifier(flat) - theirs.classifier(flat)).abs().max() < 1e-12
        assert theirs.classifier(flat).std() > 0.1


def test_normalisation_follows_the_relu_of_conv1_and_conv2():
    """Section 3.5: LRN after the ReLU, pooling after LRN; none with `lrn=0`."""
    names = [n for n, _ in make("alexnet:alexnet+width=1/8").features.named_children()]
    without = [n for n, _ in make("alexnet:alexnet+width=1/8+lrn=0").features.named_children()]

    assert names[:8] == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]
    assert [n for n in names if not n.startswith("norm")] == without


@pytest.mark.parametrize("net", [*NETS, "alexnet+convs=4", "alexnet+convs=6", "alexnet+pool=2", "alexnet+hidden=1"])
def test_every_net_learns_from_a_batch(net):
    """Forward and backward on two images of 99 pixels at an eighth of the width: all gradients are finite."""
    found = make(f"alexnet:{net}+width=1/8+classes=7+input=99")
    logits = found(torch.randn(2, 3, 99, 99, generator=torch.Generator().manual_seed(0)))
    F.cross_entropy(logits, torch.tensor([1, 2])).backward()

    assert logits.shape == (2, 7)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


def test_another_number_of_convolutions_is_refused():
    """The paper has 4, 5 and 6."""
    with pytest.raises(ReproError, match="convs is 4, 5 or 6, not 3"):
        make("alexnet:alexnet+convs=3")
