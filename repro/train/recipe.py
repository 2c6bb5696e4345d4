"""A recipe's words made into objects: initialiser, warm start, optimiser, schedule."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from ..errors import JobError
from .augment import Sampler


@dataclass(frozen=True)
class Initialiser:
    """Weights from a normal of the paper's one `std`, or None for Kaiming's sqrt(2 / fan in); biases constant."""

    std: float | None
    bias: float = 0.0

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Initialiser:
        return cls(words["std"] if words["name"] == "normal" else None)

    def __call__(self, net: nn.Module, seed: int) -> None:
        """Draw all weights anew, on the CPU, from `seed` alone."""
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in net.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    std = self.std if self.std is not None else math.sqrt(2 / layer.weight[0].numel())
                    layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0, std, generator=random))
                    if layer.bias is not None:
                        layer.bias.fill_(self.bias)


def copy_weights(net: nn.Module, start: Mapping[str, Tensor], words: Sequence[str]) -> None:
    """Copy into `net` those weights of another net that `words` name, each by its name in both.

    VGG's "first four convolutional layers and the last three fully connected layers" (Section 3.1)
    are the other net's: A's second layer is the first of block 2 in D as well, where D's own second
    layer has another shape. Raises JobError, final, in torch's words for weights that do not fit.
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


def optimizer(net: nn.Module, words: Mapping[str, Any]) -> Optimizer:
    """Stochastic gradient descent, its arguments named as torch names them; weight decay acts on all parameters."""
    return SGD(net.parameters(), foreach=True, **{k: v for k, v in words.items() if k != "name"})


def schedule(optimizer: Optimizer, words: Mapping[str, Any], batches: int) -> ReduceLROnPlateau | OneCycleLR:
    """The schedule of the rate over `batches`, all batches of the training.

    Plateau, stepped after each epoch: when `patience` epochs have passed since the best validation
    error, the rate is multiplied by `factor`, `drops` times at most (VGG, Section 3.1). One-cycle,
    stepped after each batch: the rate rises over the `warmup` part of all and falls to almost nothing.
    """
    rate = optimizer.param_groups[0]["lr"]
    if words["name"] == "plateau":
        factor, patience = words["factor"], words["patience"] - 1
        lowest = rate * factor ** words["drops"]
        return ReduceLROnPlateau(optimizer, "min", factor, patience, threshold=0, min_lr=lowest, eps=0)
    # One more than the batches: torch steps after the last one as well.
    return OneCycleLR(optimizer, max_lr=rate, total_steps=batches + 1, pct_start=words["warmup"], cycle_momentum=False)


def set_dropout(net: nn.Module, probability: float) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = probability


def settings(spec: Mapping[str, Any], net: nn.Module, images: int = 1_281_167) -> dict[str, Any]:
    """What a training would really use, read from the objects that `fit` builds and not from the recipe.

    `images` is the size of the training set (ImageNet's). `S` is the smallest and the largest
    scale that can be drawn; `init.variance` is None where it depends on the layer.
    """
    recipe, sampler = spec["recipe"], Sampler.of(spec, images)
    initialiser = Initialiser.of(recipe["init"])
    set_dropout(net, recipe["dropout"])
    built = optimizer(net, recipe["optimizer"])
    rates, group = schedule(built, recipe["schedule"], sampler.iterations), built.param_groups[0]
    drops, factor = 0, 1.0
    if isinstance(rates, ReduceLROnPlateau):
        factor = rates.factor
        drops = round(math.log(rates.min_lrs[0] / group["lr"], factor))
    dropout = {layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)}
    return {
        "optimizer.lr": group.get("max_lr", group["lr"]),
        "optimizer.momentum": group["momentum"],
        "optimizer.nesterov": group["nesterov"],
        "optimizer.weight_decay": group["weight_decay"],
        "batch": sampler.batch,
        "epochs": sampler.epochs,
        "iterations": sampler.iterations,
        "schedule.drops": drops,
        "schedule.factor": factor,
        "dropout": dropout.pop() if len(dropout) == 1 else sorted(dropout),
        "init.variance": None if initialiser.std is None else round(initialiser.std**2, 15),
        "init.bias": initialiser.bias,
        "crop": sampler.crop,
        "flip": sampler.flip,
        "colour": sampler.colour,
        "S": sorted({sampler.sizes[0], sampler.sizes[-1]}),
        "classes": [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1].out_features,
        "start.copy": spec["copy"],
    }
