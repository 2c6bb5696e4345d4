"""Trainings: what is drawn, copied, built and written, and that stopping changes nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from repro import train
from repro.architectures import make
from repro.data import Images
from repro.errors import JobError
from repro.fields import Recipe
from repro.provenance import NUMERICS
from repro.schema import Build
from repro.train import recipe as words
from repro.train.augment import Arrays, Sampler, rescale, statistics
from repro.train.fit import check_learnt

TINY = "vgg:{}+width=1/16+input=16+classes=4+pools=3"
PAPER: dict[str, Any] = {
    "batch": 256,
    "epochs": 74,
    "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4},
    "schedule": {"name": "plateau", "factor": 0.1, "patience": 3, "drops": 3},
    "dropout": 0.5,
    "init": {"name": "normal", "std": 0.1},
    "clip": None,
    "augment": {"flip": 0.5, "colour": 0.1, "step": 1},
    "scale": 1.0,
    "dtype": "float32",
    "memory_format": "contiguous",
    "threads": 1,
    "bar": 1.0,
}
SMALL: dict[str, Any] = {
    **PAPER,
    "batch": 16,
    "epochs": 3,
    "schedule": {"name": "one-cycle", "warmup": 0.3},
    "init": {"name": "kaiming"},
    "clip": 5.0,
    "augment": {"flip": 0.5, "colour": 0.1, "step": 4},
    "scale": 1 / 64,
    "memory_format": "channels_last",
}


def job(recipe: dict[str, Any] = SMALL, S: tuple[int, int] = (16, 24), words: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"recipe": recipe, "seed": 3, "classes": 4, "input": 16, "S": list(S), "copy": list(words)}


def net(name: str = "A") -> nn.Module:
    return make(Build.parse(TINY.format(name)))


@pytest.fixture(scope="module")
def images() -> Images:
    """Fifty noisy images of 24 pixels, whose colour gives their class away."""
    random = np.random.default_rng(0)
    labels = np.arange(50) % 4
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [180, 180, 60]])
    pixels = colours[labels][:, None, None, :] + random.integers(-40, 41, (50, 24, 24, 3))
    return Images(images=pixels.clip(0, 255).astype(np.uint8), labels=labels)


def fit(images: Images, out: Path, spec: dict[str, Any], **options: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    options = {"validate": lambda _: 20.0, **options}
    return train.fit(net(), spec, images, out, **options)


def sampler(count: int, seed: int = 0, sizes: tuple[int, ...] = (40, 48), crop: int = 32) -> Sampler:
    return Sampler(count, 16, 3, seed, sizes, crop, flip=0.5, colour=0.1)


def alphas(draw: Sampler, epoch: int) -> np.ndarray:
    """The draws of colour (N, 3), read from what is added to black pixels."""
    return draw.offsets(epoch, np.zeros(3), np.eye(3)).numpy() / 255


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def same(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A log without what a clock says."""
    return [{k: v for k, v in e.items() if k not in ("seconds", "images_per_second", "wait")} for e in lines]


# What is drawn


@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 400), count=st.integers(1, 40), more=st.integers(0, 40))
@hypothesis_settings(max_examples=50, deadline=None)
def test_draws_depend_on_seed_epoch_and_index_alone(seed: int, epoch: int, count: int, more: int) -> None:
    """More images change nothing for those before them, and every crop lies inside its image."""
    few, many = (
        (*draw.draws(epoch), alphas(draw, epoch), draw.uniforms(epoch))
        for draw in (sampler(n, seed, (40, 48, 56)) for n in (count, count + more))
    )
    assert all((a == b[:count]).all() for a, b in zip(few, many, strict=True))
    S, top, left, *_, uniforms = few
    assert (sampler(count, seed).uniforms(epoch, count - 1) == uniforms[-1]).all()
    assert (np.minimum(top, left) >= 0).all()
    assert (np.maximum(top, left) + 32 <= S).all()


def test_draws_cover_all_scales_places_and_flips() -> None:
    """Every S, the first and the last place and both directions turn up, about equally often."""
    S, top, left, flip = sampler(20_000).draws(0)
    alpha = alphas(sampler(20_000), 0)
    assert abs((S == 40).mean() - 0.5) < 0.02
    assert sorted(set(top[S == 40])) == list(range(9))
    assert sorted(set(left[S == 48])) == list(range(17))
    assert abs(flip.mean() - 0.5) < 0.02
    assert np.abs(alpha.std(0) - 0.1).max() < 0.003


