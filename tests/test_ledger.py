"""Which lines of the tolerance ledger apply to what, and that each says where it is from."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from repro import ledger
from repro.printed import parse
from repro.schema import Build, Cell, Claim, Result, System, ViewSet

VIEW = ViewSet("grid", 256, 224, flips=False)


def causes(view=VIEW, dataset="imagenet-1k-val", origin="published: w", **known):
    """The causes that apply to an evaluation under one view set."""
    system = System(Build("vgg", "D"), dataset=dataset, protocol=((Fraction(1), view),))
    claim = Claim(parse("25.6"), "top1_error", "metric", "%", "Table 3", "t.yaml", 7, dataset=dataset)
    cell = Cell("t", "r", "c", claim, "top1_error", "metric", "%", ((system,),))
    return {line.cause for line in ledger.lines(cell, Result(25.6, origin=origin, known=known))}


PLAIN = {"JPEG decoder", "resize filter", "another training's seed"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, PLAIN),
        ({"dataset": "cifar10"}, PLAIN - {"JPEG decoder"}),
        ({"view": replace(VIEW, side="none")}, PLAIN - {"resize filter"}),
        ({"view": replace(VIEW, resize="bilinear")}, PLAIN | {"no antialias"}),
        ({"view": replace(VIEW, side="both", Q=224)}, PLAIN | {"square in place of short side"}),
        ({"dtype": "bfloat16"}, PLAIN | {"reduced precision"}),
        ({"origin": "external: f"}, PLAIN - {"another training's seed"} | {"another library's resize"}),
        ({"preprocessing": {"resize": "bilinear antialias", "Q": 256, "crop": 224}}, PLAIN - {"resize filter"}),
        ({"preprocessing": {"resize": "bicubic antialias", "Q": 256, "crop": 224}}, PLAIN),
        ({"preprocessing": {"resize": "bilinear antialias", "Q": 236, "crop": 224}},
         PLAIN - {"resize filter"} | {"crop fraction"}),
        ({"view": ViewSet("dense", 384, 224), "preprocessing": {"resize": "bilinear antialias", "Q": 256, "crop": 224}},
         PLAIN - {"resize filter"}),
    ],
)  # fmt: skip
def test_a_line_applies_by_what_is_known_of_a_result(options, expected):
    """Of the data set, the view sets, the numbers' size and what the weights' publisher states."""
    assert causes(**options) == expected


def test_every_line_has_points_and_says_where_they_are_from():
    """Two reports, or the words that there is one; no cause twice."""
    for line in ledger.LEDGER:
        assert 0 < line.points < 1
        assert line.source.startswith("one report, ") != (len(line.source.split("; ")) == 2), line
        assert str(line) == f"{line.cause}: {line.points:g} ({line.source})"
    assert len({line.cause for line in ledger.LEDGER}) == len(ledger.LEDGER)
