"""Nets with weights as if trained, and pictures that no two repeats share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from repro import architectures, protocols
from repro.schema import Build, ViewSet
from repro.store import Store

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
COLOUR, SCALE = [255 * m for m in MEAN], [1 / (255 * s) for s in STD]
SHAPES = ((375, 500), (500, 375), (333, 500), (480, 480), (500, 400), (427, 640))
STORE = Path("runs/store")


def pictures(n: int, seed: int, shapes: Sequence[tuple[int, int]] = SHAPES[:1]) -> list[np.ndarray]:
    """`n` uint8 RGB images, (H, W, 3): colour noise at three scales, unlike one another."""
    random, made = np.random.default_rng(seed), []
    for i in range(n):
        height, width = shapes[i % len(shapes)]
        total = random.uniform(0, 255, 3)[None, None] + np.zeros((height, width, 3))
        for cells, weight in ((2, 90), (7, 50), (25, 20)):
            noise = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            large = Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)
            total += weight * (np.asarray(large) / 127.5 - 1)
        made.append(total.clip(0, 255).astype(np.uint8))
    return made


def repeats(count: int, images: int, seed: int = 0, mixed: bool = False) -> Iterator[list[np.ndarray]]:
    """The images of a first round, to warm up, and of `count` others; no image comes twice."""
    for i in range(count + 1):
        shapes = SHAPES[i % len(SHAPES) :] + SHAPES[: i % len(SHAPES)] if mixed else SHAPES[:1]
        yield pictures(images, 1000 * (seed + 1) + i, shapes)


def view_sets(name: str, Q: Sequence[int], crop: int = 224) -> list[ViewSet]:
    return [v for _, v in protocols.resolve([name], Q, crop)]


def as_trained(net: nn.Module, gain: float = 2.0) -> nn.Module:
    """Weights with which pictures get different classes, as they do from a trained net.

    Random weights that keep the size of signals, batch normalisation with the statistics of 16 pictures, and a last
    layer that reads the directions in which the features of these differ, its logits of mean 0 and deviation
    `gain`. With a random last layer all pictures have one class, and differences drown in what they share.
    """
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.clamp_(min=0.3)  # branches that start at zero
            module.momentum = 1.0
            module.train()

    def read(layer: nn.Linear, args: Any) -> None:
        features = args[0]
        random = torch.randn(layer.out_features, len(features))
        layer.weight.copy_(random @ (features - features.mean(0)))
        deviation, mean = torch.std_mean(features @ layer.weight.T, 0)
        layer.weight.mul_(gain / deviation[:, None])
        layer.bias.copy_(-mean * gain / deviation)

    hook = last.register_forward_pre_hook(read)  # type: ignore[arg-type]
    crops = np.stack([picture[75:299, 138:362] for picture in pictures(16, 7)])
    x = ((torch.tensor(crops) - torch.tensor(COLOUR)) * torch.tensor(SCALE)).permute(0, 3, 1, 2)
    with torch.no_grad():
        net(x)
    hook.remove()
    return net.eval()


@cache
def net(build: str) -> nn.Module:
    """A net with weights as if trained; the caller leaves it as it is."""
    torch.manual_seed(0)
    return as_trained(architectures.make(Build.parse(build)).eval())


def macs(net: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of a net, or of one slid over it, on one image."""
    import copy

    from torch.utils.flop_counter import FlopCounterMode

    empty = copy.deepcopy(net).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        empty(torch.empty(1, 3, height, width, device="meta"))
    return counter.get_total_flops() // 2


def proxy() -> tuple[nn.Module, np.ndarray, list[float], float] | None:
    """Net D trained with jitter on the proxy, its test images, mean and scale, from the records; None without."""
    import json

    from safetensors import safe_open

    from repro import data

    records = Store(STORE).all("train") if (STORE / "VERSION").exists() else iter(())
    for record in records:
        if record.name == "train vgg:D jitter S=40..72 seed 0" and "safetensors" in record.files:
            net = architectures.make(Build.parse(record.spec["build"])).eval()
            with safe_open(Store(STORE).file(record, "safetensors"), framework="pt") as stream:
                meta = stream.metadata()
                net.load_state_dict({key: stream.get_tensor(key) for key in stream.keys()})  # noqa: SIM118
            images = data.open_set("digits-test", STORE / "data").images  # type: ignore[union-attr]
            return net, images, json.loads(meta["mean"]), json.loads(meta["scale"])
    return None
