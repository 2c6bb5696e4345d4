"""Verdicts, case by case with their words, and how often the judge is wrong when the truth is known."""

from __future__ import annotations

import itertools
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import stats
from repro.judge import cell as judge_cell
from repro.judge import relations as judge_relations
from repro.printed import parse
from repro.schema import Build, Cell, Claim, Relation, Result, System, ViewSet

N = 2000


def make_cell(printed, kind="static", unit="", dataset="", measured_on="", extra=None, numeric=None, **claim):
    """A cell of one table; `printed` None leaves it without a claim."""
    systems = ((System(Build("vgg", "D"), dataset=measured_on),),) if measured_on else ()
    found = None
    if printed is not None:
        found = Claim(parse(printed, unit=unit), "q", kind, unit, "Table 3", "t.yaml", 7, dataset=dataset, **claim)
    return Cell("vgg/table3", "D 256", "top-1", found, "q", kind, unit, systems, extra or {})


def judged(printed, value, scale="full", per_seed=(), **options):
    """Verdict, delta and reason of one cell."""
    verdict = judge_cell(make_cell(printed, **options), Result(value=value, per_seed=per_seed), scale)
    return verdict.verdict, verdict.delta, verdict.reason


@pytest.mark.parametrize(
    ("printed", "value", "unit", "expected"),
    [
        ("138", Decimal("138.357544"), "M", ("match", 0.357544, "138.357544 is in [137.5, 138.5)")),
        ("138M", Decimal("138.357544"), "M", ("match", 0.357544, "138.357544 is in [137.5, 138.5)")),
        ("138", Decimal("138.5"), "M", ("differs", 0.5, "138.5 is not in [137.5, 138.5)")),
        ("622,312", 622312, "", ("match", 0.0, "622312 is in [622311.5, 622312.5)")),
        ("16-19", 16, "", ("match", -1.5, "16 is in [15.5, 19.5)")),
        ("<25", 25, "", ("differs", 0.0, "25 is not below 25")),
        ("<25", 22, "", ("match", -3.0, "22 is below 25")),
    ],
)
def test_a_count_is_compared_with_the_interval_of_its_digits(printed, value, unit, expected):
    """Exact arithmetic in the claim's unit, at any scale."""
    assert judged(printed, value, unit=unit) == expected
    assert judged(printed, value, unit=unit, scale="proxy") == expected


@pytest.mark.parametrize(
    ("printed", "value", "expected"),
    [
        ("10^-2", 0.01, ("match", 0.0, "0.01 is 10^-2")),
        ("0.01", 0.012, ("differs", 0.002, "0.012 is not 0.01")),
        ("256", 256, ("match", 0.0, "256 is 256")),
        ("370K", 370337, ("match", 337.0, "370337 is in [369500, 370500)")),
    ],
)
def test_a_setting_is_equal_or_it_differs(printed, value, expected):
    """A rate is chosen, not rounded; a number of steps printed as 370K is rounded."""
    assert judged(printed, value, kind="setting") == expected


@pytest.mark.parametrize(
    ("printed", "value", "verdict", "reason"),
    [
        ("conv3-64  LRN", "conv3-64 LRN", "match", "as printed"),
        ("conv3-64 conv3-64", ["conv3-64", "conv3-64"], "match", "as printed"),
        ("224 × 224", "224×224", "match", "as printed"),
        ("[256, 512]", [256, 512], "match", "as printed"),
        ("conv3-64 conv3-64", "conv3-64 conv1-64", "differs", "item 2 is printed conv3-64, measured conv1-64"),
        ("conv3-64 LRN", "conv3-64", "differs", "printed 2 items, measured 1"),
    ],
)
def test_text_is_compared_item_by_item(printed, value, verdict, reason):
    """White space, brackets and commas aside."""
    assert judged(printed, value) == (verdict, None, reason)


def test_words_and_a_number_cannot_be_compared():
    """`three` against 3 is for the table file to settle."""
    assert judged("three", 3) == ("incomparable", None, "printed in words, measured as a number")


def test_a_proxy_error_says_nothing_of_the_papers():
    """Shown, without delta, even where it equals the printed number."""
    options = {"kind": "metric", "unit": "%", "dataset": "imagenet-1k-val", "measured_on": "digits-test"}
    expected = ("incomparable", None, "measured on digits-test: says nothing of a number on imagenet-1k-val")

    assert judged("25.6", 25.6, "proxy", (25.6, 25.5), extra={"margin": 9}, **options) == expected
    assert judged("25.6", 25.6, "full", (25.6, 25.5), extra={"margin": 9}, **options) == expected


