"""One job in one folder: builds, trains, evaluates or counts, and knows no store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import JobError
from .schema import Build, Job, ViewSet


@dataclass(frozen=True)
class Output:
    """What is to become one record: numbers, and files by the name that the record gives them."""

    digest: str
    kind: str
    spec: Mapping[str, Any]
    numbers: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)


def work(job: Job, inputs: Mapping[str, Path], out: Path, data: Path, device: str = "cpu") -> list[Output]:
    """Do one job in the folder `out`.

    `inputs` gives the weights file of each training that the job needs; `data` is the folder of
    the data sets. A job begun before goes on from the checkpoint in `out`. Raises JobError.
    """
    tasks: dict[str, Callable[..., list[Output]]] = {
        "measure": _measure,
        "settings": _settings,
        "train": _train,
        "evaluate": _evaluate,
    }
    return tasks[job.kind](job, inputs, out, data, device)


def _measure(job: Job, inputs: Mapping[str, Path], out: Path, data: Path, device: str) -> list[Output]:
    from .measure import measure

    numbers = measure(Build.parse(job.spec["build"]), job.spec["input"])
    return [Output(job.digest, "measure", job.spec, numbers)]


def _settings(job: Job, inputs: Mapping[str, Path], out: Path, data: Path, device: str) -> list[Output]:
    import torch

    from .architectures import make
    from .train import settings

    with torch.device("meta"):
        net = make(Build.parse(job.spec["build"]))
    return [Output(job.digest, "settings", job.spec, settings(job.spec, net, job.spec["images"]))]


def _train(job: Job, inputs: Mapping[str, Path], out: Path, data: Path, device: str) -> list[Output]:
    import torch
    from safetensors.torch import load_file

    from .architectures import make
    from .data import facts, load
    from .evaluate.engine import validation_error
    from .train import fit

    spec, recipe = job.spec, job.spec["recipe"]
    torch.set_num_threads(recipe["threads"])
    images, held_out = load(recipe["dataset"], data), load(recipe["val"], data)
    mean, Q = (facts(recipe["dataset"], data) or {})["mean"], sum(spec["S"]) // 2

    def validate(net: Any) -> float:
        return validation_error(net, held_out.images, held_out.labels, Q, mean, recipe["scale"])

    start = load_file(inputs[spec["parent"]]) if spec["parent"] else None
    net = make(Build.parse(spec["build"]))
    numbers = fit(net, spec, images, out, validate, start, device=device, val_images=len(held_out.labels))
    files = {"safetensors": out / "weights.safetensors", "log.jsonl": out / "log.jsonl"}
    return [Output(job.digest, "train", spec, numbers, files)]


def _evaluate(job: Job, inputs: Mapping[str, Path], out: Path, data: Path, device: str) -> list[Output]:
    import numpy as np
    import torch
    from safetensors import safe_open

    from .architectures import make
    from .data import load
    from .evaluate import rank_of_truth
    from .evaluate.engine import scores
    from .provenance import file_digest

    spec, weights = job.spec, inputs[job.spec["weights"]]
    torch.set_num_threads(1)
    images = load(spec["dataset"], data)
    net = make(Build.parse(spec["build"]))
    with safe_open(weights, framework="pt") as stream:
        meta = stream.metadata()
        net.load_state_dict({key: stream.get_tensor(key) for key in stream.keys()})  # noqa: SIM118  (no mapping)
    views = [ViewSet(**v) for v in spec["views"]]
    mean, scale = json.loads(meta["mean"]), json.loads(meta["scale"])
    found = scores(net, images.images, views, mean, scale, device=device, dtype=spec["dtype"])
    common = {k: v for k, v in spec.items() if k != "views"}
    outputs = []
    for digest, view in zip(job.outputs, views, strict=True):
        if len(found[view]) != len(images.labels):
            raise JobError(f"{len(found[view])} scores for {len(images.labels)} images; nothing was recorded")
        ranks = rank_of_truth(found[view], images.labels)
        path = out / f"{digest}.npz"
        np.savez_compressed(
            path, scores=found[view], ranks=ranks.astype(np.int32), labels=images.labels.astype(np.int32)
        )
        numbers = {
            "images": len(ranks),
            "top1_error": float(100 * np.mean(ranks > 0)),
            "top5_error": float(100 * np.mean(ranks > 4)),
            "weights_sha256": file_digest(weights),
        }
        outputs.append(Output(digest, "scores", {**common, "view": view.plain()}, numbers, {"npz": path}))
    return outputs
