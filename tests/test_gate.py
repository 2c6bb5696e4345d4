"""The baseline and its gate: what moves it, what it says, and what CI gets of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from conftest import HERE, TINY

from repro.gate import Change
from repro.report import ci

TABLE = """\
title: A net and how it is trained
where: Table 1
columns: {value: {quantity: params, unit: M}}
rows:
  params: {build: resnet:cifar-20, input: 32, values: [0.27]}
  macs: {build: resnet:cifar-20, input: 32, quantity: macs, unit: G, values: [0.041]}
  last map: {build: resnet:cifar-20, input: 32, quantity: shape, stage: conv4_x, values: [8×8×64]}
  decay: {quantity: setting, setting: optimizer.weight_decay, build: vgg:A, recipe: base, values: [0.0005]}
  error: {quantity: top1_error, unit: "%", build: vgg:A, recipe: base, protocol: senet224, values: [29.6]}
  dense: {quantity: top1_error, unit: "%", build: vgg:A, recipe: base, values: [28.0]}
  other: {values: [1.0], missing: nobody can measure this}
relations:
  better: {text: dense is better, where: Section 1, less: [dense, error]}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_root, repro):
    """A copy of the package with one made-up table, blessed: what a repository with a baseline looks like."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(HERE.parent / "repro", place / "repro", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(HERE.parent / "tables" / "vgg", place / "tables" / "vgg")
    (place / "tables" / "mine").mkdir()
    paper = (TINY / "paper.yaml").read_text().replace("256: 40", "256: 40, 288: 48")
    (place / "tables" / "mine" / "paper.yaml").write_text(paper)
    (place / "tables" / "mine" / "table1.yaml").write_text(TABLE)
    (place / "runs" / "store" / "data").mkdir(parents=True)
    for folder in data_root.iterdir():
        os.symlink(folder, place / "runs" / "store" / "data" / folder.name)
    with pytest.MonkeyPatch.context() as environment:
        for name in ("CHECK", "BLESS"):  # every worker loads torch anew
            environment.setenv(f"REPRO_{name}_JOBS", "1")
        assert "new, 7 claims" in repro("bless", "mine", "--reason", "the first", cwd=place).stdout
        yield place


def baseline(place: Path) -> Path:
    return place / "runs" / "baseline" / "mine" / "table1.proxy.json"


@contextmanager
def altered(path: Path, *changes: tuple[str, str]) -> Iterator[None]:
    """A file in which each text, that it holds once, is another; as it was behind that."""
    was = text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(was)


@contextmanager
def blessed(place: Path, **entry: Any) -> Iterator[None]:
    """The baseline with another entry of the error; as it was behind that, whatever was blessed."""
    was = baseline(place).read_text()
    found = json.loads(was)
    found["cells"]["error | value"] |= entry
    baseline(place).write_text(json.dumps(found))
    try:
        yield
    finally:
        baseline(place).write_text(was)


def records(place: Path) -> set[Path]:
    return set((place / "runs" / "store" / "records").rglob("*.json"))


def test_a_baseline_reads_without_the_store(place):
    """Values, verdicts, how they may vary, the environment, when and why: a line for each cell, sorted, no path."""
    text = baseline(place).read_text()
    found = json.loads(text)
    cells = found["cells"]

    assert (cells["macs | value"]["measured"], cells["macs | value"]["verdict"]) == (0.04055104, "match")
    assert cells["macs | value"]["how"][0].startswith("source of resnet ")
    assert cells["macs | value"]["how"][1].startswith("count resnet:cifar-20 ")
    assert "in" not in cells["macs | value"]  # exact everywhere
    assert cells["decay | value"]["measured"] == 0.0005
    error = cells["error | value"]
    assert error["verdict"] == "incomparable"
    assert error["elsewhere"] == 2.83  # 2 sqrt(2) times the spread of 1.0 that the table states
    assert re.fullmatch(r"\w+ \w+, .+, cpu, torch \d+\.\d+\S*, seeds 0", error["in"][0])
    assert cells["relations | better"]["verdict"] in ("match", "differs", "inconclusive")
    assert "other | value" not in cells
    assert found["history"]["1"]["reason"] == "the first"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["history"]["1"]["date"])
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    assert sum('"verdict"' in line for line in lines) == len(cells) == 7
    assert list(cells) == sorted(cells)
    assert str(place) not in text
    assert len(text) < 3000


CHANGES = {
    "architecture": (
        "repro/architectures/resnet.py",
        ("2 if i and not j else 1", "2 if not j else 1"),
        ("macs | value: 0.04055104 -> 0.010", "by -0.0300", "match -> differs", "new: source of resnet "),
        {"macs", "last map"},
    ),
    "protocol": (
        "repro/protocols.py",
        ('"senet224": _centre(256, 224', '"senet224": _centre(288, 224'),
        (
            "error | value: ",
            "still incomparable",
            "new: evaluate vgg:A base S=40 seed 0 ",
            "; top-1 error image by image ",
        ),
        {"error"},
    ),
    "recipe": (
        "tables/mine/paper.yaml",
        ("weight_decay: 5e-4", "weight_decay: 1e-3"),
        ("decay | value: 0.0005 -> 0.001, by +0.0005, match -> differs", "new: train vgg:A base S=40 seed 0 "),
        {"decay", "error", "dense"},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_one_changed_line_turns_the_gate_red_and_undone_it_is_green(what, place, repro):
    """The message names the claims that moved, by how much, since when, and the cause; undone, nothing is run anew."""
    path, change, parts, moved = CHANGES[what]
    with altered(place / path, change):
        red = repro("check", cwd=place, code=1)
    before = records(place)
    green = repro("check", cwd=place)

    for part in (*parts, "since ", "tables/mine/table1.yaml:"):
        assert part in red.stdout
    assert set(re.findall(r"^mine/table1 \| (.+?) \| value: ", red.stdout, re.M)) == moved
    assert "moved; if that is meant: repro bless mine/table1 --reason WHY (exit 1)" in red.stderr
    if what == "protocol":  # both sides' scores are kept
        found = re.search(r"error \| value: .*by (\S+), .*\n.*image by image (\S+) pp, 95 % interval ", red.stdout)
        assert float(found[2]) == pytest.approx(float(found[1]), abs=0.006)
    assert green.stdout == ""
    assert green.stderr == "7 claims checked, 0 moved (exit 0)\n"
    assert records(place) == before


def test_a_change_for_the_better_is_red_too_until_it_is_blessed(place, repro):
    """A digit put right, a claim lost and one that is new: each named; bless shows them and keeps both reasons."""
    table = place / "tables" / "mine" / "table1.yaml"
    with blessed(place):
        with altered(table, ("0.27]", "0.28]")):
            shown = repro("bless", "mine", "--reason", "as printed", "--only", "static", cwd=place)
        with altered(table, ("  macs:", "  MACs:")):
            red = repro("check", "mine", cwd=place, code=1)
            repro("bless", "mine", "--reason", "read again", cwd=place)
            assert repro("check", cwd=place).stdout == ""
            same = repro("bless", "mine", "--reason", "nothing new", cwd=place)
            history = json.loads(baseline(place).read_text())["history"]

    assert "params | value: match -> differs\n    0.269722 is not in [0.275, 0.285); since " in shown.stdout
    assert "1 moved of 3 claims" in shown.stdout
    assert "params | value: differs -> match" in red.stdout
    assert "macs | value: 0.04055104 -> None, match -> missing" in red.stdout
    assert red.stdout.index("match -> missing") < red.stdout.index("missing -> match")  # the worst first
    assert "MACs | value: None -> 0.04055104, missing -> match" in red.stdout
    assert "dense | value" not in red.stdout  # what was not selected stays blessed as it was
    assert same.stderr == "0 baselines written (exit 0)\n"
    assert [h["reason"] for h in history.values()] == ["the first", "as printed", "read again"]


@pytest.mark.parametrize(
    ("by", "elsewhere", "code"), [(0.1, True, 0), (2.9, True, 1), (-2.9, True, 1), (0.1, False, 1)]
)
def test_a_trained_value_is_exact_at_home_and_within_the_spread_elsewhere(by, elsewhere, code, place, repro):
    """On another processor 2.83 points may pass, here nothing."""
    entry = json.loads(baseline(place).read_text())["cells"]["error | value"]
    places = ["Linux x86_64, another, cpu, torch 2.11.0, seeds 0"] if elsewhere else entry["in"]
    with blessed(place, measured=entry["measured"] + by, **{"in": places}):
        done = repro("check", cwd=place, code=code)

    assert ("mine/table1 | error | value: " in done.stdout) == bool(code)


def test_the_gates_are_not_mixed(place, repro):
    """What differs and was blessed so is green against the baseline, and red against the paper."""
    with blessed(place), altered(place / "tables" / "mine" / "table1.yaml", ("0.27]", "0.28]")):
        repro("bless", "mine", "--reason", "as printed", cwd=place)
        assert repro("check", cwd=place).stdout == ""
        assert "1 claims differ (exit 1)" in repro("diff", "mine", "--strict", cwd=place, code=1).stderr


def test_what_cannot_be_measured_is_never_green(place, repro):
    """A job that broke is exit 3 and is not blessed; without a baseline, or with nothing measured, it is 5."""
    with altered(place / "repro" / "architectures" / "resnet.py", ("pool(x).flatten(1)", "pool(x)[0].nothing")):
        red = repro("check", "mine", "--only", "static", cwd=place, code=3)
    refused = repro("bless", "mine", "--scale", "full", "--reason", "no", cwd=place, code=3)  # no ImageNet here

    assert "macs | value: 0.04055104 -> None, match -> failed" in red.stdout
    assert "if that is meant" not in red.stderr
    assert "nothing was blessed" in refused.stderr
    assert [p.name for p in baseline(place).parent.iterdir()] == [baseline(place).name]
    lacking = repro("check", "table2", cwd=place, code=5).stderr
    assert "no baseline of vgg/table2; `repro bless TABLE` makes one (exit 5)" in lacking
    both = repro("check", "table2", "mine", cwd=place, code=5).stderr
    assert "7 claims checked, 0 moved; no baseline of vgg/table2 (exit 5)" in both
    assert "(exit 5)" in repro("check", "mine", "--only", "speed", cwd=place, code=5).stderr
    assert "(exit 5)" in repro("check", "--scale", "full", cwd=place, code=5).stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["bless", "mine"], "Missing option '--reason'"),
        (["bless", "mine", "--reason", " "], "a reason in words"),
        (["bless", "mine", "--reason", "x", "-o", "build.width=2"], "tables as they are, without -o"),
        (["check", "mien"], "did you mean 'mine'?"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_2(words, part, place, repro):
    """What was expected, in one line."""
    assert part in repro(*words, cwd=place, code=2).stderr


def test_a_damaged_baseline_and_one_without_a_table_are_named(place, repro):
    """Cut short, of another version, or of a table that is gone: the file or the name, and exit 2."""
    for text in ('{"version": 1', '{"version": 99}'):
        with altered(baseline(place), (baseline(place).read_text(), text)):
            done = repro("check", "mine", cwd=place, code=2)
        assert "runs/baseline/mine/table1.proxy.json: no baseline of version 1; restore it" in done.stderr
    table = place / "tables" / "mine" / "table1.yaml"
    table.rename(place / "away.yaml")
    gone = repro("check", cwd=place, code=2)
    (place / "away.yaml").rename(table)
    assert "no table is called 'mine/table1'" in gone.stderr


def test_ci_gets_junit_annotations_and_a_summary(place, repro):
    """Of one red check: the YAML's line in the annotation, a failure in the XML, the change on top of the summary."""
    path = place / "tables" / "mine" / "table1.yaml"
    words = ("--junit", "j.xml", "--github", "--markdown", "s.md", "--only", "static")
    with altered(path, ("0.27]", "0.28]")):
        done = repro("check", *words, cwd=place, code=1)

    line = next(i for i, text in enumerate(TABLE.splitlines(), 1) if text.startswith("  params"))
    assert "repro bless mine/table1 --only static --reason WHY" in done.stderr
    where = f"::error file=tables/mine/table1.yaml,line={line},title=mine/table1 | params | value::match -> differs"
    assert where in done.stdout
    suite = ElementTree.parse(place / "j.xml").getroot()[0]
    cases = {case.get("name"): list(case) for case in suite}
    assert (suite.get("tests"), suite.get("failures")) == (str(len(cases)), "1") == ("3", "1")
    assert f"tables/mine/table1.yaml:{line}: 0.269722 is not in" in cases["params | value"][0].text
    assert cases["macs | value"] == []
    summary = (place / "s.md").read_text()
    assert summary.startswith("## 3 claims checked, 1 moved")
    assert summary.index("params \\| value") < summary.index("| table | match |")


