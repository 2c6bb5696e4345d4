"""Means of stored scores, counts in the claim's unit, and what is void."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from repro.plan import Plan, Trained
from repro.printed import parse
from repro.results import Results
from repro.schema import Build, Cell, Claim, System
from repro.store import Store

WEIGHTS = hashlib.sha256(b"the same").hexdigest()
LABELS = np.array([0, 1, 2, 1])
NET = ((System(Build("vgg", "A")),),)


def put(store: Store, digest: str, scores: np.ndarray) -> None:
    path = store.partial(digest) / "scores.npz"
    np.savez(path, scores=scores.astype(np.float32), ranks=np.zeros(len(scores)), labels=LABELS)
    store.commit("scores", digest, "evaluate", {"weights": "w0"}, {"weights_sha256": WEIGHTS}, {"npz": path}, {}, 1.0)


def cell(quantity: str, unit: str, printed: str = "1", systems=NET, **extra: str) -> Cell:
    kind = "static" if quantity in ("params", "layers", "composition") else "metric"
    claim = Claim(parse(printed), quantity, kind, unit, "Table 1", "f", 1)
    return Cell("t", "r", "c", claim, quantity, kind, unit, systems, extra)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path)
    for digest in ("w0", "w1"):
        weights = found.partial(digest) / "weights"
        weights.write_text("the same")
        found.commit("train", digest, "train", {}, {}, {"safetensors": weights}, {}, 1.0)
    return found


def test_a_cell_is_the_weighted_mean_over_views_then_nets(store):
    """Against a loop that adds up one image, one record at a time."""
    random = np.random.default_rng(0)
    scores = {d: random.dirichlet(np.ones(3), len(LABELS)) for d in ("aa", "bb", "cc")}
    for digest, values in scores.items():
        put(store, digest, values)
    one = Trained("w0", ((Fraction(1, 3), "aa"), (Fraction(2, 3), "bb")))
    two = Trained("w1", ((Fraction(1), "cc"),))
    plan = Plan(systems={("t", "r", "c"): [[(one, two)]]})

    wrong = 0
    for i, label in enumerate(LABELS):
        mean = [
            (scores["aa"][i, k].astype(np.float32) / 3 + scores["bb"][i, k].astype(np.float32) * 2 / 3) / 2
            + scores["cc"][i, k].astype(np.float32) / 2
            for k in range(3)
        ]
        wrong += int(np.argmax(mean)) != label
    result = Results(plan, store).result(cell("top1_error", "%"))
    assert result.value == 100 * wrong / len(LABELS)
    assert [list(h) for h in result.hits] == [list(result.hits[0])]
    assert result.weights == (("w0", "w1"),)
    assert Results(plan, store).result(cell("top1_accuracy", "%")).value == 100 - result.value


def test_a_tie_counts_against_the_net(store):
    """Torch and numpy have no order for ties, so a constant score is never a hit."""
    put(store, "aa", np.full((4, 3), 1 / 3))
    plan = Plan(systems={("t", "r", "c"): [[(Trained("w0", ((Fraction(1), "aa"),)),)]]})

    assert Results(plan, store).result(cell("top1_error", "%")).value == 100


def test_scores_of_other_weights_are_void(store):
    """When the store now holds other weights, what was measured with the old ones says nothing."""
    put(store, "aa", np.eye(3)[LABELS])
    other = store.partial("w0") / "weights"
    other.write_text("others")
    store.commit("train", "w0", "train", {}, {}, {"safetensors": other}, {}, 1.0)
    plan = Plan(systems={("t", "r", "c"): [[(Trained("w0", ((Fraction(1), "aa"),)),)]]})

    assert "other weights" in Results(plan, store).result(cell("top1_error", "%")).missing


def test_seeds_are_averaged_and_kept_apart(store):
    """The value is the mean over trainings; hits stay per seed."""
    put(store, "aa", np.eye(3)[LABELS])
    put(store, "bb", np.eye(3)[[1, 1, 2, 1]])
    seeds = [(Trained("w0", ((Fraction(1), "aa"),)),), (Trained("w1", ((Fraction(1), "bb"),)),)]
    result = Results(Plan(systems={("t", "r", "c"): [seeds]}), store).result(cell("top1_error", "%"))

    assert (result.value, result.per_seed) == (12.5, (0.0, 25.0))
    assert [h.sum() for h in result.hits] == [4, 3]


@pytest.mark.parametrize(
    ("made", "unit", "expected"),
    [
        (cell("params", "M"), "M", Decimal("138.357544")),
        (cell("params", "K"), "K", Decimal("138357.544")),
        (cell("layers", "count"), "count", Decimal(16)),
        (cell("composition", "shape", "conv3-64", stage="block1"), "", "conv3-64 conv3-64"),
        (cell("composition", "shape", "conv3-64", stage="block9"), "", None),
    ],
)
def test_counts_come_in_the_unit_of_the_claim(store, made, unit, expected):
    """The full value, never rounded: 138.357544 for `138` with unit M."""
    stages = {"": {"params": 138357544, "layers": 16}, "a.block1": {"composition": "conv3-64 conv3-64"}}
    numbers = {"stages": stages}
    store.commit("measure", "mm", "count", {}, numbers, {}, {}, 1.0)

    assert Results(Plan(counts={("t", "r", "c"): ["mm"]}), store).result(made).value == expected


def test_a_range_over_nets_claims_its_ends(store):
    """`16-19` of D and E is their smallest and their largest, in the paper's own dash."""
    for digest, layers in (("dd", 16), ("ee", 19)):
        store.commit("measure", digest, "count", {}, {"stages": {"": {"layers": layers}}}, {}, {}, 1.0)
    made = cell("layers", "count", "16–19", systems=NET * 2)

    assert Results(Plan(counts={("t", "r", "c"): ["dd", "ee"]}), store).result(made).value == "16–19"


def test_what_is_absent_says_why(store):
    """Not run, failed for good, failed in this run, blocked: each its own words."""
    store.commit("train", "w2", "train", {}, {}, {}, {}, 1.0, failed="has not learnt")

    def result(weights: str, **failures: str):
        plan = Plan(systems={("t", "r", "c"): [[(Trained(weights, ((Fraction(1), "aa"),)),)]]})
        return Results(plan, store, failures).result(cell("top1_error", "%"))

    assert result("w2").failed == "has not learnt"
    assert result("w9").missing == "not run yet"
    assert result("w9", w9="its process died").failed == "its process died"
    blocked = Plan(blocked={("t", "r", "c"): "imagenet-1k-val is not here"})
    assert Results(blocked, store).result(cell("top1_error", "%")).missing == "imagenet-1k-val is not here"
