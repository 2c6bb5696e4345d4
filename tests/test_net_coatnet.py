"""CoAtNet: sizes by hand, agreement with timm, the bias by offset against a plain loop, the ablations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repro import architectures
from repro.architectures.coatnet import NETS, TABLE, Attention
from repro.errors import ReproError
from repro.schema import Build

# For each argument another value that changes the net.
OTHER: dict[str, str] = {
    "blocks": "1-1-2-1-1",
    "classes": "7",
    "depth": "1/2",
    "head": "mlp",
    "head_size": "16",
    "input": "256",
    "layout": "CCCT",
    "norm": "ln",
    "relative": "0",
    "stride": "depthwise",
    "width": "1/2",
}
SMALL = "+width=1/16+blocks=2-1-2-2-1+head_size=4+input=64+classes=5"


def make(text: str) -> nn.Module:
    return architectures.make(Build.parse(text))


def fill(net: nn.Module) -> None:
    """Weights that keep signals of unit size, and statistics of batch norm that are not trivial."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, t in [*net.named_parameters(), *net.named_buffers()]:
            if name.endswith("running_var"):
                t.uniform_(0.5, 2, generator=generator)
            elif t.is_floating_point() and t.dim() < 2:
                t.uniform_(-0.1, 0.1, generator=generator)
                if name.endswith("weight"):
                    t.add_(1)
            elif t.is_floating_point():
                bound = (3 / t[0].numel()) ** 0.5
                t.uniform_(-bound, bound, generator=generator)


def params(text: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in make(text).parameters())


