"""What a training would really use, read back from the objects that `fit` works with, not from the recipe's words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau, SequentialLR

from ..fields import Recipe
from .augment import Sampler
from .parallel import Group
from .recipe import set_dropout
from .run import Run
from .stream import Cuts

_SCHEDULES = {"ReduceLROnPlateau": "plateau", "CosineAnnealingLR": "cosine", "LinearLR": "linear"}


def settings(spec: Mapping[str, Any], net: nn.Module, images: int = 1_281_167) -> dict[str, Any]:
    """The settings of a job by name, for a `net` on the meta device and a training set of so many `images`.

    Times are in iterations unless named otherwise; what is not done is 0 or `none`; no recipe leaves the net's own.
    """
    linear = [None, *(layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear))]
    found: dict[str, Any] = {**layers(net), "crop": spec["input"], "classes": linear[-1]}
    if not spec["recipe"]:
        return found
    recipe, sampler = Recipe.of(spec["recipe"]), Sampler.of(spec, images)
    set_dropout(net, recipe.dropout)
    run = Run(net, SimpleNamespace(sampler=sampler), recipe, 1000, 0, Group(device="meta"))
    cuts, init = Cuts(None, sampler, recipe.augment, np.zeros(3)), recipe.init  # type: ignore[arg-type]
    std = init.std if init.name == "normal" else None
    drawn: dict[str, Any] = {type(t).__name__: t for t in cuts.distort}
    jitter, change = drawn.get("ColorJitter"), drawn.get("RandAugment")
    group = max(run.optimizer.param_groups, key=lambda g: g["weight_decay"])
    found |= {f"optimizer.{k}": v for k, v in group.items() if isinstance(v, int | float)}
    lr = found["optimizer.lr"] = group.get("max_lr", group.get("initial_lr", group["lr"]))
    free = {id(p) for g in run.optimizer.param_groups if not g["weight_decay"] for p in g["params"]}
    kinds = {type(m).__name__ for m in net.modules() for p in m.parameters(recurse=False) if id(p) in free}
    dropout = sorted({layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)})
    found |= {"optimizer": type(run.optimizer).__name__, "optimizer.no_decay": sorted(kinds) or "none"}
    found |= {"optimizer.betas": list(group.get("betas", ())), "clip": recipe.clip or 0, "aux": recipe.aux}
    found |= {"batch": sampler.batch, "bn_batch": sampler.together or sampler.batch}
    found |= {"replicas": sampler.batch // found["bn_batch"], **_rates(run.schedule, lr, sampler)}
    found |= {"epochs": sampler.epochs, "iterations": sampler.iterations}
    found |= {"label_smoothing": recipe.label_smoothing, "mixup": run.mixup.alpha if run.mixup else 0} | _average(run)
    found |= {"dropout": dropout[0] if len(dropout) == 1 else dropout or 0, "start.copy": spec["copy"]}
    found |= {"init": init.name, "init.std": std, "init.variance": std and round(std**2, 15)}
    found |= {"init.bias": init.bias, "init.ones": [name.rpartition(".")[2] for name in init.ones] or "none"}
    found |= {"mean": recipe.mean or "of the training set", "scale": recipe.scale}
    found["normalisation"] = "channel mean" + ("" if isinstance(run.scale, float) else ", channel std")
    found |= {"S": sorted({sampler.sizes[0], sampler.sizes[-1]}), "pad": sampler.pad, "flip": sampler.flip}
    found |= {"colour": sampler.colour, "jitter": _short(jitter.brightness[1] - 1) if jitter else 0}
    found["randaugment"] = [change.num_ops, change.magnitude] if change else "none"
    if cuts.augment.crop == "area":
        found |= {"augment.area": list(cuts.area.scale), "augment.aspect": [round(r, 4) for r in cuts.area.ratio]}
        found["interpolation"] = cuts.augment.interpolation
    return found


def layers(net: nn.Module) -> dict[str, Any]:
    """Plain attributes of a net's layers: by class all that occur (`MaxPool2d.stride`), near the top also by name.

    `after` is the name of the layer that stands before one (`LRN.after`).
    """
    by_class: dict[str, list[Any]] = {}
    by_name: dict[str, Any] = {}
    before = ""
    for name, layer in net.named_modules():
        for key, value in {**vars(layer), "after": before}.items():
            if key[0] == "_" or key == "training" or not isinstance(value, int | float | str | tuple):
                continue
            if isinstance(value, tuple):
                value = value[0] if len(set(value)) == 1 else "x".join(map(str, value))
            values = by_class.setdefault(f"{type(layer).__name__}.{key}", [])
            values += [] if value in values else [value]
            if name and name.count(".") < 2 and key != "after":
                by_name[f"{name}.{key}"] = value
        before = before if list(layer.children()) else name.rpartition(".")[2]
    return by_name | {k: v[0] if len(v) == 1 else v for k, v in by_class.items()}


def _average(run: Run) -> dict[str, Any]:
    """Which average of the weights is kept, and the decay of a running one: what is left of a one by a zero."""
    if run.average is None or run.average.multi_avg_fn is None:
        return {"average": "none" if run.average is None else "Polyak", "ema.decay": 0}
    kept = [torch.ones((), dtype=torch.float64)]
    run.average.multi_avg_fn(kept, [torch.zeros_like(kept[0])], 1)
    return {"average": "running", "ema.decay": _short(kept[0].item())}


def _rates(rates: Any, lr: float, sampler: Sampler) -> dict[str, Any]:
    """What a schedule does to the rate `lr`: warm-up, drops, and the rate at the end."""
    epoch, warm, begin = max(1, sampler.per_epoch), 0, rates.optimizer.param_groups[0]["lr"]
    if isinstance(rates, SequentialLR):
        (_, rates), (warm,) = rates._schedulers, rates._milestones
    found: dict[str, Any] = {"warmup": warm, "warmup_epochs": _short(warm / epoch), "warmup.lr": _short(begin)}
    found["schedule"] = _SCHEDULES.get(type(rates).__name__, type(rates).__name__)
    drops, factor, last = 0, 1.0, getattr(rates, "eta_min", lr * getattr(rates, "end_factor", 1.0))
    if isinstance(rates, ReduceLROnPlateau):
        last, factor = rates.min_lrs[0], rates.factor
        drops = round(math.log(last / lr, factor))
    elif isinstance(rates, MultiStepLR):
        at = sorted(m + warm for m in rates.milestones.elements())
        drops, factor, last = len(at), rates.gamma, lr * rates.gamma ** len(at)
        every = at[-1] / drops if at else 0
        every *= all(abs(m - every * i) <= 1 for i, m in enumerate(at, 1))  # 0 where the steps are not alike
        found["schedule"] = "steps" if at else "constant"
        found |= {"schedule.every": _short(every / epoch), "schedule.every_images": _short(every * sampler.batch)}
        found |= {"schedule.milestones": at[:9], "schedule.milestone_epochs": [_short(m / epoch) for m in at[:9]]}
    return found | {"schedule.factor": factor, "schedule.drops": drops, "schedule.last": _short(last)}


def _short(value: float) -> int | float:
    """Without what rounding in binary left behind; whole numbers as such."""
    return int(value) if value == int(value) else float(f"{value:.12g}")
