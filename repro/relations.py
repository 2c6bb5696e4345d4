"""What two sides' answers say of a sentence of the paper; the policy stands in `judge`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from . import stats
from .printed import overlaps
from .schema import Relation, RelationVerdict, Result

Key = tuple[str, str, str]
LEVEL = 0.05
TWO_SIGMA = 0.0227501319481792  # the normal law's share beyond two standard deviations, on one side
ENOUGH = 3  # seeds a side from which trainings themselves can be tested


@dataclass(frozen=True)
class _Test:
    """One comparison of two sides. Points throughout; `slack` is how far it goes the claimed way.

    `bound` is what the slack must exceed for trainings to be told apart: infinite where no spread over seeds is
    known, 0 where the test itself counts the seeds or there is one set of weights.
    """

    first: str
    second: str
    effect: float
    slack: float
    p: float
    name: str
    n: int
    seeds: int
    bound: float
    spread: float | None
    estimate: stats.Estimate

    @property
    def interval(self) -> tuple[float, float]:
        low, high = self.estimate.interval(0.95)
        return 100 * low, 100 * high

    @property
    def is_decided(self) -> bool:
        return self.bound == 0 or abs(self.slack) > self.bound

    @property
    def is_significant(self) -> bool:
        return self.is_decided and self.p < LEVEL


# The test that is shown, those that leave the claim open, and a note on the choice.
_Finding = tuple[_Test, list[_Test], str]


def relations(
    relations: Sequence[Relation], results: Mapping[Key, Result], spreads: Mapping[Key, float], scale: str
) -> list[RelationVerdict]:
    """The verdicts on the relations of a table, in their order.

    Give all of a table file's relations, for they are Holm's family. `spreads` holds the standard deviation over
    seeds, in points, that is stated for a side's recipe at this scale. Effects are error(second) - error(first).
    """
    findings = [_not_run(r, results) or _finding(r, results, spreads) for r in relations]
    adjusted = stats.holm([f[0].p if isinstance(f, tuple) else 1.0 for f in findings])
    return [
        _conclude(r, f, p, scale, LEVEL / len(relations)) if isinstance(f, tuple) else f
        for r, f, p in zip(relations, findings, adjusted, strict=True)
    ]


def _not_run(relation: Relation, results: Mapping[Key, Result]) -> RelationVerdict | None:
    """The verdict of a relation whose sides are not all there, or do not fit together."""
    if relation.missing:
        return RelationVerdict(relation, "missing", relation.missing)
    sides = {key: results.get(key, Result(missing="not measured")) for pair in relation.pairs for key in pair}
    for word in ("failed", "missing"):
        if lacking := [f"{' | '.join(key[1:])} ({why})" for key, r in sides.items() if (why := getattr(r, word))]:
            return RelationVerdict(relation, word, f"{word}: {', '.join(lacking)}")
    if bare := [" | ".join(key[1:]) for key, r in sides.items() if not r.hits]:
        return RelationVerdict(relation, "missing", f"no answers per image were kept of {', '.join(bare)}")
    if len({len(hits) for r in sides.values() for hits in r.hits}) > 1:
        return RelationVerdict(relation, "incomparable", "the sides were measured on different images")
    if len(seeds := {len(r.hits) for r in sides.values()}) > 1:
        numbers = " and ".join(map(str, sorted(seeds)))
        return RelationVerdict(relation, "inconclusive", f"sides of {numbers} seeds; give each the same --seeds")
    return None


def _compare(
    relation: Relation, first: Key, second: Key, results: Mapping[Key, Result], spreads: Mapping[Key, float]
) -> _Test:
    import numpy as np

    one, two = results[first], results[second]
    sides = [spreads.get(first), spreads.get(second)]
    # One spread for both sides that gives their difference the same variance.
    spread = None if None in sides else math.sqrt(sum(s * s for s in sides if s) / 2)
    differences = np.asarray(one.hits, dtype=np.int64) - np.asarray(two.hits, dtype=np.int64)
    seeds, n = differences.shape
    is_one_set = bool(one.weights) and one.weights == two.weights
    by_seeds = seeds >= ENOUGH and not is_one_set
    if by_seeds:
        estimate = stats.over_seeds_and_images(differences, None if spread is None else spread / 100)
    else:
        estimate = stats.over_images(differences)
    slack = effect = 100 * float(differences.mean())
    if relation.test == "not_better":
        slack = relation.margin - effect
        p = (estimate.below if slack > 0 else estimate.differs)(relation.margin / 100)
        name = ("t over seeds and images" if by_seeds else "z over images") + " against the margin"
    elif by_seeds:
        p, name = estimate.differs(), "t over seeds and images"
    else:
        p = stats.sign_flip(differences.sum(axis=0))
        name = "exact McNemar" if seeds == 1 else "exact sign flips over images"
    bound = 0.0
    if not (is_one_set or by_seeds):
        name += ", these weights"
        bound = math.inf if spread is None else 2 * math.sqrt(2) * spread
    # A side is called by its row, with the table and column where they tell the two sides apart.
    shown = [i for i in range(3) if i == 1 or first[i] != second[i]]
    this, that = (" | ".join(key[i] for i in shown) for key in (first, second))
    return _Test(this, that, effect, slack, p, name, n, seeds, bound, spread, estimate)


def _finding(relation: Relation, results: Mapping[Key, Result], spreads: Mapping[Key, float]) -> _Finding:
    """Run a relation's tests and choose the one that its verdict rests on.

    A conjunction rests on its weakest pair, a trend on its ends; either falls with a pair that is reversed, whose p is
    multiplied by the number of pairs that could have been. So is the chance that the seeds alone explain it, where a
    known spread over seeds stands in for more seeds.
    """
    pairs = claimed = list(relation.pairs)
    if relation.test == "falls":  # each cell's error above the next one's
        pairs = [(later, earlier) for earlier, later in pairs]
        claimed = [(pairs[-1][0], pairs[0][1])]
    tests = {pair: _compare(relation, *pair, results, spreads) for pair in dict.fromkeys([*pairs, *claimed])}
    support, among = [tests[pair] for pair in claimed], len(tests)
    held = sum(t.slack > 0 and t.is_significant for t in support)
    note = f"weakest of {len(support)} pairs, {held} held" if len(support) > 1 else ""

    reversals = [t for t in tests.values() if t.slack < 0]
    worst = min(reversals, key=lambda t: (not t.is_decided, t.p), default=None)
    if worst and (worst.is_significant or any(t.slack < 0 for t in support)):
        if relation.test == "falls" and worst is not support[0]:
            note = "a reversed step of the trend"
        how = f", smallest p of {among} pairs times {among}" if among > 1 else ""
        wider = stats.t_quantile(1 - TWO_SIGMA / among, math.inf) / 2
        shown = replace(worst, p=min(1.0, worst.p * among), bound=worst.bound * wider, name=worst.name + how)
        return shown, [] if shown.is_decided else [shown], note

    weakest = max(support, key=lambda t: t.p)
    how = f", largest p of {among} pairs" if len(support) > 1 else ", of the ends" if among > 1 else ""
    return replace(weakest, name=weakest.name + how), [t for t in support if not t.is_decided], note


def _conclude(r: Relation, found: _Finding, adjusted: float, scale: str, level: float) -> RelationVerdict:
    """The verdict by a relation's tests; `level` is that of Holm's first step, for the effect that could be found."""
    (shown, undecided, note), mde = found, None
    verdict, support = "differs" if shown.slack < 0 else "match", f"adjusted {_p(adjusted)}"
    if adjusted >= LEVEL or undecided or shown.slack == 0:
        verdict, support = "inconclusive", _what_lacks(r, shown, undecided, adjusted)
    if r.test == "not_better":
        side = "below" if shown.slack > 0 else "not below"
        said = f"{shown.first} gains {shown.effect:.2f} pp over {shown.second}, {side} the margin {r.margin:g}"
    elif shown.effect == 0:
        said = f"{shown.first} errs as often as {shown.second}"
    else:
        more = "less" if shown.effect > 0 else "more"
        said = f"{shown.first} errs {abs(shown.effect):.2f} pp {more} than {shown.second}"
    parts = [said, note, support]
    if r.printed and r.printed.value is not None:
        size = f"the printed {r.printed.text} {r.unit}"
        if scale != "full":
            parts.append(f"{size} is not judged at this scale")
        elif verdict == "match" and not overlaps(r.printed, *shown.interval):
            verdict = "inconclusive"
            parts.append(f"but {size} is outside the interval; a margin for the size would settle it")
    if verdict == "inconclusive" and math.isfinite(shown.bound):
        spread = math.sqrt(2) * (shown.spread or 0.0) if shown.bound else 0.0  # of a difference of two trainings
        tails = 2 if r.test == "not_better" else 1  # of which it is the distance to the margin
        mde = 100 * shown.estimate.detectable(tails * level, shown.bound / 100, spread / 100)
        parts.append(f"detectable with 80 % power: {mde:.2f} pp")
    reason = "; ".join(part for part in parts if part)
    numbers = (shown.effect, shown.interval, shown.p, adjusted, shown.name, shown.n, shown.seeds, mde)
    return RelationVerdict(r, verdict, reason, *numbers)


def _what_lacks(relation: Relation, shown: _Test, undecided: Sequence[_Test], adjusted: float) -> str:
    """Why nothing follows, and what would settle it."""
    if undecided:
        least = min(undecided, key=lambda t: abs(t.slack))
        side = "one training a side" if least.seeds == 1 else f"{least.seeds} trainings a side"
        why = f"{side}, and the table states no spread over seeds"
        if least.spread is not None:
            gap = f"gap {abs(least.slack):.2f}" + (" to the margin" if relation.test == "not_better" else "")
            why = f"{side}: {gap} within {least.bound:.2f} (from the spread over seeds, {least.spread:.2g})"
        return f"{why}; --seeds {ENOUGH} may settle it"
    why = f"{_p(shown.p)}, interval [{shown.interval[0]:.2f}, {shown.interval[1]:.2f}]"
    if shown.p < LEVEL:
        why = f"{_p(shown.p)} is {adjusted:.2g} by Holm over the table's relations"
    more = f"more seeds than {shown.seeds}" if shown.name.startswith("t ") else f"more images than {shown.n}"
    return f"{why}; {more} may settle it"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"
