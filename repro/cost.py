"""What a run costs before it is paid: multiply-adds, hours here and on a named GPU, disk and memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

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

    def hours(self, rate: float) -> float:
        """Hours at `rate` multiply-adds a second."""
        return self.macs / rate / 3600


class Estimator:
    """Costs of jobs; nets are counted on the meta device, each once. `sizes` are images by data set."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self._counts: dict[tuple[str, int], tuple[float, float, float]] = {}

    def of(self, job: Job) -> Cost:
        """The cost of a training or an evaluation. Raises JobError for a net that does not run."""
        spec = job.spec
        macs, params, activations = self.counted(spec["build"], spec["input"])
        if job.kind == "evaluate":
            images = spec.get("limit") or self.sizes.get(spec["dataset"], 0)
            area = spec["input"] ** 2
            size = IMAGE if max(v["Q"] for v in spec["views"]) > 72 else (72, 72)
            views = [view for v in spec["views"] for view in protocols.views(ViewSet(**v), *size)]
            seen = sum((view.out**2 or view.box[2] * view.box[3]) / area for view in views)
            disk = 4.0 * images * spec["classes"] * len(spec["views"])
            return Cost(images, images * seen * macs, disk, 4 * params + 4 * activations * max(1.0, PIXELS / area))
        recipe = spec["recipe"]
        images = int(recipe["epochs"] * self.sizes.get(recipe["dataset"], 0))
        if recipe.get("iterations"):
            images = recipe["iterations"] * recipe["batch"]
        # The optimizer keeps a gradient and a momentum; the checkpoint holds weights and momentum.
        batch = recipe.get("bn_batch") or recipe["batch"]
        return Cost(images, _BACKWARD * images * macs, 12 * params, 12 * params + 4 * batch * activations)

    def counted(self, build: str, input: int) -> tuple[float, float, float]:
        """Multiply-adds of one image, parameters, and the outputs of all layers together."""
        key = build, input
        if key not in self._counts:
            import torch

            from . import architectures
            from .measure.stages import count

            with torch.device("meta"):
                stages, _ = count(architectures.make(Build.parse(build)).eval(), input)
            leaves = [n for n in stages if n and not any(other.startswith(f"{n}.") for other in stages)]
            outputs = 0.0
            for name in leaves:
                size = 1
                for side in stages[name].get("output") or [0]:
                    size *= side
                outputs += size
            self._counts[key] = stages[""].get("macs", 0), stages[""].get("params", 0), outputs
        return self._counts[key]

    def calibrated(self, job: Job, device: str) -> float:
        """Multiply-adds a second that a job's net reaches here, from forward passes of about two seconds."""
        import torch

        from . import architectures

        spec = job.spec
        net = architectures.make(Build.parse(spec["build"])).eval().to(device)
        batch, done, macs = 2 if device == "cpu" else 64, 0, self.counted(spec["build"], spec["input"])[0]
        x = architectures.example(net, spec["input"]).expand(batch, -1, -1, -1).to(device)
        half = (spec.get("recipe") or spec)["dtype"] != "float32"
        with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, half):
            net(x).sum().item()
            begun = time.perf_counter()
            while time.perf_counter() - begun < 2:
                net(x).sum().item()  # waits for a GPU
                done += batch
        return done * macs / (time.perf_counter() - begun)


def rate_on(gpu: str) -> float:
    """Multiply-adds a second on a named GPU. Raises ReproError for one that is not known."""
    if gpu not in PEAK:
        raise ReproError(f"--on {gpu}: no such GPU is known{near(gpu, PEAK)} Known: {', '.join(PEAK)}")
    return PEAK[gpu] * 1e12 * SHARE


def lines(jobs: list[Job], sizes: Mapping[str, int], device: str, slots: int, on: str) -> list[str]:
    """A line for each training and evaluation, and the sums, for `--dry-run`."""
    estimator, told = Estimator(sizes), []
    gpu = rate_on(on) if on else 0.0
    heavy = [j for j in jobs if j.kind in ("train", "evaluate")]
    if not heavy:
        return []
    costs = [estimator.of(job) for job in heavy]
    largest = max(range(len(heavy)), key=lambda i: costs[i].macs)
    here = estimator.calibrated(heavy[largest], device)
    total = Cost(sum(c.images for c in costs), sum(c.macs for c in costs), sum(c.disk for c in costs),
                 max(c.memory for c in costs) * (slots if device == "cpu" else 1))  # fmt: skip
    width = max(len(job.name) for job in heavy)
    heads = ["images", "multiply-adds", "hours here", *([f"on {on}"] if on else []), "disk GiB", "memory GiB"]
    told.append(f"  {'':{width}}" + "".join(f"{head:>15}" for head in heads))
    for name, cost in [*((j.name, c) for j, c in zip(heavy, costs, strict=True)), ("together", total)]:
        hours = [cost.hours(here), *([cost.hours(gpu)] if on else [])]
        cells = [f"{cost.images:,}", f"{cost.macs:.2e}", *(f"{h:,.0f}" if h > 99 else f"{h:.2g}" for h in hours)]
        cells += [f"{cost.disk / 2**30:.2g}", f"{cost.memory / 2**30:.2g}"]
        told.append(f"  {name:{width}}" + "".join(f"{cell:>15}" for cell in cells))
    told.append(f"here: {here / 1e9:,.0f} x 10^9 multiply-adds a second on {device}, by {heavy[largest].spec['build']}")
    if on:
        told.append(f"{on}: taken as {SHARE:.0%} of its peak in bfloat16, {PEAK[on]} x 10^12 multiply-adds a second")
    return told
