"""The words, the exit codes, and the one line that a mistake brings."""

from __future__ import annotations

import json

import pytest
from conftest import TINY


def test_help_fits_one_screen_and_names_the_first_command(repro):
    """A newcomer sees what to type."""
    text = repro("--help").stdout

    assert len(text.splitlines()) <= 38
    assert "repro run table3" in text
    for word in ("list", "show", "run", "diff", "ui", "doctor"):
        assert f"\n  {word} " in text


def test_version_is_printed(repro):
    """The version of the package."""
    assert repro("--version").stdout.startswith("repro, version ")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (("recipe: base", "recpie: base"), ("unknown key 'recpie'", "did you mean 'recipe'?")),
        (("29.6", "29.6x1"), ("A | top-1", "29.6x1", "expected")),
        (("vgg:A", "vgg:Z"), ("unknown net 'Z'",)),
        (("Q: [256, 384]", "Q: [256, 384], protocol: dense2"), ("dense2", "did you mean 'dense'?")),
    ],
)
def test_a_bad_file_is_one_line_and_exit_2(repro, tmp_path, change, parts):
    """File, line, field, what is expected."""
    for path in TINY.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text().replace(*change))
    done = repro("run", tmp_path / "table1.yaml", "--store", tmp_path / "s", code=2)

    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "table1.yaml:" in lines[0]
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["run", "tabel3"], "did you mean 'table3'?"),
        (["run", "table3", "--row", "F 256"], "no table has such a row"),
        (["run", "table3", "-o", "epochs=2"], "expected recipe.KEY="),
        (["run", "table3", "-o", "recipe=2"], "expected recipe.KEY="),
        (["run", "table3", "--device", "abacus"], "there is no such device"),
        (["run", "table3", "--scale", "huge"], "'huge' is not one of 'proxy', 'full'"),
        (["run", "nowhere/table.yaml"], "no such file"),
        (["rum"], "No such command 'rum'"),
    ],
)
def test_a_wrong_word_is_exit_2(repro, tmp_path, words, part):
    """With what to type instead, and no traceback."""
    done = repro(*words, *(["--store", tmp_path] if words[0] == "run" else []), code=2)

    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_selected_is_exit_5(repro, tmp_path):
    """A run that measured nothing must not read as a pass."""
    done = repro("run", "table2", "--only", "speed", "--store", tmp_path, code=5)

    assert "nothing was measured" in done.stderr
    assert "(exit 5)" in done.stderr
    assert repro("diff", "table2", "--store", tmp_path / "empty", code=5)


def test_data_that_is_not_here_is_exit_3_with_the_reason(repro, tmp_path):
    """At full scale the ImageNet cells are missing, each with why; the counts are measured."""
    words = ("run", "tests/papers/tiny/table1.yaml", "--scale", "full", "--store", tmp_path, "--no-mlflow")
    done = repro(*words, code=3)

    assert "imagenet-1k-val is not here" in done.stdout
    assert "could not be measured (exit 3)" in done.stderr


def test_static_claims_of_vgg_all_match_and_diff_strict_gates(repro, tmp_path):
    """Tables 1 and 2, every count; then the gate on a copy with one digit altered."""
    words = ("table1", "table2", "--store", tmp_path, "--json")
    tables = json.loads(repro("run", *words, "--no-mlflow").stdout)
    assert [t["table"] for t in tables] == ["vgg/table1", "vgg/table2"]
    assert {c["verdict"] for t in tables for c in t["cells"] if c["claimed"]} == {"match"}
    cells = {(c["row"], c["column"]): c for c in tables[1]["cells"]}
    assert next(c for (_, column), c in cells.items() if column == "D")["measured"] == 138.357544
    assert repro("diff", *words, "--strict").returncode == 0

    altered = tmp_path / "vgg"
    altered.mkdir()
    for name in ("paper.yaml", "table2.yaml"):
        source = TINY.parent.parent.parent / "tables" / "vgg" / name
        (altered / name).write_text(source.read_text().replace("138", "139"))
    done = repro("diff", altered / "table2.yaml", "--store", tmp_path, "--strict", code=1)
    assert "138.357544 is not in [138.5, 139.5)" in done.stdout
    assert "1 claims differ (exit 1)" in done.stderr


def test_list_and_show_keep_printed_numbers(repro):
    """Every claim with its locator; the paper's table for proof-reading."""
    claims = json.loads(repro("list", "vgg", "--claims", "--json").stdout)
    assert {"paper", "table", "where", "row", "column", "printed", "unit", "quantity", "kind"} <= set(claims[0])
    assert len(claims) == 268
    per_table = {name: sum(c["table"] == f"vgg/{name}" for c in claims) for name in ("table3", "table7", "text")}
    assert per_table == {"table3": 25, "table7": 33, "text": 62}
    shown = json.loads(repro("show", "table3", "--json").stdout)
    assert shown["rows"]["D 256"] == {"top-1": "27.0", "top-5": "8.8"}
    assert "27.0" in repro("show", "table3").stdout


def test_output_is_plain_where_it_is_no_terminal(repro, tmp_path):
    """No escape codes in a pipe; NO_COLOR is respected by the same console."""
    done = repro("run", "table2", "--store", tmp_path, "--no-mlflow")

    assert "\x1b" not in done.stdout + done.stderr
    assert "M 133 → 132.9" in done.stdout


def test_doctor_says_what_is_here(repro, tmp_path):
    """Versions, memory, data, records, each ok or with what to do."""
    text = repro("doctor", "--store", tmp_path / "s").stdout

    assert "ok   torch: " in text
    assert "records: 0 whole" in text


def test_a_sheet_of_samples_is_written(repro, new_store, tmp_path):
    """A picture of what the proxy's images look like."""
    sheet = tmp_path / "sheet.png"
    repro("show", "table3", "--samples", sheet, "--store", new_store)

    assert sheet.read_bytes()[:4] == b"\x89PNG"
