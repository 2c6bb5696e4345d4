"""A recipe's words made into objects: initialiser, warm start, optimiser, schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from ..errors import JobError


@dataclass(frozen=True)
class Initialiser:
    """Weights of convolutions and fully connected layers drawn from a normal; biases constant.

    `std` is the paper's, the same for all layers, or None for Kaiming's sqrt(2 / fan in).
    """

    std: float | None
    bias: float = 0.0

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Initialiser:
        if words["name"] == "normal":
            return cls(float(words["std"]))
        if words["name"] == "kaiming":
            return cls(None)
        raise JobError(f"recipe: init {words['name']!r} is unknown. Known: normal, kaiming")

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


@dataclass(frozen=True)
class Copy:
    """Which of another net's weights a net starts from, each by its name in both.

    VGG's "first four convolutional layers and the last three fully connected layers" (Section
    3.1) are the other net's: A's second layer is the first of block 2 in D as well, where D's
    own second layer has another shape.
    """

    words: tuple[str, ...]

    def names(self, start: Mapping[str, Tensor]) -> list[str]:
        """The names to copy, in the order of the other net. Raises JobError for unknown words."""
        kinds = {"conv": 4, "fc": 2}
        names: list[str] = []
        for word in self.words:
            if word == "all":
                return list(start)
            try:
                end, count, kind = word.split()
                layers = [n.removesuffix(".weight") for n, t in start.items() if t.ndim == kinds[kind]]
                taken = {"first": layers[: int(count)], "last": layers[-int(count) :]}[end]
            except (ValueError, KeyError):
                raise JobError(f"start: cannot copy {word!r}; known: all, first N conv, last N fc") from None
            names += [n for n in start if n.rsplit(".", 1)[0] in taken]
        return names

    def __call__(self, net: nn.Module, start: Mapping[str, Tensor]) -> None:
        """Copy into `net`. Raises JobError that names the first weight which does not fit."""
        own = net.state_dict()
        names = self.names(start)
        if "all" in self.words and (alone := sorted(set(own) - set(start))):
            raise JobError(f"start: the other net has no {alone[0]}", final=True)
        for name in names:
            if name not in own:
                raise JobError(f"start: this net has no {name}", final=True)
            if own[name].shape != start[name].shape:
                theirs, ours = tuple(start[name].shape), tuple(own[name].shape)
                raise JobError(f"start: {name} is {theirs} in the other net and {ours} in this one", final=True)
            own[name].copy_(start[name])


def optimizer(net: nn.Module, words: Mapping[str, Any]) -> Optimizer:
    """Stochastic gradient descent with momentum; the weight decay acts on all parameters."""
    if words["name"] != "sgd":
        raise JobError(f"recipe: optimizer {words['name']!r} is unknown. Known: sgd")
    return SGD(
        net.parameters(),
        lr=words["lr"],
        momentum=words["momentum"],
        nesterov=bool(words.get("nesterov", False)),
        weight_decay=words["weight_decay"],
        foreach=True,
    )


class Plateau:
    """Multiply the rate by `factor` when the validation error stops improving, `drops` times at most.

    It has stopped when `patience` epochs have passed since the best one. Source: VGG, Section 3.1.
    """

    def __init__(self, optimizer: Optimizer, words: Mapping[str, Any]) -> None:
        self.drops = int(words["drops"])
        rate = optimizer.param_groups[0]["lr"]
        self.inner = ReduceLROnPlateau(
            optimizer,
            factor=words["factor"],
            patience=int(words["patience"]) - 1,
            threshold=0,
            min_lr=rate * words["factor"] ** self.drops,
            eps=0,
        )

    @property
    def factor(self) -> float:
        return self.inner.factor

    def batch_done(self) -> None:
        """Nothing changes inside an epoch."""

    def epoch_done(self, error: float) -> None:
        self.inner.step(error)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)


class OneCycle:
    """The rate rises over the first `warmup` part of all batches and falls to almost nothing."""

    def __init__(self, optimizer: Optimizer, words: Mapping[str, Any], batches: int) -> None:
        self.drops, self.factor = 0, 1.0
        rate = optimizer.param_groups[0]["lr"]
        # One more than the batches: torch steps after the last one as well.
        self.inner = OneCycleLR(
            optimizer, max_lr=rate, total_steps=batches + 1, pct_start=words["warmup"], cycle_momentum=False
        )

    def batch_done(self) -> None:
        self.inner.step()

    def epoch_done(self, error: float) -> None:
        """The validation error changes nothing."""

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)


def schedule(optimizer: Optimizer, words: Mapping[str, Any], batches: int) -> Plateau | OneCycle:
    """The schedule of the rate over `batches`, all batches of the training."""
    if words["name"] == "plateau":
        return Plateau(optimizer, words)
    if words["name"] == "one-cycle":
        return OneCycle(optimizer, words, batches)
    raise JobError(f"recipe: schedule {words['name']!r} is unknown. Known: plateau, one-cycle")


def set_dropout(net: nn.Module, probability: float) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = probability
