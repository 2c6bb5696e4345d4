"""Exports of verdicts and of printed tables, read back by the libraries that others would read them with."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import TINY
from huggingface_hub import ModelCard

from repro import judge, pipeline
from repro.errors import ReproError
from repro.pipeline import Options, Outcome, Report
from repro.report import exports, lists
from repro.schema import RelationVerdict, Result

LABEL = "50% of A_1 & B | <b>#2</b>"


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    """The tests' small table with a label full of special characters; two rows measured, one relation tested."""
    folder = tmp_path / "tiny"
    shutil.copytree(TINY, folder)
    text = (folder / "table1.yaml").read_text()
    (folder / "table1.yaml").write_text(
        text.replace("top-1: top1_error", f"top-1: {{quantity: top1_error, label: '{LABEL}'}}").replace(
            "B beats A", "'B_1 beats A by 5% & more'"
        )
    )
    run = pipeline.prepare(Options((str(folder / "table1.yaml"),), store=tmp_path / "store"), False, lambda text: None)
    found = pipeline.conclude(run, {})
    values = {("A", "top-1"): 7.25, ("A", "top-5"): 0.5, ("B", "top-1"): 6.75}
    cells = []
    for v in found.reports[0].cells:
        value = values.get((v.cell.row, v.cell.column))
        result = v.result if value is None else Result(value=value, per_seed=(value - 0.25, value + 0.25))
        cells.append(judge.cell(v.cell, result, "proxy"))
    relations = [v.relation for v in found.reports[0].relations]
    tested = RelationVerdict(relations[0], "match", "B errs less", 0.5, (0.25, 0.75), 0.001, 0.002, "McNemar", 2000, 1)
    report = Report(found.reports[0].table, "proxy", cells, [tested, *found.reports[0].relations[1:]])
    return Outcome([report], found.plan, found.results)


def test_json_and_csv_hold_every_cell_and_relation(outcome):
    """The same rows in both, as many as the table has; values to the last digit."""
    found = json.loads(exports.render(outcome, "json"))
    rows = list(csv.DictReader(io.StringIO(exports.render(outcome, "csv"))))

    assert len(rows) == len(found["cells"]) + len(found["relations"])
    cell = next(r for r in rows if (r["row"], r["column"]) == ("A", "top-1"))
    assert {k: cell[k] for k in ("table", "scale", "claimed", "unit", "measured", "verdict")} == {
        "table": "tiny/table1", "scale": "proxy", "claimed": "29.6", "unit": "%", "measured": "7.25",
        "verdict": "incomparable",
    }  # fmt: skip
    assert next(r for r in rows if r["id"] == "deep")["interval"] == "[0.25, 0.75]"
    assert [r["row"] for r in rows[:-2]] == [c["row"] for c in found["cells"]]


def test_markdown_keeps_the_layout_and_escapes_what_markdown_reads(outcome):
    """A line a row in the paper's order; no cell is split and no tag is left in a label."""
    text = exports.render(outcome, "md")
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]

    assert [line[0].strip() for line in lines[2:6]] == ["A", "A two scales", "B", "other"]
    head = lines[0]
    assert {len(line) for line in lines[:6]} == {len(head)}
    measured = next(i for i, h in enumerate(head) if h.strip().endswith("&lt;b&gt;#2&lt;/b&gt; measured"))
    assert [line[measured].strip() for line in lines[2:6]] == ["7.25", "", "6.75", ""]
    assert "<b>" not in text
    assert "0.25 to 0.75" in text


def test_latex_has_booktabs_and_escapes_what_latex_reads(outcome):
    """Rules of booktabs, as many cells in each line; no bare % & _ # in what stands for text."""
    text = exports.render(outcome, "latex")

    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 2
    assert r" & 50\% of A\_1 \& B | <b>\#2</b> claimed & " in text
    assert r"deep & B\_1 beats A by 5\% \& more & 0.5 & 0.25 to 0.75" in text
    row = next(line for line in text.splitlines() if line.startswith("A & "))
    assert row == r"A & 29.6 & 7.25 & incomparable & 10.4 & 0.5 & incomparable & 133 & missing \\"
    widths = {len(re.split(r"(?<!\\)&", line)) for line in text.split("\\bottomrule")[0].splitlines() if " & " in line}
    assert max(widths) == 9


def test_model_index_is_read_back_by_its_own_library(outcome):
    """`ModelCard` parses it: a model for each measured row, each error with its claim and seeds; no counts."""
    card = ModelCard(exports.render(outcome, "model-index") + "\n# a card\n")
    results = card.data.eval_results

    assert [(r.metric_type, r.metric_value) for r in results] == [
        ("top1_error", 7.25), ("top5_error", 0.5), ("top1_error", 6.75),
    ]  # fmt: skip
    assert all((r.task_type, r.dataset_type) == ("image-classification", "digits-test") for r in results)
    assert results[0].metric_args["claimed"] == "29.6"
    assert results[0].metric_args["per_seed"] == [7.0, 7.5]
    assert results[0].metric_args["protocol"][0]["kind"] == "dense"


def test_printed_tables_keep_every_decimal(outcome):
    """What `show` exports is the paper's text; nothing is measured, so model-index is refused, as where nothing was."""
    tables = [r.table for r in outcome.reports]

    assert "| A            | 29.6" in exports.render_printed(tables, "md")
    assert r"A two scales & 29.0 & - & - \\" in exports.render_printed(tables, "latex")
    assert exports.render_printed(tables, "csv").splitlines()[1] == "tiny/table1,A,top-1,29.6"
    assert json.loads(exports.render_printed(tables, "json"))["cells"][3]["printed"] == "29.0"
    with pytest.raises(ReproError, match="what was measured"):
        exports.render_printed(tables, "model-index")
    bare = Outcome([Report(tables[0], "proxy", [], [])], outcome.plan, outcome.results)
    with pytest.raises(ReproError, match="none of these tables"):
        exports.render(bare, "model-index")


def test_papers_are_counted_by_verdict(outcome):
    """`repro list`: one paper shows its tables, several show a line each; the counts are those of the cells."""
    (row,) = lists.papers(outcome.reports)

    assert row == {
        "table": "tiny/table1", "title": "Two small nets", "claims": 8, "relations": 2,
        "verdicts": {"incomparable": 3, "missing": 5},
    }  # fmt: skip
    from rich.console import Console

    out = Console(file=io.StringIO(), width=120)
    lists.show_papers(out, [row, {**row, "table": "tiny/table2"}])
    assert re.search(r"^all +16 +4 +6 +10 *$", out.file.getvalue(), flags=re.M)
