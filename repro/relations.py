"""What two sides' answers say of a sentence of the paper; the policy stands in `judge`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import stats
from .schema import Printed, Relation, RelationVerdict, Result

Key = tuple[str, str, str]
LEVEL = 0.05
TWO_SIGMA = 0.02275  # the normal law's share beyond two standard deviations, on one side
ENOUGH = 3  # seeds a side from which trainings themselves can be tested


@dataclass(frozen=True)
class _Test:
    """One comparison of two sides. Points throughout; `slack` is how far it goes the claimed way.

    `bound` is what the slack must exceed for trainings to be told apart: infinite where no spread
    over seeds is known, 0 where the test itself counts the seeds or there is one set of weights.
    """

    first: str
    second: str
    effect: float
    slack: float
    interval: tuple[float, float]
    p: float
    name: str
    images: int
    seeds: int
    bound: float

    @property
    def is_decided(self) -> bool:
        return self.bound == 0 or abs(self.slack) > self.bound

    @property
    def holds(self) -> bool:
        return self.slack > 0 and self.is_decided and self.p < LEVEL


@dataclass(frozen=True)
class _Finding:
    """A relation's tests brought down to one: the test shown, its p, and what the claim rests on.

    `looks` is how many tests could have been shown in its place.
    """

    relation: Relation
    support: tuple[_Test, ...]
    shown: _Test
    p: float
    how: str
    looks: int = 1

    @property
    def is_reversed(self) -> bool:
        return self.shown.slack < 0

    @property
    def sigmas(self) -> float:
        """Spreads of a difference that the gap must exceed: 2, and more where several were looked at."""
        return 2.0 if self.looks == 1 else -stats.t_quantile(TWO_SIGMA / self.looks, math.inf)

    @property
    def undecided(self) -> list[_Test]:
        if self.is_reversed:
            return [self.shown] if abs(self.shown.slack) <= self.shown.bound * self.sigmas / 2 else []
        return [t for t in self.support if not t.is_decided]


def relations(
    relations: Sequence[Relation], results: Mapping[Key, Result], spread: float | None, scale: str
) -> list[RelationVerdict]:
    """The verdicts on the relations of a table, in their order.

    Give all of a table file's relations, for they are Holm's family. `spread` is the standard
    deviation over seeds, in points, that the table states for one net at this scale. Effects are
    error(second) - error(first), so positive means that the first side errs less.
    """
    findings = [_not_run(r, results) or _finding(r, results, spread) for r in relations]
    verdicts: list[RelationVerdict] = []
    adjusted: dict[int, float] = {}
    for file in {r.file for r in relations}:
        family = [i for i, r in enumerate(relations) if r.file == file]
        p_values = [f.p if isinstance(f := findings[i], _Finding) else 1.0 for i in family]
        adjusted.update(zip(family, stats.holm(p_values), strict=True))
    for i, found in enumerate(findings):
        if isinstance(found, _Finding):
            size = sum(r.file == found.relation.file for r in relations)
            found = _conclude(found, adjusted[i], size, spread, scale)
        verdicts.append(found)
    return verdicts


def _not_run(relation: Relation, results: Mapping[Key, Result]) -> RelationVerdict | None:
    """The verdict of a relation whose sides are not all there, or do not fit together."""
    if relation.missing:
        return RelationVerdict(relation, "missing", relation.missing)
    keys = list(dict.fromkeys(key for pair in relation.pairs for key in pair))
    sides = {key: results.get(key, Result(missing="not measured")) for key in keys}
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


def _label(key: Key, other: Key) -> str:
    """A side's row, with the table and column where they tell the two sides apart."""
    parts = (key[0] if key[0] != other[0] else "", key[1], key[2] if key[2] != other[2] else "")
    return " | ".join(part for part in parts if part)


def _compare(relation: Relation, first: Key, second: Key, results: Mapping[Key, Result], spread: float | None) -> _Test:
    import numpy as np

    one, two = results[first], results[second]
    differences = np.asarray(one.hits, dtype=np.int64) - np.asarray(two.hits, dtype=np.int64)
    seeds, images = differences.shape
    is_one_set = bool(one.weights) and one.weights == two.weights
    effect = 100 * float(differences.mean())
    if not is_one_set and seeds >= ENOUGH:
        estimate, name = stats.over_seeds_and_images(differences), "t over seeds and images"
        p, bound = estimate.differs(), 0.0
    else:
        estimate = stats.over_images(differences)
        totals = differences.sum(axis=0)
        if seeds == 1:
            p, name = stats.mcnemar(int((totals > 0).sum()), int((totals < 0).sum())), "exact McNemar"
        else:
            p, name = stats.sign_flip(totals), "exact sign flips over images"
        bound = 0.0 if is_one_set else math.inf if spread is None else 2 * math.sqrt(2) * spread
    slack = effect
    if relation.test == "not_better":
        slack = relation.margin - effect
        p = estimate.below(relation.margin / 100) if slack > 0 else estimate.differs(relation.margin / 100)
        name = ("t over seeds and images" if name.startswith("t ") else "z over images") + " against the margin"
    name += "" if is_one_set or seeds >= ENOUGH else ", these weights"
    low, high = estimate.interval(0.95)
    names = _label(first, second), _label(second, first)
    return _Test(*names, effect, slack, (100 * low, 100 * high), p, name, images, seeds, bound)


