"""What measured values say of a paper's claims: results in, verdicts out, by one written policy.

Counts and settings are exact: they match or they differ. Of nets trained here `match` needs the 90 % interval of the
mean inside a margin fixed beforehand, `differs` a 95 % prediction interval that excludes the printed one (CORE-Bench,
arXiv 2409.11363) and a gap above the margin; the rest, and one run, is inconclusive. On other data: incomparable.

Weights that the authors released, a file, or scores from elsewhere, at full scale: half a printed unit plus the lines
of the tolerance ledger that apply, added up. Another lab's weights are one training of theirs: inconclusive. A part of
the images (`--limit`) never matches: `differs` needs the 95 % Wilson interval too to exclude the claim (JASA 22, 1927).
A verdict must hold with all unreadable images counted wrong, and right.

Relations are judged by errors on the same images. One set of weights: images are the unit; exact McNemar, or its
extension to sums over seeds. Two trainings: the training is the unit. From three seeds a side, seeds and images are
both at random (Obuchowski and Rockette 1995, Howe 1974), and a stated spread over seeds moderates their own (Smyth
2004). With fewer, the p-value speaks of these weights only, and nothing is concluded unless the effect exceeds
2 sqrt(2) times that spread, two standard deviations of a difference: one net's seeds differ by as much as McNemar
finds significant (Bouthillier et al., MLSys 2021). p-values are two-sided, adjusted by Holm over all relations of a
table file, those not run as p = 1; `match` needs the claimed sign, `differs` the other. "No better" is one one-sided
test that the gain is below the margin, for a difference not found proves nothing (Altman and Bland, BMJ 311, 1995). A
conjunction takes its largest p; one reversed pair refutes it, at Bonferroni's price for having looked at them all. A
trend is its ends, with no adjacent pair significantly reversed. `inconclusive` tells the effect that has 80 % power at
Holm's first step (Bloom, Evaluation Review 19, 1995).
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from decimal import Decimal
from statistics import fmean
from typing import Any

from . import ledger, stats
from .printed import describe, exact, overlaps
from .relations import relations
from .schema import Cell, Printed, Result, Verdict

__all__ = ["cell", "relations"]


def cell(cell: Cell, result: Result, scale: str) -> Verdict:
    """The verdict on one cell. `result.value` is in the claim's unit; `scale` is `proxy` or `full`.

    A cell with nothing printed is `incomparable`: it was measured for the relations that it is in.
    """
    word, reason, delta = _judged(cell, result, scale)
    known = cell.claim.known if cell.claim and word == "differs" else None
    used = ledger.lines(cell, result) if result.origin and cell.kind == "metric" and delta is not None else ()
    return Verdict(cell, result, word, delta, reason, known, tuple(map(str, used)))


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
    if claim.kind in ("static", "setting"):  # a count is rounded as it is printed, a setting is chosen
        printed = exact(claim.printed) if claim.kind == "setting" else claim.printed
        place = describe(printed) if printed is claim.printed else printed.text
        is_held = printed.holds(value)
        return "match" if is_held else "differs", f"{value} is {'' if is_held else 'not '}{place}", delta
    data = {system.dataset for ensemble in cell.systems for system in ensemble}
    if data == {claim.dataset} or (scale == "full" and not (data and claim.dataset)):
        return *_metric(cell, claim.printed, result), delta
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


def _metric(cell: Cell, printed: Printed, result: Result) -> tuple[str, str]:
    """A metric on the claim's own data: by the ledger or by the margin, then by how many images were read."""
    whole, n = 1 if cell.unit == "fraction" else 100, len(result.hits[0]) if result.hits else result.limit
    # Each run's value with the images that could not be read as all of the one kind, and all of the other.
    lost = result.left_out / (result.left_out + n) if result.left_out and n else 0.0
    lows = [v * (1 - lost) for v in result.per_seed or (float(result.value),)]
    highs, allowed = [v + whole * lost for v in lows], printed
    low, high = fmean(lows), fmean(highs)
    if result.origin:
        slack = whole * round(sum(line.points for line in ledger.lines(cell, result)), 4) / 100
        ends = [
            end if end is None else end + Decimal(f"{s * slack}") for end, s in ((printed.low, -1), (printed.high, 1))
        ]
        allowed = replace(printed, low=ends[0], high=ends[1])
        said = f"{low:.4g} against {printed.text} ± {slack:.4g} by the ledger"
        word, reason = _from_elsewhere(cell, allowed, result.origin, low, high, said)
    else:
        word, reason = _trained(printed, lows, highs, cell.extra.get("margin"))
    if result.left_out:
        reason = f"{result.left_out} images could not be read, so the value lies in [{low:.4g}, {high:.4g}]; {reason}"
    if result.limit:
        low, high = whole * stats.wilson(low / whole, n)[0], whole * stats.wilson(high / whole, n)[1]
        excludes = not overlaps(allowed, low, high)
        word = "differs" if word == "differs" and excludes else "inconclusive"
        said = f"95 % Wilson interval [{low:.4g}, {high:.4g}] {'excludes' if excludes else 'holds'} {printed.text}"
        reason = f"a part of {n} images, {said}; {reason}{'; without --limit it may be settled' * (word != 'differs')}"
    return word, reason


