"""The nets of Dive into Deep Learning: counts to the unit, twins in torchvision, plain loops, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet as their_resnet
from torchvision.models import vgg as their_vgg

from repro import architectures
from repro.architectures.d2l import NETS, Dense, Net
from repro.errors import ReproError
from repro.measure import measure
from repro.schema import Build

OTHER: dict[str, str] = {
    "channels": "4",
    "classes": "7",
    "depth": "1",
    "groups": "8",
    "growth": "16",
    "hidden": "1",
    "input": "160",
    "out": "12",
    "ratio": "2",
    "strides": "3",
    "width": "1/2",
}
# Each net small: its arguments and the side of its images.
SMALL = {
    "lenet": ("+width=1/2", 28),
    "alexnet": ("+width=1/16+input=96", 96),
    "vgg11": ("+width=1/16+input=32", 32),
    "nin": ("+width=1/8", 96),
    "googlenet": ("+width=1/8", 48),
    "bn-lenet": ("+width=1/2", 28),
    "resnet18": ("+width=1/8", 48),
    "densenet": ("+width=1/4", 48),
    "residual": ("+channels=4+out=6+strides=2", 6),
    "dense": ("", 8),
    "transition": ("", 8),
}


def make(text: str) -> nn.Module:
    torch.manual_seed(0)
    return architectures.make(Build.parse(f"d2l:{text}"))


def fill(net: nn.Module) -> nn.Module:
    """Statistics and scales of the normalisations that are not those of a fresh net."""
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.1)
                m.running_var.uniform_(0.5, 2)
                m.weight.uniform_(0.5, 1.5)
                m.bias.normal_(0, 0.1)
    return net


@pytest.mark.parametrize(
    ("net", "input", "params", "macs"),
    [
        ("lenet", 28, 61_706, 416_520),
        # Section 7.5: without the padding of conv1 fc3 has 256 inputs in place of 400; four normalisations more.
        ("bn-lenet", 28, 61_706 + 2 * (6 + 16 + 120 + 84) - (400 - 256) * 120, 281_640),
        ("alexnet", 224, 46_764_746, 938_146_176),
        ("vgg11", 224, 128_806_154, 7_547_232_256),
        ("vgg11+ratio=4", 224, 43_093_322, 512_155_648),
        ("nin", 224, 1_992_166, 762_297_352),
        ("googlenet", 96, 5_977_530, 276_066_304),
        ("resnet18", 96, 11_178_378, 318_657_536),
        ("densenet", 96, 758_226, 129_077_168),
    ],
)
def test_the_books_nets_have_the_parameters_and_multiply_adds_of_the_books_own_code(net, input, params, macs):
    """To the unit, at the input size that the book trains each net at."""
    found = measure(Build.parse(f"d2l:{net}"), input)["stages"][""]

    assert (found["params"], found["macs"]) == (params, macs)


def test_vgg11_agrees_with_torchvisions():
    """torchvision's layers at one sixteenth of the width, of one channel: the same logits to the last bit."""
    ours = make("vgg11+width=1/16").double().eval()
    cfg = [v if v == "M" else int(v) // 16 for v in their_vgg.cfgs["A"]]
    theirs = their_vgg.VGG(their_vgg.make_layers(cfg), num_classes=10, init_weights=False)
    theirs.features[0] = nn.Conv2d(1, 4, 3, padding=1)
    theirs.classifier[0], theirs.classifier[3] = nn.Linear(32 * 49, 256), nn.Linear(256, 256)
    theirs.classifier[6] = nn.Linear(256, 10)
    theirs = theirs.double().eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 1, 224, 224, dtype=torch.float64)
    with torch.inference_mode():
        a, b = ours(x), theirs(x)

    assert a.std() > 0
    assert torch.equal(a, b)


