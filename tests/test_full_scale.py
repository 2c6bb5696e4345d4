"""A generated ImageNet in the true layout, from the command line: evaluated under every protocol, and trained on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_imagenet
import numpy as np
import pytest
import torch
from torch import nn

from repro import cost, data, protocols
from repro.architectures import make
from repro.errors import ReproError
from repro.protocols import View
from repro.schema import Build, Job, ViewSet

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
SMALL = {"vgg:A": "vgg:A+width=1/16", "resnet:18": "resnet:18+width=1/16"}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 wnids, two validation images each."""
    root = tmp_path_factory.mktemp("imagenet")
    made_imagenet.make(root, classes=20, train_per_class=4, val_per_class=2)
    return root


def repro(*words: str, cwd: Path, code: int = 0) -> str:
    """What a command prints; it ends with `code`."""
    done = subprocess.run([sys.executable, "-m", "repro", *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def centre(image: np.ndarray) -> torch.Tensor:
    """The middle 224 x 224 of an image brought to short side 256, as a net sees it: (3, 224, 224)."""
    view_set = ViewSet("grid", 256, 224, flips=False)
    (view,) = protocols.views(view_set, *image.shape[:2])
    return cut(image, view)


def cut(image: np.ndarray, view: View) -> torch.Tensor:
    x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    x = nn.functional.interpolate(x, size=view.size, mode="bilinear", antialias=True)[0]
    top, left, height, width = view.box
    colour = torch.tensor(MEAN / STD, dtype=torch.float32)[:, None, None]
    return (
        x[:, top : top + height, left : left + width] / torch.tensor(STD, dtype=torch.float32)[:, None, None] - colour
    )


def weights_that_know(build: str, root: Path, path: Path) -> None:
    """Random weights whose last layer is fitted to the validation images, so that they are not at chance."""
    torch.manual_seed(0)
    net = make(Build.parse(build)).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    images = data.open_set("imagenet-1k-val", root / "cache")
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    features: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda m, args, out: features.append(args[0]))
    with torch.no_grad():
        net(torch.stack([centre(images[i]) for i in range(len(images))]))
    hook.remove()
    x = features[0].double()
    y = nn.functional.one_hot(torch.from_numpy(images.labels), 1000).double() * 20
    scale = x.std()
    fitted = torch.linalg.solve(x.T @ x / scale**2 + 1e-3 * torch.eye(x.shape[1]), x.T @ y / scale**2)
    with torch.no_grad():
        last.weight.copy_(fitted.T)
        last.bias.zero_()
    torch.save({"state_dict": net.state_dict()}, path)


@pytest.mark.parametrize("net", SMALL)
def test_a_weights_file_is_evaluated_under_every_protocol(
    net: str, imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass fills a table with a row a protocol; verdicts say that it is a file that was checked."""
    monkeypatch.setenv("REPRO_DATA_IMAGENET_1K", str(imagenet))
    weights_that_know(SMALL[net], imagenet, tmp_path / "net.pth")
    names = [
        name
        for name, rule in protocols.PROTOCOLS.items()
        if net != "vgg:A" or (rule.crop in (0, 224) and rule.kind != "full")  # its fc6 takes windows of 224
    ]
    rows = "".join(f"  {name}: {{protocol: {name}, values: [30.0]}}\n" for name in names)
    table = tmp_path / "mine" / "table1.yaml"
    table.parent.mkdir()
    table.write_text(
        f"title: t\nwhere: Table 1\ndefaults: {{build: {SMALL[net]}, dataset: imagenet-1k-val, Q: 256}}\n"
        f"columns: {{top-1: top1_error}}\nrows:\n{rows}"
    )
    words = ["run", str(table), "--scale", "full", "--weights", "net.pth", "--limit", "4", "--no-mlflow", "--json"]
    cells = json.loads(repro(*words, cwd=tmp_path))["cells"]
    assert [c["row"] for c in cells] == names
    assert {c["verdict"] for c in cells} <= {"inconclusive", "differs"}
    assert all("net.pth" in c["origin"] for c in cells)
    errors = {c["row"]: c["measured"] for c in cells}
    assert errors["centre"] <= 50  # what the last layer was fitted to; a wrong label or colour makes it 100
    again = repro(*words[:-1], "--dry-run", cwd=tmp_path)
    assert "1 jobs are there already, 0 to do" in again


def test_a_part_of_the_classes_is_told_and_not_evaluated(imagenet: Path, tmp_path: Path) -> None:
    """Without --limit a set that lacks 980 classes is no ImageNet: the job fails before its first batch."""
    torch.save(make(Build.parse(SMALL["vgg:A"])).state_dict(), tmp_path / "net.pth")
    words = ["run", "vgg/table3", "--row", "A 256", "--scale", "full", "--weights", "net.pth", "-o", "build.width=1/16"]
    said = repro(*words, "--data", f"imagenet-1k={imagenet}", "--no-mlflow", cwd=tmp_path, code=3)
    assert "980 of 1000 classes have no image" in said


def test_weights_at_chance_stop_the_run(imagenet: Path, tmp_path: Path) -> None:
    """Untrained weights are told after the first images, with what was tried."""
    torch.manual_seed(1)
    torch.save(make(Build.parse(SMALL["vgg:A"])).state_dict(), tmp_path / "net.pth")
    words = ["run", "vgg/table3", "--row", "A 256", "--scale", "full", "--weights", "net.pth", "-o", "build.width=1/16"]
    more = ["--data", f"imagenet-1k={imagenet}", "--no-mlflow", "--limit", "40", "--json"]
    cells: Any = json.loads(repro(*words, *more, cwd=tmp_path, code=3))["cells"]
    assert all(c["verdict"] == "failed" and "chance" in c["reason"] for c in cells)


def test_the_cost_of_a_table_is_told_before_it_is_paid(tmp_path: Path) -> None:
    """Images, multiply-adds, hours here and on a named GPU, for data that is not here."""
    words = ["run", "vgg/table3", "--row", "A 256", "--scale", "full", "--dry-run", "-o", "build.width=1/16"]
    said = repro(*words, "--on", "a100", cwd=tmp_path)
    assert "imagenet-1k-train is not here" in said
    heads, training = (next(line for line in said.splitlines() if word in line) for word in ("images", "train vgg:A"))
    assert heads.split() == ["images", "multiply-adds", "hours", "here", "on", "a100", "disk", "GiB", "memory", "GiB"]
    assert f"{74 * 1_281_167:,}" in training
    with pytest.raises(ReproError, match=r"--on a1000: no such GPU is known; did you mean 'a100'\?"):
        cost.rate_on("a1000")


def test_a_cost_is_that_of_the_threads_of_its_job() -> None:
    """A net is timed here on as many threads as the job will have, not on all of the machine's."""
    before = torch.get_num_threads()
    spec = {"build": "vgg:A+width=1/16+input=32+pools=3", "input": 32, "recipe": {"threads": 3, "dtype": "float32"}}
    try:
        assert cost.calibrated(Job("train", "train", spec, ("x",)), "cpu", seconds=0.1) > 1e6
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


PAPER = """\
source: made for a test
recipes:
  short:
    dataset: imagenet-1k-train
    val: imagenet-1k-val
    val_view: centre
    batch: 20
    bn_batch: 10
    epochs: 7
    optimizer: {name: adam, lr: 2e-3}
    schedule: {name: constant}
    dropout: 0
    init: {name: kaiming}
    augment: {flip: 0.5, colour: 0.1, crop: area, area: [0.5, 1.0]}
    mean: [123.675, 116.28, 103.53]
    scale: 0.017
"""
TABLE = """\
title: A net trained by two processes
where: Table 1
defaults: {dataset: imagenet-1k-val, S: 64, Q: 64, protocol: centre, input: 48}
columns: {top-1: {quantity: top1_error, margin: 5}}
rows:
  A: {build: "vgg:A+width=1/8+input=48+pools=4", recipe: short, values: [50.0]}
"""


def test_two_processes_train_from_the_command_line(imagenet: Path, tmp_path: Path) -> None:
    """torchrun starts them; the net learns the classes' colours, its record and log are whole, and no job is left."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "paper.yaml").write_text(PAPER)
    (tmp_path / "mine" / "table1.yaml").write_text(TABLE)
    words = ["run", "mine/table1.yaml", "--scale", "full", "--data", f"imagenet-1k={imagenet}", "--no-mlflow"]
    cells = json.loads(repro(*words, "--processes", "2", "--limit", "40", "--json", cwd=tmp_path))["cells"]
    assert cells[0]["measured"] < 90
    (log,) = (tmp_path / "runs" / "store" / "records" / "train").glob("*/*.log.jsonl")
    epochs = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in epochs] == list(range(7))
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert "0 to do" in repro(*words, "--limit", "40", "--dry-run", cwd=tmp_path)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_library_s_net_decides_as_by_the_library_s_own_transforms(
    library: str, imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image by image: ours from the command line, theirs by PIL, the library's transforms and a plain loop."""
    import timm.data
    from PIL import Image
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("REPRO_DATA_IMAGENET_1K", str(imagenet))
    build, file = f"{library}:resnet18", tmp_path / "net.pth"
    weights_that_know(build, imagenet, file)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table1.yaml").write_text(
        f"title: t\nwhere: Table 1\ndefaults: {{build: '{build}', dataset: imagenet-1k-val}}\n"
        "columns: {top-1: top1_error}\nrows:\n  net: {Q: 256, protocol: centre, values: [30.0]}\n"
    )
    resize = "bilinear antialias" if library == "torchvision" else "bicubic antialias"
    words = ["run", "mine/table1.yaml", "--scale", "full", "--weights", "net.pth", "--limit", "40", "--no-mlflow"]
    repro(*words, "-o", f"protocol.resize={resize}", cwd=tmp_path)
    (record,) = (tmp_path / "runs" / "store" / "records" / "scores").glob("*/*.npz")
    with np.load(record) as found:
        ours = dict(zip(found["ids"].tolist(), found["scores"].argmax(1).tolist(), strict=True))

    transform: Any = ResNet18_Weights.IMAGENET1K_V1.transforms()
    if library == "timm":
        given = {"crop_pct": 0.875, "interpolation": "bicubic", "mean": MEAN / 255, "std": STD / 255}
        transform = timm.data.create_transform(224, **given)
    net = make(Build.parse(build)).eval()
    net.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    theirs = {}
    for path in sorted((imagenet / "val").rglob("*.JPEG")):
        with torch.no_grad(), Image.open(path) as image:
            theirs[path.name] = int(net(transform(image.convert("RGB"))[None]).argmax())
    assert len(set(theirs.values())) >= 5  # a net that says one thing of all proves nothing
    assert ours == theirs
