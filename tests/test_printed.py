"""A printed string and the exact interval that it stands for."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import ReproError
from repro.printed import describe, exact, parse


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("25.60", "[25.595, 25.605)"),
        ("25.6", "[25.55, 25.65)"),
        ("138", "[137.5, 138.5)"),
        ("622,312", "[622311.5, 622312.5)"),
        ("14,197,122", "[14197121.5, 14197122.5)"),
        ("10 000", "[9999.5, 10000.5)"),
        (".429", "[0.4285, 0.4295)"),
        ("-0.92", "(-0.925, -0.915]"),
        ("\N{MINUS SIGN}0.92", "(-0.925, -0.915]"),
        ("0", "(-0.5, 0.5)"),
        ("10.19%", "[10.185, 10.195)"),
        ("2.4x", "[2.35, 2.45)"),
        ("11.26*", "[11.255, 11.265)"),
        ("<25", "below 25"),
        ("> 6", "above 6"),
        ("≤ 25", "at most 25"),
        (">= 0.5", "at least 0.5"),
        ("less than 10 million", "below 10000000"),
        ("~10.3", "[10.25, 10.35)"),
        ("about 0.4", "[0.35, 0.45)"),
        ("86.5 ± 0.5", "[86.45, 86.55)"),
        ("74.41±1.0", "[74.405, 74.415)"),
        ("10^-2", "[0.0095, 0.0105)"),
        ("1e-2", "[0.005, 0.015)"),
        ("5·10^-4", "[0.00045, 0.00055)"),
        ("5x10^-4", "[0.00045, 0.00055)"),
        ("1.0 · 10^20", "[9.5e+19, 1.05e+20)"),
        ("3.8×10^9", "[3750000000, 3850000000)"),
        ("370K", "[369500, 370500)"),
        ("12.3k", "[12250, 12350)"),
        ("1.3M", "[1250000, 1350000)"),
        ("15.3B", "[15250000000, 15350000000)"),
        ("25 million", "[24500000, 25500000)"),
        ("9.2-9.6", "[9.15, 9.65)"),
        ("2\N{EN DASH}3", "[1.5, 3.5)"),
        ("16\N{EN DASH}19", "[15.5, 19.5)"),
        ("2 to 3", "[1.5, 3.5)"),
        ("2-3M", "[1500000, 3500000)"),
    ],
)
def test_a_printed_string_is_the_interval_that_rounds_to_its_digits(text, interval):
    """Every form that the register holds, with both ends exact."""
    printed = parse(text, numeric=True)

    assert describe(printed).removeprefix("in ") == interval
    assert printed.text == text


def test_a_zero_at_the_end_narrows_the_interval():
    """25.60 is another claim than 25.6."""
    assert parse("25.6").holds(25.56)
    assert not parse("25.60").holds(25.56)


def test_a_bound_is_strict():
    """`<25` does not hold 25, `≤25` does."""
    assert not parse("<25").holds(25)
    assert parse("<25").holds(Decimal("24.9999"))
    assert parse("≤25").holds(25)
    assert not parse(">6").holds(6)


def test_a_spread_is_no_tolerance():
    """`a ± b` compares a, and keeps b beside it."""
    printed = parse("86.5 ± 0.5")

    assert printed.spread == Decimal("0.5")
    assert not printed.holds(86.7)


@pytest.mark.parametrize("text", ["~10.3", "about 10.3", "≈ 10.3", "approximately 10.3", "nearly 10.3"])
def test_a_vague_number_is_tagged(text):
    """`about` gives the interval of the digits, tagged approximate."""
    assert parse(text).approximate
    assert not parse("10.3").approximate
    assert parse(text).holds(10.34)


@pytest.mark.parametrize(
    ("text", "unit", "low"),
    [("138M", "M", "137.5"), ("138M", "", "137500000"), ("138", "M", "137.5"), ("2.7K", "K", "2.65"),
     ("3.8×10^9", "G", "3.75"), ("> 6 M", "M", "6")],
)  # fmt: skip
def test_a_suffix_is_brought_to_the_claims_unit(text, unit, low):
    """`138M` in the unit M is 138; without a unit it is 138 million; `138` alone is in the unit already."""
    assert parse(text, unit=unit).low == Decimal(low)


def test_zeros_at_the_end_count_unless_the_file_says_otherwise():
    """All digits of an integer count; `digits` says how many do."""
    assert describe(parse("22,500")) == "in [22499.5, 22500.5)"
    assert describe(parse("22,500", digits=3)) == "in [22450, 22550)"


@pytest.mark.parametrize("digits", [0, 2, 6])
def test_digits_that_contradict_the_text_are_an_error(digits):
    """Neither a digit that is not printed nor one that is no zero can be claimed away."""
    with pytest.raises(ReproError, match=f"digits: {digits} does not fit '22,500'"):
        parse("22,500", digits=digits)


@pytest.mark.parametrize(
    "text", ["one", "conv3-64", "27C^2", "FC-1000", "8 conv. and 3 FC", "256 and 384", "", "a week"]
)
def test_a_word_has_no_interval(text):
    """Words and lists stay text."""
    printed = parse(text)

    assert (printed.low, printed.high, printed.value) == (None, None, None)
    assert not printed.holds(0)


@pytest.mark.parametrize(
    "text", ["25.6.1", "2,56", "1O.4", "25,60", "1,0000", "12.", "--5", "5-", "9.6-9.2", "1/0", "±1", "<x"]
)
def test_what_looks_like_a_number_and_is_none_is_an_error(text):
    """Where a number is needed, the error quotes the text and says what is expected."""
    with pytest.raises(ReproError) as error:
        parse(text, numeric=True)

    assert error.value.message == (
        f"{text!r} is not a number; expected digits as the paper prints them, such as "
        "25.60, 622,312, 3.8x10^9, 10^-2, 138M, <25, about 40, 86.5 ± 0.5 or 16-19"
    )


def test_a_setting_is_a_point_unless_it_was_rounded():
    """A rate of 0.01 is not 0.0142; 370K steps are still a rounded number."""
    assert parse("10^-2").holds(0.0102)
    assert not exact(parse("10^-2")).holds(0.0102)
    assert exact(parse("10^-2")).holds(0.1 * 0.1)
    assert not exact(parse("0.01")).holds(0.0142)
    assert exact(parse("256")).holds(256)
    assert not exact(parse("256")).holds(256.4)
    assert exact(parse("0")).holds(0)
    for text in ("370K", "about 40", "<25", "2-3", "86.5 ± 0.5", "words"):
        assert exact(parse(text)) == parse(text)


def test_a_fraction_is_its_value():
    """`1/8` and `1/3` hold the float that computes them, and little else."""
    for text, value in (("1/8", 1 / 8), ("1/3", 1 / 3), ("1/10^3", 1e-3)):
        assert parse(text).holds(value)
        assert not parse(text).holds(value * 1.001)


NUMBERS = st.decimals(-(10**6), 10**6, places=6)


@given(NUMBERS, st.integers(0, 5))
def test_a_value_lies_in_the_interval_of_what_it_rounds_to(value, places):
    """Rounding to the printed digits always lands in the interval."""
    text = str(value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))
    if "E" not in text:
        assert parse(text, numeric=True).holds(value)


@given(NUMBERS, st.integers(0, 5))
def test_a_value_just_outside_the_interval_rounds_to_something_else(value, places):
    """Half a unit of the last digit away, and a little, is another number."""
    unit = Decimal(1).scaleb(-places)
    rounded = value.quantize(unit, ROUND_HALF_UP)
    printed = parse(f"{rounded:f}", numeric=True)

    for side in (-1, 1):
        assert not printed.holds(rounded + side * unit * Decimal("0.5000001"))
        assert printed.holds(rounded + side * unit * Decimal("0.4999999"))


@given(st.integers(1, 10**9))
def test_thousands_commas_change_nothing(value):
    """622,312 is 622312."""
    assert parse(f"{value:,}").low == parse(str(value)).low
    assert parse(f"{value:,}").high == parse(str(value)).high


@given(NUMBERS)
def test_intervals_of_neighbours_meet_and_do_not_overlap(value):
    """Any value belongs to just one printed number of one decimal (but for half-way points at zero)."""
    tenth = Decimal("0.1")
    middle = value.quantize(tenth, ROUND_HALF_UP)
    holders = [parse(f"{middle + step * tenth:f}").holds(value) for step in (-1, 0, 1)]

    assert holders == [False, True, False]