def test_at_the_proxy_a_metric_of_no_known_data_is_never_judged():
    """The safe side: without a data set on either side nothing is compared."""
    assert judged("25.6", 25.6, "proxy", kind="metric")[0] == "incomparable"


METRIC = {"kind": "metric", "unit": "%", "dataset": "imagenet-1k-val", "measured_on": "imagenet-1k-val"}


@pytest.mark.parametrize(
    ("printed", "runs", "verdict", "reason"),
    [
        ("25.6", (25.6,), "inconclusive", "one run; a match within 0.5 needs two or more: --seeds 3 may settle it"),
        ("25.6", (25.5, 25.6, 25.7), "match", "90 % interval of the gap [-0.17, 0.17], within the margin 0.5 (3 runs)"),
        ("25.6", (28.0, 28.1, 28.2), "differs",
         "95 % prediction interval of one run [27.60, 28.60] excludes 25.6, and the gap exceeds 0.5 (3 runs)"),
        ("25.6", (24.6, 25.6, 26.6), "inconclusive",
         "90 % interval of the gap [-1.69, 1.69] leaves the margin 0.5, yet 3 runs do not exclude 25.6; "
         "more seeds may settle it"),
        ("25.6 ± 0.4", (25.5, 25.6, 25.7), "inconclusive",
         "90 % interval of the gap [-0.57, 0.57] leaves the margin 0.5, yet 3 runs do not exclude 25.6 ± 0.4; "
         "more seeds may settle it"),
        ("<25", (20.0, 20.1, 20.2), "match", "90 % interval of the gap [0.00, 0.00], within the margin 0.5 (3 runs)"),
        ("<25", (28.0, 28.1, 28.2), "differs",
         "95 % prediction interval of one run [27.60, 28.60] excludes <25, and the gap exceeds 0.5 (3 runs)"),
    ],
)  # fmt: skip
def test_a_net_trained_here_is_judged_by_margin_and_runs(printed, runs, verdict, reason):
    """DESIGN's rule; the paper's own spread widens the interval, and is no tolerance."""
    word, delta, why = judged(printed, sum(runs) / len(runs), "full", runs, extra={"margin": 0.5}, **METRIC)

    assert (word, why) == (verdict, reason)
    assert delta is not None


def elsewhere(printed, errors, images=50_000, origin="published: torchvision resnet50 V1", views=(), **options):
    """The verdict on `errors` wrong answers of scores or weights from elsewhere, at full scale."""
    cell = make_cell(printed, **METRIC)
    system = replace(cell.systems[0][0], protocol=tuple((Fraction(1), v) for v in views or [ViewSet("grid", 256, 224)]))
    hits = np.arange(images) >= errors
    result = Result(100 * errors / images, (100 * errors / images,), (hits,), origin=origin, **options)
    return judge_cell(replace(cell, systems=((system,),)), result, "full")


def test_published_weights_are_judged_by_the_ledger_and_the_verdict_says_so():
    """Half a unit and the lines that apply: decoder .02, filter .11, another training's seed .18."""
    near, far = elsewhere("23.9", 11_850), elsewhere("23.9", 12_200)  # 23.7 and 24.4 %

    assert (near.verdict, far.verdict) == ("match", "differs")
    assert near.reason == (
        "published weights were checked (torchvision resnet50 V1), not the paper's own: "
        "23.7 against 23.9 ± 0.31 by the ledger; a change of 0.16 or more would be caught"
    )
    assert far.reason.endswith("24.4 against 23.9 ± 0.31 by the ledger; 0.14 stays unexplained")
    assert [line.split(":")[0] for line in near.ledger] == ["JPEG decoder", "resize filter", "another training's seed"]
    assert elsewhere("23.9", 11_769).verdict == "differs"  # one image beyond the change that would be caught
    assert elsewhere("23.9", 11_771).verdict == "match"


def test_another_lab_s_weights_settle_nothing_and_the_authors_own_are_judged():
    """A row says whose release a library holds; without a word of the authors it is a training of the library's."""
    own = {"torchvision": "resnet50.IMAGENET1K_V1", "timm": "resnet50.tv_in1k", "note": "by torchvision"}
    cell = make_cell("23.9", extra={"weights": own}, **METRIC)
    hits = np.arange(50_000) >= 11_850
    result = Result(23.7, (23.7,), (hits,), origin="published: torchvision:resnet50.IMAGENET1K_V1")
    other = judge_cell(cell, result, "full")
    assert other.verdict == "inconclusive"
    assert "trained by another lab (by torchvision)" in other.reason
    released = replace(cell, extra={"weights": own | {"authors": "torchvision"}})
    assert judge_cell(released, result, "full").verdict == "match"


