"""What a terminal shows of a value, of a job at work, and of protocols drawn."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from repro.errors import ReproError
from repro.report.picture import draw
from repro.report.progress import _epoch
from repro.report.terminal import number


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
