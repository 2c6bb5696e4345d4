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

from ..data import Files, ImageSet, Unreadable, stream
from ..errors import JobError
from ..fields import Recipe
from ..files import write_whole
from .augment import Arrays, Sampler, statistics
from .parallel import Group, reading_workers
from .recipe import copy_weights, initialise, set_dropout
from .run import Run

SAMPLE = 10_000  # images, evenly spaced, that the colours of a larger set read from files are taken from
MINUTES = float(os.environ.get("REPRO_CHECKPOINT_MINUTES", "10"))  # between two checkpoints within an epoch
ALONE = Group()


def fit(
    net: nn.Module,
    spec: Mapping[str, Any],
    images: ImageSet,
    out: Path,
    validate: Callable[[nn.Module], float],
    start: Mapping[str, Tensor] | None = None,
    group: Group = ALONE,
    val_images: int | None = None,
) -> dict[str, Any]:
    """Train `net` by `spec["recipe"]` and write `weights.safetensors` and `log.jsonl` into `out`.

    `validate` gives the error of a net in percent, `val_images` of how many images; `start` holds what
    `spec["copy"]` names. A line of the log is an epoch; its training error is that of the augmented images as seen,
    `wait` the share of the time spent waiting for images. `checkpoint.pt`, written after each epoch and every
    MINUTES, lets a training that was killed go on to the same bits. Returns val_error and train_error in percent,
    epochs, loss. Raises JobError, final, for a loss that is no number or far above chance, and for a net that has
    not learnt.

    Several processes (`group`) train as one does, each on its part of every batch: to rounding, for gradients are
    added in another order. They ask for the recipe's `bn_batch`, the images that pass the net together: BN and mixup
    look no further, dropout draws anew for each such part, running statistics move by the mean over the parts.
    """
    recipe, seed = Recipe.of(spec["recipe"]), spec["seed"]
    with _numerics(recipe):
        sampler, augment = Sampler.of(spec, len(images.labels)), recipe.augment
        if augment.crop != "area" and sampler.sizes[0] + 2 * sampler.pad < sampler.crop:
            told = f"crops of {sampler.crop} pixels do not fit images of short side {sampler.sizes[0]}"
            raise JobError(f"{told}; change S, the build's input or recipe.augment.crop", final=True)
        initialise(net, recipe.init, seed)
        if start is not None:
            copy_weights(net, start, spec["copy"])
        set_dropout(net, recipe.dropout)
        if group.size > 1 and not recipe.bn_batch:
            raise JobError(
                "the result would depend on the number of processes; say in the recipe how many images pass the net "
                "together, e.g. -o recipe.bn_batch=32, or train with one process"
            )
        mean, shift = colours_of(images, spec["recipe"], out, group)
        batches: Any
        if isinstance(images, Files) or augment.crop == "area" or augment.jitter or augment.randaugment:
            from .stream import Stream

            batches = Stream(images, sampler, augment, mean, shift)
        else:
            batches = Arrays(images.images, images.labels, sampler, mean, shift)
        run = Run(net, batches, recipe, spec["classes"], seed, group)
        run.resume(out)
        while len(run.log) < sampler.epochs:
            line = run.epoch(out, MINUTES)
            begun = time.perf_counter()
            run.kept.eval()
            line["val_error"] = float(validate(run.kept))
            if isinstance(run.schedule, ReduceLROnPlateau):
                run.schedule.step(line["val_error"])
            line["seconds"] = round(line["seconds"] + time.perf_counter() - begun, 3)
            run.log.append(line)
            run.begin_epoch()
            run.save(out)
    last = run.log[-1]
    if recipe.bar is not None:
        check_learnt(last["val_error"], spec["classes"], recipe.bar, len(run.log), val_images)
    if group.rank == 0:
        metadata = {"mean": json.dumps(mean.tolist()), "scale": json.dumps(recipe.scale)}
        _write_weights(run.kept, out / "weights.safetensors", metadata)
    numbers = {k: last[k] for k in ("val_error", "train_error", "loss", "left_out") if k in last}
    return numbers | {"epochs": len(run.log)}


def colours_of(
    images: ImageSet, recipe: Mapping[str, Any], out: Path, group: Group = ALONE
) -> tuple[np.ndarray, np.ndarray]:
    """What is taken off the pixels (3,), and the map (3, 3) of draws to shifts of colour (AlexNet, Section 4.1).

    Of all images in memory, or of SAMPLE files; kept in `out`, so that going on does not read them again.
    """
    path, count, from_files = out / "colours.json", len(images), isinstance(images, Files)
    if group.rank == 0 and not path.exists():
        which = np.linspace(0, count - 1, min(SAMPLE, count) if from_files else count).astype(int).tolist()
        picked = stream(images, which, reading_workers() if from_files else 0)
        found = statistics(image for _, image in picked if not isinstance(image, Unreadable))
        write_whole(path, json.dumps([part.tolist() for part in found]))
    group.sum(torch.zeros(1))  # all wait for the first
    mean, covariance = (np.array(v) for v in json.loads(path.read_text()))
    values, vectors = np.linalg.eigh(covariance)
    return np.array(recipe.get("mean") or mean), vectors * values


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
    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill, matmul = memory.fill_uninitialized_memory, torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(recipe.deterministic)
    memory.fill_uninitialized_memory = False  # costs time, and finds bugs that do not change a value here
    torch.backends.cuda.matmul.allow_tf32 = recipe.tf32
    try:
        with torch.backends.cudnn.flags(True, recipe.cudnn_benchmark, 10, recipe.deterministic, recipe.tf32):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(exact)
        memory.fill_uninitialized_memory, torch.backends.cuda.matmul.allow_tf32 = fill, matmul