def test_annotations_are_ten_and_escaped():
    """More are counted in a line of another kind; a text cannot end its command or add a field."""
    row = "a, b: 100%\nc"
    changes = [Change("t/t", f"{row}{i}", 1.0, 2.0, "match", "failed", "why", "t.yaml", i) for i in range(13)]
    lines = ci.github(changes)
    title = "file=t.yaml,line=0,title=t/t | a%2C b%3A 100%25%0Ac0"

    assert len(lines) == 11
    assert lines[0] == f"::error {title}::1.0 -> 2.0, by +1, match -> failed; why"
    assert lines[-1].startswith("::notice ")
    assert "and 3 more" in lines[-1]


def test_a_summary_stays_below_one_mebibyte_and_shows_html_as_text():
    """GitHub refuses a longer one; the head with what moved stays."""
    changes = [
        Change("t/t", f"<b>{i}</b> | `x`", 1.0, 2.0, "match", "differs", "é" * 200, "t.yaml", 1) for i in range(9000)
    ]
    text = ci.markdown([], changes, "9000 moved")

    assert len(text.encode()) < 1 << 20
    assert text.startswith("## 9000 moved")
    assert text.endswith("cut at GitHub's limit of 1 MiB.")
    assert "<b>" not in text


def test_the_example_workflow_runs(place, repro):
    """The step of the README's workflow, in a project with a baseline: green, and what CI shows is written."""
    text = (HERE.parent / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- workflow -->\n```yaml\n(.*?)```", text, re.S)
    assert found, "README has no block workflow"
    steps = [step["run"] for step in yaml.safe_load(found[1])["jobs"]["claims"]["steps"] if "run" in step]
    [check] = [step for step in steps if step.startswith("repro ")]
    repro(*shlex.split(check.replace("$GITHUB_STEP_SUMMARY", "summary.md"))[1:], cwd=place)

    assert "claims checked, 0 moved" in (place / "summary.md").read_text()
    assert ElementTree.parse(place / "claims.xml").getroot()[0].get("failures") == "0"
