"""The steps of a training: parts of a batch, averages of weights, losses, precision, and when it is stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from repro import train
from repro.data import Images
from repro.errors import JobError

RECIPE: dict[str, Any] = {
    "batch": 12,
    "epochs": 2,
    "optimizer": {"name": "sgd", "lr": 0.05},
    "schedule": {"name": "constant"},
    "dropout": 0.0,
    "init": {"name": "as built"},
    "augment": {"flip": 0.0, "colour": 0.0},
    "scale": 1 / 64,
    "threads": 1,
    "bar": 9.0,
}
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [180, 180, 60]])
LABELS = np.arange(24) % 4
PIXELS = COLOURS[LABELS][:, None, None, :] + np.random.default_rng(0).integers(-40, 41, (24, 16, 16, 3))
IMAGES = Images(PIXELS.clip(0, 255).astype(np.uint8), LABELS)


class Heads(nn.Module):
    """In training it also gives the logits of a second head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem, self.norm = nn.Conv2d(3, 8, 4, 4), nn.Identity()
        self.head, self.aux = nn.Linear(128, 4), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.norm(self.stem(x))).flatten(1)
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


def fit(out: Path, net: nn.Module | None = None, validate: Any = lambda _: 20.0, **recipe: Any) -> dict[str, Tensor]:
    out.mkdir(exist_ok=True)
    spec = {"recipe": {**RECIPE, **recipe}, "seed": 3, "classes": 4, "input": 16, "S": [16, 16], "copy": []}
    train.fit(net or Heads(), spec, IMAGES, out, validate)
    return load_file(out / "weights.safetensors")


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def close(one: dict[str, Tensor], two: dict[str, Tensor], tolerance: float = 1e-5) -> bool:
    return all(torch.allclose(one[k], two[k], atol=tolerance) for k in one)


def test_a_batch_in_parts_steps_as_the_whole(tmp_path: Path) -> None:
    """Gradients of parts are weighed by their images, also where they do not divide the batch."""
    whole = fit(tmp_path / "whole")
    for parts in (6, 5):
        assert close(whole, fit(tmp_path / str(parts), bn_batch=parts))
        assert log(tmp_path / str(parts))[-1]["loss"] == pytest.approx(log(tmp_path / "whole")[-1]["loss"], abs=1e-5)


def test_averages_of_weights_are_those_of_the_iterates(tmp_path: Path) -> None:
    """Polyak: the plain mean after each step from an epoch on; EMA: from the first step, by its decay."""
    iterates = [fit(tmp_path / f"at{n}", iterations=n) for n in (1, 2, 3, 4)]
    polyak = fit(tmp_path / "polyak", polyak=0)
    late = fit(tmp_path / "late", polyak=1)
    ema = fit(tmp_path / "ema", ema=0.7)
    for key in polyak:
        one, two, three, four = (weights[key] for weights in iterates)
        assert torch.allclose(polyak[key], (one + two + three + four) / 4, atol=1e-6)
        assert torch.allclose(late[key], (three + four) / 2, atol=1e-6)
        assert torch.allclose(ema[key], 0.343 * one + 0.147 * two + 0.21 * three + 0.3 * four, atol=1e-6)


def test_the_average_is_what_is_validated_with_its_own_statistics(tmp_path: Path) -> None:
    """Running means and variances of BN are averaged with the weights; validation sees just what is written."""
    net, seen = Heads(), []
    net.norm = nn.BatchNorm2d(8)
    validate = lambda kept: seen.append({k: v.clone() for k, v in kept.state_dict().items()}) or 20.0  # noqa: E731
    found = fit(tmp_path, net, validate, ema=0.5)
    assert all(torch.equal(found[k], seen[-1][k].float()) for k in found)
    assert not torch.equal(found["norm.running_mean"], net.norm.running_mean)


