"""What a training would really use, read from the objects that `fit` builds and not from the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from . import recipe as words
from .augment import Order
from .fit import augmenter


def settings(spec: Mapping[str, Any], net: nn.Module, images: int = 1_281_167) -> dict[str, Any]:
    """The settings of a job by name; `images` is the size of its training set (ImageNet's).

    `iterations` is batches times epochs, the last batch of an epoch counted whole. `S` is the
    smallest and the largest scale that can be drawn; `init.variance` is None where it depends on the layer.
    """
    recipe = spec["recipe"]
    initialiser = words.Initialiser.of(recipe["init"])
    words.set_dropout(net, recipe["dropout"])
    augment = augmenter(spec)
    order = Order(images, int(recipe["batch"]), int(recipe["epochs"]), int(spec.get("seed", 0)))
    optimizer = words.optimizer(net, recipe["optimizer"])
    schedule = words.schedule(optimizer, recipe["schedule"], order.iterations)
    group = optimizer.param_groups[0]
    dropout = {layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)}
    variance = None if initialiser.std is None else float(np.round(initialiser.std**2, 15))
    return {
        "optimizer.lr": group.get("max_lr", group["lr"]),
        "optimizer.momentum": group["momentum"],
        "optimizer.nesterov": group["nesterov"],
        "optimizer.weight_decay": group["weight_decay"],
        "batch": order.batch,
        "epochs": order.epochs,
        "iterations": order.iterations,
        "schedule.drops": schedule.drops,
        "schedule.factor": schedule.factor,
        "dropout": dropout.pop() if len(dropout) == 1 else sorted(dropout),
        "init.variance": variance,
        "init.bias": initialiser.bias,
        "crop": augment.crop,
        "flip": augment.flip,
        "colour": augment.colour,
        "S": sorted({augment.sizes[0], augment.sizes[-1]}),
        "classes": [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1].out_features,
        "start.copy": list(words.Copy(tuple(spec.get("copy") or ())).words),
    }
