"""One training, from a net and a recipe to weights on disk, that goes on where it was stopped."""

from __future__ import annotations

import contextlib
import json
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
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..data import ImageSet, Unreadable
from ..errors import JobError
from ..fields import Recipe
from ..files import write_whole
from .augment import Arrays, Sampler, colours, statistics
from .parallel import Group, check_divisible
from .recipe import Initialiser, copy_weights, set_dropout
from .run import Run

SAMPLE = 10_000  # images, evenly spaced, that the colours of a larger set read from files are taken from
MINUTES = float(os.environ.get("REPRO_CHECKPOINT_MINUTES", "10"))  # between two checkpoints within an epoch


def fit(
    net: nn.Module,
    spec: Mapping[str, Any],
    images: ImageSet,
    out: Path,
    validate: Callable[[nn.Module], float],
    start: Mapping[str, Tensor] | None = None,
    group: Group | None = None,
    val_images: int | None = None,
    minutes: float = MINUTES,
) -> dict[str, Any]:
    """Train `net` by `spec["recipe"]` and write `weights.safetensors` and `log.jsonl` into `out`.

    `validate` gives the error of a net in percent, `val_images` of how many images; `start` holds
    what `spec["copy"]` names. A line of the log is an epoch; its training error is that of the
    augmented images as they were seen, `wait` the share of the time in which nothing was done for want of images.
    `checkpoint.pt`, written after each epoch and every so many `minutes`, lets a training that was killed go on to
    the same bits. Returns val_error and train_error in percent, epochs, loss. Raises JobError, final, for
    a loss that is no number or far above chance, and for a net that has not learnt.

    Several processes (`group`) train as one does, each on its part of every batch: to rounding, for gradients are
    added in another order. That cannot be so where what an image does depends on those beside it (BN, mixup) or on
    a common generator (dropout), unless the recipe's `bn_batch` fixes which go through the net together: then
    the generator is set anew for each such part, and running statistics follow one another as in one process.
    Measured after 9 batches of 16 images in two processes and in one, on a net of three layers, the largest
    difference as a share of a tensor's largest weight: 2e-7 without BN and dropout; 1.0 with BN over 8 images
    in place of 16, 0.35 with dropout, which is why such are refused; 7e-8 with both and `bn_batch` 8.
    """
    recipe, seed, group = Recipe.of(spec["recipe"]), spec["seed"], group or Group()
    with _numerics(recipe):
        sampler = Sampler.of(spec, len(images.labels))
        Initialiser.of(recipe.init)(net, seed)
        if start is not None:
            copy_weights(net, start, spec["copy"])
        set_dropout(net, recipe.dropout)
        check_divisible(net, group, recipe.bn_batch, recipe.mixup > 0)
        mean, shift = colours_of(images, spec["recipe"], out, group)
        batches = _batches(images, sampler, recipe, mean, shift, group)
        run = Run(net, batches, recipe, spec["classes"], seed, group)
        run.resume(out)
        while len(run.log) < sampler.epochs:
            line = run.epoch(out, minutes)
            begun = time.perf_counter()
            run.kept.eval()
            line["val_error"] = float(validate(run.kept))
            if isinstance(run.schedule, ReduceLROnPlateau):
                run.schedule.step(line["val_error"])
            line["seconds"] = round(line["seconds"] + time.perf_counter() - begun, 3)
            run.end_epoch(line, out)
    log = run.log
    last = log[-1]
    check_learnt(last["val_error"], spec["classes"], recipe.bar, len(log), val_images)
    if group.rank == 0:
        scale = json.dumps(recipe.scale)
        _write_weights(run.kept, out / "weights.safetensors", {"mean": json.dumps(mean.tolist()), "scale": scale})
    left_out = {"left_out": last["left_out"]} if "left_out" in last else {}
    return {k: last[k] for k in ("val_error", "train_error", "loss")} | {"epochs": len(log)} | left_out


def colours_of(images: ImageSet, recipe: Mapping[str, Any], out: Path, group: Group) -> tuple[np.ndarray, np.ndarray]:
    """What is taken off the pixels (3,), and the map of draws to shifts of colour (3, 3).

    Of all images in memory, or of SAMPLE files; kept in `out`, so that going on does not read them again.
    """
    path, count = out / "colours.json", len(images.labels)
    if group.rank == 0 and not path.exists():
        found = statistics(_readable(images, count if hasattr(images, "images") else min(SAMPLE, count)))
        write_whole(path, json.dumps([part.tolist() for part in found]))
    mean, covariance = (np.array(v) for v in group.from_first(group.rank == 0 and json.loads(path.read_text())))
    return np.array(recipe.get("mean") or mean), colours(covariance)


def _readable(images: ImageSet, count: int) -> Iterator[np.ndarray]:
    for i in np.linspace(0, len(images.labels) - 1, count).astype(int):
        with contextlib.suppress(Unreadable):
            yield images[i]


def _batches(images: Any, sampler: Sampler, recipe: Recipe, mean: np.ndarray, shift: np.ndarray, group: Group) -> Any:
    """From memory where the images are there and need no more than a window of them, else by `stream`."""
    augment = recipe.augment
    if hasattr(images, "images") and augment.crop != "area" and not (augment.jitter or augment.randaugment):
        return Arrays(images.images, images.labels, sampler, mean, shift)
    from .stream import Stream

    return Stream(images, sampler, augment, mean, shift, group.device != "cpu")


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


def _write_weights(net: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    state = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in net.state_dict().items()}
    content = save(state, metadata)
    # The library orders the metadata by chance; sorted, the same weights are the same bytes.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    write_whole(path, lambda file: file.write(len(header).to_bytes(8, "little") + header + content[end:]))


@contextlib.contextmanager
def _numerics(recipe: Recipe) -> Iterator[None]:
    """Deterministic arithmetic in full float32, or as the recipe says, on its threads; put back afterwards."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA asks for
    memory: Any = torch.utils.deterministic
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    wanted = {
        (memory, "fill_uninitialized_memory"): False,  # costs time, and finds bugs that do not change a value here
        (torch.backends.cudnn, "allow_tf32"): recipe.tf32,
        (torch.backends.cuda.matmul, "allow_tf32"): recipe.tf32,
        (torch.backends.cudnn, "benchmark"): recipe.cudnn_benchmark,
    }
    old = [getattr(*place) for place in wanted]
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(recipe.deterministic)
    try:
        for place, value in wanted.items():
            setattr(*place, value)
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        for place, was in zip(wanted, old, strict=True):
            setattr(*place, was)
