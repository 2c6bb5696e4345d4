"""What is here and what is damaged: versions, hardware, data, records."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from . import data
from .provenance import environment
from .store import Store

Finding = tuple[bool, str, str]


def examine(root: Path) -> list[Finding]:
    """Findings as (ok, what, note); a note on what is not ok ends in what to do."""
    facts, store = environment(), Store(root)
    gib, free = psutil.virtual_memory().available / 2**30, shutil.disk_usage(root).free / 2**30
    found: list[Finding] = [
        (bool(facts[name]), name, facts[name] or "not installed; pip install -e .")
        for name in ("torch", "torchvision", "timm", "mlflow", "fvcore")
    ]
    found += [
        (gib > 2, "memory", f"{gib:.1f} GiB free" + ("" if gib > 2 else "; use --jobs 1")),
        (True, "processor", f"{facts['processor']}, {facts['cores']} cores"),
        (free > 1, "disk", f"{free:.1f} GiB free at {root}" + ("" if free > 1 else "; make room")),
        (True, "device", _device()),
        (True, "evaluation", _evaluation()),
    ]
    for name in data.DIGITS:
        known = data.facts(name, root / "data")
        note = f"{known['images']} images, {known['fingerprint'][:12]}" if known else "will be made by the first run"
        found.append((True, name, note))
    count = 0
    for record in (r for kind in ("train", "scores", "measure", "settings") for r in store.all(kind)):
        if bad := store.sound(record):
            store.set_aside(record)
            found.append((False, record.name, f"{', '.join(bad)} damaged; set aside, the next run makes it again"))
        else:
            count += 1
    damaged, begun = (len(list(root.glob(parts))) for parts in ("records/**/*.damaged", "partial/*"))
    found.append((True, "records", f"{count} whole" + (f", {damaged} set aside as .damaged" if damaged else "")))
    found.append((True, "jobs begun and not ended", f"{begun}" + ("; `repro run` goes on with them" if begun else "")))
    return found


def _device() -> str:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names) or "no GPU; jobs run on the CPU, one thread each"


def _evaluation() -> str:
    """What the evaluation engine would use here, and why."""
    import torch

    from .evaluate.machines import machine

    ours = machine("cuda" if torch.cuda.is_available() else "cpu")
    said = f"{ours.name}: channels last (faster), {ours.batch} images or {ours.views} views of 224 x 224 (memory), "
    said += "one thread a job, float32, nothing compiled (both change scores); "
    return f"{said}-o evaluate.dtype= offers {ours.offers}"
