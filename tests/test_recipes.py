"""The papers' recipes: each trains three steps, and what it trains with is what the paper's own lines print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repro import recipes, tables, train
from repro.architectures import make
from repro.data import Images
from repro.plan import SIZES
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
    return train.settings(spec, net, SIZES[words["dataset"]][0])


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
