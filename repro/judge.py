"""What measured values say of a paper's claims: results in, verdicts out, by one written policy.

Counts and settings are exact, so they match or they differ. A metric of a net that was trained
here never matches by one run: `match` needs the 90 % interval of the mean inside a margin fixed
beforehand, `differs` a 95 % prediction interval that excludes the printed one (CORE-Bench, arXiv
2409.11363) and a gap above the margin; the rest is inconclusive. A metric measured on other data
is incomparable, whatever its value.

Relations are judged by errors on the same images. One set of weights under two protocols: images
are the unit; exact McNemar, with several seeds its extension to sums over the seeds. Two
trainings: the training is the unit. From three seeds a side, seeds and images are both at random
(Obuchowski and Rockette 1995, Howe 1974). With fewer, the p-value speaks of these weights only,
and nothing is concluded unless the effect exceeds 2 sqrt(2) times the known spread over seeds:
two standard deviations of a difference of two trainings, for one net's seeds differ by as much
as McNemar finds significant (Bouthillier et al., Accounting for Variance, MLSys 2021).
p-values are two-sided and adjusted by Holm over all relations of a table file, those not run as
p = 1. `match` needs the claimed sign, `differs` the other. "No better" is one one-sided test that
the gain is below the margin, for a difference that was not found proves nothing (Altman and
Bland, BMJ 311, 1995). A conjunction takes its largest p; a single reversed pair refutes it, at
Bonferroni's price for having looked at them all. A trend is its ends, with no adjacent pair
significantly reversed.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from . import stats
from .printed import describe, exact
from .relations import relations
from .schema import Cell, Claim, Printed, Result, Verdict

__all__ = ["cell", "relations"]


def cell(cell: Cell, result: Result, scale: str) -> Verdict:
    """The verdict on one cell. `result.value` is in the claim's unit; `scale` is `proxy` or `full`.

    A cell with nothing printed is `incomparable`: it was measured for the relations that it is in.
    """
    claim = cell.claim
    if claim and claim.missing:
        return Verdict(cell, result, "missing", reason=claim.missing)
    if result.failed or _is_nan(result.value):
        return Verdict(cell, result, "failed", reason=result.failed or "the measured value is not a number")
    if result.missing or result.value is None:
        return Verdict(cell, result, "missing", reason=result.missing or "not measured")
    if claim is None:
        return Verdict(cell, result, "incomparable", reason="not printed: there is nothing to compare with")
    if isinstance(result.value, str | list | tuple | bool):
        return _text(cell, claim, result)
    if claim.printed.value is None:
        return Verdict(cell, result, "incomparable", reason="printed in words, measured as a number")
    if claim.kind in ("static", "setting"):
        return _exact(cell, claim, result)
    data = {system.dataset for ensemble in cell.systems for system in ensemble}
    is_same = data == {claim.dataset} or (scale == "full" and not (data and claim.dataset))
    if not is_same:
        where = " and ".join(sorted(data)) or "the proxy's data"
        reason = f"measured on {where}: says nothing of a number on {claim.dataset or 'other data'}"
        return Verdict(cell, result, "incomparable", reason=reason)
    return _trained(cell, claim, result)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _decimal(value: Any) -> Decimal:
    return Decimal(str(value))


def _items(value: Any) -> list[str]:
    """The words of a text quantity: brackets and commas aside, and `2 × 2` as one word."""
    words = value if isinstance(value, list | tuple) else [value]
    text = re.sub(r"\s*×\s*", "×", " ".join(map(str, words)))
    return re.sub(r"[\[\](){},]", " ", text).split()


def _text(cell: Cell, claim: Claim, result: Result) -> Verdict:
    printed, measured = _items(claim.printed.means or claim.printed.text), _items(result.value)
    if printed == measured:
        return Verdict(cell, result, "match", reason="as printed")
    if len(printed) != len(measured):
        reason = f"printed {len(printed)} items, measured {len(measured)}"
    else:
        place = next(i for i, (a, b) in enumerate(zip(printed, measured, strict=True)) if a != b)
        reason = f"item {place + 1} is printed {printed[place]}, measured {measured[place]}"
    return Verdict(cell, result, "differs", reason=reason, known=claim.known)


def _exact(cell: Cell, claim: Claim, result: Result) -> Verdict:
    """A count against the interval that rounds to the printed digits; a setting against its equal."""
    printed = exact(claim.printed) if claim.kind == "setting" else claim.printed
    value, middle = _decimal(result.value), claim.printed.value
    delta = None if middle is None else float(value - middle)
    place = claim.printed.text if printed is not claim.printed else describe(printed)
    if place.startswith(("[", "(")):
        place = f"in {place}"
    if printed.holds(value):
        return Verdict(cell, result, "match", delta, f"{value} is {place}")
    return Verdict(cell, result, "differs", delta, f"{value} is not {place}", claim.known)


def _gap(printed: Printed, value: float) -> float:
    """How far `value` is from the printed number; of a bound, how far beyond it."""
    middle = printed.value
    is_bound = (printed.low is None) != (printed.high is None)
    if middle is None or (is_bound and printed.holds(value)):
        return 0.0
    return float(_decimal(value) - middle)


def _trained(cell: Cell, claim: Claim, result: Result) -> Verdict:
    """A metric of nets trained here, by the margin that the table fixed before the run."""
    printed, runs = claim.printed, result.per_seed or (float(result.value),)
    mean = math.fsum(runs) / len(runs)
    delta = float(_decimal(mean) - printed.value) if printed.value is not None else None

    def verdict(word: str, reason: str) -> Verdict:
        return Verdict(cell, result, word, delta, reason, claim.known if word == "differs" else None)

    if cell.extra.get("margin") is None:
        return verdict("inconclusive", "the table fixes no margin for this number, so nothing follows from it")
    margin, spread = float(cell.extra["margin"]), float(printed.spread or 0)
    if len(runs) < 2:
        return verdict("inconclusive", f"one run; a match within {margin:g} needs two or more: --seeds 3 may settle it")
    low, high = stats.mean_interval(runs, 0.90)
    low, high = _gap(printed, low - spread), _gap(printed, high + spread)
    inside = f"90 % interval of the gap [{low:.2f}, {high:.2f}]"
    if max(abs(low), abs(high)) <= margin:
        return verdict("match", f"{inside}, within the margin {margin:g} ({len(runs)} runs)")
    first, last = stats.prediction_interval(runs, 0.95)
    excluded = (printed.low is not None and last < printed.low) or (printed.high is not None and first > printed.high)
    where = f"95 % prediction interval of one run [{first:.2f}, {last:.2f}]"
    if excluded and abs(_gap(printed, mean)) > margin:
        return verdict("differs", f"{where} excludes {printed.text}, and the gap exceeds {margin:g} ({len(runs)} runs)")
    reason = f"{inside} leaves the margin {margin:g}, yet {len(runs)} runs do not exclude {printed.text}"
    return verdict("inconclusive", f"{reason}; more seeds may settle it")
