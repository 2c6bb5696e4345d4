"""What a terminal shows of a value, of a job at work, and of protocols drawn."""

from __future__ import annotations

import math
from decimal import Decimal
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repro.errors import ReproError
from repro.report.picture import draw
from repro.report.progress import _epoch
from repro.report.terminal import console, number, show_table
from repro.schema import Cell, Result, Verdict


@pytest.mark.parametrize(
    ("value", "like", "shown"),
    [
        (25.4567, "25.6", "25.46"),
        (138.357544, "138", "138.4"),
        (Decimal("138"), "138", "138"),
        (0.03, "", "0.03"),
        (None, "", ""),
        ("nothing", "7", "nothing"),
        (True, "yes", "True"),
        ([64, 128], "", "64, 128"),
        (math.nan, "1.0", "nan"),
        (math.inf, "", "inf"),
    ],
)
def test_a_value_is_shown_with_a_decimal_more_than_the_claim(value: Any, like: str, shown: str) -> None:
    """Whatever a setting or a broken training holds, the table is printed."""
    assert number(value, like) == shown


@pytest.mark.parametrize("log", ["", '{"epoch": 3, "val_er', '{"epoch": 3, "val_error": null}\n', "7\n"])
def test_a_log_that_cannot_be_read_leaves_the_progress_as_it_is(tmp_path: Path, log: str) -> None:
    """A torn line, one without the error, and a file that is none cost no run its life."""
    (tmp_path / "log.jsonl").write_text(log)
    assert _epoch(tmp_path) == ""
    (tmp_path / "log.jsonl").write_text('{"epoch": 3, "val_error": 12.34, "images_per_second": 99.6}\n')
    assert _epoch(tmp_path) == ", epoch 3, validation error 12.3 %, 100 images/s"


def test_a_picture_of_no_known_format_is_one_line(tmp_path: Path) -> None:
    """The name's end says the format; nothing is written where there is none."""
    with pytest.raises(ReproError, match=r"--picture .*views.doc: expected a name that ends in .png, .svg or .pdf"):
        draw(["ten"], tmp_path / "views.doc")
    draw(["ten", "cifar"], tmp_path / "new" / "views.svg")
    assert (tmp_path / "new" / "views.svg").read_text().count(
        'id="patch_'
    ) > 10  # ten boxes have an outline and a wash each
    assert not (tmp_path / "views.doc").exists()


@pytest.mark.parametrize("columns", [1, 4])
def test_brackets_of_a_paper_are_printed_as_they_are(columns: int) -> None:
    """`[val]` in a heading or a label is the paper's, and `[/]` breaks nothing."""
    label = "A [val] [/]"
    cell = Cell("p/t", "a", "0", None, "params", "static", "M")
    report: Any = SimpleNamespace(
        table=SimpleNamespace(
            name="p/t", title="[b]", where="Table 1", rows={"a": {"label": label}},
            columns={str(i): {"label": label} for i in range(columns)}, paper=SimpleNamespace(source=""),
        ),
        cells=[Verdict(cell, Result(7), "incomparable")], relations=[], scale="proxy",
    )  # fmt: skip
    show_table(console(out := StringIO()), report)
    assert out.getvalue().count(label) == 2
    assert "p/t: [b] (Table 1)" in out.getvalue()
