"""Claims as test items of pytest, in processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import HERE, TINY

TABLES = HERE.parent / "tables"
MIXED = """\
title: One of each kind of outcome
where: Table 1
columns: {params: {quantity: params, unit: M}, macs: {quantity: macs, unit: G}, error: {quantity: top1_error}}
rows:
  D: {build: vgg:D, recipe: base, values: [138, 15.3, 27.0]}
  E: {build: vgg:E, recipe: base, values: [150, -, -]}
  other: {values: [1.0, -, -], missing: nobody can measure this}
known:
  - {at: D | macs, cause: the fully connected layers are left out, gives: (15470264320 - 123633664) / 1e9}
relations:
  better: {text: the error falls, where: Section 1, less: [D | error, E | error]}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tables/mine, tables/vgg (static tables) and a test of its own."""
    place = tmp_path_factory.mktemp("plug")
    for paper, names in (("vgg", ("paper", "table2", "table3")), ("mine", ())):
        (place / "tables" / paper).mkdir(parents=True)
        for name in names:
            shutil.copy(TABLES / paper / f"{name}.yaml", place / "tables" / paper)
    shutil.copy(TINY / "paper.yaml", place / "tables" / "mine")
    (place / "tables" / "mine" / "table1.yaml").write_text(MIXED)
    (place / "tables" / "mine" / "other.yaml").write_text("title: no table\n")
    (place / "test_own.py").write_text("def test_own(): pass\n")
    return place


def call(place: Path, *words: object, code: int = 0) -> str:
    """pytest with the plugin, whether or not it is installed as an entry point."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(HERE.parent)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "repro.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "--strict-markers",
    ]
    done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, cwd=place, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def ids(text: str) -> list[str]:
    return [line for line in text.splitlines() if "::" in line]


@pytest.fixture(scope="module")
def ran(place):
    """All claims of the mixed table: what pytest printed, and its XML."""
    words = ("tables/mine", "-rsxf", "--durations=3", "--junitxml", place / "j.xml")
    text = call(place, *words, code=1)
    return text, {
        f"{c.get('classname')}::{c.get('name')}": c for c in ElementTree.parse(place / "j.xml").iter("testcase")
    }


def test_one_item_for_each_claim_with_its_properties(ran):
    """Printed numbers and relations alone are items; the XML tells claimed, measured, delta and verdict."""
    _, cases = ran
    rows = {"D": ("params", "macs", "top1_error[error]"), "E": ("params",), "other": ("params",)}
    names = {
        f"tables.mine.table1.yaml.{row}::{n if '[' in n else f'{n}[{n}]'}"
        for row, several in rows.items()
        for n in several
    }

    assert set(cases) == names | {"tables.mine.table1.yaml.relations::better"}
    found = {name: {p.get("name"): p.get("value") for p in case.iter("property")} for name, case in cases.items()}
    of = found["tables.mine.table1.yaml.D::params[params]"]
    assert of == {"claimed": "138", "measured": "138.357544", "delta": "0.357544", "verdict": "match"}
    assert found["tables.mine.table1.yaml.E::params[params]"]["verdict"] == "differs"
    assert found["tables.mine.table1.yaml.other::params[params]"] == {
        "claimed": "1.0", "measured": "", "delta": "", "verdict": "missing"
    }  # fmt: skip


def test_an_outcome_follows_the_verdict(ran):
    """A match passes, a difference fails, one with a known cause is expected to; the rest skips with its reason."""
    text, _ = ran

    assert "1 failed, 1 passed, 3 skipped, 1 xfailed" in text
    line = MIXED.splitlines().index(next(t for t in MIXED.splitlines() if t.startswith("  E:"))) + 1
    assert f"table1.yaml:{line}: differs: claimed 150, measured 143.66724: 143.66724 is not in [149.5, 150.5)" in text
    assert "the fully connected layers are left out: (15470264320 - 123633664) / 1e9" in text
    assert "missing: nobody can measure this" in text
    assert "missing: not run yet; --repro-run measures it" in text
    assert "slowest 3 durations" in text
    assert "Traceback" not in text


