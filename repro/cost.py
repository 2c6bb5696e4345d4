"""What a run costs before it is paid: multiply-adds, hours here and on a named GPU, disk and memory."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from . import protocols
from .errors import ReproError
from .reader import near
from .schema import Build, Job, ViewSet

# Peak of dense bfloat16 (V100, T4: float16) matrix products in 10^12 multiply-adds a second: half of the
# operations that the makers' data sheets give.
PEAK = {"h200": 495, "h100": 495, "l40s": 181, "a100": 156, "rtx4090": 83, "a6000": 77, "v100": 62, "t4": 32}
SHARE = 0.35  # of that peak which convolution nets are taken to reach
IMAGE = (375, 500)  # pixels of a usual ImageNet photograph
PIXELS = 128 * 1024  # that the engine forwards at once on a CPU
_BACKWARD = 3  # a training step counts as three forward passes


@dataclass(frozen=True)
class Cost:
    """`images` are presentations of an image, `macs` multiply-adds; `disk` and `memory` in bytes."""

    images: int
    macs: float
    disk: float
    memory: float


@cache
def counted(build: str, input: int) -> tuple[float, float, float]:
    """Multiply-adds of one image, parameters, and the outputs of all layers, counted on the meta device."""
    import torch

    from . import architectures
    from .measure.stages import count

    with torch.device("meta"):
        stages, _ = count(architectures.make(Build.parse(build)).eval(), input)
    inner = {name.rpartition(".")[0] for name in stages}
    outputs = sum(math.prod(s.get("output") or [0]) for name, s in stages.items() if name and name not in inner)
    return stages[""].get("macs", 0), stages[""].get("params", 0), outputs


def of(job: Job, sizes: Mapping[str, int]) -> Cost:
    """The cost of a training or an evaluation; `sizes` are images by data set. Raises JobError if the net fails."""
    spec = job.spec
    macs, params, activations = counted(spec["build"], spec["input"])
    if job.kind == "evaluate":
        images, area = spec.get("limit") or sizes.get(spec["dataset"], 0), spec["input"] ** 2
        size = IMAGE if max(v["Q"] for v in spec["views"]) > 72 else (72, 72)
        views = [view for v in spec["views"] for view in protocols.views(ViewSet(**v), *size)]
        seen = sum((view.out**2 or view.box[2] * view.box[3]) / area for view in views)
        disk = 4.0 * images * spec["classes"] * len(spec["views"])
        return Cost(images, images * seen * macs, disk, 4 * params + 4 * activations * max(1.0, PIXELS / area))
    recipe = spec["recipe"]
    images = recipe.get("iterations", 0) * recipe["batch"] or recipe["epochs"] * sizes.get(recipe["dataset"], 0)
    # The optimizer keeps a gradient and a momentum; the checkpoint holds weights and momentum.
    together = recipe.get("bn_batch") or recipe["batch"]
    return Cost(images, _BACKWARD * images * macs, 12 * params, 12 * params + 4 * together * activations)


def calibrated(job: Job, device: str, seconds: float = 2.0) -> float:
    """Multiply-adds a second of a job's net here, on the job's threads, from forward passes of about `seconds`."""
    import torch

    from . import architectures

    spec, own = job.spec, job.spec.get("recipe") or job.spec
    torch.set_num_threads(int(own.get("threads", 1)))
    net = architectures.make(Build.parse(spec["build"])).eval().to(device)
    batch, done = 2 if device == "cpu" else 64, 0
    x = architectures.example(net, spec["input"]).expand(batch, -1, -1, -1).to(device)
    half = torch.autocast(torch.device(device).type, torch.bfloat16, own["dtype"] != "float32")
    with torch.inference_mode(), half:
        net(x).sum().item()
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            net(x).sum().item()  # waits for a GPU
            done += batch
    return done * counted(spec["build"], spec["input"])[0] / (time.perf_counter() - begun)


def rate_on(gpu: str) -> float:
    """Multiply-adds a second on a named GPU. Raises ReproError for one that is not known."""
    if gpu not in PEAK:
        raise ReproError(f"--on {gpu}: no such GPU is known{near(gpu, PEAK)} Known: {', '.join(PEAK)}")
    return PEAK[gpu] * 1e12 * SHARE


def lines(jobs: list[Job], sizes: Mapping[str, int], device: str, slots: int, on: str) -> list[str]:
    """A line for each training and evaluation, and the sums, for `--dry-run`."""
    gpu = rate_on(on) if on else 0.0
    costs = [(job, of(job, sizes)) for job in jobs if job.kind in ("train", "evaluate")]
    if not costs:
        return []
    largest, _ = max(costs, key=lambda pair: pair[1].macs)
    here = calibrated(largest, device)
    images, macs, disk, memory = zip(*((c.images, c.macs, c.disk, c.memory) for _, c in costs), strict=True)
    total = Cost(sum(images), sum(macs), sum(disk), max(memory) * (slots if device == "cpu" else 1))
    width = max(len(job.name) for job, _ in costs)
    heads = ["images", "multiply-adds", "hours here", *([f"on {on}"] if on else []), "disk GiB", "memory GiB"]
    told = [f"  {'':{width}}" + "".join(f"{head:>15}" for head in heads)]
    for name, cost in [*((job.name, cost) for job, cost in costs), ("together", total)]:
        hours = [cost.macs / rate / 3600 for rate in (here, gpu) if rate]
        cells = [f"{cost.images:,}", f"{cost.macs:.2e}", *(f"{h:,.0f}" if h > 99 else f"{h:.2g}" for h in hours)]
        cells += [f"{cost.disk / 2**30:.2g}", f"{cost.memory / 2**30:.2g}"]
        told.append(f"  {name:{width}}" + "".join(f"{cell:>15}" for cell in cells))
    told.append(f"here: {here / 1e9:.3g} x 10^9 multiply-adds a second on {device}, by {largest.spec['build']}")
    if on:
        told.append(f"{on}: taken as {SHARE:.0%} of its peak in bfloat16, {PEAK[on]} x 10^12 multiply-adds a second")
    return told
