"""Lines on evaluation: the engine beside timm's loop, the naive dense loop and crops cut by PIL."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from repro import protocols
from repro.evaluate.dense import Dense
from repro.evaluate.engine import scores
from repro.schema import ViewSet

from . import made, peers
from .timing import FP32, Found, Line, NotRun, compared, everywhere, in_turn, matrix_seconds

SCALES = (256, 384, 512)
AREA = 224 * 224
NETS = {"VGG-16": ("vgg:D", "vgg16"), "ResNet-50": ("timm:resnet50", "resnet50")}
CENTRE = made.view_sets("centre", [256])


def engine(
    net: Any, images: Any, sets: Sequence[ViewSet], dtype: str = "bfloat16", crops: int = 8, device: str = "cpu"
) -> np.ndarray:
    """Mean score of the view sets of equal weight, `crops` of 224 x 224 through the net at once."""
    found = scores(net, images, sets, made.COLOUR, made.SCALE, pixels=crops * AREA, dtype=dtype, device=device)
    return np.mean([found[view_set] for view_set in sets], axis=0)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def files(folder: str, rounds: Iterator[list[np.ndarray]]) -> Iterator[list[Path]]:
    """The same rounds as JPEG files."""
    for i, images in enumerate(rounds):
        paths = [Path(folder, f"{i}-{j}.jpg") for j in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path, quality=90)
        yield paths


def single(name: str, best: bool, jpeg: bool, quick: bool) -> Found:
    """One centre crop of 224 from short side 256."""
    torch.set_num_threads(2)
    count, images = (5, 8) if quick else (7, 16)
    net = made.net(NETS[name][0])
    other = peers.timm_net(net, NETS[name][1], best)
    ours = peers.prepared(net, best)
    work = images * made.macs(net, 224, 224)
    with tempfile.TemporaryDirectory() as folder:
        rounds = made.repeats(count, images)
        times, a, b = in_turn(
            lambda given: engine(ours, map(read, given) if jpeg else given, CENTRE, crops=images),
            lambda given: peers.timm_loop(other, given, best),
            files(folder, rounds) if jpeg else rounds,
            lambda: matrix_seconds(work, "bfloat16"),
        )
    return compared(times, a, b, f"bf16, {images} images a time; limit: bf16 arithmetic")


def dense(quick: bool) -> Found:
    """VGG-16 over whole images of mixed shapes at three scales, with flips."""
    torch.set_num_threads(2)
    count, images = (3, 1) if quick else (5, 3)
    net, work = made.net("vgg:D"), []
    half = peers.prepared(net, False)

    def least() -> float:
        return matrix_seconds(work[-1], "bfloat16")

    def ours(given: list[np.ndarray]) -> np.ndarray:
        work.append(sum(view_macs(net, sets, *i.shape[:2]) for i in given))
        return engine(half, given, sets, crops=32)

    sets = made.view_sets("dense", SCALES)
    times, a, b = in_turn(
        ours, lambda given: peers.dense_loop(net, given, SCALES), made.repeats(count, images, mixed=True), least
    )
    return compared(times, a, b, f"bf16, {images} images a time; limit: bf16 arithmetic")


def view_macs(net: torch.nn.Module, sets: Sequence[ViewSet], height: int, width: int) -> int:
    """Multiply-adds that the view sets of an image take, each view by itself."""
    total = 0
    for view_set in sets:
        views = protocols.views(view_set, height, width)
        slid = Dense(net, view_set.crop) if view_set.kind == "dense" else net
        total += len(views) * made.macs(slid, *views[0].box[2:])
    return total


def crops(best: bool, quick: bool) -> Found:
    """VGG-16 on 150 crops. Beside timm's defaults, 50 of them also in float32 against each cut and run by itself."""
    torch.set_num_threads(2)
    count, images = (3, 1) if quick else (5, 2)
    net, sets = made.net("vgg:D"), made.view_sets("grid", SCALES)
    other = peers.timm_net(net, "vgg16", best)
    ours = peers.prepared(net, best)
    work = images * view_macs(net, sets, 375, 500)
    times, a, b = in_turn(
        lambda given: engine(ours, given, sets, crops=50),
        lambda given: peers.crops_loop(other, given, SCALES, best),
        made.repeats(count, images),
        lambda: matrix_seconds(work, "bfloat16"),
    )
    found = compared(times, a, b, f"bf16, {images} images a time; limit: bf16 arithmetic of each crop by itself")
    if not best:
        (image,) = made.pictures(1, 5)
        mine, slow = engine(net, [image], sets[1:2], "float32"), peers.one_by_one(other, image, SCALES[1])
        spread = np.sqrt(np.log(np.concatenate(b)).var(axis=0).mean())
        exact = np.abs(np.log(mine) - np.log(slow)).max() / spread
        found.note += f"; 50 crops in fp32 agree to {exact:.1e} with each by itself"
        if not exact <= FP32:
            found.agreement = float("nan")
    return found