def test_scores_from_elsewhere_are_judged_the_same_way_and_called_external():
    """Their resize is another library's; whose training they are of, nobody has said."""
    found = elsewhere("23.9", 12_000, origin="external: scores.npz")

    assert found.verdict == "match"
    assert found.reason.startswith("scores made elsewhere were checked (scores.npz), not the paper's own: 24 against")
    assert [line.split(":")[0] for line in found.ledger][2] == "another library's resize"


def test_a_share_is_judged_as_its_hundredfold():
    """A claim printed as a fraction, .761, with .239 wrong: the ledger's points and Wilson's share in its unit."""
    cell, hits = make_cell("0.761", **{**METRIC, "unit": "fraction"}), (np.arange(50_000) >= 11_850,)
    found = judge_cell(cell, Result(0.763, (0.763,), hits, origin="published: w"), "full")
    part = judge_cell(cell, Result(0.80, (0.80,), (hits[0][:500],), origin="published: w", limit=500), "full")

    assert (found.verdict, part.verdict) == ("match", "inconclusive")
    assert "0.763 against 0.761 ± 0.0031 by the ledger; a change of 0.0016 or more" in found.reason
    assert (
        part.reason.startswith("a part of 500 images, 95 % Wilson interval [0.7627, 0.8327] excludes 0.761; ") is False
    )


def test_weights_trained_here_use_no_ledger():
    """Their rule is the margin that the table fixed."""
    assert judge_cell(make_cell("25.6", **METRIC), Result(25.6, (25.6, 25.6)), "full").ledger == ()


@pytest.mark.parametrize("origin", ["", "published: w", "external: f"])
@given(errors=st.integers(0, 500), margin=st.sampled_from([0.01, 0.5, 100.0]), runs=st.integers(1, 3))
def test_a_part_of_the_images_never_matches(origin, errors, margin, runs):
    """Whatever is seen: inconclusive, or differs where the Wilson interval too excludes the claim."""
    hits = tuple(np.arange(500) >= errors for _ in range(runs))
    values = tuple(100 * errors / 500 + i / 100 for i in range(runs))
    cell = make_cell("25.6", extra={"margin": margin}, **METRIC)
    found = judge_cell(cell, Result(values[0], values, hits, origin=origin, limit=500), "full")

    assert found.verdict in ("inconclusive", "differs")
    low, high = (100 * end for end in stats.wilson(errors / 500, 500))
    if low < 25.5 and high > 25.7:
        assert found.verdict == "inconclusive"
    assert "a part of 500 images, 95 % Wilson interval [" in found.reason


def test_a_part_far_from_the_claim_differs():
    """Forty points off in 500 images of published weights; half a point off is left open."""
    assert elsewhere("25.6", 330, 500, limit=500).verdict == "differs"
    found = elsewhere("25.6", 131, 500, limit=500)
    assert found.verdict == "inconclusive"
    assert found.reason.startswith("a part of 500 images, 95 % Wilson interval [22.54, 30.23] holds 25.6; ")
    assert found.reason.endswith("; without --limit it may be settled")


def test_images_that_could_not_be_read_widen_and_are_told():
    """All wrong or all right: a verdict must hold for both."""
    few, many, far = (
        elsewhere("25.6", e, 49_000, left_out=n) for e, n in ((12_544, 10), (12_544, 1000), (20_000, 1000))
    )

    assert (few.verdict, many.verdict, far.verdict) == ("match", "inconclusive", "differs")
    assert many.reason.startswith("1000 images could not be read, so the value lies in [25.09, 27.09]; ")
    assert many.reason.endswith("reading every image may settle it")
    cell, hits = make_cell("25.6", extra={"margin": 0.5}, **METRIC), (np.arange(1000) >= 256,) * 3
    runs = (25.5, 25.6, 25.7)
    assert judge_cell(cell, Result(25.6, runs, hits), "full").verdict == "match"
    assert judge_cell(cell, Result(25.6, runs, hits, left_out=50), "full").verdict == "inconclusive"


