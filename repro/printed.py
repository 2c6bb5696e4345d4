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
_BELOW = {"<": True, "less than": True, "under": True, "≤": False, "<=": False, "at most": False, "up to": False}
_ABOVE = {">": True, "more than": True, "over": True, "≥": False, ">=": False, "at least": False}
_ABOUT = ("~", "≈", "about", "around", "approximately", "almost", "nearly")

# Papers print several dashes and two signs for "times"; one of each is enough for the patterns.
_SAME = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{MIDDLE DOT}": "x",
        "\N{DOT OPERATOR}": "x",
        "\N{TILDE OPERATOR}": "~",
    }
)
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
_EXPECTED = "25.60, 622,312, 3.8x10^9, 10^-2, 138M, <25, about 40, 86.5 ± 0.5 or 16-19"


def parse(text: str, digits: int | None = None, numeric: bool = False, unit: str = "") -> Printed:
    """The interval, in `unit`, of the values that a paper would print as `text`.

    `digits` says how many digits of an integer with trailing zeros are significant. A suffix
    (`138M`) or a power of ten gives an absolute number, which is brought to `unit` where that is
    one of `UNITS`. A bare power such as `10^-2` counts as 1.0·10^-2. Text without a number has no
    interval; with `numeric` it raises ReproError, as do `digits` that contradict the text.
    """
    text = text.strip()
    found = _interval(text, digits, unit)
    if found is None and numeric:
        raise ReproError(f"{text!r} is not a number; expected digits as the paper prints them, such as {_EXPECTED}")
    return found or Printed(text)


def is_number(text: str) -> bool:
    """Whether `parse` finds a number, a bound or a range in `text`."""
    return _interval(text.strip(), None, "") is not None


def exact(printed: Printed) -> Printed:
    """`printed` read as a value that somebody chose, not one that was rounded: a point.

    A batch of 256 is 256. What rounding or vagueness is still printed (`370K`, `about 40`, `<25`,
    `2-3`, `a ± b`) keeps its interval. Words that the table gives a value are a point too. The
    point is as wide as a float's error.
    """
    plain = _NUMBER.fullmatch(printed.text.translate(_SAME))
    is_rounded = plain["suffix"] in _SCALES if plain else is_number(printed.text)
    if printed.value is None or is_rounded:
        return printed
    return _point(printed.text, printed.value)


def describe(printed: Printed) -> str:
    """The interval as a reader would write it: `[137.5, 138.5)`, `below 25`."""
    if printed.low is None or printed.high is None:
        if printed.high is not None:
            return f"{'below' if printed.high_open else 'at most'} {_plain(printed.high)}"
        return f"{'above' if printed.low_open else 'at least'} {_plain(printed.low)}" if printed.low is not None else ""
    opening, closing = "(" if printed.low_open else "[", ")" if printed.high_open else "]"
    return f"{opening}{_plain(printed.low)}, {_plain(printed.high)}{closing}"


def _plain(value: Decimal) -> str:
    short = value.normalize()
    return f"{short:f}" if -7 < short.adjusted() < 15 else f"{short:e}"


def _point(text: str, value: Decimal) -> Printed:
    error = abs(value) * Decimal("1e-9")
    return Printed(text, value - error, value + error, high_open=False)


def _interval(text: str, digits: int | None, unit: str) -> Printed | None:
    plain = text.translate(_SAME)
    if not (prefix := _PREFIX.match(plain)):
        return _unprefixed(plain, digits, unit, text)
    word, rest = prefix[0], plain[prefix.end() :].strip()
    if word in _ABOUT:
        found = _unprefixed(rest, digits, unit, text)
        return found and replace(found, approximate=True)
    if not (bound := _number(rest, digits, unit, text)) or bound.value is None:
        return None
    if word in _BELOW:
        return Printed(text, high=bound.value, high_open=_BELOW[word])
    return Printed(text, low=bound.value, low_open=_ABOVE[word])


def _unprefixed(rest: str, digits: int | None, unit: str, text: str) -> Printed | None:
    """A number, `a ± b`, or a range, which claims its ends."""
    if found := _number(rest, digits, unit, text):
        return found
    middle, sign, spread = rest.partition("±")
    if sign:
        a, b = _number(middle.strip(), digits, unit, text), _number(spread.strip(), None, unit, text)
        return replace(a, spread=b.value) if a and b else None
    for between in _BETWEEN.finditer(rest):
        left, right = rest[: between.start()], rest[between.end() :]
        last = _NUMBER.fullmatch(right)
        if last and last["suffix"] in _SCALES and left[-1:].isdigit():
            left += last["suffix"]  # `2-3M` is two millions to three
        first, second = _number(left, digits, unit, text), _number(right, digits, unit, text)
        if first and second and first.low is not None and second.high is not None and first.low < second.high:
            return replace(first, high=second.high, high_open=second.high_open)
    return None


def _number(part: str, digits: int | None, unit: str, text: str) -> Printed | None:
    """One number, with half a unit of its last significant digit on either side.

    The half itself rounds away from zero, so the interval is closed towards zero.
    """
    if fraction := _FRACTION.fullmatch(part):
        below = Decimal(fraction[2].replace("10^", "1e"))
        return _point(text, Decimal(fraction[1]) / below) if below else None
    if not (found := _NUMBER.fullmatch(part)):
        return None
    mantissa = Decimal(re.sub("[,_ ]", "", found["digits"] or "1.0"))
    last = int(mantissa.as_tuple().exponent)
    if digits is not None and not found["bare"]:
        last = mantissa.adjusted() - digits + 1
        if last < int(mantissa.as_tuple().exponent) or mantissa % Decimal(1).scaleb(last):
            raise ReproError(f"digits: {digits} does not fit {part!r}; it counts those before the zeros at the end")
    power = found["power"] or found["exponent"] or found["bare"]
    shift = int(power or 0) + _SCALES.get(found["suffix"], 0)
    if (power or found["suffix"] in _SCALES) and unit in UNITS:
        shift -= UNITS[unit].adjusted()
    value = mantissa.scaleb(shift) * (-1 if found["sign"] == "-" else 1)
    half = Decimal(5).scaleb(last + shift - 1)
    return Printed(text, value - half, value + half, low_open=value <= 0, high_open=value >= 0)
