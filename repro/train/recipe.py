"""A recipe's words made into objects: first weights, warm start, optimiser, schedule."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler as rates

from ..errors import JobError
from ..fields import Init, Optimizer, Schedule


def initialise(net: nn.Module, words: Mapping[str, Any] | Init, seed: int) -> None:
    """Draw all weights of convolutions and linear layers anew, on the CPU, from `seed` alone; biases are constant.

    Weights are normal of the paper's `std`, or of Kaiming's sqrt(2 / fan in) with the slope of PReLU, Section 2.2, or
    Xavier's uniform; `as built` leaves all. Raises JobError, final, for a layer of `ones` that is not there.
    """
    init = Init.model_validate(words)
    if init.name == "as built":
        return
    random, layers = torch.Generator().manual_seed(seed), dict(net.named_modules())
    if unknown := [name for name in init.ones if name not in layers]:
        raise JobError(f"init: the net has no layer {unknown[0]!r} whose biases could be one", final=True)
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            drawn = torch.empty(layer.weight.shape)
            if init.name == "xavier":
                nn.init.xavier_uniform_(drawn, generator=random)
            else:
                kaiming = math.sqrt(2 / ((1 + init.slope**2) * drawn[0].numel()))
                drawn.normal_(0, init.std if init.name == "normal" else kaiming, generator=random)
            layer.weight.data.copy_(drawn)
            if layer.bias is not None:
                layer.bias.data.fill_(1.0 if name in init.ones else init.bias)


def copy_weights(net: nn.Module, start: Mapping[str, Tensor], words: Sequence[str]) -> None:
    """Copy into `net` those weights of another net that `words` name, each by its name in both.

    VGG's "first four convolutional layers" (Section 3.1) are the other net's: A's second is the first of block 2 in
    D too. Raises JobError, final, in torch's words for weights that do not fit.
    """
    copied = {name: start[name] for word in words for name in _named(word, start)}
    try:
        net.load_state_dict(copied if "all" in words else {**net.state_dict(), **copied})
    except RuntimeError as error:
        raise JobError(f"start: {str(error).splitlines()[1].strip()}", final=True) from None


def _named(word: str, start: Mapping[str, Tensor]) -> list[str]:
    if word == "all":
        return list(start)
    if not (match := re.fullmatch(r"(first|last) ([1-9]\d*) (conv|fc)", word)):
        raise JobError(f"start: cannot copy {word!r}; known: all, first N conv, last N fc")
    end, count, kind = match[1], int(match[2]), match[3]
    layers = [n.removesuffix("weight") for n, t in start.items() if t.ndim == {"conv": 4, "fc": 2}[kind]]
    taken = tuple(layers[:count] if end == "first" else layers[-count:])
    return [n for n in start if n.startswith(taken)]


def optimizer(net: nn.Module, words: Mapping[str, Any] | Optimizer) -> optim.Optimizer:
    """The recipe's optimiser, torch's or for `rmsprop-tf` timm's; weight decay acts on all but `no_decay`."""
    w = Optimizer.model_validate(words)
    kind: Any = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop}.get(w.name)
    if w.name == "rmsprop-tf":
        from timm.optim import RMSpropTF as kind  # type: ignore[no-redef]
    used = {"sgd": ("momentum", "nesterov"), "rms": ("alpha", "eps", "momentum"), "ada": ("betas", "eps")}[w.name[:3]]
    options = {name: getattr(w, name) for name in ("lr", "weight_decay", *used)}
    free = {}
    for layer in net.modules():
        norm = "norm" in type(layer).__name__.lower()
        for name, p in layer.named_parameters(recurse=False):
            free[p] = ("norms" if norm else name.replace("bias", "biases")) in w.no_decay
    groups: list[dict[str, Any]] = [{"params": [p for p in free if not free[p]]}]
    groups.append({"params": [p for p in free if free[p]], "weight_decay": 0.0})
    built: optim.Optimizer = kind(groups, **options, **({"foreach": True} if w.name == "sgd" else {}))
    return built


def schedule(
    optimizer: optim.Optimizer, words: Mapping[str, Any] | Schedule, batches: int, per_epoch: int = 1
) -> rates.LRScheduler | rates.ReduceLROnPlateau:
    """The schedule of the rate over `batches`, all batches of the training; an epoch has `per_epoch`.

    Plateau, stepped after each epoch: `patience` epochs after the best validation error the rate is multiplied by
    `factor`, `drops` times at most (VGG, Section 3.1). The others are stepped after each batch: steps are counted
    from the beginning of the training; what falls smoothly does so from the end of the warm-up.
    """
    w, rate = Schedule.model_validate(words), optimizer.param_groups[0]["lr"]
    if w.name == "plateau":
        lowest = rate * w.factor**w.drops
        return rates.ReduceLROnPlateau(optimizer, "min", w.factor, w.patience - 1, threshold=0, min_lr=lowest, eps=0)
    if w.name == "one-cycle":
        # One more than the batches: torch steps after the last one as well.
        return rates.OneCycleLR(optimizer, rate, batches + 1, pct_start=w.warmup, cycle_momentum=False)
    warm = w.warmup_steps or round(w.warmup_epochs * per_epoch)
    unit, left = (per_epoch if w.unit == "epochs" else 1), max(1, batches - warm)
    main: rates.LRScheduler
    if w.name == "cosine":
        main = rates.CosineAnnealingLR(optimizer, left, eta_min=w.end * rate)
    elif w.name == "linear":
        main = rates.LinearLR(optimizer, 1.0, w.end, left)
    elif w.name == "polynomial":
        main = rates.LambdaLR(optimizer, lambda i: w.end + (1 - w.end) * max(0.0, 1 - i / left) ** w.power)
    else:
        every = [w.every * i for i in range(1, math.ceil(batches / unit / w.every))] if w.name == "exponential" else []
        at = w.milestones if w.name == "steps" else every  # of a constant rate none, whatever it is `like`
        main = rates.MultiStepLR(optimizer, [round(m * unit) - warm for m in at], w.factor)
    if not warm:
        return main
    slope = (1 - w.warmup_from) * (w.warmup_shape == "linear") / warm
    return rates.SequentialLR(optimizer, [rates.LambdaLR(optimizer, lambda i: w.warmup_from + slope * i), main], [warm])


def set_dropout(net: nn.Module, probability: float | str) -> None:
    """Set every dropout of a net to one probability; a word leaves them as they are built."""
    for layer in net.modules():
        if isinstance(layer, nn.Dropout) and not isinstance(probability, str):
            layer.p = probability