def test_claims_are_selected_by_id_by_words_and_by_kind(place):
    """An id in whole, by quantity or by row; -k and -m as of any test. Two collections give the same ids."""
    every = ids(call(place, "tables/vgg", "--collect-only", "-q"))
    table = "tables/vgg/table3.yaml"

    assert f"{table}::D 256::top1_error[top-1]" in every
    assert "tables/vgg/table2.yaml::Number of parameters::params[D]" in every
    assert f"{table}::relations::scale jitter" in every
    assert len(every) == len(set(every)) == 36
    assert ids(call(place, f"{table}::D 256::top1_error", "--collect-only", "-q")) == [
        f"{table}::D 256::top1_error[top-1]"
    ]
    assert len(ids(call(place, f"{table}::D 256", "--collect-only", "-q"))) == 2
    chosen = ids(call(place, table, "--collect-only", "-q", "-k", "D and top1_error"))
    assert chosen == [f"{table}::D {S}::top1_error[top-1]" for S in ("256", "384", "256-512")]
    assert len(ids(call(place, "tables/vgg", "--collect-only", "-q", "-m", "static"))) == 5
    assert len(ids(call(place, "tables/vgg", "--collect-only", "-q", "-m", "relation"))) == 7
    assert ids(call(place, "tables/vgg", "--collect-only", "-q")) == every


def test_tables_are_collected_where_they_are_named_and_nowhere_else(place):
    """A plain run of a project's tests has no claims in it; --repro takes all; paper.yaml and other YAML are none."""
    assert ids(call(place, "--collect-only", "-q")) == ["test_own.py::test_own"]
    found = {line.split("::")[0] for line in ids(call(place, "--collect-only", "-q", "--repro"))}
    assert found == {"test_own.py", "tables/mine/table1.yaml", "tables/vgg/table2.yaml", "tables/vgg/table3.yaml"}
    assert {line.split("::")[0] for line in ids(call(place, "tables", "--collect-only", "-q"))} == found - {
        "test_own.py"
    }


def test_pytest_without_tables_loads_nothing_heavy(place):
    """The plugin is in every pytest process of the environment: torch, numpy, yaml and ours stay out."""
    heavy = ("torch", "numpy", "yaml", "pydantic", "click", "rich", "repro.tables")
    (place / "conftest.py").write_text(
        f"import sys\ndef pytest_sessionfinish():\n    print([m for m in {heavy!r} if m in sys.modules])\n"
    )
    text = call(place, "test_own.py", "-s")
    (place / "conftest.py").unlink()

    assert "test_own.py .[]" in text


def test_a_table_with_a_mistake_is_an_error_in_one_line(place):
    """File, line, field; no traceback of ours, and no item that passes."""
    path = place / "bad" / "table9.yaml"
    path.parent.mkdir()
    path.write_text(MIXED.replace("recipe: base", "recpie: base"))
    text = call(place, "bad", code=2)

    assert "table9.yaml:5: " in text
    assert "unknown key 'recpie'" in text
    assert "Traceback" not in text
    assert "1 error" in text


def test_selected_metrics_are_run_on_demand_once_for_a_file(place, data_root):
    """--repro-run trains what the selected rows need; the next run reads the records."""
    shutil.copytree(TINY, place / "tables" / "tiny")
    (place / "runs" / "store" / "data").symlink_to(data_root)
    words = ("tables/tiny/table1.yaml::A::top1_error", "-rs")
    text = call(place, *words, "--repro-run")
    records = place / "runs" / "store" / "records" / "train"
    trained = list(records.rglob("*.json"))
    again = call(place, *words)

    assert len(trained) == 1
    for said in (text, again):
        assert "1 skipped" in said
        assert "incomparable: measured on digits-test: says nothing of a number on imagenet-1k-val" in said
    assert list(records.rglob("*.json")) == trained


def test_several_processes_come_to_the_same(place, ran):
    """With pytest-xdist the ids are the same in every worker, and so are the outcomes."""
    pytest.importorskip("xdist")
    words = ("-p", "xdist.plugin", "-p", "xdist.looponfail", "-n", "2", "tables/mine")

    assert "1 failed, 1 passed, 3 skipped, 1 xfailed" in call(place, *words, code=1)