def test_without_a_margin_nothing_follows():
    """A margin chosen after the run would be no margin."""
    verdict, _, reason = judged("25.6", 25.6, "full", (25.5, 25.6, 25.7), **METRIC)

    assert (verdict, reason) == (
        "inconclusive",
        "the table fixes no margin for this number, so nothing follows from it",
    )


def test_what_could_not_be_measured_says_why():
    """The claim's own reason first, then the job's; a NaN is a failure and no number."""
    cell = make_cell("7.0", kind="metric", missing="test server")
    plain = make_cell("7.0")

    assert judge_cell(cell, Result(failed="x"), "full").reason == "test server"
    for result, verdict, reason in (
        (Result(missing="not run yet"), "missing", "not run yet"),
        (Result(), "missing", "not measured"),
        (Result(failed="it did not learn"), "failed", "it did not learn"),
        (Result(value=float("nan")), "failed", "the measured value is not a number"),
    ):
        found = judge_cell(plain, result, "full")
        assert (found.verdict, found.reason) == (verdict, reason)


def test_a_known_difference_stays_a_difference():
    """The cause is passed on with `differs`, and with nothing else."""
    cell = make_cell("2.7K", unit="K", known={"cause": "a separable 7x7", "gives": "2712"})

    assert judge_cell(cell, Result(value=Decimal("9.5")), "full").known == {"cause": "a separable 7x7", "gives": "2712"}
    assert judge_cell(cell, Result(value=Decimal("9.5")), "full").verdict == "differs"
    assert judge_cell(cell, Result(value=Decimal("2.712")), "full").known is None


def test_a_cell_with_nothing_printed_is_measured_and_not_judged():
    """Such cells are sides of relations."""
    found = judge_cell(make_cell(None), Result(value=4.2), "proxy")

    assert (found.verdict, found.reason) == ("incomparable", "not printed: there is nothing to compare with")


# Relations


def key(row):
    return "vgg/table3", row, "top-1"


def relation(test, *pairs, id_="r", **options):
    rows = tuple((key(a), key(b)) for a, b in pairs)
    return Relation(id_, "a sentence", "Section 4.1", test, rows, "t.yaml", 9, **options)


def answers(errors, flips=0, n=N):
    """Hits of a net: the first `errors` images wrong, after `flips` that it gets wrong besides, at the end."""
    hits = np.ones(n, dtype=bool)
    hits[:errors] = False
    hits[n - flips :] = False
    return hits


def result(*hits, weights=None):
    return Result(value=0.0, hits=tuple(hits), weights=weights or tuple((f"net {id(h)}",) for h in hits))


def judge(relations, results, spread=1.0, scale="proxy"):
    given = [relations] if isinstance(relations, Relation) else relations
    spreads = {key(row): spread for row in results} if spread else {}
    found = judge_relations(given, {key(row): r for row, r in results.items()}, spreads, scale)
    return found[0] if isinstance(relations, Relation) else found


ONE = (("w",),)


def test_two_protocols_on_one_set_of_weights_are_told_apart_by_images():
    """20 images better and 2 worse: exact McNemar, with the true direction both ways."""
    results = {"multi": result(answers(100, 2), weights=ONE), "single": result(answers(120), weights=ONE)}
    found = judge(relation("less", ("multi", "single")), results, spread=None)

    assert found.verdict == "match"
    assert found.reason == "multi errs 0.90 pp less than single; adjusted p = 0.00012"
    assert (found.test, found.n, found.seeds) == ("exact McNemar", N, 1)
    assert found.effect == pytest.approx(0.9)
    assert found.interval[0] < 0.9 < found.interval[1]


def test_swapped_sides_flip_the_verdict_and_keep_the_p_value():
    """Neither side is favoured, whatever the test: one set of weights, or two trainings."""
    rng = np.random.default_rng(0)
    one = {"a": result(answers(100, 2), weights=ONE), "b": result(answers(150), weights=ONE)}
    few = {"a": result(answers(100)), "b": result(answers(200))}
    many = {"a": result(*(rng.random((3, N)) > 0.05)), "b": result(*(rng.random((3, N)) > 0.2))}
    for results in (one, few, many):
        found = judge(relation("less", ("a", "b")), results)
        other = judge(relation("less", ("b", "a")), results)
        assert (found.verdict, other.verdict) == ("match", "differs")
        assert other.p_value == pytest.approx(found.p_value)
        assert other.effect == -found.effect
        assert other.interval == pytest.approx((-found.interval[1], -found.interval[0]))
        assert "more than" in other.reason


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_net_with_a_fifth_of_its_predictions_scrambled_is_worse_for_certain(seeds):
    """A scrambled answer among ten classes is right one time in ten."""
    rng = np.random.default_rng(1)
    hits = rng.random((seeds, N)) > 0.05
    scrambled = np.where(rng.random((seeds, N)) < 0.2, rng.random((seeds, N)) < 0.1, hits)
    weights = tuple((f"w{i}",) for i in range(seeds))
    for other in (weights, tuple((f"v{i}",) for i in range(seeds))):
        results = {"whole": result(*hits, weights=weights), "scrambled": result(*scrambled, weights=other)}
        assert judge(relation("less", ("whole", "scrambled")), results).verdict == "match"
        assert judge(relation("less", ("scrambled", "whole")), results).verdict == "differs"