def test_resnet18_is_torchvisions_with_biases_and_a_plain_shortcut():
    """The biases folded into the means that follow, the normalisation of their shortcut made an identity."""
    ours = fill(make("resnet18")).double().eval()
    theirs = their_resnet.resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    theirs = theirs.double().eval()

    def copy(conv: nn.Conv2d, norm: nn.BatchNorm2d, to: nn.Conv2d, to_norm: nn.BatchNorm2d) -> None:
        to.weight.copy_(conv.weight)
        to_norm.load_state_dict(norm.state_dict())
        to_norm.running_mean -= conv.bias

    with torch.no_grad():
        copy(ours.block1.conv1, ours.block1.bn1, theirs.conv1, theirs.bn1)
        for i in range(1, 5):
            for j, block in enumerate(getattr(theirs, f"layer{i}")):
                mine = ours.get_submodule(f"block{i + 1}.block{j + 1}")
                copy(mine.residual.conv1, mine.residual.bn1, block.conv1, block.bn1)
                copy(mine.residual.conv2, mine.residual.bn2, block.conv2, block.bn2)
                if block.downsample is not None:
                    block.downsample[0].weight.copy_(mine.shortcut.weight)
                    block.downsample[1].bias.copy_(mine.shortcut.bias)
                    block.downsample[1].running_var.fill_(1 - block.downsample[1].eps)
        theirs.fc.load_state_dict(ours.fc6.state_dict())
        x = torch.randn(2, 1, 64, 64, dtype=torch.float64)
        a, b = ours(x), theirs(x)

    assert a.std() > 0.01
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_resnext_block_is_torchvisions_bottleneck_of_equal_width():
    """Section 8.6.5 of 1.0 with bot_mul 1: 1x1, 3x3 in groups of 16 channels, 1x1, each normalised."""
    ours = fill(make("residual+channels=32+out=32+groups=16")).double().eval().block1
    theirs = their_resnet.Bottleneck(32, 8, groups=2, base_width=64).double().eval()
    theirs.conv1, theirs.conv2 = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, padding=1, groups=2)
    theirs.conv3 = nn.Conv2d(32, 32, 1)
    names = ["bn1", "bn2", "bn3"]
    for name in names:
        setattr(theirs, name, nn.BatchNorm2d(32))
        getattr(theirs, name).load_state_dict(ours.residual.get_submodule(name).state_dict())
    for name in ("conv1", "conv2", "conv3"):
        getattr(theirs, name).load_state_dict(ours.residual.get_submodule(name).state_dict())
    x = torch.randn(2, 32, 12, 12, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs.double().eval()(x), rtol=1e-12, atol=1e-12)


def test_a_dense_block_keeps_its_input_and_adds_one_map_a_layer():
    """A loop that holds all maps in a list and joins them afresh for each layer gives the same channels."""
    block = fill(Dense(3, 4, 5)).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    maps: list[Tensor] = [x]
    with torch.inference_mode():
        for norm, relu, conv in block.layers:
            maps.append(conv(relu(norm(torch.cat(maps, 1)))))

        torch.testing.assert_close(block(x), torch.cat(maps, 1))


def test_layers_are_called_by_kind_and_by_the_weight_layer_that_they_follow():
    """So a table of the book's finds `pool5` after `conv5`, and the first fully connected layer is `fc6`."""
    names = [name for name, _ in make("alexnet+width=1/16").named_children()]

    assert names[:4] == ["conv1", "relu1", "pool1", "conv2"]
    assert names[-10:] == ["relu5", "pool5", "flatten5", "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8"]


def test_a_net_refuses_an_argument_that_it_has_no_use_for():
    """LeNet has no growth rate; silence would hide a mistake in a table."""
    with pytest.raises(ReproError, match="growth"):
        make("lenet+growth=12")


@pytest.mark.parametrize("net", NETS)
def test_every_net_runs_forward_and_backward(net):
    """Two images through the small net: an output each, and a finite gradient for every parameter."""
    args, input = SMALL[net]
    model = make(net + args)
    assert isinstance(model, Net)
    out = model(torch.randn_like(model.example(2, input)))
    out.square().sum().backward()

    assert out.shape[0] == 2
    assert out.dim() == 4 or out.shape[1] == 10
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