def _from_elsewhere(cell: Cell, allowed: Printed, origin: str, low: float, high: float, said: str) -> tuple[str, str]:
    """Published weights or external scores, with a value from `low` to `high`, against what is allowed."""
    kind, _, source = origin.partition(": ")
    library, named = source.partition(":")[0], cell.extra.get("weights", {})
    if kind == "published" and library in named and library not in named.get("authors", ""):
        note = f" ({named['note']})" if "note" in named else ""
        said = f"published weights were checked ({source}), trained by another lab{note}: {said}"
        return "inconclusive", f"{said}; one training of theirs settles nothing of the paper's recipe"
    what = "scores made elsewhere" if kind == "external" else "published weights"
    said = f"{what} were checked ({source or kind}), not the paper's own: {said}"
    room = min(abs(float(edge) - v) for edge in (allowed.low, allowed.high) if edge is not None for v in (low, high))
    if allowed.holds(low) and allowed.holds(high):
        return "match", f"{said}; a change of {room:.2g} or more would be caught"
    if low == high or not overlaps(allowed, low, high):
        return "differs", f"{said}; {room:.2g} stays unexplained"
    return "inconclusive", f"{said}; reading every image may settle it"


def _trained(printed: Printed, lows: list[float], highs: list[float], margin: float | None) -> tuple[str, str]:
    """Runs of nets trained here, each from its low to its high value, by the margin that the table fixed before."""
    if margin is None:
        return "inconclusive", "the table fixes no margin for this number, so nothing follows from it"
    spread, runs = float(printed.spread or 0), len(lows)
    if runs < 2:
        return "inconclusive", f"one run; a match within {margin:g} needs two or more: --seeds 3 may settle it"
    low, high = stats.of_runs(lows, 0.90)[0], stats.of_runs(highs, 0.90)[1]
    low, high = _gap(printed, low - spread), _gap(printed, high + spread)
    inside = f"90 % interval of the gap [{low:.2f}, {high:.2f}]"
    if max(abs(low), abs(high)) <= margin:
        return "match", f"{inside}, within the margin {margin:g} ({runs} runs)"
    first, last = stats.of_runs(lows, 0.95, one_more=True)[0], stats.of_runs(highs, 0.95, one_more=True)[1]
    gap = min(abs(_gap(printed, fmean(ends))) for ends in (lows, highs))
    if not overlaps(printed, first, last) and gap > margin:
        where = f"95 % prediction interval of one run [{first:.2f}, {last:.2f}]"
        return "differs", f"{where} excludes {printed.text}, and the gap exceeds {margin:g} ({runs} runs)"
    reason = f"{inside} leaves the margin {margin:g}, yet {runs} runs do not exclude {printed.text}"
    return "inconclusive", f"{reason}; more seeds may settle it"


def _gap(printed: Printed, value: float) -> float:
    """How far `value` is from the printed number; of a bound, how far beyond it."""
    if printed.value is None or (None in (printed.low, printed.high) and printed.holds(value)):
        return 0.0
    return float(Decimal(str(value)) - printed.value)