def _finding(relation: Relation, results: Mapping[Key, Result], spread: float | None) -> _Finding:
    """Run a relation's tests and choose the one that its verdict rests on.

    A conjunction rests on its weakest pair, a trend on its ends; either falls with a pair that is
    reversed, whose p is multiplied by the number of pairs that could have been. So is the chance
    that the seeds alone explain it, where a known spread over seeds stands in for more seeds.
    """
    if relation.test == "falls":  # each cell's error above the next one's
        pairs = [(later, earlier) for earlier, later in relation.pairs]
        ends = (relation.pairs[-1][1], relation.pairs[0][0])
    else:
        pairs, ends = list(relation.pairs), None
    tests = {pair: _compare(relation, *pair, results, spread) for pair in [*pairs, *([ends] if ends else [])]}
    support = tuple(tests[pair] for pair in ([ends] if ends else pairs))
    weakest, among = max(support, key=lambda t: t.p), len(tests)
    reversals = [t for t in tests.values() if t.slack < 0]
    if reversals:
        worst = min(reversals, key=lambda t: (not t.is_decided, t.p))
        price = min(1.0, worst.p * among)
        if (worst.is_decided and worst.p < LEVEL) or any(t.slack < 0 for t in support):
            how = f", smallest p of {among} pairs times {among}" if among > 1 else ""
            return _Finding(relation, support, worst, price, how, among)
    how = f", largest p of {among} pairs" if len(support) > 1 else ", of the ends" if among > 1 else ""
    return _Finding(relation, support, weakest, weakest.p, how)


def _conclude(found: _Finding, adjusted: float, family: int, spread: float | None, scale: str) -> RelationVerdict:
    shown, relation = found.shown, found.relation
    if adjusted >= LEVEL or found.undecided or shown.slack == 0:
        verdict = "inconclusive"
    else:
        verdict = "differs" if found.is_reversed else "match"
    parts = [_sentence(relation, shown)]
    if len(found.support) > 1:
        held = sum(t.holds for t in found.support)
        parts.append(f"{held} of {len(found.support)} pairs hold, and this is the weakest")
    elif found.is_reversed and shown is not found.support[0]:
        parts.append("a step of the trend that is reversed")
    if verdict == "inconclusive":
        parts.append(_what_lacks(found, adjusted, family, spread))
    else:
        parts.append(f"adjusted {_p(adjusted)}")
    if relation.printed and relation.printed.value is not None:
        size = f"the printed {relation.printed.text} {relation.unit}"
        if scale != "full":
            parts.append(f"the direction alone is judged at this scale, not {size}")
        elif verdict == "match" and not _touches(relation.printed, shown.interval):
            verdict = "inconclusive"
            parts.append(f"but {size} is outside the interval; a margin for the size would settle it")
    name = shown.name + found.how
    reason = "; ".join(parts)
    numbers = (shown.effect, shown.interval, found.p, adjusted, name, shown.images, shown.seeds)
    return RelationVerdict(relation, verdict, reason, *numbers)


def _sentence(relation: Relation, test: _Test) -> str:
    if relation.test == "not_better":
        side = "below" if test.slack > 0 else "not below"
        return f"{test.first} gains {test.effect:.2f} pp over {test.second}, {side} the margin {relation.margin:g}"
    if test.effect == 0:
        return f"{test.first} errs as often as {test.second}"
    return f"{test.first} errs {abs(test.effect):.2f} pp {'less' if test.effect > 0 else 'more'} than {test.second}"


def _what_lacks(found: _Finding, adjusted: float, family: int, spread: float | None) -> str:
    """Why nothing follows, and what would settle it."""
    shown = found.shown
    if undecided := found.undecided:
        least = min(undecided, key=lambda t: abs(t.slack))
        side = "one training a side" if least.seeds == 1 else f"{least.seeds} trainings a side"
        if spread is None:
            return f"{side}, and the table states no spread over seeds; --seeds {ENOUGH} may settle it"
        gap = f"the gap {abs(least.slack):.2f}" + (" to the margin" if found.relation.test == "not_better" else "")
        bound = found.sigmas * math.sqrt(2) * spread
        rule = f"{bound:.2f} ({found.sigmas:.3g}*sqrt(2) x the spread over seeds, {spread:g})"
        return f"{side}: {gap} is within {rule}; --seeds {ENOUGH} may settle it"
    more = f"more seeds than {shown.seeds}" if shown.name.startswith("t ") else f"more images than {shown.images}"
    if found.p < LEVEL <= adjusted:
        return f"{_p(found.p)} is {adjusted:.2g} by Holm over {family} relations; {more} may settle it"
    low, high = shown.interval
    return f"{_p(found.p)}, interval [{low:.2f}, {high:.2f}]; {more} may settle it"


def _touches(printed: Printed, interval: tuple[float, float]) -> bool:
    low, high = interval
    return (printed.low is None or high >= printed.low) and (printed.high is None or low <= printed.high)


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"
