"""Trainings by several processes, and trainings that are killed: what comes out is what one calm process makes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from repro import train
from repro.data import Images
from repro.errors import JobError
from repro.executors.local import torchrun
from repro.schema import Job
from repro.work import work

RECIPE: dict[str, Any] = {
    "dataset": "folder:coloured-train",
    "val": "folder:coloured-val",
    "batch": 16,
    "epochs": 3,
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
    "schedule": {"name": "cosine", "warmup_steps": 2},
    "dropout": 0.0,
    "init": {"name": "kaiming"},
    "clip": 5.0,
    "augment": {"flip": 0.5, "colour": 0.1},
    "scale": 1 / 64,
    "dtype": "float32",
    "memory_format": "channels_last",
    "threads": 1,
    "bar": 9.0,
}
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [180, 180, 60]])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders of four classes, PNG files of many sizes; one file of the training set is cut."""
    root, random = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for half, count in (("train", 44), ("val", 31)):
        for i in range(count):
            size = random.integers(20, 40, 2)
            pixels = (COLOURS[i % 4] + random.integers(-40, 41, (*size, 3))).clip(0, 255).astype(np.uint8)
            path = root / half / "abcd"[i % 4] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    cut = root / "train" / "a" / "8.png"
    cut.write_bytes(cut.read_bytes()[:200])
    with pytest.MonkeyPatch.context() as patch:
        for half in ("train", "val"):
            patch.setenv(f"REPRO_DATA_FOLDER_COLOURED_{half.upper()}", str(root / half))
        patch.setenv("REPRO_WORKERS", "0")
        patch.setenv("REPRO_CHECKPOINT_MINUTES", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield root


def job(**recipe: Any) -> Job:
    build = "vgg:A+width=1/16+input=16+classes=4+pools=3"
    spec = {"build": build, "input": 16, "classes": 4, "recipe": {**RECIPE, **recipe}, "S": [16, 24], "seed": 3}
    return Job("train", "train", {**spec, "parent": None, "copy": []}, ("x",))


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def log(out: Path) -> list[dict[str, Any]]:
    """Without what a clock says."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in e.items() if k not in ("seconds", "images_per_second", "wait")} for e in lines]


def difference(one: Path, two: Path) -> float:
    a, b = load_file(one / "weights.safetensors"), load_file(two / "weights.safetensors")
    return max(float((a[k] - b[k]).abs().max() / a[k].abs().max()) for k in a)


def test_two_processes_under_torchrun_train_as_one(data: Path, tmp_path: Path) -> None:
    """No BN, no dropout: after 20 batches of the same 16 images the weights are equal to rounding."""
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    (alone,) = work(job(iterations=20, bn_batch=8), {}, one, data)
    (several,) = torchrun(job(iterations=20, bn_batch=8), {}, two, data, "cpu", 2)
    assert alone.numbers["val_error"] == several.numbers["val_error"]
    assert several.numbers["left_out"] == alone.numbers["left_out"] == 1
    assert several.numbers["loss"] == pytest.approx(alone.numbers["loss"], rel=1e-4)
    assert difference(one, two) < 1e-4
    assert [e["epoch"] for e in log(two)] == list(range(7))
    assert several.files["safetensors"] == two / "weights.safetensors"


def test_what_ends_a_training_under_torchrun_is_told(data: Path, tmp_path: Path) -> None:
    """The reason of the process that found it comes back, and whether it is final."""
    with pytest.raises(JobError, match="diverged: the loss is") as error:
        torchrun(job(optimizer={"name": "sgd", "lr": 1e9}, clip=None), {}, tmp_path, data, "cpu", 1)
    assert error.value.final


class Normed(nn.Module):
    """A small net with BN and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8, momentum=0.3), nn.ReLU())
        self.more = nn.Sequential(nn.Conv2d(8, 12, 3, 2, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.rest = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(12 * 9, 4))
        self.spare = nn.Linear(2, 2)  # which has no gradient, and so no decay of its weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(self.more(self.features(x)))


def _fit(out: Path, recipe: dict[str, Any], place: dict[str, str]) -> None:
    """One process of a group that `place` describes as `torchrun` would."""
    os.environ.update(place)
    torch.set_num_threads(1)
    random, labels = np.random.default_rng(0), np.arange(45) % 4
    pixels = (COLOURS[labels][:, None, None, :] + random.integers(-40, 41, (45, 20, 20, 3))).clip(0, 255)
    spec = {"recipe": recipe, "seed": 3, "classes": 4, "input": 16, "S": [16, 20], "copy": []}
    group = train.Group.begin("cpu")
    train.fit(Normed(), spec, Images(pixels.astype(np.uint8), labels), out, lambda _: 20.0, group=group)
    if group.size > 1:
        torch.distributed.destroy_process_group()


def fit(out: Path, size: int, **recipe: Any) -> Path:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
    context = multiprocessing.get_context("fork")  # which need not import torch again
    arguments = [(folder(out), {**RECIPE, **recipe}, {**common, "RANK": str(rank)}) for rank in range(1)]
    arguments += [(out, {**RECIPE, **recipe}, {**common, "RANK": str(rank)}) for rank in range(1, size)]
    processes = [context.Process(target=_fit, args=a) for a in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * size
    return out


def test_with_bn_batch_several_processes_train_as_one_with_bn_dropout_and_mixup(tmp_path: Path) -> None:
    """Also with parts that do not divide the batch, and to the running statistics and the average of weights."""
    words = {"bn_batch": 3, "dropout": 0.3, "mixup": 0.4, "ema": 0.9, "label_smoothing": 0.1}
    one, two, three = (fit(tmp_path / str(size), size, **words) for size in (1, 2, 3))
    for other in (two, three):
        assert difference(one, other) < 2e-4
        spare = [load_file(out / "weights.safetensors")["spare.weight"] for out in (one, other)]
        assert torch.equal(*spare)
        for a, b in zip(log(one), log(other), strict=True):
            assert b == pytest.approx(a, rel=1e-4)
    assert difference(one, fit(tmp_path / "larger", 1, **{**words, "bn_batch": 4})) > 1e-2


def test_several_processes_ask_for_bn_batch(tmp_path: Path) -> None:
    """Else their number would be in the result of nets with BN or dropout; the words to add are told."""
    spec = {"recipe": RECIPE, "seed": 3, "classes": 4, "input": 16, "S": [16, 20], "copy": []}
    images = Images(np.zeros((4, 16, 16, 3), np.uint8), np.arange(4))
    with pytest.raises(JobError, match=r"depend on the number of processes.*-o recipe\.bn_batch=32, or train with one"):
        train.fit(Normed(), spec, images, tmp_path, lambda _: 0.0, group=train.Group(0, 2))


def told(path: Path, data: Path, some: Job) -> list[Any]:
    path.write_text(json.dumps({"job": vars(some), "inputs": {}, "data": str(data), "device": "cpu"}))
    return [sys.executable, "-m", "repro.work", path, folder(path.with_suffix(""))]


def test_a_training_killed_within_an_epoch_goes_on_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of the second epoch: weights, average, losses and rates as if nothing had been."""
    words = {"dropout": 0.3, "ema": 0.5, "mixup": 0.2, "optimizer": {"name": "adamw", "lr": 0.005}, "epochs": 6}
    some = job(**words, augment={**RECIPE["augment"], "crop": "area", "area": [0.3, 1], "jitter": 0.1})
    whole, parts = folder(tmp_path / "whole"), tmp_path / "parts"
    work(some, {}, whole, data)
    command = told(tmp_path / "parts.json", data, some)
    process = subprocess.Popen(command)
    place: dict[str, Any] = {}
    while process.poll() is None:
        time.sleep(0.02)
        if (parts / "checkpoint.pt").exists():
            place = torch.load(parts / "checkpoint.pt", weights_only=True)
            if len(place["log"]) == 1 and place["done"] in (1, 2):
                break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    place = torch.load(parts / "checkpoint.pt", weights_only=True)
    assert len(place["log"]) == 1
    assert place["done"] in (1, 2)
    assert not (parts / "weights.safetensors").exists()
    subprocess.run(command, check=True)
    assert (parts / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert log(parts) == log(whole)
    (output,) = json.loads((parts / "outputs.json").read_text())
    assert output["numbers"]["val_error"] == log(whole)[-1]["val_error"]


def test_processes_of_a_training_die_with_the_one_that_began_it(data: Path, tmp_path: Path) -> None:
    """Nothing writes on after kill -9 of the run, not even the processes under `torchrun`."""
    some, out = job(epochs=100_000, bn_batch=8), folder(tmp_path / "out")
    code = (
        "import json, sys; from pathlib import Path; from repro.executors import Local; from repro.schema import Job\n"
        f"job = Job(**json.loads({json.dumps(json.dumps(vars(some)))}))\n"
        f"data, out = Path({str(data)!r}), Path({str(out)!r})\n"
        "if __name__ == '__main__': Local(1, data, processes=2).submit(job, {}, out).result()"
    )
    (tmp_path / "run.py").write_text(code)
    process = subprocess.Popen([sys.executable, tmp_path / "run.py"])
    while not (out / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    end = time.monotonic() + 8
    while living(out) and time.monotonic() < end:
        time.sleep(0.2)
    assert not living(out)


def living(out: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        found += [line] if str(out) in line else []
    return found