def test_one_training_a_side_says_nothing_within_the_spread():
    """However small McNemar's p: it speaks of these weights."""
    found = judge(relation("less", ("a", "b")), {"a": result(answers(100)), "b": result(answers(140))})

    assert found.p_value < 1e-6
    assert found.test == "exact McNemar, these weights"
    assert found.verdict == "inconclusive"
    assert found.reason == (
        "a errs 2.00 pp less than b; one training a side: gap 2.00 within 2.83 "
        "(from the spread over seeds, 1); --seeds 3 may settle it; detectable with 80 % power: 4.05 pp"
    )
    assert found.mde == pytest.approx(2 * 2**0.5 + 0.8416 * (2 + 0.327**2) ** 0.5, abs=0.01)


def test_one_training_a_side_beyond_the_spread_is_judged():
    """A gap of 5 with a spread of one point."""
    found = judge(relation("less", ("a", "b")), {"a": result(answers(100)), "b": result(answers(200))})

    assert (found.verdict, found.reason) == ("match", "a errs 5.00 pp less than b; adjusted p < 0.0001")


def test_looking_at_several_pairs_raises_the_bound_for_a_reversed_one():
    """One step of four is 3 points the wrong way: beyond 2.83, but not beyond what four looks ask."""
    rows = ("n0", "n1", "n2", "n3")
    results = {row: result(answers(e)) for row, e in zip(rows, (400, 300, 200, 260), strict=True)}
    found = judge(relation("falls", *itertools.pairwise(rows)), results)

    assert found.verdict == "inconclusive"
    assert found.reason == (
        "n3 errs 3.00 pp more than n2; a reversed step of the trend; one training a side: gap 3.00 "
        "within 3.58 (from the spread over seeds, 1); --seeds 3 may settle it; detectable with 80 % power: 4.81 pp"
    )


def test_without_a_known_spread_one_training_a_side_is_never_enough():
    """No spread stated, nothing concluded, two seeds included."""
    results = {"a": result(answers(100), answers(100)), "b": result(answers(900), answers(900))}
    found = judge(relation("less", ("a", "b")), results, spread=None)

    assert found.verdict == "inconclusive"
    assert found.reason == (
        "a errs 40.00 pp less than b; 2 trainings a side, and the table states no spread over seeds; "
        "--seeds 3 may settle it"
    )
    assert found.test == "exact sign flips over images, these weights"


def test_three_trainings_a_side_are_judged_by_seeds_and_images():
    """The spread that the table states is not needed any more."""
    results = {
        "a": result(answers(100), answers(110), answers(90)),
        "b": result(answers(200), answers(190), answers(205)),
        "c": result(answers(60), answers(150), answers(95)),
    }
    found = judge(relation("less", ("a", "b")), results, spread=None)
    other = judge(relation("less", ("c", "a")), results, spread=None)

    assert (found.verdict, found.test, found.seeds) == ("match", "t over seeds and images", 3)
    assert other.verdict == "inconclusive"
    assert other.reason.startswith("c errs 0.08 pp more than a") or other.reason.startswith(
        "c errs 0.08 pp less than a"
    )
    assert other.reason.endswith("; more seeds than 3 may settle it; detectable with 80 % power: 6.21 pp")


def test_several_seeds_of_one_set_of_weights_count_images_once():
    """Three times the same answers are no more evidence than one."""
    a, b = answers(100, 2), answers(107)
    once = judge(relation("less", ("a", "b")), {"a": result(a, weights=ONE), "b": result(b, weights=ONE)})
    seeds = tuple((w,) for w in "uvw")
    thrice = judge(
        relation("less", ("a", "b")), {"a": result(a, a, a, weights=seeds), "b": result(b, b, b, weights=seeds)}
    )

    assert thrice.p_value == pytest.approx(once.p_value)
    assert (once.test, thrice.test) == ("exact McNemar", "exact sign flips over images")


