"""Tests reject, and intervals miss, as often as they say: by published figures and by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import bdtr

from repro import stats

IMAGES = 2000


def share_of(trials, rng, draw):
    """In what share of `trials` repetitions `draw(rng)` is true."""
    return sum(bool(draw(rng)) for _ in range(trials)) / trials


def trainings(rng, seeds, spread, sides=2, shift=0.0, own=0.0):
    """Misses (sides, seeds, images) of nets of one kind, which err about 10 times in a hundred.

    Each image has its own difficulty, each training its own level, with `spread` points between
    trainings; `own` gives each side a difficulty of its own for every image; `shift` is what the
    second side errs more, in points.
    """
    hard = -4 + 2.5 * rng.standard_normal(IMAGES)
    points = 100 * (1 / (1 + np.exp(-hard)) / (1 + np.exp(hard))).mean()
    level = spread / points * rng.standard_normal((sides, seeds, 1))
    level[1:] += shift / points
    score = hard + own * rng.standard_normal((sides, 1, IMAGES)) + level
    return rng.random((sides, seeds, IMAGES)) < 1 / (1 + np.exp(-score))


def difference(misses):
    """The first side's hits less the second's."""
    return misses[1].astype(int) - misses[0]


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(1, 7, 0.0703), (6, 16, 0.0525), (0, 0, 1.0), (5, 5, 1.0), (0, 6, 2 / 64)],
    ids=["Bentur 2009", "Cavo 2012", "nothing differs", "even", "by hand"],
)
def test_sign_flips_of_one_seed_give_mcnemars_published_figures(first, second, p):
    """The two examples of Fagerland, Lydersen and Laake (2013), and sums by hand."""
    assert stats.sign_flip([1] * first + [-1] * second) == pytest.approx(p, abs=5e-5)
    assert stats.sign_flip([1] * second + [-1] * first) == stats.sign_flip([1] * first + [-1] * second)


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_sign_flips_agree_with_counting_every_sign(totals):
    """The convolution gives what going through all signs gives."""
    sums = [
        sum(s * t for s, t in zip(signs, totals, strict=True))
        for signs in itertools.product((1, -1), repeat=len(totals))
    ]
    lower = sum(s <= -abs(sum(totals)) for s in sums) / len(sums)

    assert stats.sign_flip(totals) == pytest.approx(min(1.0, 2 * lower))


@given(st.integers(0, 300), st.integers(0, 300))
def test_sign_flips_of_one_seed_are_mcnemar(first, second):
    """With one seed every image's total is one of -1, 0 and 1, and the exact test is a binomial's two tails."""
    images = first + second
    expected = min(1.0, 2 * float(bdtr(min(first, second), images, 0.5))) if images else 1.0

    assert stats.sign_flip([1] * first + [-1] * second + [0]) == pytest.approx(expected, rel=1e-9)


def test_the_interval_of_a_paired_difference_is_that_of_bonett_and_price():
    """1 and 7 of 21: (-6 ± 1.96 sqrt(10 - 36/23)) / 23, by hand."""
    low, high = stats.over_images(np.array([[1] + [-1] * 7 + [0] * 13])).interval()

    assert (low, high) == pytest.approx((-0.5084, -0.0134), abs=5e-5)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_the_published_ones(right, n, low, high):
    """Newcombe, Statistics in Medicine 17 (1998), Table I, method 3."""
    assert stats.wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_intervals_miss_as_often_as_they_say():
    """A share of 26 % and 500 images, as an error of a part of ImageNet."""
    rng = np.random.default_rng(11)

    def misses(rng):
        low, high = stats.wilson(rng.binomial(500, 0.26) / 500, 500)
        return not low <= 0.26 <= high

    assert share_of(4000, rng, misses) == pytest.approx(0.05, abs=0.012)


def test_the_detectable_effect_by_hand():
    """1.96 + 0.8416 standard errors; a bound above the first part stands in its place."""
    estimate = stats.Estimate(0.0, 0.01)

    assert estimate.detectable(0.05) == pytest.approx(0.01 * (1.95996 + 0.84162), abs=1e-6)
    assert estimate.detectable(0.05, 0.03) == pytest.approx(0.03 + 0.0084162, abs=1e-6)
    assert estimate.detectable(0.05, 0.03, 0.02) == pytest.approx(0.03 + 0.84162 * math.hypot(0.01, 0.02), abs=1e-6)


def test_the_detectable_effect_is_found_four_times_in_five():
    """Two protocols whose true difference is the detectable effect of their own standard error."""
    rng, shares = np.random.default_rng(12), np.array([0.90, 0.05, 0.05])
    gap = stats.over_images(rng.choice([0, 1, -1], p=shares, size=(1, IMAGES))).detectable(0.05)
    shares += np.array([0, gap / 2, -gap / 2])

    def finds(rng):
        return stats.sign_flip(rng.choice([0, 1, -1], p=shares, size=IMAGES)) < 0.05

    assert share_of(1500, rng, finds) == pytest.approx(0.8, abs=0.05)


def test_holm_by_hand():
    """.005 x 4, .01 x 3, .03 x 2, and .04 no smaller than the one before it."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []


