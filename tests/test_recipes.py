"""The papers' recipes: each trains three steps, and what it trains with is what the paper's own lines print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repro import recipes, tables, train
from repro.architectures import make
from repro.data import Images
from repro.schema import Build

# A small net of each family that a paper's recipes are for, and its input; those of CIFAR and SVHN where it says so.
SMALL = {
    "alexnet": ("alexnet:alexnet+width=1/16+input=64", 64),
    "all-cnn": ("all_cnn:C+width=1/16", 32),
    "bn": ("bn_inception:bn-inception+width=1/16+input=64", 64),
    "coatnet": ("coatnet:0+width=1/8+depth=1/4+input=32", 32),
    "densenet": ("densenet:40-12+layers=1+growth=4+dropout=0.2", 32),
    "googlenet": ("googlenet:googlenet+width=1/16+depth=1/4+input=96", 96),
    "inception-v3": ("inception_v3:v3+width=1/16+depth=1/4+input=107", 107),
    "nin": ("nin:cifar10+width=1/16", 32),
    "prelu": ("prelu:A+width=1/64+depth=1", 64),
    "residual-attention": ("residual_attention:cifar-56+width=1/16", 32),
    "resnet": ("resnet:cifar-20+width=1/4", 32),
    "senet": ("senet:cifar-20+width=1/4+r=4", 32),
    "spp": ("spp:ZF-5+width=1/32+input=64", 64),
    "stochastic-depth": ("stochastic_depth:cifar-110+blocks=1+width=1/4", 32),
    "vgg": ("vgg:A+width=1/16+input=32", 32),
    "vit": ("vit:B/16+width=1/12+depth=1+input=32", 32),
    "xception": ("xception:xception+width=1/32+depth=1", 64),
}
NAMED = [(paper, name) for paper in SMALL for name in tables.load_paper(tables.ROOT / paper).recipes]


def recipe(paper: str, name: str, **overrides: str) -> tuple[dict[str, Any], Any]:
    given = {f"recipe.{k}": v for k, v in overrides.items()}
    return recipes.resolve(tables.load_paper(tables.ROOT / paper), name, "full", given)


def settings(paper: str, name: str, build: str, S: str = "256") -> Mapping[str, Any]:
    """What `repro run --only setting` reads back, of a net of full size."""
    words, start = recipe(paper, name)
    with torch.device("meta"):
        net = make(Build.parse(build))
    span = [int(s) for s in (S.split("..") * 2)[:2]]
    side = int(dict(Build.parse(build).args).get("input", 32 if "cifar" in words["dataset"] else 224))
    spec = {"recipe": words, "input": side, "S": span, "copy": start.copy_ if start else []}
    return train.settings(spec, net, recipes.SIZES[words["dataset"]][0])


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRO_WORKERS", "0")


@pytest.mark.parametrize(("paper", "name"), NAMED, ids=[f"{paper}-{name}" for paper, name in NAMED])
def test_each_recipe_trains_three_steps(paper: str, name: str, tmp_path: Path) -> None:
    """Its optimizer, schedule, augmentation, loss and averages on a small net and made-up images, by `fit` itself."""
    text, side = SMALL[paper]
    words, _ = recipe(paper, name, batch="4", bn_batch="2", iterations="3")
    random = np.random.default_rng(0)
    images = Images(random.integers(0, 256, (12, side + 8, side + 8, 3)).astype(np.uint8), np.arange(12) % 3)
    spec = {"recipe": words, "seed": 1, "classes": 10, "input": side, "S": [side + 8] * 2, "copy": []}
    net = make(Build.parse(text).with_args({"classes": 10}))
    before = {k: v.clone() for k, v in net.state_dict().items()}

    done = train.fit(net, spec, images, tmp_path, lambda _: 0.0)

    assert done["epochs"] == 1
    assert np.isfinite(done["loss"])
    assert any(not torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert (tmp_path / "weights.safetensors").is_file()


# What the papers print, by their claims (kind `setting`) and places.
PRINTED: list[tuple[str, str, str, str, dict[str, Any]]] = [
    # Section 5: "roughly 90 cycles", "÷10 when validation error stops improving", three times, biases of 1
    ("alexnet", "base", "alexnet:alexnet", "256", {
        "batch": 128, "epochs": 90, "optimizer": "SGD", "optimizer.lr": 0.01, "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 5e-4, "schedule": "plateau", "schedule.factor": 0.1, "schedule.drops": 3,
        "init": "normal", "init.std": 0.01, "init.ones": ["conv2", "conv4", "conv5", "fc6", "fc7"], "dropout": 0.5,
        "colour": 0.1, "LRN.k": 2.0, "LRN.n": 5, "LRN.alpha": 1e-4, "LRN.beta": 0.75}),
    # Sections 5 and 6: "−4% every 8 epochs", "8% to 100%", "3/4 to 4/3", Polyak averaging
    ("googlenet", "imagenet", "googlenet:googlenet", "256", {
        "schedule.factor": 0.96, "schedule.every": 8, "average": "Polyak", "augment.area": [0.08, 1.0],
        "augment.aspect": [0.75, 1.3333], "interpolation": "random", "aux": 0.3, "aux1.drop.p": 0.7, "dropout.p": 0.4}),
    # Sections 7 and 8: 50 replicas of 32, RMSProp with decay 0.9 and epsilon 1.0, "×0.94 every two epochs"
    ("inception-v3", "imagenet", "inception_v3:v3+input=299", "342", {
        "replicas": 50, "bn_batch": 32, "epochs": 100, "optimizer": "RMSpropTF", "optimizer.alpha": 0.9,
        "optimizer.eps": 1.0, "optimizer.lr": 0.045, "schedule.factor": 0.94, "schedule.every": 2, "clip": 2.0,
        "label_smoothing": 0.1, "average": "running"}),
    # Section 3.4: up to 60×10^4 iterations, shorter side in [256,480]
    ("resnet", "imagenet", "resnet:50", "256..480", {
        "iterations": 600_000, "batch": 256, "optimizer.lr": 0.1, "optimizer.weight_decay": 1e-4, "S": [256, 480],
        "init": "kaiming", "dropout": 0, "schedule": "plateau"}),
    # Section 4.2: 0.01 to warm up the 110 layers, drops at 32k and 48k, 64k in all, 4 pixels of padding
    ("resnet", "cifar-110", "resnet:cifar-110", "32", {
        "warmup.lr": 0.01, "schedule.milestones": [32_000, 48_000], "iterations": 64_000, "pad": 4, "flip": 0.5}),
    # Section 4: 0.01 for the first 10 of 300 epochs, drops at 150 and 225
    ("stochastic-depth", "cifar-1202", "stochastic_depth:cifar-1202", "32", {
        "warmup_epochs": 10, "warmup.lr": 0.01, "epochs": 300, "schedule.milestone_epochs": [150, 225],
        "optimizer.nesterov": True}),
    # Section 5.1: 1024 images, 0.6, lowered every 30 epochs
    ("senet", "imagenet", "senet:resnet-50", "256", {
        "batch": 1024, "optimizer.lr": 0.6, "schedule.every": 30, "epochs": 100, "optimizer.momentum": 0.9}),
    # Section 4.2: "0.9 every 3,000,000 samples"
    ("xception", "jft", "xception:xception+classes=17000", "299", {
        "optimizer": "RMSprop", "schedule.factor": 0.9, "schedule.every_images": 3_000_000, "dropout": 0}),
    # Table 3, last line: 300 epochs, 3·10^-3, cosine, 0.3, 0.1; its caption: 4096 images, warm-up of 10k steps, clip 1
    ("vit", "imagenet", "vit:B/16", "224", {
        "epochs": 300, "optimizer.lr": 3e-3, "schedule": "cosine", "optimizer.weight_decay": 0.3, "dropout": 0.1,
        "batch": 4096, "warmup": 10_000, "clip": 1}),
    # Table 10, ImageNet-1K pre-training and fine-tuning
    ("coatnet", "i1k", "coatnet:0", "224", {
        "randaugment": [2, 15], "mixup": 0.8, "label_smoothing": 0.1, "schedule.last": 1e-5, "ema.decay": 0,
        "optimizer": "AdamW", "optimizer.weight_decay": 0.05, "clip": 1.0}),
    ("coatnet", "i1k-finetune", "coatnet:0+input=384", "384", {
        "schedule": "constant", "warmup": 0, "schedule.last": 5e-5, "ema.decay": 0.9999, "batch": 512, "epochs": 30}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("paper", "name", "build", "S", "printed"), PRINTED, ids=[f"{paper}-{name}" for paper, name, *_ in PRINTED]
)
def test_what_is_built_is_what_the_paper_prints(
    paper: str, name: str, build: str, S: str, printed: dict[str, Any]
) -> None:
    """Read back from the optimizer, schedule, sampler, average and net of a recipe at full size."""
    found = settings(paper, name, build, S)
    for key, value in printed.items():
        assert found[key] == (pytest.approx(value) if isinstance(value, float) else value), key


@pytest.mark.parametrize(
    ("field", "value", "key", "read"),
    [
        ("optimizer.name", "adamw", "optimizer", "AdamW"),
        ("optimizer.weight_decay", "0.3", "optimizer.weight_decay", 0.3),
        ("schedule.milestones", "[30]", "schedule.milestone_epochs", [30]),
        ("schedule.name", "cosine", "schedule", "cosine"),
        ("schedule.warmup_steps", "77", "warmup", 77),
        ("iterations", "5005", "epochs", 4),
        ("mixup", "0.4", "mixup", 0.4),
        ("ema", "0.99", "ema.decay", 0.99),
        ("polyak", "3", "average", "Polyak"),
        ("augment.jitter", "0.2", "jitter", 0.2),
        ("augment.crop", "pad", "pad", 4),
        ("init.name", "xavier", "init", "xavier"),
        ("bn_batch", "64", "replicas", 16),
        ("scale", "[0.1, 0.2, 0.3]", "normalisation", "channel mean, channel std"),
    ],
)
def test_another_recipe_is_read_back(field: str, value: str, key: str, read: Any) -> None:
    """No setting agrees with the paper whatever is built."""
    words, _ = recipe("senet", "imagenet")
    for part in field.split(".")[:-1]:
        words = words | {part: dict(words[part])}
    inner = words
    for part in field.split(".")[:-1]:
        inner = inner[part]
    inner[field.split(".")[-1]] = value if value.isalpha() else json.loads(value)
    with torch.device("meta"):
        net = make(Build.parse("senet:resnet-18"))
    found = train.settings({"recipe": words, "input": 224, "S": [256, 256], "copy": []}, net)
    assert found[key] == read
    assert settings("senet", "imagenet", "senet:resnet-18")[key] != read
