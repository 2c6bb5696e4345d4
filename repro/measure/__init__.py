"""A build to what can be counted without data: parameters, multiply-adds, layers, shapes, fields, by stage.

Convention: one multiply-add is one; those of convolutions, fully connected layers and attention for one image
are counted, and nothing of biases, normalisation, activations and pooling. Papers print this number and mostly
call it FLOPs. A stage is a submodule by its name; the net itself is the stage "".
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from .. import architectures
from ..errors import JobError
from ..schema import Build
from .stages import count, normalisations

TOLERANCE = 0.001  # of the larger, between the two counts
TRACED = 25_000_000_000  # multiply-adds of the largest net that fvcore is given: it has to run it
_FVCORE_OPERATORS = ("conv", "linear", "addmm", "matmul", "bmm", "einsum")


def measure(build: Build, input: int) -> dict[str, Any]:
    """Counts of a build for one image of `input` x `input` pixels, as plain data.

    Keys: `stages`, by the name of each submodule, "" being the net; `macs_fvcore`, multiply-adds by a second
    counter, None for the largest nets; `causes`, what fvcore leaves out, by the reason. The net is on the meta
    device, without memory for its weights. Raises ReproError for an unknown build, JobError where it does not run
    at that input or the two counters disagree.
    """
    with torch.device("meta"):
        net = architectures.make(build).eval()
    try:
        stages, fused = count(net, input)
    except (RuntimeError, AssertionError, ValueError) as e:
        raise JobError(f"{build} does not run on an input of {input} x {input}: {e}", final=True) from e
    macs, macs_fvcore = stages[""].get("macs", 0), None
    causes = {"fvcore does not count scaled_dot_product_attention": fused} if fused else {}
    if macs > TRACED:
        causes = {"too large to be run by fvcore": macs}
    else:
        macs_fvcore = cross_check(net, input)
        agree(build, macs, macs_fvcore + fused)
    return {"macs_fvcore": macs_fvcore, "causes": causes, "stages": stages}


def cross_check(net: nn.Module, input: int) -> int:
    """fvcore's count of multiply-adds in convolutions and fully connected layers, for one image.

    fvcore cannot trace meta tensors, so `net` runs once on the CPU, each weight one zero expanded to its shape.
    """
    for module in net.modules():
        for name, t in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            zeros = torch.zeros((), dtype=t.dtype).expand(t.shape)
            setattr(module, name, nn.Parameter(zeros, False) if isinstance(t, nn.Parameter) else zeros)
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator, of which fvcore sees nothing
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has deprecated the tracer that fvcore is written for
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(net, architectures.example(net, input))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        by_module = analysis.by_module_and_operator()
    found = {name: sum(ops[op] for op in _FVCORE_OPERATORS if op in ops) for name, ops in by_module.items()}
    return int(found[""] - sum(found.get(name, 0) for name in normalisations(net)))


def agree(build: Build, macs: int, macs_fvcore: int) -> None:
    """Raise JobError where two counts of a build differ by more than 0.1 %."""
    if abs(macs - macs_fvcore) > TOLERANCE * max(macs, macs_fvcore):
        raise JobError(f"{build}: the flop counter says {macs} multiply-adds, fvcore {macs_fvcore}", final=True)
