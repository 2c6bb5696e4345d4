"""One training, from a net and a recipe to weights on disk, that goes on where it was stopped."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import JobError
from . import recipe as words
from .augment import Augment, Batches, Order, sizes


class Images(Protocol):
    """What `fit` needs of a data set: images (N, H, H, 3) uint8 RGB, labels (N,) from 0."""

    @property
    def images(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...


def fit(
    net: nn.Module,
    spec: Mapping[str, Any],
    images: Images,
    out: Path,
    validate: Callable[[nn.Module], float],
    start: Mapping[str, Tensor] | None = None,
    progress: Callable[[dict[str, Any]], None] = lambda line: None,
    device: str = "cpu",
    val_images: int | None = None,
) -> dict[str, Any]:
    """Train `net` by `spec["recipe"]` and write `weights.safetensors` and `log.jsonl` into `out`.

    `validate` gives the error of a net in percent; with `val_images`, the number of images
    behind it, the net must also beat chance (binomial, 1e-6). `start` holds the weights that
    `spec["copy"]` names. A line of the log, and of `progress`, is an epoch; its training error
    is that of the augmented images as they were seen. `out/checkpoint.pt` lets a stopped
    training go on to the same bits. Returns val_error and train_error in percent, epochs, loss.

    Raises JobError, final, for a loss that is no number and for a net that has not learnt.
    """
    recipe, seed, classes = spec["recipe"], int(spec["seed"]), int(spec["classes"])
    with _numerics(recipe, device):
        order = Order(len(images.labels), int(recipe["batch"]), int(recipe["epochs"]), seed)
        batches = Batches(images.images, images.labels, augmenter(spec), order, float(recipe.get("scale", 1)))
        words.Initialiser.of(recipe["init"])(net, seed)
        if start is not None:
            words.Copy(tuple(spec["copy"]))(net, start)
        words.set_dropout(net, recipe["dropout"])
        net.to(device).to(memory_format=_memory_format(recipe))
        run = _Run(net, batches, recipe, device)
        log = run.resume(out)
        while len(log) < order.epochs:
            began, epoch = time.perf_counter(), len(log)
            rate = run.optimizer.param_groups[0]["lr"]
            torch.manual_seed(_mix(seed, epoch))  # for dropout: a resumed epoch draws the same
            loss, train_error = run.epoch(epoch)
            net.eval()
            val_error = float(validate(net))
            run.schedule.epoch_done(val_error)
            line = {"epoch": epoch, "lr": rate, "loss": loss, "train_error": train_error, "val_error": val_error}
            log.append({**line, "seconds": round(time.perf_counter() - began, 3)})
            run.save(out, log)
            progress(log[-1])
    last = log[-1]
    check_learnt(last["val_error"], classes, recipe.get("bar"), len(log), val_images)
    mean = [float(v) for v in batches.statistics.mean]
    _write_weights(net, out / "weights.safetensors", {"mean": json.dumps(mean), "scale": json.dumps(batches.scale)})
    return {k: last[k] for k in ("val_error", "train_error", "loss")} | {"epochs": len(log)}


def augmenter(spec: Mapping[str, Any]) -> Augment:
    """The augmentation of a job; `spec["S"]` is one scale or the two ends of a range."""
    augment = spec["recipe"]["augment"]
    return Augment(sizes(spec["S"], augment), int(spec["input"]), float(augment["flip"]), float(augment["colour"]))


def check_learnt(error: float, classes: int, bar: float | None, epochs: int, images: int | None) -> None:
    """Raise JobError, final, for a validation error (percent) above the bar or no better than chance.

    The bar is `bar` times the chance error; None is no bar. Chance needs the number of images.
    """
    told = f"has not learnt: validation error {error:.1f} % after {epochs} epochs"
    chance = 1 - 1 / classes
    if bar is not None and not error <= bar * chance * 100:
        raise JobError(f"{told}, the bar is {bar * chance * 100:g} %", final=True)
    if images:
        from scipy.special import bdtr

        if not bdtr(round(error / 100 * images), images, chance) < 1e-6:
            raise JobError(f"{told} of {images} images, no better than chance ({chance * 100:g} %)", final=True)


class _Run:
    """What changes during a training, and its checkpoint."""

    def __init__(self, net: nn.Module, batches: Batches, recipe: Mapping[str, Any], device: str) -> None:
        self.net, self.batches, self.device, self.clip = net, batches, device, recipe.get("clip")
        self.channels_last = _memory_format(recipe) is torch.channels_last
        self.bfloat16 = recipe["dtype"] == "bfloat16"
        self.optimizer = words.optimizer(net, recipe["optimizer"])
        self.schedule = words.schedule(self.optimizer, recipe["schedule"], batches.order.iterations)

    def epoch(self, epoch: int) -> tuple[float, float]:
        """One pass over the training set: mean loss, and error in percent. Raises JobError for NaN."""
        self.net.train()
        total, wrong, seen = 0.0, 0, 0
        for x, y in self.batches.epoch(epoch):
            x, y = x.to(self.device), y.to(self.device)
            with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16):
                logits = self.net(x if self.channels_last else x.contiguous())
            logits = logits.float()
            loss = F.cross_entropy(logits, y)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.batch_done()
            if not math.isfinite(value := loss.item()):
                raise JobError(f"diverged: the loss is {value} in epoch {epoch + 1}", final=True)
            total, seen = total + value * len(y), seen + len(y)
            wrong += int((logits.argmax(1) != y).sum())
        return total / seen, 100 * wrong / seen

    def save(self, out: Path, log: list[dict[str, Any]]) -> None:
        """Write the log and the checkpoint, each whole or not at all, the checkpoint last."""
        _replace(out / "log.jsonl", lambda p: p.write_text("".join(json.dumps(line) + "\n" for line in log)))
        state = {
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "log": log,
        }
        _replace(out / "checkpoint.pt", lambda p: torch.save(state, p))

    def resume(self, out: Path) -> list[dict[str, Any]]:
        """Take up the checkpoint, if there is one, and return its log; else an empty one."""
        path = out / "checkpoint.pt"
        if not path.exists():
            return []
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.net.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        return list(state["log"])


def _mix(seed: int, epoch: int) -> int:
    """One seed from two numbers, so that no two epochs of any seeds share one."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)


def _memory_format(recipe: Mapping[str, Any]) -> torch.memory_format:
    return torch.channels_last if recipe.get("memory_format") == "channels_last" else torch.contiguous_format


def _write_weights(net: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    state = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in net.state_dict().items()}
    content = save(state, metadata)
    # The library orders the metadata by chance; sorted, the same weights are the same bytes.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    _replace(path, lambda p: p.write_bytes(len(header).to_bytes(8, "little") + header + content[end:]))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def _numerics(recipe: Mapping[str, Any], device: str) -> Iterator[None]:
    """Deterministic arithmetic in full float32 on the recipe's threads; put back afterwards."""
    if device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill, tf32 = memory.fill_uninitialized_memory, torch.backends.cudnn.allow_tf32
    torch.set_num_threads(int(recipe.get("threads", 1)))
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # costs time, and finds bugs that do not change a value here
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.allow_tf32 = tf32
