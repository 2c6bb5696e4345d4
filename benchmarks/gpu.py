"""Lines that need a GPU: each is the share of the machine's own matrix-multiply speed that a whole pass reaches."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from repro.schema import ViewSet

from . import made
from .evaluation import CENTRE, SCALES, engine, read, view_macs
from .made import STORE
from .timing import Found, Line, NotRun, agreement, everywhere, matrix_seconds

FIFTY = 50_000  # the images of ImageNet's validation set
# All scales of Tables 3 to 6 of VGG, dense, and Table 5's crops.
TABLES = [
    *made.view_sets("dense", (224, 256, 288, 352, 384, 416, 512)),
    *made.view_sets("grid", SCALES),
]


def needed() -> None:
    if not torch.cuda.is_available():
        raise NotRun("no GPU here (torch sees no CUDA device)")


def rolled(n: int, shape: tuple[int, int], distinct: int = 500) -> Iterator[np.ndarray]:
    """`n` images that differ: pictures, each moved round by another number of columns whenever it comes again."""
    pool = made.pictures(min(n, distinct), 11, [shape])
    for i in range(n):
        yield np.roll(pool[i % len(pool)], i // len(pool), axis=1)


def whole_pass(build: str, sets: Sequence[ViewSet], shape: tuple[int, int], images: int, quick: bool) -> Found:
    """Images a second over one pass, as a share of the limit; agreement of bf16 with fp32 on 16 images."""
    needed()
    net, images = made.net(build).cuda(), max(64, images // (10 if quick else 1))
    few = list(rolled(16, shape))
    half, full = (engine(net, few, sets, dtype, 256, "cuda") for dtype in ("bfloat16", "float32"))
    engine(net, rolled(512, shape, 64), sets, crops=256, device="cuda")
    given = list(rolled(images, shape)) if shape == (224, 224) else rolled(images, shape)
    begun = time.perf_counter()
    engine(net, given, sets, crops=256, device="cuda")
    return _share(begun, images, images * view_macs(made.net(build), sets, *shape), half, full)


def _share(begun: float, images: int, macs: float, half: np.ndarray, full: np.ndarray) -> Found:
    seconds = time.perf_counter() - begun
    share = matrix_seconds(macs, "bfloat16", "cuda") / seconds
    note = f"{images / seconds:.0f} images/s, {images} images, bf16; limit: bf16 arithmetic"
    return Found([share], agreement(half, full), share, len(set(full.argmax(1))), len(full), note)


class Files(torch.utils.data.Dataset):
    """JPEG files, decoded by the loader's workers."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        return read(self.paths[i])


def tables(quick: bool) -> Found:
    """Every VGG table's view sets of net D from one pass of decodes."""
    needed()
    net, images, shape = made.net("vgg:D").cuda(), 32 if quick else 256, (375, 500)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i}.jpg") for i in range(images)]
        for path, image in zip(paths, rolled(images, shape), strict=True):
            Image.fromarray(image).save(path, quality=90)
        few = [read(path) for path in paths[:8]]
        half, full = (engine(net, few, TABLES, dtype, 256, "cuda") for dtype in ("bfloat16", "float32"))
        cores = os.cpu_count() or 1
        loader = torch.utils.data.DataLoader(Files(paths), None, num_workers=cores, collate_fn=lambda image: image)
        begun = time.perf_counter()
        engine(net, loader, TABLES, crops=256, device="cuda")
        return _share(begun, images, images * view_macs(made.net("vgg:D"), TABLES, *shape), half, full)


def proxy_table(quick: bool) -> Found:
    """`repro run table3` on the GPU, against the seconds of its trainings on one CPU thread, where recorded."""
    needed()
    from repro.store import Store

    recorded = sum(r.seconds for r in Store(STORE).all("train") if r.name.endswith("seed 0")) if STORE.exists() else 0
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        words = ["run", "table3", "--device", "cuda", "--no-mlflow", "--store", folder]
        subprocess.run([sys.executable, "-m", "repro", *words], check=True, capture_output=True)
        seconds = time.perf_counter() - begun
    if not recorded:
        raise NotRun(f"it took {seconds:.0f} s; {STORE} has no trainings to set beside it")
    return Found([recorded / seconds], note=f"{seconds:.0f} s; {recorded:.0f} s on one CPU thread")


LINES = [
    Line("GPU: VGG-16, single crop, of the limit", partial(whole_pass, "vgg:D", CENTRE, (375, 500), 5_000),
         everywhere(0.75)),
    Line("GPU: ResNet-50, single crop, of the limit", partial(whole_pass, "timm:resnet50", CENTRE, (375, 500), 5_000),
         everywhere(0.55)),
    Line("GPU: ResNet-50, 50,000 cached images of 224 x 224",
         partial(whole_pass, "timm:resnet50", made.view_sets("centre", [224]), (224, 224), FIFTY)),
    Line("GPU: VGG-16, dense, three scales, 50,000 images",
         partial(whole_pass, "vgg:D", made.view_sets("dense", SCALES), (375, 500), FIFTY)),
    Line("GPU: all VGG tables of net D from one pass of decodes", tables),
    Line("GPU: proxy table3", proxy_table),
]  # fmt: skip
