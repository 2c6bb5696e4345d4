"""The processes of one training under `torchrun`: what each takes, and what they add up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Group:
    """Process `rank` of `size`, and its device. Alone, it adds nothing up."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @classmethod
    def begin(cls, device: str) -> Group:
        """That of this process, as `torchrun` tells in the environment: gloo on CPUs, nccl on GPUs."""
        size, gpu = int(os.environ.get("WORLD_SIZE", "1")), device.startswith("cuda")
        if size == 1:
            return cls(device=device)
        if gpu:
            torch.cuda.set_device(device := f"cuda:{os.environ['LOCAL_RANK']}")
        if not dist.is_initialized():
            dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(hours=1))
        return cls(dist.get_rank(), size, device)

    def sum(self, values: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(values := values.to(self.device).clone())
        return values

    def add_gradients(self, net: nn.Module) -> None:
        """Sum the gradients over all processes, in one piece.

        torch's DistributedDataParallel regroups its pieces after the first step: a resumed training would add in
        another order than one that ran through.
        """
        if self.size == 1:
            return
        parameters = [p for p in net.parameters() if p.requires_grad]
        there = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        dist.all_reduce(flat := torch.cat([there, *(grad.flatten() for grad in grads)]))
        there, *parts = torch.split(flat, [len(parameters), *(p.numel() for p in parameters)])
        for i, (p, grad, part) in enumerate(zip(parameters, grads, parts, strict=True)):
            # What no process used has no gradient, rather than one of zero: the optimiser passes it by.
            p.grad = None if p.grad is None and not there[i] else grad.copy_(part.view_as(grad))


def reading_workers() -> int:
    """Processes that decode for one training: REPRO_WORKERS, else this process's share of the cores, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(os.environ.get("REPRO_WORKERS", min(16, max(1, share))))
