"""Weights for tests of single nets: signals of one size through any depth, no statistic of a new net."""

from __future__ import annotations

import torch
from torch import nn


def fill(net: nn.Module) -> None:
    """Weights that keep signals of unit size through any depth; small biases."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in net.named_parameters():
            bound = 0.1 if name.endswith("bias") else (6 / p[0].numel()) ** 0.5
            p.uniform_(-bound, bound, generator=generator)


def fill_all(net: nn.Module) -> None:
    """Weights that keep signals of unit size through any depth, and statistics that are not trivial."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, t in net.state_dict().items():
            if not t.is_floating_point():
                continue
            low, high = (0.8, 1.2) if name.endswith(("running_var", "norm.weight")) else (-0.1, 0.1)
            bound = (6 / t[0].numel()) ** 0.5 if t.dim() > 1 else 0.0
            t.uniform_(-bound or low, bound or high, generator=generator)


def stir(net: nn.Module) -> None:
    """Scales, shifts and statistics of BN that are not those of a new net."""
    generator = torch.Generator().manual_seed(0)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t in (m.weight.data, m.running_var):
                t.uniform_(0.5, 1.5, generator=generator)
            for t in (m.bias.data, m.running_mean):
                t.uniform_(-0.2, 0.2, generator=generator)
