"""What changes during a training: weights, rates, averages, generators; its steps, and its checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import JobError
from ..fields import Recipe
from ..files import write_whole
from .augment import Batch
from .parallel import Group
from .recipe import optimizer, schedule

PLACE = ("log", "done", "seconds", "wait", "rate", "generators", "total")  # where a training stands in its epochs


class Run:
    """A training under way: `log` has a line for each epoch that is done, `done` counts the steps of the next."""

    def __init__(self, net: nn.Module, batches: Any, recipe: Recipe, classes: int, seed: int, group: Group) -> None:
        self.device, self.group = torch.device(group.device), group
        self.memory = torch.channels_last if recipe.memory_format == "channels_last" else torch.contiguous_format
        self.net = net.to(self.device).to(memory_format=self.memory)
        self.forward = torch.compile(net) if recipe.compile else net
        self.batches, self.recipe, self.classes, self.seed = batches, recipe, classes, seed
        self.optimizer = optimizer(net, recipe.optimizer)
        sampler = batches.sampler
        self.schedule = schedule(self.optimizer, recipe.schedule, sampler.iterations, sampler.per_epoch)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.dtype == "float16")
        self.parts: dict[str, Any] = {"model": net, "optimizer": self.optimizer}
        self.parts |= {"schedule": self.schedule, "scaler": self.scaler}
        self.average: AveragedModel | None = None
        if recipe.ema or recipe.polyak is not None:
            rule: Any = get_ema_multi_avg_fn(recipe.ema) if recipe.ema else None  # type: ignore[no-untyped-call]
            self.average = self.parts["average"] = AveragedModel(net, multi_avg_fn=rule, use_buffers=True)
        self.mixup: Any = None
        if recipe.mixup:
            from torchvision.transforms.v2 import MixUp

            self.mixup = MixUp(alpha=recipe.mixup, num_classes=classes)
        self.scale = recipe.scale if isinstance(recipe.scale, float) else torch.tensor(recipe.scale).to(self.device)
        self.log: list[dict[str, Any]] = []
        self.begin_epoch()

    def begin_epoch(self) -> None:
        self.done, self.seconds, self.wait, self.rate = 0, 0.0, 0.0, self.optimizer.param_groups[0]["lr"]
        self.generators: list[torch.Tensor] = []
        # The losses' sum, wrong answers, images, and images that could not be read: of this process, and of all.
        self.sums = self.total = torch.zeros(4, dtype=torch.float64, device=self.device)

    @property
    def kept(self) -> nn.Module:
        """The net whose weights are validated and written: the average, once there is one."""
        return self.average.module if self.average is not None and self.average.n_averaged > 0 else self.net

    def epoch(self, out: Path, minutes: float) -> dict[str, Any]:
        """One pass over the training set, or the rest of it, and its line of the log. Raises JobError."""
        epoch, sampler, group = len(self.log), self.batches.sampler, self.group
        self.net.train()
        order = sampler.order(epoch)
        steps = [(len(batch), sampler.slices(batch, group.rank, group.size)) for batch in order[self.done :]]
        feed = self.batches.epoch(epoch, [index for _, parts in steps for _, index in parts])
        # For dropout: a resumed epoch draws the same, and no two epochs of any seeds share a state.
        _seed(self.seed, epoch)
        if self.generators:
            torch.set_rng_state(self.generators[0])
            torch.cuda.set_rng_state_all(self.generators[1:])
        saved = mark = time.perf_counter()
        for size, parts in steps:
            self._step(epoch, size, parts, feed)
            self.done += 1
            now = time.perf_counter()
            self.seconds, mark = self.seconds + now - mark, now
            if self.device.type == "cpu" or self.done % 50 == 0 or self.done == len(order):  # a GPU is not to wait
                self.total = group.sum(self.sums)
                if not math.isfinite(value := float(self.total[0])):
                    raise JobError(f"diverged: the loss is {value} in epoch {epoch + 1}", final=True)
                if now - saved > 60 * minutes and self.done < len(order):
                    gpus = torch.cuda.get_rng_state_all() if self.device.type == "cuda" else []
                    self.generators = [torch.get_rng_state(), *gpus]
                    self.save(out)
                    saved = time.perf_counter()
        loss, wrong, images, left_out = (float(v) for v in self.total)
        if not images:
            raise JobError("none of the training images can be read")
        loss, chance = loss / images, math.log(self.classes) * (1 + self.recipe.aux)
        if self.log and loss > max(3 * chance, self.log[-1]["loss"]):
            told = f"diverged: the loss is {loss:.3g} in epoch {epoch + 1}, that of guessing is {chance:.3g}"
            raise JobError(told, final=True)
        line = {"epoch": epoch, "lr": self.rate, "loss": loss, "train_error": 100 * wrong / images}
        line |= {"seconds": self.seconds, "images_per_second": round(images / self.seconds, 1)}
        line |= {"wait": round(self.wait / self.seconds, 4)} | ({"left_out": int(left_out)} if left_out else {})
        if self.device.type == "cuda":
            line["gpu_memory_gb"] = round(torch.cuda.max_memory_allocated(self.device) / 2**30, 3)
        return line

    def _step(self, epoch: int, size: int, parts: list[tuple[int, np.ndarray]], feed: Iterator[Batch]) -> None:
        """One batch of `size` images, of which this process takes `parts`: gradients, weights, rate, average."""
        recipe, group = self.recipe, self.group
        layers = [m for m in self.net.modules() if recipe.bn_batch and isinstance(m, _BatchNorm)]
        running = [t for layer in layers for t in layer.buffers()]
        before, after = [t.clone() for t in running], [torch.zeros_like(t, dtype=torch.float64) for t in running]
        self.optimizer.zero_grad()
        for number, _ in parts:
            begun = time.perf_counter()
            batch = next(feed)
            self.wait += time.perf_counter() - begun
            if recipe.bn_batch:
                _seed(self.seed, epoch, self.done + 1, number + 1)
            if len(batch.labels):
                self._backward(batch, size)
            for tensor, old, total in zip(running, before, after, strict=True):
                total += tensor
                tensor.copy_(old)
            for text in batch.left_out if epoch == 0 else ():
                print(f"left out: {text}", flush=True)
            self.sums[3] += len(batch.left_out)
        group.add_gradients(self.net)
        # BN's statistics move once a batch, by the mean over its parts, whatever process saw them.
        if running:
            moved = group.sum(torch.cat([t.flatten() for t in after])) / math.ceil(size / recipe.bn_batch)
            for tensor, values in zip(running, torch.split(moved, [t.numel() for t in running]), strict=True):
                tensor.copy_(values.view_as(tensor))
        self.scaler.unscale_(self.optimizer)
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()
        if self.average is not None and epoch >= (recipe.polyak or 0):
            self.average.update_parameters(self.net)

    def _backward(self, batch: Batch, size: int) -> None:
        """Gradients of a part of a batch of `size` images, on top of those that are there.

        An image that could not be read counts as one without a gradient: so it does in any number of processes.
        """
        recipe, n = self.recipe, len(batch.labels)
        x = batch.pixels(self.scale, self.device).contiguous(memory_format=self.memory)
        y = batch.labels.to(self.device, non_blocking=True)
        x, target = self.mixup(x, y) if self.mixup else (x, y)
        with torch.autocast(self.device.type, getattr(torch, recipe.dtype), enabled=recipe.dtype != "float32"):
            found = self.forward(x)
        logits, *others = (o.float() for o in (found if isinstance(found, tuple | list) else [found]))
        loss = F.cross_entropy(logits, target, label_smoothing=recipe.label_smoothing)
        for other in others if recipe.aux else ():
            loss = loss + recipe.aux * F.cross_entropy(other, target, label_smoothing=recipe.label_smoothing)
        self.scaler.scale(loss if n == size else loss * (n / size)).backward()  # type: ignore[no-untyped-call]
        self.sums[0] += loss.detach().double() * n
        self.sums[1] += (logits.argmax(1) != y).sum()
        self.sums[2] += n

    def save(self, out: Path) -> None:
        """Write the log and the checkpoint, each whole or not at all, the checkpoint last; the first process does."""
        if self.group.rank == 0:
            write_whole(out / "log.jsonl", "".join(json.dumps(line) + "\n" for line in self.log))
            state: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
            state |= {name: getattr(self, name) for name in PLACE}
            write_whole(out / "checkpoint.pt", lambda file: torch.save(state, file))

    def resume(self, out: Path) -> None:
        """Take up the checkpoint, if there is one."""
        if (out / "checkpoint.pt").exists():
            state = torch.load(out / "checkpoint.pt", map_location="cpu", weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            for name in PLACE:
                setattr(self, name, state[name])
            self.sums = self.total.to(self.device) * (self.group.rank == 0)


def _seed(*words: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1))
