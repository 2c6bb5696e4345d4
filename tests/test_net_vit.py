"""ViT: sizes by hand, agreement with timm and torchvision, attention by a plain loop, positions at another size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repro import architectures
from repro.architectures.vit import MAP, NETS, SCALING, VIT, Attention
from repro.errors import ReproError
from repro.schema import Build

# For each argument another value that changes the net.
OTHER: dict[str, str] = {
    "classes": "7",
    "depth": "2",
    "head": "mlp",
    "heads": "4",
    "input": "448",
    "patch": "8",
    "width": "1/2",
}


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


def fill(net: nn.Module) -> None:
    """Weights that keep signals of unit size; biases and scales that are not trivial."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, t in net.named_parameters():
            bound = 0.1 if t.dim() < 2 else (3 / t[0].numel()) ** 0.5
            t.uniform_(-bound, bound, generator=generator)
            if t.dim() < 2 and name.endswith("weight"):
                t.add_(1)


def params(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def fused(state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Query, key and value of a layer in one tensor, as timm and torchvision hold them."""
    return torch.cat([state[name.replace("query", part)] for part in ("query", "key", "value")])


@pytest.mark.parametrize(
    ("net", "count"), [("B/16", 86567656), ("B/32", 88224232), ("L/16", 304326632), ("H/14", 632045800)]
)
def test_parameters_are_those_of_the_published_nets(net, count):
    """With the linear head for 1000 classes at 224, to the unit."""
    with torch.device("meta"):
        assert params(make(f"vit:{net}")) == count


@pytest.mark.parametrize("net", [n for n in NETS if n.startswith("scaling")])
def test_scaling_nets_without_their_heads_are_the_sum_by_hand(net):
    """Patch and position embeddings and the encoder, from width, depth, MLP size and patch."""
    family, patch = net.removeprefix("scaling-").split("/")
    depth, width, mlp, _ = SCALING[family]
    layer = 4 * (width + 1) * width + (width + 1) * mlp + (mlp + 1) * width + 4 * width
    patches = (224 // int(patch)) ** 2
    with torch.device("meta"):
        found = make(f"vit:{net}")

    assert params(found) - params(found.map) - params(found.head) == (
        (3 * int(patch) ** 2 + 1 + patches) * width + depth * layer + 2 * width
    )


def test_b_16_agrees_with_timm():
    """All 86 million weights in float64, one image: logits equal but for rounding."""
    import timm

    ours = make("vit:B/16").double().eval()
    fill(ours)
    other = timm.create_model("vit_base_patch16_224").double().eval()
    state = ours.state_dict()
    ordered = []
    for name, t in state.items():
        if ".key." not in name and ".value." not in name:
            ordered.append(fused(state, name) if ".query." in name else t)
    names = ["cls_token", "pos_embed", *(n for n in other.state_dict() if n not in ("cls_token", "pos_embed"))]
    other.load_state_dict(dict(zip(names, ordered, strict=True)))
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        a, b = ours(x), other(x)

    assert a.std() > 0.1
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_narrow_b_16_agrees_with_torchvision():
    """An eighth of the width and two layers, in torchvision's own class."""
    from torchvision.models import VisionTransformer

    ours = make("vit:B/16+width=1/4+depth=2+input=64+classes=10").double().eval()
    fill(ours)
    other = VisionTransformer(64, 16, 2, 3, 192, 768, num_classes=10).double().eval()
    state, ordered = ours.state_dict(), {}
    head = {"class_token": "token", "conv_proj": "embedding", "encoder.pos_embedding": "position"}
    head |= {"encoder.ln": "norm", "heads.head": "head.logits"}
    for name in other.state_dict():
        mine = name.replace("encoder.layers.encoder_layer_", "encoder.")
        for theirs, own in [("ln_", "norm"), ("self_attention.out_proj", "attention.out"), ("mlp.3", "mlp.fc2")]:
            mine = mine.replace(theirs, own)
        mine = mine.replace("self_attention.in_proj_", "attention.query.").replace("mlp.0", "mlp.fc1")
        for theirs, own in head.items():
            mine = mine.replace(theirs, own) if name.startswith(theirs) else mine
        ordered[name] = fused(state, mine) if ".query." in mine else state[mine]
    other.load_state_dict(ordered)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        a, b = ours(x), other(x)

    assert a.std() > 0.1
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_attention_is_that_of_appendix_a():
    """Softmax of q k / sqrt(d) over the tokens, by a loop over heads and queries."""
    torch.manual_seed(0)
    attention = Attention(6, 2).double()
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    q, k, v = attention.query(x)[0], attention.key(x)[0], attention.value(x)[0]
    expected = torch.empty(5, 6, dtype=torch.float64)
    for part in (slice(0, 3), slice(3, 6)):
        for i in range(5):
            scores = torch.stack([q[i, part] @ k[j, part] / 3**0.5 for j in range(5)])
            expected[i, part] = scores.softmax(0) @ v[:, part]

    torch.testing.assert_close(attention(x)[0], attention.out(expected), rtol=1e-12, atol=1e-12)


def test_map_pools_with_one_query():
    """The pooled vector does not depend on the order of the tokens."""
    torch.manual_seed(0)
    pool = MAP(8, 16, 2).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)

    assert pool(x).shape == (2, 8)
    torch.testing.assert_close(pool(x), pool(x.flip(1)), rtol=1e-12, atol=1e-12)


def test_positions_at_another_size_are_interpolated():
    """At its own size they are taken as they are; a ramp over the rows stays a ramp; the class token keeps its own."""
    found = make("vit:B/16+width=1/12+depth=1+input=64+classes=5")
    with torch.no_grad():
        found.position[0, 1:] = torch.arange(4.0).repeat_interleave(4)[:, None]
    rows = found.positions(65)[0, 1:, 0].view(8, 8)

    assert found.positions(17) is found.position
    assert torch.equal(found.positions(65)[0, 0], found.position[0, 0])
    assert torch.equal(rows, rows[:, :1].expand(8, 8))
    torch.testing.assert_close(rows[1:7, 0], torch.arange(0.25, 3, 0.5))
    assert found(torch.zeros(1, 3, 128, 128)).shape == (1, 5)


@pytest.mark.parametrize("net", NETS)
def test_every_net_runs_forward_and_backward(net):
    """Narrow and shallow, on four to sixteen patches: logits of the right shape, a gradient for every parameter."""
    side = 64 if "R" in net or net.endswith("16") else 112
    found = make(f"vit:{net}+width=1/16+depth=2+input={side}+classes=5")
    out = found(torch.randn(2, 3, side, side))
    out.square().sum().backward()

    assert out.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


@pytest.mark.parametrize(("net", "tokens"), [("R50-B/16", 196), ("R50-B/32", 49), ("B/16", 196), ("H/14", 256)])
def test_tokens_are_the_patches_and_the_class_token(net, tokens):
    """Hybrids take their patches, of one pixel, from the map of the ResNet."""
    with torch.device("meta"):
        found = make(f"vit:{net}+depth=1")

    assert found.position.shape[1] == tokens + 1
    assert found.embedding(found.backbone(torch.zeros(1, 3, 224, 224, device="meta"))).shape[2:].numel() == tokens


def test_table_1_is_held_as_printed():
    """Layers, hidden size, MLP size and heads of the nets that the measurements begin with."""
    for family, (layers, size, mlp, heads) in VIT.items():
        with torch.device("meta"):
            found = make(f"vit:{family}/{14 if family == 'H' else 16}")
        first = found.encoder[0]
        assert (len(found.encoder), found.embedding.out_channels) == (layers, size)
        assert (first.mlp.fc1.out_features, first.attention.split.heads) == (mlp, heads)


@pytest.mark.parametrize("argument", list(OTHER))
def test_every_argument_changes_the_net(argument):
    """None is without effect: the layers differ, or the shapes of their parameters."""

    def layers(text: str) -> tuple[str, list[int], list[torch.Size]]:
        with torch.device("meta"):
            net = make(text)
        return str(net), [m.heads for m in net.modules() if hasattr(m, "heads")], [p.shape for p in net.parameters()]

    assert layers("vit:B/16") != layers(f"vit:B/16+{argument}={OTHER[argument]}")


def test_a_head_that_the_paper_does_not_have_is_refused():
    """Section 3.1 has a hidden layer, or none."""
    with pytest.raises(ReproError, match="head is linear or mlp, not map"):
        make("vit:B/16+head=map")


@pytest.mark.parametrize(
    ("net", "count"),
    [("R50x2", 15626114560), ("R101x1", 7512574720), ("R152x1", 11063315200), ("R50-B/32+head=mlp", 8330500864)],
)
def test_multiply_adds_without_the_padding_are_those_of_table_6(net, count):
    """The taps of a convolution that meet the image, counted one by one along a side, at 224 and 18k classes."""
    total = 0

    def add(module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            side, (kernel, _), (stride, _), (pad, _) = (
                args[0].shape[-1],
                *(getattr(module, name) for name in ("kernel_size", "stride", "padding")),
            )
            at = [i * stride - pad + tap for i in range(out.shape[-1]) for tap in range(kernel)]
            total += sum(0 <= place < side for place in at) ** 2 * module.in_channels * module.out_channels
        elif isinstance(module, nn.Linear):
            total += args[0].numel() * module.out_features
        elif isinstance(module, Attention):
            total += 2 * args[0].shape[1] * args[0].numel()

    with torch.device("meta"):
        found = make(f"vit:{net}+classes=18000")
        for module in found.modules():
            module.register_forward_hook(add)
        with torch.no_grad():
            found(torch.zeros(1, 3, 224, 224))

    assert total == count