def test_an_ensemble_and_its_member_are_two_trainings():
    """Sides of different weights, though one holds the other's."""
    results = {"both": result(answers(100), weights=(("d", "e"),)), "D": result(answers(120), weights=(("d",),))}

    assert judge(relation("less", ("both", "D")), results).test == "exact McNemar, these weights"


def test_sides_without_named_weights_are_two_trainings():
    """What is not known to be one set of weights is not taken for it."""
    plain = {"a": Result(hits=(answers(100),)), "b": Result(hits=(answers(120),))}

    assert judge(relation("less", ("a", "b")), plain).test == "exact McNemar, these weights"


def test_no_better_needs_the_gain_below_the_margin():
    """A test that finds no difference proves nothing; a gain far below the margin does."""
    claim = relation("not_better", ("lrn", "plain"), margin=0.5)
    even = {"lrn": result(answers(100, 4), weights=ONE), "plain": result(answers(104), weights=ONE)}
    noisy = {"lrn": result(answers(60, 100), weights=ONE), "plain": result(answers(160), weights=ONE)}
    better = {"lrn": result(answers(100), weights=ONE), "plain": result(answers(140), weights=ONE)}

    assert judge(claim, even).verdict == "match"
    assert judge(claim, even).reason.startswith("lrn gains 0.00 pp over plain, below the margin 0.5; adjusted p")
    assert judge(claim, even).test == "z over images against the margin"
    assert judge(claim, noisy).verdict == "inconclusive"
    assert judge(claim, noisy).reason.startswith("lrn gains 0.00 pp over plain, below the margin 0.5; p = 0.2")
    assert judge(claim, noisy).reason.endswith(
        "; more images than 2000 may settle it; detectable with 80 % power: 1.77 pp"
    )
    assert judge(claim, better).verdict == "differs"
    assert judge(claim, better).reason.startswith("lrn gains 2.00 pp over plain, not below the margin 0.5; adjusted p")


def test_no_better_of_two_trainings_keeps_its_distance_from_the_margin():
    """One training a side: the gain must lie more than the spread's bound below the margin."""
    claim = relation("not_better", ("lrn", "plain"), margin=0.5)
    found = judge(claim, {"lrn": result(answers(110)), "plain": result(answers(100))})
    sure = judge(claim, {"lrn": result(answers(180)), "plain": result(answers(100))})

    assert found.verdict == "inconclusive"
    assert "one training a side: gap 1.00 to the margin within 2.83" in found.reason
    assert sure.verdict == "match"
    assert sure.test == "z over images against the margin, these weights"


def test_a_conjunction_is_as_strong_as_its_weakest_pair():
    """The largest p and that pair's effect; the reason counts the pairs that hold."""
    results = {row: result(answers(100, f), weights=ONE) for row, f in (("a", 0), ("b", 20), ("c", 60), ("d", 3))}
    strong = judge(relation("less", ("a", "c"), ("a", "b")), results)
    weak = judge(relation("less", ("a", "c"), ("a", "d")), results)

    assert strong.verdict == "match"
    assert strong.effect == pytest.approx(1.0)
    assert strong.test == "exact McNemar, largest p of 2 pairs"
    assert strong.reason.startswith("a errs 1.00 pp less than b; weakest of 2 pairs, 2 held; adjusted p")
    assert weak.verdict == "inconclusive"
    assert weak.p_value == pytest.approx(0.25)
    assert weak.reason.startswith("a errs 0.15 pp less than d; weakest of 2 pairs, 1 held; p = 0.25")


def test_one_reversed_pair_refutes_a_conjunction():
    """Its p is multiplied by the number of pairs that were looked at."""
    results = {row: result(answers(100, f), weights=ONE) for row, f in (("a", 0), ("b", 20), ("c", 60))}
    found = judge(relation("less", ("a", "c"), ("b", "a")), results)

    assert found.verdict == "differs"
    assert found.p_value == pytest.approx(2 * 2 / 2**20)
    assert found.test == "exact McNemar, smallest p of 2 pairs times 2"
    assert found.reason.startswith("b errs 1.00 pp more than a; weakest of 2 pairs, 1 held")


