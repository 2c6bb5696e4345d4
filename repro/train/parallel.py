"""The processes of one training under `torchrun`: what each takes, and what they add up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import JobError


@dataclass(frozen=True)
class Group:
    """Process `rank` of `size`, and its device. Alone, it adds nothing up."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @classmethod
    def begin(cls, device: str) -> Group:
        """That of this process, as `torchrun` tells in the environment: gloo on CPUs, nccl on GPUs."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls(device=device)
        gpu = device.startswith("cuda")
        if gpu:
            torch.cuda.set_device(device := f"cuda:{os.environ['LOCAL_RANK']}")
        if not dist.is_initialized():
            dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(hours=1))
        return cls(dist.get_rank(), size, device)

    def part(self, count: int) -> np.ndarray:
        """The numbers of this process's images of `count`: parts that differ by one at most, none padded."""
        return np.array_split(np.arange(count), self.size)[self.rank]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            dist.all_reduce(values := values.to(self.device).clone())
        return values

    def from_first(self, value: Any) -> Any:
        """The first process's value, plain data, in all of them."""
        if self.size > 1:
            dist.broadcast_object_list(box := [value], device=torch.device(self.device))
            return box[0]
        return value

    def add_gradients(self, net: nn.Module) -> None:
        """Sum the gradients over all processes, in one piece: the order of adding never depends on what came before.

        (torch's DistributedDataParallel puts its pieces together anew after the first step, so that a training
        that was resumed would add in another order than one that ran through.)
        """
        if self.size == 1:
            return
        parameters = [p for p in net.parameters() if p.requires_grad]
        there = torch.tensor([p.grad is not None for p in parameters], device=self.device)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([there.to(grads[0].dtype), *(grad.flatten() for grad in grads)])
        dist.all_reduce(flat)
        count, *parts = torch.split(flat, [len(parameters), *(p.numel() for p in parameters)])
        for i, (p, grad, part) in enumerate(zip(parameters, grads, parts, strict=True)):
            # What no process used has no gradient, rather than one of zero: the optimiser passes it by.
            p.grad = None if p.grad is None and not count[i] else grad.copy_(part.view_as(grad))

    def add_statistics(self, net: nn.Module, before: list[Tensor]) -> None:
        """Make the running statistics of BN those of one process that saw all parts of the batch in their order.

        `before` are those of `statistics` before the batch. A process that saw k parts turned r into
        a * r + c, a = (1 - momentum)^k; the turns of all processes follow one another.
        """
        layers = _norms(net)
        if self.size == 1 or not layers:
            return
        was, now = _flat(before), _flat(statistics(net))
        all_now = [torch.empty_like(now) for _ in range(self.size)]
        dist.all_gather(all_now, now)
        sizes = torch.tensor([t.numel() for t in before], device=now.device)
        counts = torch.tensor([i % 3 == 2 for i in range(len(before))], device=now.device).repeat_interleave(sizes)
        keep = torch.tensor([1 - (layer.momentum or 0) for layer in layers for _ in range(3)], device=now.device)
        total = was
        for other in all_now:
            parts = (other - was)[counts].repeat_interleave(3)
            kept = (keep**parts).repeat_interleave(sizes)
            total = torch.where(counts, total + other - was, other + kept * (total - was))
        for tensor, value in zip(statistics(net), torch.split(total, sizes.tolist()), strict=True):
            tensor.copy_(value.view_as(tensor))


def statistics(net: nn.Module) -> list[Tensor]:
    """Of each BN layer the running mean, the running variance, and how many batches they have seen."""
    found: list[Any] = [t for n in _norms(net) for t in (n.running_mean, n.running_var, n.num_batches_tracked)]
    return found


def _norms(net: nn.Module) -> list[_BatchNorm]:
    return [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in tensors])


def check_divisible(net: nn.Module, group: Group, together: int, mixed: bool) -> None:
    """Raise JobError where the result would depend on the number of processes."""
    if group.size == 1 or together:
        return
    for layer in net.modules():
        chance = getattr(layer, "p", 1) if "drop" in type(layer).__name__.lower() else 0
        if isinstance(layer, _BatchNorm) or chance or "Stochastic" in type(layer).__name__ or mixed:
            name = "mixup" if mixed else type(layer).__name__
            raise JobError(
                f"with {name} the result would depend on the number of processes; say in the recipe how many images "
                "go through the net together, e.g. -o recipe.bn_batch=32, or train with one process"
            )