def columns() -> dict[str, list[ViewSet]]:
    """The protocols of net D with jitter in Tables 3 to 5, at the proxy's sizes."""
    sides, crop = (40, 56, 72), 32
    multi, grid = made.view_sets("dense", sides, crop), made.view_sets("grid", sides, crop)
    return {"table 3": made.view_sets("dense", [56], crop), "dense": multi, "crops": grid, "both": [*grid, *multi]}


def proxy_rounds(count: int, images: int) -> tuple[Any, Iterator[np.ndarray], Callable[..., dict[Any, Any]]]:
    """The trained proxy net, rounds of its test images, and the engine set up for it on one thread."""
    torch.set_num_threads(1)  # as the jobs of a run
    known = made.proxy()
    if known is None:
        raise NotRun(f"no trained net D in {made.STORE}; repro run table5")
    net, pool, mean, scale = known
    images = min(images, len(pool) // (count + 1))
    rounds = (pool[i * images : (i + 1) * images] for i in range(count + 1))
    return net, rounds, lambda given, sets, **more: scores(net, given, sets, mean, scale, **more)


def table_columns(against: str, quick: bool) -> Found:
    """All columns at once beside each by itself, or beside the dearest."""
    net, rounds, score = proxy_rounds(3 if quick else 5, 100 if quick else 300)
    named, dearest = columns(), columns()["both"]
    every = list(dict.fromkeys(v for sets in named.values() for v in sets))
    apart = list(named.values()) if against == "each" else [dearest]
    images, work = 0, sum(view_macs(net, [v], 72, 72) for v in every)

    def ours(given: np.ndarray) -> np.ndarray:
        nonlocal images
        images = len(given)
        found = score(given, every)
        return np.concatenate([found[v] for v in dearest], axis=1)

    def theirs(given: np.ndarray) -> np.ndarray:
        runs = [score(given, sets) for sets in apart]
        return np.concatenate([runs[-1][v] for v in dearest], axis=1)

    times, a, b = in_turn(ours, theirs, rounds, lambda: matrix_seconds(images * work, "float32"))
    found = compared(times, a, b, "fp32, one thread, trained net; limit: fp32 arithmetic")
    if against == "dearest":
        found.ratios = [1 / ratio for ratio in found.ratios]
    return found


def decisions(quick: bool) -> Found:
    """What bf16 changes on a trained net: its speed, and the share of decisions that turn."""
    net, rounds, score = proxy_rounds(3 if quick else 5, 300)
    sets = made.view_sets("dense", [56], 32)
    work = 300 * view_macs(net, sets, 72, 72)
    times, a, b = in_turn(
        lambda given: score(given, sets, dtype="bfloat16")[sets[0]],
        lambda given: score(given, sets)[sets[0]],
        rounds,
        lambda: matrix_seconds(work, "bfloat16"),
    )
    turned = np.mean(np.concatenate(a).argmax(1) != np.concatenate(b).argmax(1))
    note = f"{100 * turned:.2f} % of {sum(map(len, a))} decisions changed; limit: bf16 arithmetic"
    return compared(times, a, b, note)


LINES = [
    *(
        Line(f"single crop, {net}, {what}", partial(single, net, best, jpeg), goals, compiled=best)
        for what, best, jpeg, goal in (
            ("timm defaults", False, False, {"VGG-16": (7, 2), "ResNet-50": (6, 1.5)}),
            ("timm best flags", True, False, {}),
            ("JPEG files, timm defaults", False, True, {}),
        )
        for net in NETS
        for goals in [everywhere(1) if best else dict(zip(("amx", "bf16"), goal.get(net, ()), strict=False))]
    ),
    Line("dense, three scales with flips, VGG-16, naive loop", dense, {"amx": 5, "bf16": 1.8}),
    Line("150 crops, VGG-16, exact, timm defaults", partial(crops, False), {"amx": 7, "bf16": 2}),
    Line("150 crops, VGG-16, exact, timm best flags", partial(crops, True), {"amx": 1.15, "bf16": 1.1}, compiled=True),
    Line("net D in Tables 3 to 5, each protocol alone", partial(table_columns, "each"), everywhere(1.8), bound=FP32),
    Line(
        "net D in Tables 3 to 5, the dearest alone", partial(table_columns, "dearest"), everywhere(1.25), "lower", FP32
    ),
    Line("bf16 against fp32, net D of the proxy", decisions),
]