def trend(*errors):
    rows = [f"n{i}" for i in range(len(errors))]
    results = {row: result(answers(e), weights=ONE) for row, e in zip(rows, errors, strict=True)}
    return judge(relation("falls", *itertools.pairwise(rows)), results)


def test_a_trend_is_its_ends_with_no_step_significantly_reversed():
    """VGG's own E stands a little above D, and the trend holds."""
    found = trend(200, 150, 120, 124)

    assert (found.verdict, found.test) == ("match", "exact McNemar, of the ends")
    assert found.effect == pytest.approx(3.8)
    assert found.reason.startswith("n3 errs 3.80 pp less than n0; adjusted p")


def test_a_trend_with_a_step_reversed_for_certain_is_refuted():
    """The ends fall, but the last step climbs by a point."""
    found = trend(200, 150, 120, 140)

    assert found.verdict == "differs"
    assert found.reason.startswith("n3 errs 1.00 pp more than n2; a reversed step of the trend; adjusted p")
    assert found.test == "exact McNemar, smallest p of 4 pairs times 4"


def test_a_trend_with_a_step_that_seems_reversed_is_not_confirmed():
    """Seven images the wrong way are p = .016 alone, and .06 as one of four."""
    found = trend(200, 150, 120, 127)

    assert found.verdict == "inconclusive"
    assert found.p_value == pytest.approx(4 * 2 / 2**7)


def test_a_trend_that_climbs_is_refuted_and_a_flat_one_is_open():
    """Both ends the other way; both ends the same."""
    assert trend(100, 150, 200).verdict == "differs"
    assert trend(100, 100, 100).verdict == "inconclusive"
    assert trend(100, 100, 100).reason.startswith("n2 errs as often as n0; p = 1, interval [-0.14, 0.14]; more")


def test_holm_counts_every_relation_of_the_file():
    """Those that were not run are p = 1."""
    results = {"a": result(answers(100), weights=ONE), "b": result(answers(107), weights=ONE)}
    tested = relation("less", ("a", "b"), id_="tested")
    absent = [relation("less", ("a", "gone"), id_=f"absent {i}") for i in range(3)]
    alone = judge(tested, results)
    found = judge([tested, *absent], results)

    assert alone.p_value == pytest.approx(2 / 2**7)
    assert (alone.p_adjusted, alone.verdict) == (pytest.approx(2 / 2**7), "match")
    assert found[0].p_adjusted == pytest.approx(4 * 2 / 2**7)
    assert found[0].verdict == "inconclusive"
    assert found[0].reason.endswith(
        "p = 0.016 is 0.062 by Holm over the table's relations; more images than 2000 may settle it; "
        "detectable with 80 % power: 0.50 pp"
    )
    assert [v.verdict for v in found[1:]] == ["missing"] * 3


def test_a_relation_whose_sides_are_not_there_names_them():
    """Missing and failed sides, in the words of their jobs."""
    here = result(answers(100))
    gone = judge(relation("less", ("a", "b")), {"a": here})
    unlike = judge(relation("less", ("a", "b")), {"a": here, "b": Result(missing="not run yet")})
    broken = judge(relation("less", ("a", "b")), {"a": Result(missing="x"), "b": Result(failed="it did not learn")})
    bare = judge(relation("less", ("a", "b")), {"a": here, "b": Result(value=3.0)})
    never = judge(relation("less", ("a", "b"), missing="a private data set"), {"a": here, "b": here})

    assert (gone.verdict, gone.reason) == ("missing", "missing: b | top-1 (not measured)")
    assert (unlike.verdict, unlike.reason) == ("missing", "missing: b | top-1 (not run yet)")
    assert (broken.verdict, broken.reason) == ("failed", "failed: b | top-1 (it did not learn)")
    assert (bare.verdict, bare.reason) == ("missing", "no answers per image were kept of b | top-1")
    assert (never.verdict, never.reason) == ("missing", "a private data set")


def test_sides_that_do_not_fit_are_not_compared():
    """Other images, or another number of seeds."""
    short = judge(relation("less", ("a", "b")), {"a": result(answers(9)), "b": result(answers(9, n=50))})
    seeds = judge(relation("less", ("a", "b")), {"a": result(answers(9)), "b": result(answers(9), answers(8))})

    assert (short.verdict, short.reason) == ("incomparable", "the sides were measured on different images")
    assert (seeds.verdict, seeds.reason) == ("inconclusive", "sides of 1 and 2 seeds; give each the same --seeds")