def by_hand(net: str, side: int = 7) -> int:
    """Parameters of CoAtNet-0 to 5 from Table 3, by plain sums."""
    blocks, channels = TABLE[net]
    inputs = channels[0]
    total = 27 * inputs + 2 * inputs + 9 * inputs * inputs
    for i in (1, 2, 3, 4):
        for _ in range(blocks[i]):
            c = channels[i]
            if i < 3:  # pre-norm, 1x1, norm, depthwise, norm, squeeze and excitation, 1x1
                total += 2 * inputs + 4 * inputs * c + 8 * c + 36 * c + 8 * c
                total += (4 * c + 1) * (c // 4) + (c // 4 + 1) * 4 * c + (4 * c + 1) * c
            else:
                offsets = (2 * side * (2 if i == 3 else 1) - 1) ** 2
                total += 2 * inputs + 3 * (inputs + 1) * c + (c + 1) * c + offsets * c // (64 if net == "5" else 32)
                total += 2 * c + (c + 1) * 4 * c + (4 * c + 1) * c
            total += (inputs + 1) * c if inputs != c else 0
            inputs = c
    return total + 2 * inputs + 1000 * inputs + 1000


@pytest.mark.parametrize("net", ["0", "1", "2", "3", "4", "5"])
def test_parameters_are_those_that_table_3_gives_by_hand(net):
    """To the unit, from blocks, channels and head size alone."""
    assert params(f"coatnet:{net}") == by_hand(net)


def test_the_tables_of_offsets_grow_with_the_input():
    """At 384 the maps of S3 and S4 have sides 24 and 12."""
    assert params("coatnet:2+input=384") == by_hand("2", side=12)


def test_coatnet_0_agrees_with_timm():
    """timm's has the stride in the depthwise layer, a hidden layer in its head, and pools by means throughout."""
    import timm

    ours = make("coatnet:0+stride=depthwise+head=mlp+classes=10").double().eval()
    fill(ours)
    other = timm.create_model("coatnet_0_224", num_classes=10).double().eval()
    for stage in other.stages[2:]:
        stage.blocks[0].shortcut.pool = stage.blocks[0].norm1.down.pool = nn.MaxPool2d(2)
    state, ordered = other.state_dict(), {}
    mine = iter(values(ours))
    for name, t in state.items():
        if name.endswith(("num_batches_tracked", "relative_position_index")):
            continue
        if ".qkv." in name:
            by_head = [next(mine).unflatten(0, (-1, 32)) for _ in range(3)]  # timm: query, key, value of a head
            ordered[name] = torch.stack(by_head, 1).flatten(0, 2)
        elif name.endswith("relative_position_bias_table"):
            ordered[name] = next(mine).flatten(1).T
        else:
            ordered[name] = next(mine)
        assert ordered[name].shape == t.shape
    assert next(mine, None) is None
    other.load_state_dict(ordered, strict=False)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        a, b = ours(x), other(x)

    assert a.std() > 0.1
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def values(net: nn.Module) -> list[torch.Tensor]:
    """Tensors of ours in the order of timm's: weights and biases of query, key, value together, then the table."""
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    out = []
    for name, t in state.items():
        start, _, end = name.rpartition("attention.")
        if end == "table":
            for part in ("weight", "bias"):
                out += [state[f"{start}attention.{which}.{part}"] for which in ("query", "key", "value")]
            out.append(t)
        elif not end.startswith(("query", "key", "value")) or not start:
            out.append(t)
    return out


def test_attention_is_that_of_equation_3():
    """Softmax over j of q_i k_j / sqrt(d) + w(i - j), by a loop over pairs of places."""
    torch.manual_seed(0)
    attention = Attention(6, 8, 3, 4, True).double()
    x = torch.randn(1, 6, 3, 3, dtype=torch.float64)
    q, k, v = (f(x)[0].flatten(1).T for f in (attention.query, attention.key, attention.value))
    expected = torch.empty(9, 8, dtype=torch.float64)
    for head in (0, 1):
        part = slice(4 * head, 4 * head + 4)
        for i in range(9):
            scores = [
                q[i, part] @ k[j, part] / 2 + attention.table[head, i // 3 - j // 3 + 2, i % 3 - j % 3 + 2]
                for j in range(9)
            ]
            expected[i, part] = torch.stack(scores).softmax(0) @ v[:, part]
    expected = attention.out(expected.T.reshape(1, 8, 3, 3))

    torch.testing.assert_close(attention(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_every_net_runs_forward_and_backward(net):
    """Narrow and shallow, at 64 pixels: logits of the right shape, a gradient for every parameter."""
    found = make(f"coatnet:{net}{SMALL}")
    out = found(torch.randn(2, 3, 64, 64))
    out.square().sum().backward()

    assert out.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


@pytest.mark.parametrize("layout", ["CCCC", "CCCT", "CTTT"])
def test_the_layouts_of_section_2_2_run(layout):
    """C is an MBConv stage, T a transformer stage; each halves the map."""
    found = make(f"coatnet:0{SMALL}+layout={layout}")
    out = found.body(found.s0(torch.randn(2, 3, 64, 64)))

    assert out.shape == (2, 48, 2, 2)


@pytest.mark.parametrize("argument", list(OTHER))
def test_every_argument_changes_the_net(argument):
    """None is without effect: the layers differ, or the shapes of their parameters."""

    def layers(text: str) -> tuple[str, list[torch.Size]]:
        with torch.device("meta"):
            net = make(text)
        return str(net), [p.shape for p in net.parameters()]

    assert layers("coatnet:0") != layers(f"coatnet:0+{argument}={OTHER[argument]}")


def test_a_net_runs_at_another_size_than_its_own():
    """Tables of offsets are interpolated; at its own size they are taken as they are."""
    found = make(f"coatnet:0{SMALL}").eval()

    assert found(torch.randn(1, 3, 96, 96)).shape == (1, 5)
    attention = found.body.s3[0].attention
    assert attention.bias(attention.side).shape == (6, 16, 16)
    assert attention.bias(8).shape == (6, 64, 64)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("layout=CCT", "layout is four letters C or T for S1 to S4, not CCT"),
        ("norm=gn", "gn is none of bn, ln"),
        ("stride=pool", "pool is none of conv, depthwise"),
    ],
)
def test_an_option_that_the_paper_does_not_have_is_refused(argument, message):
    """The message names those that it has."""
    with pytest.raises(ReproError, match=message):
        make(f"coatnet:0+{argument}")