def test_epochs_and_seeds_draw_differently() -> None:
    """No two epochs, and no two seeds, show an image alike or in the same order."""
    colours = [alphas(sampler(5, seed), epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    orders = [np.concatenate(sampler(50, seed).order(epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for some in (colours, orders):
        assert not any((some[i] == some[j]).all() for i, j in ((0, 1), (0, 2), (1, 2)))


def test_an_epoch_shows_every_image_once() -> None:
    """The last batch may be smaller, and counts."""
    indices = sampler(50).order(1)
    assert [len(i) for i in indices] == [16, 16, 16, 2]
    assert sampler(50).iterations == 12
    assert sorted(np.concatenate(indices)) == list(range(50))


def test_batches_are_what_a_plain_loop_makes_of_the_draws(images: Images) -> None:
    """Rescale, crop, mirror, shift the colour, take off the mean: one image at a time."""
    mean, covariance = statistics(images.images)
    draw = sampler(50, 5, (16, 20, 24), 16)
    assert covariance == pytest.approx(np.cov(images.images.reshape(-1, 3).T / 255, bias=True))
    values, vectors = np.linalg.eigh(covariance)
    batches = Arrays(images.images, images.labels, draw, mean, vectors * values)
    (S, top, left, flip), alpha = draw.draws(2), alphas(draw, 2)
    order = np.concatenate(draw.order(2))
    found = list(batches.epoch(2, draw.order(2)))
    x = torch.cat([batch.pixels(0.5, torch.device("cpu")) for batch in found])
    y = torch.cat([batch.labels for batch in found])
    assert y.tolist() == images.labels[order].tolist()
    for row, i in enumerate(order):
        image = rescale(images.images[i : i + 1], int(S[i]))[0].astype(float)
        crop = image[top[i] : top[i] + 16, left[i] : left[i] + 16]
        crop = crop[:, ::-1] if flip[i] else crop
        shift = 255 * sum(alpha[i, k] * values[k] * vectors[:, k] for k in range(3))
        expected = (crop + shift - mean) * 0.5
        assert np.abs(x[row].permute(1, 2, 0).numpy() - expected).max() < 1e-3


def test_statistics_are_those_of_all_pixels(images: Images) -> None:
    """Mean in 0..255, covariance of pixels in 0..1."""
    flat = images.images.reshape(-1, 3).astype(float)
    mean, covariance = statistics(images.images)
    assert mean == pytest.approx(flat.mean(0), abs=1e-9)
    assert covariance == pytest.approx(np.cov(flat.T / 255, bias=True), abs=1e-9)


def test_rescaling_to_the_same_size_changes_nothing(images: Images) -> None:
    """And one colour stays that colour at any size."""
    assert rescale(images.images, 24) is images.images
    grey = np.full((2, 24, 24, 3), 77, np.uint8)
    assert (rescale(grey, 16) == 77).all()


def test_no_readable_image_and_crops_that_do_not_fit_are_told(images: Images, tmp_path: Path) -> None:
    """Not as an error of linear algebra, nor as crops with black borders."""
    with pytest.raises(JobError, match="none of the training images can be read"):
        statistics([])
    with pytest.raises(JobError, match=r"crops of 16 pixels do not fit images of short side 12; change S") as error:
        fit(images, tmp_path, job(S=(12, 24)))
    assert error.value.final


def test_scales_are_whole_numbers_by_the_recipes_step() -> None:
    """VGG draws every S from 256 to 512; the proxy, by its recipe, multiples of 8."""

    def sizes(S: tuple[int, int], step: int) -> tuple[int, ...]:
        return Sampler.of(job({**PAPER, "augment": {**PAPER["augment"], "step": step}}, S), 50).sizes

    assert sizes((256, 512), 1) == tuple(range(256, 513))
    assert sizes((40, 72), 8) == (40, 48, 56, 64, 72)
    assert sizes((40, 40), 8) == sizes((40, 40), 1) == (40,)


# What a net starts from


def test_normal_initialisation_has_the_printed_variance() -> None:
    """Weights of variance 0.01 about zero, biases zero, the same for the same seed only."""
    one, two, other = net("D"), net("D"), net("D")
    for some, seed in ((one, 1), (two, 1), (other, 2)):
        words.initialise(some, {"name": "normal", "std": 0.1}, seed)
    weights = torch.cat([p.detach().flatten() for n, p in one.named_parameters() if n.endswith("weight")])
    assert float(weights.var()) == pytest.approx(0.01, rel=0.05)
    assert abs(float(weights.mean())) < 0.001
    assert all(not p.any() for n, p in one.named_parameters() if n.endswith("bias"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_kaiming_initialisation_keeps_the_variance_of_its_input() -> None:
    """The standard deviation is sqrt(2 / fan in)."""
    layer = nn.Linear(200, 300)
    words.initialise(layer, {"name": "kaiming"}, 0)
    assert float(layer.weight.detach().std()) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("name", ["B", "C", "D", "E"])
def test_a_deep_net_starts_from_four_convolutions_and_the_classifier_of_A(name: str) -> None:
    """Each of A's layers goes to its own place in its block; all other weights stay."""
    A, deep = net("A"), net(name)
    before = copy.deepcopy(deep.state_dict())
    words.copy_weights(deep, A.state_dict(), ["first 4 conv", "last 3 fc"])
    layers = ["features.block1.0", "features.block2.0", "features.block3.0", "features.block3.2"]
    layers += ["classifier.fc6", "classifier.fc7", "classifier.fc8"]
    if name == "B":
        assert [n for n, m in A.named_modules() if isinstance(m, nn.Conv2d)][:4] == layers[:4]
    for key, tensor in deep.state_dict().items():
        copied = key.rsplit(".", 1)[0] in layers
        assert torch.equal(tensor, A.state_dict()[key] if copied else before[key])


def test_all_copies_everything() -> None:
    """S = 384 starts from the same net at S = 256."""
    one, two = net("D"), net("D")
    words.copy_weights(two, one.state_dict(), ["all"])
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_weight_that_does_not_fit_is_named() -> None:
    """Shape, missing layer and unknown words each have their line."""
    wide = make(Build.parse("vgg:A+width=1/8+input=16+classes=4+pools=3")).state_dict()
    shapes = r"mismatch for features\.block1\.0\.weight: .*\[8, 3, 3, 3\]\) from checkpoint, .* is torch\.Size\(\[4, 3"
    with pytest.raises(JobError, match=shapes):
        words.copy_weights(net("A"), wide, ["all"])
    with pytest.raises(JobError, match=r"start: Missing key.*: \"features\.block1\.2\.weight"):
        words.copy_weights(net("D"), net("A").state_dict(), ["all"])
    with pytest.raises(JobError, match=r"start: Unexpected key.*: \"features\.block1\.2\.weight"):
        words.copy_weights(net("A"), net("D").state_dict(), ["first 4 conv"])
    with pytest.raises(JobError, match=r"cannot copy 'the best'; known: all, first N conv, last N fc"):
        words.copy_weights(net("A"), net("A").state_dict(), ["the best"])


# What is built


def test_settings_are_the_papers() -> None:
    """Section 3.1 of VGG, read from the objects: 74 epochs of 256 are its 370K iterations."""
    spec = {**job(PAPER, (256, 512), ("first 4 conv", "last 3 fc")), "input": 224}
    with torch.device("meta"):
        deep = make(Build.parse("vgg:D"))
    found = train.settings(spec, deep)
    assert found["iterations"] == 74 * 5005
    assert round(found["iterations"], -4) == 370_000
    for key, value in {
        "optimizer.lr": 0.01,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 5e-4,
        "batch": 256,
        "epochs": 74,
        "schedule.drops": 3,
        "schedule.factor": 0.1,
        "dropout": 0.5,
        "init.variance": 0.01,
        "init.bias": 0.0,
        "crop": 224,
        "flip": 0.5,
        "colour": 0.1,
        "S": [256, 512],
        "start.copy": ["first 4 conv", "last 3 fc"],
    }.items():
        assert found[key] == value, key


@pytest.mark.parametrize(
    ("place", "value", "key"),
    [
        (("optimizer", "lr"), 0.02, "optimizer.lr"),
        (("optimizer", "momentum"), 0.8, "optimizer.momentum"),
        (("optimizer", "weight_decay"), 0.1, "optimizer.weight_decay"),
        (("schedule", "drops"), 2, "schedule.drops"),
        (("schedule", "factor"), 0.5, "schedule.factor"),
        (("init", "std"), 0.2, "init.variance"),
        (("augment", "flip"), 0.1, "flip"),
        (("augment", "colour"), 0.2, "colour"),
        (("batch",), 128, "batch"),
        (("epochs",), 7, "epochs"),
        (("dropout",), 0.1, "dropout"),
    ],
)
def test_another_recipe_is_seen_in_the_settings(place: tuple[str, ...], value: Any, key: str) -> None:
    """No setting is a constant that would agree with the paper whatever is built."""
    other = copy.deepcopy(PAPER)
    inner = other
    for word in place[:-1]:
        inner = inner[word]
    inner[place[-1]] = value
    with torch.device("meta"):
        one, two = train.settings(job(PAPER), net()), train.settings(job(other), net())
    assert one[key] != two[key]
    assert two[key] == pytest.approx(value**2 if key == "init.variance" else value)


@pytest.mark.parametrize("where", ["optimizer", "schedule", "init"])
def test_an_unknown_word_in_a_recipe_never_gets_here(where: str) -> None:
    """The fields of a recipe refuse it, and `train` need not."""
    whole = {**PAPER, "dataset": "digits-train", "val": "digits-val"}
    assert Recipe.model_validate(whole).model_dump().items() >= {"batch": 256, "augment": PAPER["augment"]}.items()
    with pytest.raises(ValidationError, match=f"{where}.name"):
        Recipe.model_validate({**whole, where: {**PAPER[where], "name": "magic"}})


def test_the_rate_falls_when_validation_stops_improving(images: Images, tmp_path: Path) -> None:
    """By ten after `patience` epochs without a better error, as many times as the recipe says."""
    errors = iter([9, 8, 8, 8, 7, 7, 7, 7, 7, 7, 7, 7])
    plateau = {"name": "plateau", "factor": 0.1, "patience": 2, "drops": 2}
    fit(
        images,
        tmp_path,
        job({**SMALL, "epochs": 12, "schedule": plateau}, (16, 16)),
        validate=lambda _: next(errors),
    )
    drops = [round(-np.log10(line["lr"] / 0.01)) for line in log(tmp_path)]
    assert drops == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]


def test_one_cycle_rises_to_the_recipes_rate_and_ends_near_zero() -> None:
    """The peak comes after the warm-up's part of all batches; momentum stays."""
    optimizer = words.optimizer(nn.Linear(2, 2), SMALL["optimizer"])
    schedule = words.schedule(optimizer, {"name": "one-cycle", "warmup": 0.25}, 100)
    optimizer.step()  # torch warns of a schedule that steps first
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert max(rates) == pytest.approx(0.01, rel=1e-3)
    assert 22 <= int(np.argmax(rates)) <= 26
    assert rates[-1] < 1e-4
    assert optimizer.param_groups[0]["momentum"] == 0.9


# What a training leaves


def test_a_training_learns_and_leaves_weights_and_log(images: Images, tmp_path: Path) -> None:
    """Float32 weights with the mean and scale that belong to them, and a line an epoch."""
    numbers = fit(images, tmp_path, job({**SMALL, "epochs": 20, "dropout": 0.0}))
    assert numbers["train_error"] < 20
    assert numbers["val_error"] == 20.0
    assert numbers["epochs"] == 20
    assert [line["epoch"] for line in log(tmp_path)] == list(range(20))
    keys = {"epoch", "lr", "loss", "train_error", "val_error", "seconds", "images_per_second", "wait"}
    assert set(log(tmp_path)[0]) == keys
    assert all(0 <= line["wait"] <= 1 < line["images_per_second"] for line in log(tmp_path))
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        meta = file.metadata()
    assert json.loads(meta["mean"]) == pytest.approx(images.images.reshape(-1, 3).mean(0))
    assert json.loads(meta["scale"]) == 1 / 64
    weights = load_file(tmp_path / "weights.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.float32}
    net().load_state_dict(weights)
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("schedule", [SMALL["schedule"], {**PAPER["schedule"], "patience": 1}], ids=lambda s: s["name"])
@pytest.mark.parametrize("stop", [1, 2])
def test_a_stopped_training_ends_as_one_that_ran_through(
    images: Images, tmp_path: Path, schedule: dict[str, Any], stop: int
) -> None:
    """The same bits, the same log, whether or not it was stopped in the epoch after `stop`."""

    class Stop(Exception):
        pass

    def stopping(_: nn.Module) -> float:
        if (parts / "log.jsonl").exists() and len(log(parts)) == stop:
            raise Stop
        return 20.0

    spec = job({**SMALL, "schedule": schedule})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(images, whole, spec)
    with pytest.raises(Stop):
        fit(images, parts, spec, validate=stopping)
    torch.manual_seed(99)  # what else happened in the process must not matter
    before = log(parts)
    fit(images, parts, spec)
    assert log(parts)[:stop] == before
    one, two = (load_file(p / "weights.safetensors") for p in (whole, parts))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert same(log(whole)) == same(log(parts))


def test_a_finished_training_started_again_only_writes(images: Images, tmp_path: Path) -> None:
    """Killed between its end and the record, it loses nothing."""
    first = fit(images, tmp_path, job())
    weights = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").unlink()
    lines = log(tmp_path)
    assert fit(images, tmp_path, job()) == first
    assert log(tmp_path) == lines
    assert (tmp_path / "weights.safetensors").read_bytes() == weights


def test_the_seed_decides_the_weights(images: Images, tmp_path: Path) -> None:
    """Same seed, same bits; another seed, other weights."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        fit(images, tmp_path / name, {**job(), "seed": seed})
    a, b, c = ((tmp_path / n / "weights.safetensors").read_bytes() for n in "abc")
    assert a == b != c


def test_a_short_training_comes_to_the_numbers_of_its_numerics(images: Images, tmp_path: Path) -> None:
    """Where this fails on purpose, raise `NUMERICS["train"]` and write the new losses beside the new number."""
    golden = {1: [1.579464, 1.391672, 1.296441]}
    fit(images, tmp_path, job({**SMALL, "schedule": PAPER["schedule"]}))
    assert [line["loss"] for line in log(tmp_path)] == pytest.approx(golden[NUMERICS["train"]], rel=1e-3)


def test_a_start_is_where_training_begins(images: Images, tmp_path: Path) -> None:
    """With a rate of nothing, what was copied is what comes out."""
    start = net().state_dict()
    still = {**SMALL, "epochs": 1, "optimizer": {**SMALL["optimizer"], "lr": 0.0}}
    fit(images, tmp_path, job(still, words=("all",)), start=start)
    found = load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(start[k], found[k]) for k in start)


def test_dropout_is_the_recipes(images: Images, tmp_path: Path) -> None:
    """Whatever the net was built with."""
    some = net()
    train.fit(some, job({**SMALL, "epochs": 1, "dropout": 0.25}), images, tmp_path, lambda _: 0.0)
    assert {m.p for m in some.modules() if isinstance(m, nn.Dropout)} == {0.25}


def test_what_was_set_for_a_training_is_put_back(images: Images, tmp_path: Path) -> None:
    """Determinism and threads are as they were, also after a failure."""

    def state() -> tuple[int, bool]:
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    before, during = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        with pytest.raises(JobError):
            fit(images, tmp_path, job({**SMALL, "bar": 0.1}), validate=lambda _: during.append(state()) or 20.0)
        assert during == 3 * [(1, True)]
        assert state() == (2, False)
    finally:
        torch.set_num_threads(before)


# What is no result


def test_a_loss_that_is_no_number_is_a_failure(images: Images, tmp_path: Path) -> None:
    """A final one, with the epoch; nothing is left that could pass for weights."""
    wild = {**SMALL, "clip": None, "optimizer": {**SMALL["optimizer"], "lr": 1e9}}
    with pytest.raises(JobError, match=r"diverged: the loss is (nan|inf) in epoch \d") as error:
        fit(images, tmp_path, job(wild))
    assert error.value.final
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_net_above_the_bar_is_a_failure(images: Images, tmp_path: Path) -> None:
    """Half of the chance error for four classes is 37.5 %."""
    with pytest.raises(JobError) as error:
        fit(images, tmp_path, job({**SMALL, "bar": 0.5}), validate=lambda _: 63.2)
    assert str(error.value) == "has not learnt: validation error 63.2 % after 3 epochs, the bar is 37.5 %"
    assert error.value.final
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_net_that_may_fail_to_learn_is_no_failure(images: Images, tmp_path: Path) -> None:
    """Where the recipe has no bar, chance is what was measured (DESIGN: "Not learning")."""
    numbers = fit(images, tmp_path, job({**SMALL, "bar": None}), validate=lambda _: 75.0, val_images=50)
    assert numbers["val_error"] == 75.0


def test_a_net_must_beat_chance_for_certain() -> None:
    """Of 1,000 images and ten classes 85 % wrong beats chance at 1e-6, 86 % does not (binomial)."""
    check_learnt(85.0, 10, 1.0, 5, 1000)
    with pytest.raises(JobError, match=r"86.0 % after 5 epochs of 1000 images, no better than chance \(90 %\)"):
        check_learnt(86.0, 10, 1.0, 5, 1000)


def test_an_error_that_is_no_number_has_not_learnt() -> None:
    """NaN is below no bar."""
    with pytest.raises(JobError, match="has not learnt"):
        check_learnt(float("nan"), 10, 0.5, 5, None)