def test_of_a_printed_size_only_the_direction_is_judged_at_the_proxy():
    """7 % is ImageNet's; the proxy's 5 points confirm the direction, and say so."""
    claim = relation("less", ("a", "b"), printed=parse("7"))
    results = {"a": result(answers(100), weights=ONE), "b": result(answers(200), weights=ONE)}
    proxy, full = judge(claim, results), judge(claim, results, scale="full")

    assert proxy.verdict == "match"
    assert proxy.reason.endswith("; the printed 7 pp is not judged at this scale")
    assert full.verdict == "inconclusive"
    assert "; but the printed 7 pp is outside the interval; a margin for the size would settle it" in full.reason


def test_sides_of_other_tables_or_columns_are_told_apart_by_name():
    """One row in two tables keeps its table's name."""
    a, b = ("vgg/table4", "D", "top-1"), ("vgg/table3", "D", "top-1")
    found = judge_relations(
        [Relation("r", "", "", "less", ((a, b),), "t.yaml", 1)],
        {a: result(answers(100), weights=ONE), b: result(answers(140), weights=ONE)}, {a: 1.0, b: 1.0}, "proxy",
    )  # fmt: skip

    assert found[0].reason.startswith("vgg/table4 | D errs 2.00 pp less than vgg/table3 | D")


# How often the judge is wrong


def same_nets(rng, seeds, spread, sides):
    """Answers (sides, seeds, images) of trainings of one and the same net, `spread` points apart."""
    hard = -4 + 2.5 * rng.standard_normal(N)
    points = 100 * (1 / (1 + np.exp(-hard)) / (1 + np.exp(hard))).mean()
    level = spread / points * rng.standard_normal((sides, seeds, 1))
    return rng.random((sides, seeds, N)) > 1 / (1 + np.exp(-hard - level))


def share_concluded(seeds, spread, test, trials, rng, sides=2):
    """In what share of trials a relation between trainings of one net comes out decided.

    The spread that the judge is told is the one that is seen over seeds, on the same images.
    """
    concluded = 0
    seen = 100 * float(same_nets(rng, 1, spread, 2000).mean(axis=2).std())
    for _ in range(trials):
        hits = same_nets(rng, seeds, spread, sides)
        rows = [f"n{i}" for i in range(sides)]
        results = {
            row: result(*h, weights=tuple((f"{row} {i}",) for i in range(seeds)))
            for row, h in zip(rows, hits, strict=True)
        }
        pairs = itertools.pairwise(rows) if test == "falls" else [(rows[0], row) for row in rows[1:]]
        concluded += judge(relation(test, *pairs), results, spread=seen).verdict in ("match", "differs")
    return concluded / trials


@pytest.mark.parametrize(("test", "sides"), [("less", 2), ("less", 4), ("falls", 5)])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_pairs_of_seeds_of_one_net_are_not_told_apart(seeds, test, sides):
    """At most 5 % of true nulls come out match or differs, each a family of its own."""
    trials = 600 if sides == 2 else 200
    allowed = 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)

    assert share_concluded(seeds, 1.0, test, trials, np.random.default_rng(10 + seeds), sides) <= allowed


def test_a_table_of_null_relations_is_rarely_wrong_at_all():
    """Holm: of six null relations over three seeds, one or more decided in at most 5 % of tables."""
    rng, wrong, tables = np.random.default_rng(20), 0, 150
    for _ in range(tables):
        hits = same_nets(rng, 3, 1.0, 7)
        results = {f"n{i}": result(*h, weights=tuple((f"{i} {j}",) for j in range(3))) for i, h in enumerate(hits)}
        found = judge([relation("less", ("n0", f"n{i}"), id_=str(i)) for i in range(1, 7)], results)
        wrong += any(v.verdict in ("match", "differs") for v in found)

    assert wrong / tables <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / tables)


def test_no_better_at_its_margin_is_rarely_claimed():
    """A gain of just the margin is called below it in at most 5 % of trials."""
    rng, wrong, trials = np.random.default_rng(21), 0, 600
    claim = relation("not_better", ("a", "b"), margin=2.0)
    for _ in range(trials):
        sides = rng.choice([0, 1, -1], p=[0.92, 0.05, 0.03], size=N)  # a gain of two points
        results = {"a": result(sides >= 0, weights=ONE), "b": result(sides <= 0, weights=ONE)}
        wrong += judge(claim, results).verdict == "match"

    assert wrong / trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
