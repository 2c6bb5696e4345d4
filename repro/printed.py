"""What a printed string says as a number: the exact interval of the values that round to it.

`25.60` is [25.595, 25.605) and `25.6` is [25.55, 25.65): the digits are the claim. Decimal
arithmetic throughout, for `'%.1f' % 25.45` prints 25.4.
"""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal

from .errors import ReproError
from .schema import UNITS, Printed

_SCALES = {"K": 3, "k": 3, "M": 6, "million": 6, "G": 9, "B": 9, "billion": 9}
# Each word for a bound, with whether the bound itself is left out.
_BELOW = {"<": True, "less than": True, "under": True, "≤": False, "<=": False, "at most": False, "up to": False}
_ABOVE = {">": True, "more than": True, "over": True, "≥": False, ">=": False, "at least": False}
_ABOUT = ("~", "≈", "about", "around", "approximately", "almost", "nearly")

# Papers print a minus sign, two dashes, a cross, two dots for "times" and a tilde operator.
_SAME = str.maketrans("\u2212\u2013\u2014\u00d7\u00b7\u22c5\u223c", "---xxx~")
_PREFIX = re.compile("|".join(sorted((re.escape(w) for w in (*_BELOW, *_ABOVE, *_ABOUT)), key=len, reverse=True)))
_BETWEEN = re.compile(r"\s*(?:-|\bto\b)\s*")
_FRACTION = re.compile(r"(\d+)/(\d+|10\^\d+)")
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)"
    r"(?:(?P<digits>\d{1,3}(?:[,_ ]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:\s*x\s*10\^(?P<power>[-+]?\d+)|[eE](?P<exponent>[-+]?\d+))?"
    r"|10\^(?P<bare>[-+]?\d+))"
    r"\s*(?P<suffix>K|k|M|G|B|million|billion|%|x)?\*?"  # the star of a footnote
)


def parse(text: str, digits: int | None = None, numeric: bool = False, unit: str = "") -> Printed:
    """The interval, in `unit`, of the values that a paper would print as `text`.

    `digits` says how many digits of an integer with trailing zeros are significant. A suffix (`138M`) or a
    power of ten gives an absolute number, brought to `unit` where that is one of `UNITS`; a bare `10^-2` is 1.0·10^-2.
    Text without a number has no interval; if `numeric` it raises ReproError, as do `digits` that contradict the text.
    """
    text = text.strip()
    same = text.translate(_SAME)
    word = prefix[0] if (prefix := _PREFIX.match(same)) else ""
    rest = same.removeprefix(word).strip() if word else same
    if word not in _BELOW | _ABOVE:
        found = _unprefixed(rest, digits, unit)
        found = found and replace(found, approximate=bool(word))
    elif found := _number(rest, digits, unit):
        below, bound = word in _BELOW, found.value
        found = (
            Printed(text, high=bound, high_open=_BELOW[word]) if below else Printed(text, bound, low_open=_ABOVE[word])
        )
    if found is None and numeric:
        such = "25.60, 622,312, 3.8x10^9, 10^-2, 138M, <25, about 40, 86.5 ± 0.5 or 16-19"
        raise ReproError(f"{text!r} is not a number; expected digits as the paper prints them, such as {such}")
    return replace(found or Printed(text), text=text)


def exact(printed: Printed) -> Printed:
    """`printed` read as a value that somebody chose, such as a batch of 256: a point.

    Words that the table gives a value are one too; `370K`, `about 40`, `<25`, `2-3`, `a ± b` stay intervals.
    """
    plain = _NUMBER.fullmatch(printed.text.translate(_SAME))
    is_rounded = plain["suffix"] in _SCALES if plain else parse(printed.text).value is not None
    return printed if printed.value is None or is_rounded else _point(printed.text, printed.value)


def overlaps(printed: Printed, low: float, high: float) -> bool:
    """Whether some value of `printed` lies from `low` to `high`."""
    return (printed.low is None or high >= printed.low) and (printed.high is None or low <= printed.high)


def describe(printed: Printed) -> str:
    """Where a value of `printed` lies: `in [137.5, 138.5)`, `below 25`."""
    low, high = _plain(printed.low), _plain(printed.high)
    if not low:
        return f"{'below' if printed.high_open else 'at most'} {high}" if high else ""
    if not high:
        return f"{'above' if printed.low_open else 'at least'} {low}"
    return f"in {'(' if printed.low_open else '['}{low}, {high}{')' if printed.high_open else ']'}"


def _plain(value: Decimal | None) -> str:
    if value is None:
        return ""
    short = value.normalize()
    return f"{short:f}" if -7 < short.adjusted() < 15 else f"{short:e}"


def _point(text: str, value: Decimal) -> Printed:
    error = abs(value) * Decimal("1e-9")  # as wide as a float's error
    return Printed(text, value - error, value + error, high_open=False)


def _unprefixed(text: str, digits: int | None, unit: str) -> Printed | None:
    """A number, `a ± b`, or a range, which claims its ends."""
    if found := _number(text, digits, unit):
        return found
    middle, _, spread = text.partition("±")
    if (a := _number(middle.strip(), digits, unit)) and (b := _number(spread.strip(), None, unit)):
        return replace(a, spread=b.value)
    for between in _BETWEEN.finditer(text):
        left, right = text[: between.start()], text[between.end() :]
        last = _NUMBER.fullmatch(right)
        if last and last["suffix"] in _SCALES and left[-1:].isdigit():
            left += last["suffix"]  # `2-3M` is two millions to three
        first, second = _number(left, digits, unit), _number(right, digits, unit)
        if first and second and first.low is not None and second.high is not None and first.low < second.high:
            return replace(first, high=second.high, high_open=second.high_open)
    return None


def _number(text: str, digits: int | None, unit: str) -> Printed | None:
    """One number and half a unit of its last digit: closed towards zero, for a half rounds away from zero."""
    if fraction := _FRACTION.fullmatch(text):
        below = Decimal(fraction[2].replace("10^", "1e"))
        return _point(text, Decimal(fraction[1]) / below) if below else None
    if not (found := _NUMBER.fullmatch(text)):
        return None
    mantissa = Decimal(re.sub("[,_ ]", "", found["digits"] or "1.0"))
    last = places = int(mantissa.as_tuple().exponent)
    if digits is not None and not found["bare"]:
        last = mantissa.adjusted() - digits + 1
        if last < places or mantissa % Decimal(1).scaleb(last):
            raise ReproError(f"digits: {digits} does not fit {text!r}; it counts those before the zeros at the end")
    power = found["power"] or found["exponent"] or found["bare"]
    shift = int(power or 0) + _SCALES.get(found["suffix"], 0)
    if (power or found["suffix"] in _SCALES) and unit in UNITS:
        shift -= UNITS[unit].adjusted()
    value = mantissa.scaleb(shift) * (-1 if found["sign"] == "-" else 1)
    half = Decimal(5).scaleb(last + shift - 1)
    return Printed(text, value - half, value + half, low_open=value <= 0, high_open=value >= 0)
