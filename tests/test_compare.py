"""Two records on the same images: by hand, against a bootstrap, and as the command prints it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from repro.compare import paired
from repro.store import Store

N = 400
LABELS = np.arange(N) % 4


def test_a_paired_difference_by_hand():
    """Seven images to one: exact McNemar gives .0703, as Fagerland, Lydersen and Laake print."""
    first, second = np.ones(21, dtype=bool), np.ones(21, dtype=bool)
    first[:1], second[1:8] = False, False
    found = paired(first, second)

    assert found.effect == pytest.approx(100 * 6 / 21)
    assert found.p == pytest.approx(0.0703, abs=5e-5)
    assert (found.gained, found.lost) == (list(range(1, 8)), [0])
    assert found.interval == pytest.approx((1.34, 50.84), abs=0.01)


def test_the_interval_agrees_with_a_paired_bootstrap():
    """Images drawn anew 4,000 times, both sides' answers to each together."""
    rng = np.random.default_rng(0)
    first = rng.random(2000) > 0.05
    second = np.where(rng.random(2000) < 0.04, ~first, first)
    low, high = paired(first, second).interval
    d = first.astype(int) - second
    means = [100 * d[rng.integers(0, 2000, 2000)].mean() for _ in range(4000)]

    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.12)


def put(store: Store, digest: str, wrong: list[int], images: str = "the same", **more: object) -> None:
    """A score record whose net errs on the images `wrong`."""
    ranks = np.isin(np.arange(N), wrong).astype(np.int32)
    scores = np.eye(4, dtype=np.float32)[(LABELS + ranks) % 4]
    path = store.partial(digest) / "scores.npz"
    np.savez(path, scores=scores, ranks=ranks, labels=LABELS, **more)
    spec = {"weights": digest, "dataset": "digits-test", "fingerprint": images}
    store.commit("scores", digest, "evaluate", spec, {"weights_sha256": "0"}, {"npz": path}, {}, 1.0)


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "store")
    put(found, "aaaa1111" * 4, [1, 2, 3])
    put(found, "aaaa2222" * 4, [3, *range(100, 115)])
    put(found, "bbbb1111" * 4, [1], images="others")
    put(found, "cccc1111" * 4, [1], ids=np.array([f"n{i:03}" for i in range(N)]))
    put(found, "cccc2222" * 4, [7], ids=np.array([f"n{i:03}" for i in range(N)]))
    return found


def test_the_command_names_the_images_that_changed_sides(store, repro):
    """Counts and the first dozen in words, all of them as data."""
    words = ("compare", "aaaa1", "aaaa2", "--store", store.root)
    text, found = repro(*words).stdout, json.loads(repro(*words, "--json").stdout)

    assert "aaaa1: error 0.75 % of 400 images\n  alone right: 15: 100, 101, 102, 103, 104, 105, 106, 107, 108, " in text
    assert "110, 111, ...\naaaa2: error 4.00 % of 400 images\n  alone right: 2: 1, 2\n" in text
    assert "difference +3.25 pp, 95 % interval" in text
    assert "two trainings: of these weights alone" in text
    assert (found["gained"], found["lost"]) == (list(range(100, 115)), [1, 2])
    assert found["p"] == pytest.approx(2 * sum(math.comb(17, k) for k in range(3)) / 2**17)


def test_images_are_named_where_their_names_were_kept(store, repro):
    """By id, as the data set has them."""
    text = repro("compare", "cccc1", "cccc2", "--store", store.root).stdout

    assert "  alone right: 1: n007\ncccc2: error 0.25 % of 400 images\n  alone right: 1: n001\n" in text


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("aaaa1", "bbbb"), "different images: fingerprint is the same of aaaa1 and others of bbbb"),
        (("aaaa1", "cccc1"), "different images were read of aaaa1 and cccc1"),
        (("aaaa", "bbbb"), "'aaaa' begins the digest of 2 score records"),
        (("dddd", "bbbb"), "'dddd' begins the digest of 0 score records; expected one, or TABLE|ROW|COLUMN"),
        (("../x", "bbbb"), "'../x' begins the digest of 0 score records"),
        (("table3|A 256|nothing", "bbbb"), "no such metric column"),
        (("table3|A 256|top-1", "bbbb"), "`repro run table3 --row 'A 256'` measures the row"),
    ],
)
def test_what_cannot_be_compared_is_one_line(store, repro, words, part):
    """And exit 2."""
    done = repro("compare", *words, "--store", store.root, code=2)

    assert part in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_damaged_record_is_not_compared(store, repro):
    """Its checksum is looked at first."""
    path = next(store.root.rglob("aaaa1*.npz"))
    path.write_bytes(path.read_bytes()[:-9] + b"something")

    assert "is damaged" in repro("compare", "aaaa1", "aaaa2", "--store", store.root, code=2).stderr
