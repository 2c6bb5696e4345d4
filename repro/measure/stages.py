"""A net on the meta device to its counts by stage: what was called, what it holds, how far it reaches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .. import architectures

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
_SIDE = ("shortcut", "downsample", "se", "aux1", "aux2")  # beside the path: no layers of a block as papers print it
# Modules, by class name, that normalise by way of a convolution: no layer, so left out of the count.
_NORMALISATIONS = ("LRN",)


def count(net: nn.Module, input: int) -> tuple[dict[str, dict[str, Any]], int]:
    """The stages of a net on the meta device, and the multiply-adds in fused attention."""
    with torch.device("meta"):
        example = architectures.example(net, input)
    paths, fused = _Paths(net), _Fused()
    trained = [p for p in net.parameters() if p.requires_grad]
    net.requires_grad_(False)  # the flop counter would hang a hook on each view of a parameter
    attention = patch.object(nn.functional, "scaled_dot_product_attention", fused)
    with attention, FlopCounterMode(display=False) as counter, torch.no_grad(), paths:
        net(example)
    for hook in paths.hooks:
        hook.remove()
    for p in trained:
        p.requires_grad_(True)
    flops = {name.partition(".")[2]: ops for name, ops in counter.get_flop_counts().items()}  # "Global" is the net's
    macs = {name: sum(ops.values()) // 2 for name, ops in flops.items()}
    for name in normalisations(net):
        own = macs.get(name, 0)
        macs |= {above: macs[above] - own for above in _above(name) if above in macs}
    return _stages(net, macs, paths.seen), fused.macs


class _Fused:
    """Stands in for torch's scaled dot-product attention, and adds up the multiply-adds of its two products."""

    def __init__(self) -> None:
        self.macs, self._attend = 0, nn.functional.scaled_dot_product_attention

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rows, keys = query.numel() // query.shape[-1], key.shape[-2]
        self.macs += rows * keys * (query.shape[-1] + value.shape[-1])
        return self._attend(query, key, value, *args, **kwargs)


