"""One training, from a net and a recipe to weights on disk, that goes on where it was stopped."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from scipy.special import bdtr
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from ..data import Images
from ..errors import JobError
from ..files import write_whole
from .augment import Batches, Sampler
from .recipe import Initialiser, copy_weights, optimizer, schedule, set_dropout


def fit(
    net: nn.Module,
    spec: Mapping[str, Any],
    images: Images,
    out: Path,
    validate: Callable[[nn.Module], float],
    start: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
    val_images: int | None = None,
) -> dict[str, Any]:
    """Train `net` by `spec["recipe"]` and write `weights.safetensors` and `log.jsonl` into `out`.

    `validate` gives the error of a net in percent, `val_images` of how many images; `start` holds
    what `spec["copy"]` names. A line of the log is an epoch; its training error is that of the
    augmented images as they were seen. `checkpoint.pt` lets a stopped training go on to the same
    bits. Returns val_error and train_error in percent, epochs, loss. Raises JobError, final, for
    a loss that is no number and for a net that has not learnt.
    """
    recipe, seed = spec["recipe"], spec["seed"]
    with _numerics(recipe["threads"]):
        sampler = Sampler.of(spec, len(images.labels))
        batches = Batches(images.images, images.labels, sampler, recipe["scale"])
        Initialiser.of(recipe["init"])(net, seed)
        if start is not None:
            copy_weights(net, start, spec["copy"])
        set_dropout(net, recipe["dropout"])
        run = _Run(net, batches, recipe, device)
        log = run.resume(out)
        while len(log) < sampler.epochs:
            began, epoch = time.perf_counter(), len(log)
            rate = run.optimizer.param_groups[0]["lr"]
            # For dropout: a resumed epoch draws the same, and no two epochs of any seeds share a state.
            torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1))
            loss, train_error = run.epoch(epoch)
            net.eval()
            val_error = float(validate(net))
            if isinstance(run.schedule, ReduceLROnPlateau):
                run.schedule.step(val_error)
            line = {"epoch": epoch, "lr": rate, "loss": loss, "train_error": train_error, "val_error": val_error}
            log.append({**line, "seconds": round(time.perf_counter() - began, 3)})
            run.save(out, log)
    last = log[-1]
    check_learnt(last["val_error"], spec["classes"], recipe["bar"], len(log), val_images)
    metadata = {"mean": json.dumps(batches.mean.tolist()), "scale": json.dumps(batches.scale)}
    _write_weights(net, out / "weights.safetensors", metadata)
    return {k: last[k] for k in ("val_error", "train_error", "loss")} | {"epochs": len(log)}


def check_learnt(error: float, classes: int, bar: float, epochs: int, images: int | None) -> None:
    """Raise JobError, final, for a validation error (percent) above `bar` times the chance error.

    So too, where the number of images is known, for one no better than chance (binomial, 1e-6).
    """
    told = f"has not learnt: validation error {error:.1f} % after {epochs} epochs"
    chance = 1 - 1 / classes
    if not error <= bar * chance * 100:  # NaN is below no bar
        raise JobError(f"{told}, the bar is {bar * chance * 100:g} %", final=True)
    if images and not bdtr(round(error / 100 * images), images, chance) < 1e-6:
        raise JobError(f"{told} of {images} images, no better than chance ({chance * 100:g} %)", final=True)


class _Run:
    """What changes during a training, and its checkpoint."""

    def __init__(self, net: nn.Module, batches: Batches, recipe: Mapping[str, Any], device: str) -> None:
        self.memory = torch.channels_last if recipe["memory_format"] == "channels_last" else torch.contiguous_format
        self.net = net.to(device).to(memory_format=self.memory)
        self.batches, self.device, self.clip = batches, torch.device(device), recipe["clip"]
        self.bfloat16 = recipe["dtype"] == "bfloat16"
        self.optimizer = optimizer(net, recipe["optimizer"])
        self.schedule = schedule(self.optimizer, recipe["schedule"], batches.sampler.iterations)
        self.parts: dict[str, Any] = {"model": net, "optimizer": self.optimizer, "schedule": self.schedule}

    def epoch(self, epoch: int) -> tuple[float, float]:
        """One pass over the training set: mean loss, and error in percent. Raises JobError for NaN."""
        self.net.train()
        loss_sum, wrong = 0.0, 0
        for x, y in self.batches.epoch(epoch):
            x, y = x.to(self.device).contiguous(memory_format=self.memory), y.to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                logits = self.net(x).float()
            loss = F.cross_entropy(logits, y)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
            self.optimizer.step()
            if isinstance(self.schedule, OneCycleLR):
                self.schedule.step()
            if not math.isfinite(value := loss.item()):
                raise JobError(f"diverged: the loss is {value} in epoch {epoch + 1}", final=True)
            loss_sum += value * len(y)
            wrong += int((logits.argmax(1) != y).sum())
        images = self.batches.sampler.images
        return loss_sum / images, 100 * wrong / images

    def save(self, out: Path, log: list[dict[str, Any]]) -> None:
        """Write the log and the checkpoint, each whole or not at all, the checkpoint last."""
        lines = "".join(json.dumps(line) + "\n" for line in log)
        write_whole(out / "log.jsonl", lines)
        state = {name: part.state_dict() for name, part in self.parts.items()}
        write_whole(out / "checkpoint.pt", lambda file: torch.save({**state, "log": log}, file))

    def resume(self, out: Path) -> list[dict[str, Any]]:
        """Take up the checkpoint, if there is one, and return its log; else an empty one."""
        if not (out / "checkpoint.pt").exists():
            return []
        state = torch.load(out / "checkpoint.pt", map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return list(state["log"])


def _write_weights(net: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    state = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in net.state_dict().items()}
    content = save(state, metadata)
    # The library orders the metadata by chance; sorted, the same weights are the same bytes.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    write_whole(path, lambda file: file.write(len(header).to_bytes(8, "little") + header + content[end:]))


@contextlib.contextmanager
def _numerics(threads: int) -> Iterator[None]:
    """Deterministic arithmetic in full float32 on so many threads; put back afterwards."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA asks for
    memory: Any = torch.utils.deterministic
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill, tf32 = memory.fill_uninitialized_memory, torch.backends.cudnn.allow_tf32
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # costs time, and finds bugs that do not change a value here
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        memory.fill_uninitialized_memory, torch.backends.cudnn.allow_tf32 = fill, tf32
