"""One job in one folder: builds, trains, evaluates or counts, and knows no store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import JobError
from .files import write_whole
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


def _readable(images: Any, indices: Any, seen: list[int], bad: list[str] | None = None) -> Iterator[Any]:
    """The images that can be read, their numbers put down in `seen`, and why others cannot in `bad`.

    Images in files are decoded by worker processes.
    """
    from .data import Unreadable, stream
    from .train import reading_workers

    in_memory = hasattr(images, "images")
    for i, image in ((i, images[i]) for i in indices) if in_memory else stream(images, indices, reading_workers()):
        if not isinstance(image, Unreadable):
            seen.append(int(i))
            yield image
        elif bad is not None:
            bad.append(str(image))


def _train(job: Job, inputs: Mapping[str, Path], out: Path, data: Path, device: str) -> list[Output]:
    import numpy as np
    import torch
    from safetensors.torch import load_file

    from .architectures import make
    from .data import open_set
    from .evaluate import rank_of_truth
    from .evaluate.engine import scores
    from .train import Group, colours_of, fit

    spec, recipe, group = job.spec, job.spec["recipe"], Group.begin(device)
    torch.set_num_threads(recipe["threads"])
    torch.manual_seed(spec["seed"])  # for what the build draws and the recipe leaves as it is
    images, held_out = open_set(recipe["dataset"], data), open_set(recipe["val"], data)
    (mean, _), Q = colours_of(images, recipe, out, group), sum(spec["S"]) // 2
    centre = recipe.get("val_view") == "centre"
    view = ViewSet("grid", Q, spec["input"], flips=False) if centre else ViewSet("dense", Q, Q)
    part = np.array_split(np.arange(len(held_out.labels)), group.size)[group.rank]  # none is padded

    def validate(net: Any) -> float:
        seen: list[int] = []
        found = scores(net, _readable(held_out, part, seen), [view], mean, recipe["scale"], device=group.device)[view]
        wrong = int(np.sum(rank_of_truth(found, np.asarray(held_out.labels)[seen]) > 0))
        counts = torch.tensor([wrong, len(found), len(part) - len(seen)], dtype=torch.float64)
        total, answered, left_out = (int(n) for n in group.sum(counts))
        if answered + left_out != len(held_out.labels):
            raise JobError(
                f"{answered} of {len(held_out.labels)} validation images were answered; nothing was recorded"
            )
        return 100.0 * (total / answered)

    start = load_file(inputs[spec["parent"]]) if spec["parent"] else None
    net = make(Build.parse(spec["build"]))
    numbers = fit(net, spec, images, out, validate, start, group, len(held_out.labels))
    files = {"safetensors": out / "weights.safetensors", "log.jsonl": out / "log.jsonl"}
    return [Output(job.digest, "train", spec, numbers, files)]


def _evaluate(job: Job, inputs: Mapping[str, Path], out: Path, data: Path, device: str) -> list[Output]:
    import numpy as np
    import torch
    from safetensors import safe_open

    from .architectures import make
    from .data import balanced, open_set
    from .evaluate import rank_of_truth
    from .evaluate.engine import scores
    from .evaluate.sanity import changed_share, check
    from .provenance import file_digest
    from .weights import fit_into, load

    spec, path = job.spec, inputs[job.spec["weights"]]
    torch.set_num_threads(int(spec.get("threads", 1)))
    net = make(Build.parse(spec["build"]))
    fit_into(net, load(path))
    mean, scale = spec.get("mean"), spec.get("scale")
    if mean is None or scale is None:  # of a training here: with its weights
        with safe_open(path, framework="pt") as file:
            meta = file.metadata()
        mean = json.loads(meta["mean"]) if mean is None else mean
        scale = json.loads(meta["scale"]) if scale is None else scale
    for layer in net.modules():
        if "bn_eps" in spec and isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.eps = spec["bn_eps"]
    images = open_set(spec["dataset"], data)
    limit, views = spec.get("limit", 0), [ViewSet(**v) for v in spec["views"]]
    which = balanced(images.labels, limit) if limit else np.arange(len(images.labels))
    check(net, images, views[0], mean, scale, limit=limit, published="origin" in spec, device=device)
    numbers: dict[str, Any] = {"weights_sha256": file_digest(path)}
    if spec["dtype"] != "float32":
        few = list(_readable(images, which[:: -(-len(which) // 400)], []))  # of all classes
        share = changed_share(net, few, views, mean, scale, dtype=spec["dtype"], device=device)
        numbers["changed_share"] = share
    digests, rows = dict(zip(views, job.outputs, strict=True)), {}

    def keep(view: ViewSet, places: Any, found: Any) -> None:
        if view not in rows:  # on disk, so that memory does not grow with the images
            size = len(which), found.shape[1]
            rows[view] = np.lib.format.open_memmap(out / f"{digests[view]}.npy", "w+", np.float32, size)
        rows[view][places] = found

    def tell(done: int) -> None:
        (out / "progress.txt").write_text(f"{done} of {len(which)} images")

    seen: list[int] = []
    bad: list[str] = []
    given = _readable(images, which, seen, bad)
    scores(net, given, views, mean, scale, device=device, dtype=spec["dtype"], progress=tell, sink=keep)
    if len(seen) + len(bad) != len(which):
        raise JobError(f"{len(seen)} scores for {len(which)} images; nothing was recorded")
    labels = np.asarray(images.labels)[seen]
    more = {} if hasattr(images, "images") else {"ids": np.asarray(images.ids)[seen]}
    outputs = []
    for view, digest in digests.items():
        found = rows[view][: len(seen)]
        ranks = rank_of_truth(found, labels)
        packed = out / f"{digest}.npz"
        arrays = {"scores": found, "ranks": ranks.astype(np.int32), "labels": labels.astype(np.int32), **more}
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
        told = {"images": len(ranks), **{f"top{k}_error": float(100 * np.mean(ranks >= k)) for k in (1, 5)}, **numbers}
        if bad:
            told |= {"left_out": len(bad), "unreadable": bad[:20]}
        common = {k: v for k, v in spec.items() if k != "views"}
        outputs.append(Output(digest, "scores", {**common, "view": view.plain()}, told, {"npz": packed}))
    return outputs


def main(job_file: Path, out: Path) -> int:
    """The job of a JSON file in the folder `out`, whose paths come back in `outputs.json`; `failed.json` says why not.

    The file holds `job`, the fields of a Job; `inputs`, weights by digest; `data`; `device`; and it may hold
    `parent`, the process whose death ends this one. Under `torchrun` all processes work, and the first one writes.
    """
    import os

    from .processes import die_with

    told = json.loads(job_file.read_text(encoding="utf-8"))
    if "parent" in told or "RANK" in os.environ:  # torchrun itself leaves its processes behind when it is killed
        die_with(told.get("parent", os.getppid()))
    job = Job(**told["job"])
    inputs = {digest: Path(path) for digest, path in told["inputs"].items()}
    try:
        outputs = work(job, inputs, out, Path(told["data"]), told["device"])
    except JobError as error:
        write_whole(out / "failed.json", json.dumps({"reason": error.reason, "final": error.final}))
        return 1
    if os.environ.get("RANK", "0") == "0":
        plain = [{**vars(o), "files": {name: str(path) for name, path in o.files.items()}} for o in outputs]
        write_whole(out / "outputs.json", json.dumps(plain))
    return 0


if __name__ == "__main__":
    import sys

    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
