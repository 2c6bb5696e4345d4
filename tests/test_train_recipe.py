"""Optimisers, schedules and starts of a recipe, each beside torch's own or the formula of a paper."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from timm.optim import RMSpropTF
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from repro.errors import JobError
from repro.fields import Recipe
from repro.train.recipe import initialise, optimizer, schedule, set_dropout

RECIPE: dict[str, Any] = {
    "dataset": "a",
    "val": "b",
    "batch": 256,
    "epochs": 90,
    "optimizer": {"name": "sgd", "lr": 0.1},
    "schedule": {"name": "steps"},
    "dropout": 0.5,
    "init": {"name": "kaiming"},
    "augment": {"flip": 0.5, "colour": 0.1},
}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))


def train(one: nn.Module, built: torch.optim.Optimizer, steps: int = 6) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x, y = torch.randn(7, 3, 8, 8, generator=random), torch.randint(5, (7,), generator=random)
        built.zero_grad()
        nn.functional.cross_entropy(one(x), y).backward()
        built.step()
    return [p.detach() for p in one.parameters()]


@pytest.mark.parametrize(
    ("words", "peer"),
    [
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, lambda p: torch.optim.SGD(p, 0.01, 0.9, nesterov=True)),
        ({"name": "sgd", "weight_decay": 0.1}, lambda p: torch.optim.SGD(p, 0.01, weight_decay=0.1)),
        (
            {"name": "rmsprop", "alpha": 0.9, "eps": 1.0, "momentum": 0.9},
            lambda p: torch.optim.RMSprop(p, 0.01, 0.9, 1.0, momentum=0.9),
        ),
        (
            {"name": "rmsprop-tf", "alpha": 0.9, "eps": 1.0, "momentum": 0.9},
            lambda p: RMSpropTF(p, 0.01, 0.9, 1.0, momentum=0.9),
        ),
        ({"name": "adam", "betas": [0.8, 0.9]}, lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.9))),
        ({"name": "adamw", "weight_decay": 0.3}, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3)),
    ],
    ids=lambda v: v["name"] if isinstance(v, dict) else "",
)
def test_an_optimiser_steps_as_the_library_does(words: dict[str, Any], peer: Any) -> None:
    """Six steps of the recipe's words and of the library's own call end in the same weights."""
    one, two = net(), net()
    ours, theirs = train(one, optimizer(one, {"lr": 0.01, **words})), train(two, peer(two.parameters()))
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[0], next(net().parameters()).detach())


@pytest.mark.parametrize(
    ("without", "still"),
    [([], set()), (["norms"], {"1.weight", "1.bias"}), (["biases"], {"0.bias", "3.bias"}), (["norms", "biases"], 4)],
)
def test_weight_decay_leaves_out_what_the_recipe_says(without: list[str], still: Any) -> None:
    """With gradients of zero, decay is all that moves a weight."""
    one = net()
    before = {n: p.detach().clone().add_(1) for n, p in one.named_parameters()}
    for n, p in one.named_parameters():
        p.data.copy_(before[n])
        p.grad = torch.zeros_like(p)
    optimizer(one, {"name": "sgd", "lr": 0.1, "weight_decay": 0.5, "no_decay": without}).step()
    same = {n for n, p in one.named_parameters() if torch.equal(p, before[n])}
    assert same == ({"1.weight", "1.bias", "0.bias", "3.bias"} if still == 4 else still)


def rates(words: dict[str, Any], batches: int, per_epoch: int) -> list[float]:
    built = optimizer(nn.Linear(2, 2), {"name": "sgd", "lr": 0.4})
    plan = schedule(built, words, batches, per_epoch)
    assert not isinstance(plan, ReduceLROnPlateau)
    built.step()  # torch warns of a schedule that steps first
    found = []
    for _ in range(batches):
        found.append(built.param_groups[0]["lr"] / 0.4)
        plan.step()
    return found


def ramp(i: int, length: int, below: float = 0.0) -> float:
    return below + (1 - below) * i / length


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"name": "constant"}, lambda i: 1.0),
        ({"name": "constant", "milestones": [3]}, lambda i: 1.0),  # left of a recipe that it is like
        ({"name": "steps", "milestones": [3, 6], "factor": 0.1}, lambda i: 0.1 ** ((i >= 15) + (i >= 30))),
        ({"name": "steps", "milestones": [7, 21], "unit": "iterations"}, lambda i: 0.1 ** ((i >= 7) + (i >= 21))),
        ({"name": "exponential", "every": 2, "factor": 0.94}, lambda i: 0.94 ** (i // 10)),
        ({"name": "exponential", "every": 3, "factor": 0.9, "unit": "iterations"}, lambda i: 0.9 ** (i // 3)),
        ({"name": "linear"}, lambda i: 1 - i / 50),
        ({"name": "linear", "end": 0.2}, lambda i: 1 - 0.8 * i / 50),
        ({"name": "polynomial", "power": 2, "end": 0.1}, lambda i: 0.1 + 0.9 * (1 - i / 50) ** 2),
        ({"name": "cosine"}, lambda i: (1 + torch.tensor(torch.pi * i / 50).cos().item()) / 2),
        (
            {"name": "steps", "milestones": [6], "warmup_steps": 4, "warmup_from": 0.1, "warmup_shape": "constant"},
            lambda i: 0.1 if i < 4 or i >= 30 else 1.0,
        ),
        (
            {"name": "exponential", "every": 2, "factor": 0.5, "warmup_epochs": 1},
            lambda i: ramp(i, 5) if i < 5 else 0.5 ** (i // 10),
        ),
        (
            {"name": "linear", "warmup_epochs": 2, "warmup_from": 0.5},
            lambda i: ramp(i, 10, 0.5) if i < 10 else 1 - (i - 10) / 40,
        ),
        (
            {"name": "cosine", "warmup_steps": 10, "end": 0.1},
            lambda i: (
                ramp(i, 10) if i < 10 else 0.1 + 0.9 * (1 + torch.tensor(torch.pi * (i - 10) / 40).cos().item()) / 2
            ),
        ),
    ],
    ids=lambda v: "-".join(map(str, v.values())) if isinstance(v, dict) else "",
)
def test_a_schedule_follows_its_formula(words: dict[str, Any], expected: Any) -> None:
    """Ten epochs of five batches, the share of the rate at each batch."""
    assert rates(words, 50, 5) == pytest.approx([expected(i) for i in range(50)], abs=2e-6)


@pytest.mark.parametrize("name", ["steps", "cosine", "linear", "polynomial"])
def test_a_schedule_goes_on_where_it_was_saved(name: str) -> None:
    """Saved with its optimizer in the warm-up or after it, it ends at the same rates."""
    words = {"name": name, "milestones": [4], "warmup_steps": 6, "power": 1.5}
    for stop in (3, 6, 20):
        found = []
        for saved in (None, stop):
            built = optimizer(nn.Linear(2, 2), {"name": "sgd", "lr": 0.4})
            plan: Any = schedule(built, words, 50, 5)
            built.step()
            here = []
            for i in range(50):
                here.append(built.param_groups[0]["lr"])
                plan.step()
                if saved == i:
                    state = copy.deepcopy((built.state_dict(), plan.state_dict()))
                    built = optimizer(nn.Linear(2, 2), {"name": "sgd", "lr": 0.4})
                    plan = schedule(built, words, 50, 5)
                    built.load_state_dict(state[0])
                    plan.load_state_dict(state[1])
                    built.step()
            found.append(here)
        assert found[0] == found[1]


def test_biases_of_named_layers_start_at_one() -> None:
    """AlexNet's second, fourth and fifth convolution and its hidden layers; a name that is not there is told."""
    one = net()
    initialise(one, {"name": "normal", "std": 0.01, "ones": ["3"]}, 0)
    assert one[3].bias.tolist() == [1.0] * 5
    assert one[0].bias.tolist() == [0.0] * 4
    with pytest.raises(JobError, match="init: the net has no layer 'conv9'"):
        initialise(net(), {"name": "kaiming", "ones": ["conv9"]}, 0)


