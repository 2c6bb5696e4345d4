"""A build to what can be counted without data: parameters, multiply-adds, layers.

Convention: one multiply-add is one; those of convolutions and fully connected layers for one image are counted,
and nothing of biases, normalisation, activations and pooling. Papers print this number and mostly call it FLOPs.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from . import architectures
from .errors import JobError
from .schema import Build

TOLERANCE = 0.001  # of the larger, between the two counts
# Modules, by class name, that normalise by way of a convolution: no layer, so left out of the count.
_NORMALISATIONS = ("LRN",)
_FVCORE_OPERATORS = ("conv", "linear", "addmm", "matmul", "bmm", "einsum")


def measure(build: Build, input: int) -> dict[str, Any]:
    """Counts of a build for one RGB image of `input` x `input` pixels, as plain data.

    Keys: `params` (trainable), `macs` and `macs_fvcore` (multiply-adds by two counters), `layers` (weight layers)
    and `composition` (by stage, in the notation of VGG Table 1; pooling is left out). The net is on the meta device,
    without memory for its weights. Raises ReproError for an unknown build, JobError where it does not run at that
    input or the two counters disagree.
    """
    with torch.device("meta"):
        net = architectures.make(build).eval()
        image = torch.empty(1, 3, input, input)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(image)
    except RuntimeError as e:
        raise JobError(f"{build} does not run on an input of {input} x {input}: {e}", final=True) from e
    by_module = {name.partition(".")[2]: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    operations = counter.get_total_flops() - sum(by_module.get(name, 0) for name in _normalisations(net))
    macs, macs_fvcore = operations // 2, cross_check(build, input)
    agree(build, macs, macs_fvcore)
    return {
        "params": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "macs": macs,
        "macs_fvcore": macs_fvcore,
        "layers": sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()),
        "composition": _composition(net),
    }


def cross_check(build: Build, input: int) -> int:
    """fvcore's count of multiply-adds in convolutions and fully connected layers, for one image.

    fvcore cannot trace meta tensors, so the net runs once on the CPU. Counts follow from shapes alone: each
    weight is one zero expanded to its shape, which saves the memory.
    """
    with torch.device("meta"):
        net = architectures.make(build).eval()
    for module in net.modules():
        for name, t in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            zeros = torch.zeros((), dtype=t.dtype).expand(t.shape)
            setattr(module, name, nn.Parameter(zeros, False) if isinstance(t, nn.Parameter) else zeros)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has deprecated the tracer that fvcore is written for
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(net, torch.zeros(1, 3, input, input))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_module = analysis.by_module_and_operator()
    found = {name: sum(ops[op] for op in _FVCORE_OPERATORS if op in ops) for name, ops in by_module.items()}
    return int(found[""] - sum(found[name] for name in _normalisations(net)))


def agree(build: Build, macs: int, macs_fvcore: int) -> None:
    """Raise JobError where two counts of a build differ by more than 0.1 %."""
    if abs(macs - macs_fvcore) > TOLERANCE * max(macs, macs_fvcore):
        raise JobError(f"{build}: the flop counter says {macs} multiply-adds, fvcore {macs_fvcore}", final=True)


def _normalisations(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if type(module).__name__ in _NORMALISATIONS]


def _composition(net: nn.Module) -> dict[str, list[str]]:
    """The layers of each named child of `features` and `classifier`, or of the net itself, that holds some."""
    parts = [part for part in (getattr(net, "features", None), getattr(net, "classifier", None)) if part is not None]
    words = {name: _words(child) for part in parts or [net] for name, child in part.named_children()}
    return {name: found for name, found in words.items() if found}


def _words(stage: nn.Module) -> list[str]:
    """The layers of a stage in the notation of VGG, arXiv 1409.1556v6, Table 1: conv<side>-<channels>, FC-<outputs>."""
    words = []
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            side = f"{height}" if height == width else f"{height}x{width}"
            words.append(f"conv{side}-{module.out_channels}")
        elif isinstance(module, nn.Linear):
            words.append(f"FC-{module.out_features}")
        elif type(module).__name__ in _NORMALISATIONS:
            words.append(type(module).__name__)
    return words