def test_holm_counts_the_tests_that_were_not_run():
    """One test of five, the others p = 1, is multiplied by five; nothing exceeds one."""
    assert stats.holm([0.01, 1, 1, 1, 1]) == pytest.approx([0.05, 1, 1, 1, 1])
    assert stats.holm([1, 0.01, 0.5]) == pytest.approx([1, 0.03, 1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_lowers_a_p(p_values):
    """The adjusted values rise with the given ones."""
    adjusted = stats.holm(p_values)

    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    ordered = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    assert ordered == sorted(ordered)


def test_intervals_of_runs_by_hand():
    """Three runs of mean 10 and deviation 1: t(2) is 2.920 at 95 % and 4.303 at 97.5 %."""
    runs = [9.0, 10.0, 11.0]

    assert stats.of_runs(runs, 0.90) == pytest.approx((10 - 2.920 / math.sqrt(3), 10 + 2.920 / math.sqrt(3)), abs=1e-3)
    assert stats.of_runs(runs, 0.95, one_more=True) == pytest.approx(
        (10 - 4.303 * 2 / math.sqrt(3), 10 + 4.303 * 2 / math.sqrt(3)), abs=2e-3
    )


def test_an_estimates_p_values_by_hand():
    """1.96 standard errors are 5 %; four are left of t(2) = 4.303."""
    estimate = stats.Estimate(1.96, 1.0)

    assert estimate.differs() == pytest.approx(0.05, abs=1e-4)
    assert estimate.below(1.96) == 0.5
    assert estimate.below(1.96 + 1.645) == pytest.approx(0.05, abs=1e-4)
    assert stats.Estimate(4.303, 0.0, 1.0, 2).differs() == pytest.approx(0.05, abs=1e-4)
    assert stats.Estimate(math.hypot(1.96, 4.303), 1.0, 1.0, 2).differs() == pytest.approx(0.05, abs=1e-4)
    assert stats.Estimate(0.0, 0.0).differs() == 1.0


def test_intervals_of_runs_miss_as_often_as_they_say():
    """10 % of 90 % intervals miss the mean, 5 % of prediction intervals the next run."""
    rng = np.random.default_rng(1)

    def misses_mean(rng):
        low, high = stats.of_runs(rng.normal(5, 2, 3).tolist(), 0.90)
        return not low <= 5 <= high

    def misses_next(rng):
        low, high = stats.of_runs(rng.normal(5, 2, 3).tolist(), 0.95, one_more=True)
        return not low <= rng.normal(5, 2) <= high

    assert share_of(3000, rng, misses_mean) == pytest.approx(0.10, abs=0.018)
    assert share_of(3000, rng, misses_next) == pytest.approx(0.05, abs=0.014)


@pytest.mark.parametrize("seeds", [1, 3])
def test_over_images_misses_as_often_as_it_says(seeds):
    """Nets that stay as they are and images that are drawn: the true difference is outside in 5 % of draws.

    The two protocols have misses of their own; the truth is the mean over a million images.
    """
    rng = np.random.default_rng(3)
    shares = np.array([0.90, 0.06, 0.04])  # neither or both, first alone, second alone
    common = rng.choice([0, 1, -1], p=shares, size=10**6)
    nets = np.stack([np.where(rng.random(10**6) < 0.6, common, 0) for _ in range(seeds)])
    truth = nets.mean()

    def misses(rng):
        low, high = stats.over_images(nets[:, rng.integers(0, 10**6, IMAGES)]).interval()
        return not low <= truth <= high

    assert share_of(2000, rng, misses) == pytest.approx(0.05, abs=0.016)


@pytest.mark.parametrize("seeds", [1, 3])
def test_sign_flips_reject_a_true_null_in_at_most_five_percent(seeds):
    """Two protocols that are as good as one another, on the same weights."""

    def rejects(rng):
        sides = rng.choice([0, 1, -1], p=[0.9, 0.05, 0.05], size=IMAGES)
        return stats.sign_flip(np.where(rng.random((seeds, IMAGES)) < 0.6, sides, 0).sum(axis=0)) < 0.05

    assert share_of(1500, np.random.default_rng(4), rejects) <= 0.06


@pytest.mark.parametrize("spread", [1.0, 0.2, 0.0])
@pytest.mark.parametrize("own", [0.0, 0.7, 3.0], ids=["same images hard", "a little apart", "far apart"])
def test_two_trainings_reject_a_true_null_in_at_most_five_percent(spread, own):
    """Trainings of one kind, however far the seeds lie apart and whatever images each side finds hard."""

    def rejects(rng):
        low, high = stats.over_seeds_and_images(difference(trainings(rng, 3, spread, own=own))).interval()
        return low > 0 or high < 0

    # 5 % and three standard errors of 2,000 trials.
    assert share_of(2000, np.random.default_rng(5), rejects) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize("nets", [1.0, 0.5], ids=["spread as stated", "spread half of it or double, net by net"])
def test_a_known_spread_moderates_three_seeds_and_keeps_the_level(nets):
    """The stated spread is right on the whole; single nets may lie below or above it."""

    def rejects(rng):
        own = float(rng.choice([nets, 1 / nets]))
        pooled = math.sqrt((nets**2 + nets**-2) / 2 + 0.45**2)  # in points, with the noise of the images
        d = difference(trainings(rng, 3, own))
        return stats.over_seeds_and_images(d, pooled / 100).differs() < 0.05

    assert share_of(2000, np.random.default_rng(9), rejects) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_a_known_spread_finds_more_than_three_seeds_alone():
    """Two points with half a point between seeds: seldom found without, mostly found with it."""
    rng = np.random.default_rng(10)
    pairs = [difference(trainings(rng, 3, 0.5, shift=2)) for _ in range(100)]

    alone = sum(stats.over_seeds_and_images(d).differs() < 0.01 for d in pairs)
    moderated = sum(stats.over_seeds_and_images(d, 0.007).differs() < 0.01 for d in pairs)
    assert moderated > 2 * alone


def test_pooled_images_would_reject_far_too_often():
    """Why seeds count: with a point between seeds, images alone call half of all true nulls different."""

    def rejects(rng):
        return stats.over_images(difference(trainings(rng, 3, 1.0))).differs() < 0.05

    assert share_of(200, np.random.default_rng(6), rejects) > 0.3


def test_two_trainings_far_apart_are_told_apart():
    """Five points with half a point between seeds are found nearly always, with the right sign."""

    def finds(rng):
        estimate = stats.over_seeds_and_images(difference(trainings(rng, 3, 0.5, shift=5)))
        return estimate.differs() < 0.05 and estimate.mean > 0

    assert share_of(100, np.random.default_rng(7), finds) > 0.9


def test_seeds_and_images_agree_with_the_two_way_table():
    """The variance is (MS seeds + MS images - MS rest) / (seeds x images), from the table of squares."""
    d = difference(trainings(np.random.default_rng(8), 4, 1.0, own=2.0)).astype(float)
    seeds, images = d.shape
    rows, columns = d.mean(axis=1, keepdims=True), d.mean(axis=0, keepdims=True)
    ms_seeds = images * ((rows - d.mean()) ** 2).sum() / (seeds - 1)
    ms_images = seeds * ((columns - d.mean()) ** 2).sum() / (images - 1)
    ms_rest = ((d - rows - columns + d.mean()) ** 2).sum() / ((seeds - 1) * (images - 1))
    estimate = stats.over_seeds_and_images(d)

    variance = estimate.image_error**2 + estimate.run_error**2
    assert variance == pytest.approx((ms_seeds + ms_images - ms_rest) / (seeds * images), rel=1e-9)
    assert estimate.run_error**2 == pytest.approx(ms_seeds / (seeds * images), rel=1e-9)
    assert (estimate.mean, estimate.freedom) == (pytest.approx(d.mean()), seeds - 1)


def test_seeds_that_agree_to_the_last_image_leave_the_images_to_speak():
    """No spread at all between three seeds is no proof that there is none."""
    d = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])

    assert stats.over_seeds_and_images(d) == stats.over_images(d)


@given(st.floats(0.01, 5), st.floats(0, 2), st.floats(0, 2), st.sampled_from([2, 4, 30]))
def test_an_interval_ends_where_its_p_value_is_five_percent(mean, image_error, run_error, freedom):
    """The interval and the test are one: a value at its end has p = .05."""
    estimate = stats.Estimate(mean, image_error, run_error, freedom)
    low, high = estimate.interval()
    if high - low > 1e-6:
        assert estimate.differs(low) == pytest.approx(0.05, rel=1e-5)
        assert estimate.below(high) == pytest.approx(0.025, rel=1e-5)