class _Paths(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows each tensor from the input: weight layers on the longest path to it, its receptive field, its stride.

    A field grows by (kernel - 1) * dilation * stride so far at each convolution and pooling, the largest of
    several inputs counts. `seen` holds, for each stage, what its first call gave out.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, int] = {}
        self.hooks = []
        for name, module in net.named_modules():
            self.hooks.append(module.register_forward_pre_hook(partial(self._before, name)))
            self.hooks.append(module.register_forward_hook(partial(self._after, name)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        (layers, field, jump), name = _reach(args), func.overloadpacket.__name__
        if name == "convolution" and not args[6]:
            kernel, stride, dilation = args[1].shape[2:], args[3], args[5]
            field, jump = field + (kernel[0] - 1) * dilation[0] * jump, jump * stride[0]
        elif name in ("max_pool2d_with_indices", "avg_pool2d"):
            kernel, stride = args[1], args[2] if len(args) > 2 and args[2] else args[1]
            field, jump = field + (kernel[0] - 1) * jump, jump * stride[0]
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                tensor._reach = (layers, field, jump)  # type: ignore[attr-defined]
        return out

    def _before(self, name: str, module: nn.Module, args: Any) -> None:
        self._begun.setdefault(name, _reach(args)[0])

    def _after(self, name: str, module: nn.Module, args: Any, out: Any) -> None:
        tensors = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if not tensors:
            return
        layers, field, jump = _reach(tensors)
        if isinstance(module, _WEIGHTED):
            layers = _reach(args)[0] + 1
            tensors[0]._reach = (layers, field, jump)  # type: ignore[attr-defined]
        output, more = list(tensors[0].shape[1:]), layers - self._begun[name]
        self.seen.setdefault(name, {"output": output, "field": field, "jump": jump, "layers": more})


def _reach(values: Any) -> tuple[int, int, int]:
    """The farthest of the tensors in `values`: weight layers, receptive field and stride, in pixels."""
    found = [t._reach for t in tree_leaves(values) if isinstance(t, Tensor) and hasattr(t, "_reach")]
    layers, fields, jumps = zip(*found, strict=True) if found else ((0,), (1,), (1,))
    return max(layers), max(fields), max(jumps)


def _stages(net: nn.Module, macs: Mapping[str, int], seen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each submodule what is counted of it; a key that is zero or empty is left out.

    `params` (trainable), of which `biases` and `norms` (scale and shift); `macs`; `layers` (weight layers on the
    longest path); `weighted` (all of them) and `neurons` (their outputs); `blocks` (children); `output` (shape without
    the batch); `field` and `jump` (receptive field and stride against the input, pixels); `composition` (VGG's
    notation); whole-number attributes of the module, such as `kernel`, `stride`, `groups`, `num_heads`.
    """
    stages: dict[str, dict[str, Any]] = {
        name: {
            **dict.fromkeys(("params", "biases", "norms", "weighted", "neurons"), 0),
            "macs": macs.get(name, 0),
            "blocks": len(list(module.children())),
            **seen.get(name, {}),
            "composition": _composition(module),
            **_attributes(module),
        }
        for name, module in net.named_modules()
    }
    for name, p in net.named_parameters():  # a shared one stands there once
        holder, _, key = name.rpartition(".")
        is_norm = isinstance(net.get_submodule(holder), _NORMS)
        for above in _above(holder) if p.requires_grad else ():
            stages[above]["params"] += p.numel()
            stages[above]["norms"] += p.numel() if is_norm else 0
            stages[above]["biases"] += p.numel() if key.endswith("bias") and not is_norm else 0
    for name, module in net.named_modules():
        for above in _above(name) if isinstance(module, _WEIGHTED) else ():
            stages[above]["weighted"] += 1
            stages[above]["neurons"] += math.prod(seen[name]["output"]) if name in seen else 0
    return {name: {k: v for k, v in stage.items() if v not in (0, "")} for name, stage in stages.items()}


def _above(name: str) -> Iterator[str]:
    """A submodule's name and those of all that hold it, up to the net's own, ""."""
    yield name
    while name:
        name = name.rpartition(".")[0]
        yield name


def _attributes(module: nn.Module) -> dict[str, int]:
    """Whole-number attributes; a square kernel or stride as its side, called `kernel` and `stride`."""
    out = {}
    for key, value in vars(module).items():
        if isinstance(value, tuple) and value and all(v == value[0] for v in value):
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool) and not key.startswith("_"):
            out["kernel" if key == "kernel_size" else key] = value
    return out


def normalisations(net: nn.Module) -> list[str]:
    """The names of the modules that normalise by way of a convolution."""
    return [name for name, module in net.named_modules() if type(module).__name__ in _NORMALISATIONS]


def _composition(module: nn.Module) -> str:
    """The weight layers of a stage in the notation of VGG, arXiv 1409.1556v6, Table 1; equal blocks as [...]x3.

    conv<side>-<channels>, FC-<outputs>, g<groups> after a grouped convolution; side branches are left out.
    """
    if isinstance(module, nn.modules.conv._ConvNd):
        sides, groups = dict.fromkeys(map(str, module.kernel_size)), f"g{module.groups}" if module.groups > 1 else ""
        return f"conv{'x'.join(sides)}-{module.out_channels}{groups}"
    if isinstance(module, nn.Linear):
        return f"FC-{module.out_features}"
    if type(module).__name__ in _NORMALISATIONS:
        return type(module).__name__
    found = [(c, text) for n, c in module.named_children() if n not in _SIDE and (text := _composition(c))]
    words = []
    for text, group in itertools.groupby(found, lambda pair: pair[1]):
        members = [child for child, _ in group]
        is_block = len(members) > 1 and any(members[0].children())
        words += [f"[{text}]x{len(members)}"] if is_block else [text] * len(members)
    return " ".join(words)