def test_other_initialisations_have_their_papers_variance() -> None:
    """Kaiming with a slope of 1/4: 2 / (1 + 1/16) / fan in; Xavier: 2 / (fan in + fan out)."""
    layer = nn.Linear(400, 200)
    initialise(layer, {"name": "kaiming", "slope": 0.25}, 0)
    assert float(layer.weight.detach().var()) == pytest.approx(2 / (1 + 1 / 16) / 400, rel=0.02)
    initialise(layer, {"name": "xavier"}, 0)
    assert float(layer.weight.detach().var()) == pytest.approx(2 / 600, rel=0.02)
    before = layer.weight.detach().clone()
    initialise(layer, {"name": "as built"}, 1)
    assert torch.equal(layer.weight, before)


def test_dropout_as_built_stays() -> None:
    """GoogLeNet has two probabilities, which one number of the recipe would join."""
    one = nn.Sequential(nn.Dropout(0.4), nn.Dropout(0.7))
    set_dropout(one, "as built")
    assert [m.p for m in one] == [0.4, 0.7]
    set_dropout(one, 0.2)
    assert [m.p for m in one] == [0.2, 0.2]


def test_fields_at_their_default_are_left_out_of_a_recipes_identity() -> None:
    """A recipe of before the field has the digest that it had, and one that states another value has not."""
    plain = Recipe.model_validate(RECIPE).model_dump()
    assert set(plain) == set(Recipe.FIRST.split())
    assert set(plain["optimizer"]) == {"name", "lr", "momentum", "nesterov", "weight_decay"}
    stated = Recipe.model_validate({**RECIPE, "ema": "0", "tf32": "no", "bn_batch": 0}).model_dump()
    assert stated == plain
    other = Recipe.model_validate(
        {**RECIPE, "ema": 0.99, "augment": {**RECIPE["augment"], "crop": "area"}}
    ).model_dump()
    assert (other["ema"], other["augment"]["crop"]) == (0.99, "area")
    assert Recipe.of(other) == Recipe.model_validate({**RECIPE, "ema": 0.99, "augment": other["augment"]})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"schedule": {"name": "plateau", "warmup_steps": 5}}, "plateau has no warm-up by epochs or steps"),
        ({"ema": 0.9, "polyak": 3}, "either ema or polyak"),
        ({"optimizer": {"name": "adam", "lr": 1, "betas": [0.9]}}, "at least 2 items"),
        ({"schedule": {"name": "step"}}, "'steps'"),
        ({"batch": 0}, "greater than 0"),
        ({"epochs": 0}, "greater than 0"),
        ({"augment": {"flip": 0.5, "colour": 0.1, "step": 0}}, "greater than 0"),
        ({"schedule": {"name": "exponential", "every": 0}}, "greater than 0"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: dict[str, Any], message: str) -> None:
    """With what is wrong, or what would do."""
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({**RECIPE, **words})