def test_losses_are_their_formulas(tmp_path: Path) -> None:
    """At a rate of nothing: smoothed labels (Inception-v3, Section 7), and a second head with its weight."""
    net = Heads().train()
    x = (torch.from_numpy(IMAGES.images).float() - torch.from_numpy(IMAGES.images).float().mean((0, 1, 2))) / 64
    main, other = (F.log_softmax(o.detach(), 1) for o in net(x.permute(0, 3, 1, 2)))

    def smoothed(logp: Tensor, e: float) -> float:
        truth = logp[torch.arange(24), torch.from_numpy(LABELS)]
        return float(-((1 - e) * truth + e * logp.mean(1)).mean())

    still = {"optimizer": {"name": "sgd", "lr": 0.0}, "epochs": 1}
    for number, (e, aux) in enumerate(((0.0, 0.0), (0.1, 0.0), (0.1, 0.3))):
        fit(tmp_path / str(number), label_smoothing=e, aux=aux, **still)
        expected = smoothed(main, e) + aux * smoothed(other, e)
        assert log(tmp_path / str(number))[0]["loss"] == pytest.approx(expected, abs=1e-5)


def test_mixed_images_are_learnt_with_mixed_labels(tmp_path: Path) -> None:
    """The loss is above that of plain images, the same for the same seed, and the net still learns."""
    words = {"epochs": 8, "batch": 6}
    fit(tmp_path / "plain", **words)
    one, two = (fit(tmp_path / name, mixup=1.0, **words) for name in "ab")
    assert all(torch.equal(one[k], two[k]) for k in one)
    losses = [[line["loss"] for line in log(tmp_path / name)] for name in ("plain", "a")]
    assert losses[1][-1] > losses[0][-1] + 0.1
    assert losses[1][-1] < losses[1][0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_half_precision_trains_as_float32_does_nearly(tmp_path: Path, dtype: str) -> None:
    """Weights stay float32; float16 scales its loss, and goes on from the scale that it had come to."""
    whole = fit(tmp_path / "whole", epochs=6)
    half = fit(tmp_path / dtype, epochs=6, dtype=dtype)
    assert {t.dtype for t in half.values()} == {torch.float32}
    assert not close(whole, half)
    assert log(tmp_path / dtype)[-1]["loss"] == pytest.approx(log(tmp_path / "whole")[-1]["loss"], rel=0.05)
    state = torch.load(tmp_path / dtype / "checkpoint.pt", weights_only=True)["scaler"]
    assert bool(state) == (dtype == "float16")


def test_a_training_ends_after_its_iterations(tmp_path: Path) -> None:
    """Whatever `epochs` says; the last epoch shows fewer images."""
    fit(tmp_path, iterations=5, epochs=90, schedule={"name": "steps", "milestones": [3], "unit": "iterations"})
    assert [line["epoch"] for line in log(tmp_path)] == [0, 1, 2]
    assert [line["lr"] for line in log(tmp_path)] == pytest.approx([0.05, 0.05, 0.005])
    assert log(tmp_path)[-1]["train_error"] * 12 / 100 == pytest.approx(round(log(tmp_path)[-1]["train_error"] * 0.12))


def test_a_loss_that_grows_far_above_that_of_guessing_stops_the_training(tmp_path: Path) -> None:
    """A number all the way, and yet it has diverged."""
    with pytest.raises(JobError, match=r"diverged: the loss is \S+ in epoch \d, that of guessing is 1\.39") as error:
        fit(tmp_path, epochs=9, optimizer={"name": "sgd", "lr": 20.0, "momentum": 0.9})
    assert error.value.final


def test_tf32_and_benchmarking_are_on_only_where_the_recipe_says_so(tmp_path: Path) -> None:
    """During the training, and never after it."""

    def state() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.benchmark

    before, seen = state(), []
    words = {"tf32": True, "cudnn_benchmark": True, "deterministic": False}
    for number, recipe in enumerate(({}, words)):
        fit(tmp_path / str(number), validate=lambda _: seen.append(state()) or 20.0, epochs=1, **recipe)
    assert seen == [(False,) * 3, (True,) * 3]
    assert state() == before


def test_pixels_are_scaled_by_channel_where_the_recipe_gives_three(tmp_path: Path) -> None:
    """The mean and the scale go with the weights, as the recipe states them."""
    from safetensors import safe_open

    fit(tmp_path, mean=[120.0, 115.0, 100.0], scale=[0.017, 0.0175, 0.018], epochs=1)
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        meta = file.metadata()
    assert json.loads(meta["mean"]) == [120.0, 115.0, 100.0]
    assert json.loads(meta["scale"]) == [0.017, 0.0175, 0.018]
    plain = fit(tmp_path / "plain", mean=[120.0, 115.0, 100.0], scale=0.017, epochs=1)
    assert not close(plain, load_file(tmp_path / "weights.safetensors"))
