"""What measured values say of a paper's claims: results in, verdicts out, by one written policy.

Counts and settings are exact: they match or they differ. A metric of a net trained here never matches by
one run: `match` needs the 90 % interval of the mean inside a margin fixed beforehand, `differs` a 95 %
prediction interval that excludes the printed one (CORE-Bench, arXiv 2409.11363) and a gap above the
margin; the rest is inconclusive. Measured on other data, it is incomparable.

Relations are judged by errors on the same images. One set of weights, two protocols: images are the unit;
exact McNemar, or its extension to sums over seeds. Two trainings: the training is the unit. From three
seeds a side, seeds and images are both at random (Obuchowski and Rockette 1995, Howe 1974), and the spread
over seeds that a table states moderates the few seeds' own (Smyth 2004). With fewer, the p-value speaks of
these weights only, and nothing is concluded unless the effect exceeds 2 sqrt(2) times the known spread over
seeds, two standard deviations of a difference of two trainings: one net's seeds differ by as much as
McNemar finds significant (Bouthillier et al., Accounting for Variance, MLSys 2021). p-values are two-sided,
adjusted by Holm over all relations of a table file, those not run as p = 1; `match` needs the claimed sign,
`differs` the other. "No better" is one one-sided test that the gain is below the margin, for a difference
that was not found proves nothing (Altman and Bland, BMJ 311, 1995). A conjunction takes its largest p; one
reversed pair refutes it, at Bonferroni's price for having looked at them all. A trend is its ends, with no
adjacent pair significantly reversed.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from . import stats
from .printed import describe, exact, overlaps
from .relations import relations
from .schema import Cell, Claim, Printed, Result, Verdict

__all__ = ["cell", "relations"]


def cell(cell: Cell, result: Result, scale: str) -> Verdict:
    """The verdict on one cell. `result.value` is in the claim's unit; `scale` is `proxy` or `full`.

    A cell with nothing printed is `incomparable`: it was measured for the relations that it is in.
    """
    word, reason, delta = _judged(cell, result, scale)
    known = cell.claim.known if cell.claim and word == "differs" else None
    return Verdict(cell, result, word, delta, reason, known)


def _judged(cell: Cell, result: Result, scale: str) -> tuple[str, str, float | None]:
    """Verdict, reason and delta."""
    claim, value = cell.claim, result.value
    if claim and claim.missing:
        return "missing", claim.missing, None
    if result.failed or (isinstance(value, float) and math.isnan(value)):
        return "failed", result.failed or "the measured value is not a number", None
    if result.missing or value is None:
        return "missing", result.missing or "not measured", None
    if claim is None:
        return "incomparable", "not printed: there is nothing to compare with", None
    if isinstance(value, str | list | tuple | bool):
        return *_text(_items(claim.printed.means or claim.printed.text), _items(value)), None
    if claim.printed.value is None:
        return "incomparable", "printed in words, measured as a number", None
    delta = float(Decimal(str(value)) - claim.printed.value)
    if claim.kind in ("static", "setting"):
        return *_exact(claim, value), delta
    data = {system.dataset for ensemble in cell.systems for system in ensemble}
    if data == {claim.dataset} or (scale == "full" and not (data and claim.dataset)):
        return *_trained(claim.printed, result, cell.extra.get("margin")), delta
    where = " and ".join(sorted(data)) or "the proxy's data"
    return "incomparable", f"measured on {where}: says nothing of a number on {claim.dataset or 'other data'}", None


def _items(value: Any) -> list[str]:
    """The words of a text quantity: brackets and commas aside, and `2 × 2` as one word."""
    words = value if isinstance(value, list | tuple) else [value]
    text = re.sub(r"\s*×\s*", "×", " ".join(map(str, words)))
    return re.sub(r"[\[\](){},]", " ", text).split()


def _text(printed: list[str], measured: list[str]) -> tuple[str, str]:
    if len(printed) != len(measured):
        return "differs", f"printed {len(printed)} items, measured {len(measured)}"
    for i, (a, b) in enumerate(zip(printed, measured, strict=True)):
        if a != b:
            return "differs", f"item {i + 1} is printed {a}, measured {b}"
    return "match", "as printed"


def _exact(claim: Claim, value: Any) -> tuple[str, str]:
    """A count against the interval that rounds to the printed digits; a setting against its equal."""
    printed = exact(claim.printed) if claim.kind == "setting" else claim.printed
    place = describe(printed) if printed is claim.printed else printed.text
    if printed.holds(value):
        return "match", f"{value} is {place}"
    return "differs", f"{value} is not {place}"


def _gap(printed: Printed, value: float) -> float:
    """How far `value` is from the printed number; of a bound, how far beyond it."""
    if printed.value is None or (None in (printed.low, printed.high) and printed.holds(value)):
        return 0.0
    return float(Decimal(str(value)) - printed.value)


def _trained(printed: Printed, result: Result, margin: float | None) -> tuple[str, str]:
    """A metric of nets trained here, by the margin that the table fixed before the run."""
    if margin is None:
        return "inconclusive", "the table fixes no margin for this number, so nothing follows from it"
    spread, runs = float(printed.spread or 0), result.per_seed
    if len(runs) < 2:
        return "inconclusive", f"one run; a match within {margin:g} needs two or more: --seeds 3 may settle it"
    low, high = stats.mean_interval(runs, 0.90)
    low, high = _gap(printed, low - spread), _gap(printed, high + spread)
    inside = f"90 % interval of the gap [{low:.2f}, {high:.2f}]"
    if max(abs(low), abs(high)) <= margin:
        return "match", f"{inside}, within the margin {margin:g} ({len(runs)} runs)"
    first, last = stats.prediction_interval(runs, 0.95)
    if not overlaps(printed, first, last) and abs(_gap(printed, result.value)) > margin:
        where = f"95 % prediction interval of one run [{first:.2f}, {last:.2f}]"
        return "differs", f"{where} excludes {printed.text}, and the gap exceeds {margin:g} ({len(runs)} runs)"
    reason = f"{inside} leaves the margin {margin:g}, yet {len(runs)} runs do not exclude {printed.text}"
    return "inconclusive", f"{reason}; more seeds may settle it"
