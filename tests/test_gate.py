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
  other: {values: [1.0], missing: nobody can measure this}
relations:
  better: {text: the error falls, where: Section 1, less: [error, other]}
"""
COPY = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_root, repro):
    """A copy of the package with one made-up table, blessed: what a repository with a baseline looks like."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(HERE.parent / "repro", place / "repro", ignore=COPY)
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
        assert "7 claims, new" in repro("bless", "mine", "--reason", "the first", cwd=place).stdout
        yield place


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


def records(place: Path) -> set[Path]:
    return set((place / "runs" / "store" / "records").rglob("*.json"))


def test_a_baseline_reads_without_the_store(place):
    """Values, verdicts, how they may vary, the environment, when and why: a line for each cell, sorted, no path."""
    text = (place / "runs" / "baseline" / "mine" / "table1.proxy.json").read_text()
    found = json.loads(text)
    cells = found["cells"]

    assert cells["macs | value"]["measured"] == 0.04055104
    assert (cells["macs | value"]["verdict"], cells["macs | value"]["claimed"]) == ("match", "0.041")
    assert "in" not in cells["macs | value"]  # exact everywhere
    assert cells["decay | value"]["measured"] == 0.0005
    error = cells["error | value"]
    assert error["verdict"] == "incomparable"
    assert error["elsewhere"] == 2.83  # 2 sqrt(2) times the spread of 1.0 that the table states
    assert found["facts"][error["in"][0]]["torch"]
    assert cells["other | value"] == {"verdict": "missing"}
    assert cells["relations | better"] == {"verdict": "missing"}
    assert found["history"]["1"]["reason"] == "the first"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["history"]["1"]["date"])
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    assert sum('"verdict"' in line for line in lines) == len(cells) == 7
    assert list(cells) == sorted(cells)
    assert str(place) not in text
    assert len(text) < 8000


CHANGES = {
    "architecture": (
        "repro/architectures/resnet.py",
        ("2 if i and not j else 1", "2 if not j else 1"),
        "macs | value: 0.04055104 -> 0.010",
        "match -> differs: ",
        "source of resnet",
        {"macs | value", "last map | value"},
    ),
    "protocol": (
        "repro/protocols.py",
        ('"senet224": _centre(256, 224', '"senet224": _centre(288, 224'),
        "error | value: ",
        "still incomparable",
        "view.Q 40 -> 48",
        {"error | value"},
    ),
    "recipe": (
        "tables/mine/paper.yaml",
        ("weight_decay: 5e-4", "weight_decay: 1e-3"),
        "decay | value: 0.0005 -> 0.001, by +0.0005",
        "match -> differs: ",
        "recipe.optimizer.weight_decay 0.0005 -> 0.001",
        {"decay | value", "error | value"},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_one_changed_line_turns_the_gate_red_and_undone_it_is_green(what, place, repro):
    """The message names the claims that moved, by how much, since when, and the cause; undone, nothing is run anew."""
    path, change, value, verdict, cause, moved = CHANGES[what]
    with altered(place / path, change):
        red = repro("check", cwd=place, code=1)
    before = records(place)
    green = repro("check", cwd=place)

    assert value in red.stdout
    assert verdict in red.stdout
    assert cause in red.stdout
    assert "since " in red.stdout
    assert set(re.findall(r"^  (.+? \| \w+): ", red.stdout, re.M)) == moved
    assert f"{len(moved)} moved; if that is meant: repro bless mine/table1 --reason WHY (exit 1)" in red.stderr
    assert green.stdout == ""
    assert green.stderr == "7 claims checked, 0 moved (exit 0)\n"
    assert records(place) == before


def test_a_change_for_the_better_is_red_too_until_it_is_blessed(place, repro):
    """A digit put right, a claim gone and one that is new: each named; bless shows them and keeps both reasons."""
    table, baseline = place / "tables" / "mine" / "table1.yaml", place / "runs" / "baseline"
    with altered(table, ("0.27]", "0.28]")):
        repro("bless", "mine", "--reason", "as printed", "--baseline", place / "b", cwd=place)
    with altered(table, ("  macs:", "  MACs:")):
        red = repro("check", "mine", "--baseline", place / "b", cwd=place, code=1)
        shown = repro("bless", "mine", "--baseline", place / "b", "--reason", "read again", cwd=place)
        green = repro("check", "--baseline", place / "b", cwd=place)

    assert "params | value: differs -> match: 0.269722 is in" in red.stdout
    assert "the table prints 0.27, before 0.28" in red.stdout
    assert "macs | value: 0.04055104 -> None, match -> gone" in red.stdout
    assert "MACs | value: None -> 0.04055104, not there -> match" in red.stdout
    assert "--baseline" in red.stderr
    assert "differs -> match" in shown.stdout
    assert "3 of 7 claims moved" in shown.stdout
    assert "0 moved" in green.stderr
    history = json.loads((place / "b" / "mine" / "table1.proxy.json").read_text())["history"]
    assert [h["reason"] for h in history.values()] == ["as printed", "read again"]
    assert len(list(baseline.rglob("*.json"))) == 1


def edited(place: Path, folder: str, **changes: object) -> Path:
    """A copy of the baselines in which the entry of the trained error says something else."""
    shutil.copytree(place / "runs" / "baseline", place / folder)
    path = place / folder / "mine" / "table1.proxy.json"
    found = json.loads(path.read_text())
    entry = found["cells"]["error | value"]
    found["facts"][entry["in"][0]]["processor"] = changes.pop("processor", found["facts"][entry["in"][0]]["processor"])
    entry["measured"] += changes.pop("by")
    path.write_text(json.dumps(found))
    return place / folder


@pytest.mark.parametrize(
    ("by", "processor", "code"), [(0.1, "another", 0), (2.9, "another", 1), (-2.9, "another", 1), (0.1, None, 1)]
)
def test_a_trained_value_is_exact_at_home_and_within_the_spread_elsewhere(by, processor, code, place, repro):
    """On another processor 2.83 points may pass, here nothing; the message names the processor."""
    more = {"processor": processor} if processor else {}
    folder = edited(place, f"b{by}{processor}", by=by, **more)
    done = repro("check", "--baseline", folder, cwd=place, code=code)

    assert ("error | value: " in done.stdout) == bool(code)
    assert ("processor another -> " in done.stdout) == bool(code and processor)


def test_the_gates_are_not_mixed(place, repro):
    """What differs and was blessed so is green against the baseline, red against the paper, and the other way round."""
    table = place / "tables" / "mine" / "table1.yaml"
    known = "known:\n  - {at: params | value, cause: biases left out, gives: 0.28}\nrelations:"
    with altered(table, ("0.27]", "0.28]")):
        repro("bless", "mine", "--reason", "as printed", "--baseline", place / "c", cwd=place)
        assert repro("check", "--baseline", place / "c", cwd=place).stdout == ""
        red = repro("check", "--claims", "mine", "--only", "static", cwd=place, code=1)
    with altered(table, ("0.27]", "0.28]"), ("relations:", known)):
        green = repro("check", "--claims", "mine", "--only", "static", "--baseline", place / "none", cwd=place)

    assert "params | value: claimed 0.28, measured 0.269722" in red.stdout
    assert "1 differ without a known cause (exit 1)" in red.stderr
    assert "bless" not in red.stderr
    assert "0 differ without a known cause (exit 0)" in green.stderr


def test_what_cannot_be_measured_is_never_green(place, repro):
    """A job that broke is exit 3 and is not blessed; no baseline and nothing measured are exit 5; a gone table 2."""
    with altered(place / "repro" / "architectures" / "resnet.py", ("pool(x).flatten(1)", "pool(x)[0].nothing")):
        red = repro("check", "mine", "--only", "static", cwd=place, code=3)
        blessed = repro(
            "bless", "mine", "--only", "static", "--reason", "no", "--baseline", place / "d", cwd=place, code=3
        )

    assert "macs | value: 0.04055104 -> None" in red.stdout
    assert "match -> failed" in red.stdout
    assert "if that is meant" not in red.stderr
    assert "nothing was blessed" in blessed.stderr
    assert not (place / "d").exists()
    lacking = repro("check", "table2", cwd=place, code=5).stderr
    assert "no baseline of vgg/table2: `repro bless` makes one (exit 5)" in lacking
    assert "(exit 5)" in repro("check", "--baseline", place / "e", cwd=place, code=5).stderr
    assert "(exit 5)" in repro("check", "--claims", "vgg/table10", cwd=place, code=5).stderr
    table = place / "tables" / "mine" / "table1.yaml"
    table.rename(place / "away.yaml")
    gone = repro("check", cwd=place, code=2)
    (place / "away.yaml").rename(table)
    assert "its table mine/table1 is gone" in gone.stderr


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


def test_a_damaged_baseline_is_named(place, repro):
    """Cut short, or of another version: the file, and what to do."""
    path = place / "f" / "mine" / "table1.proxy.json"
    path.parent.mkdir(parents=True)
    for text in ('{"version": 1', '{"version": 99}'):
        path.write_text(text)
        done = repro("check", "mine", "--baseline", place / "f", cwd=place, code=2)
        assert "f/mine/table1.proxy.json: expected a baseline of version 1; restore it" in done.stderr


def test_ci_gets_junit_annotations_and_a_summary(place, repro):
    """Of one red check: the YAML's line in the annotation, a failure in the XML, the change on top of the summary."""
    path = place / "tables" / "mine" / "table1.yaml"
    words = ("--junit", "j.xml", "--github", "--markdown", "s.md", "--only", "static")
    with altered(path, ("0.27]", "0.28]")):
        done = repro("check", *words, cwd=place, code=1)

    line = TABLE.splitlines().index(next(t for t in TABLE.splitlines() if t.startswith("  params"))) + 1
    assert (
        f"::error file=tables/mine/table1.yaml,line={line},title=mine/table1 | params | value::match -> differs"
        in done.stdout
    )
    suite = ElementTree.parse(place / "j.xml").getroot()[0]
    cases = {case.get("name"): case for case in suite}
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "1")
    assert "the table prints 0.28, before 0.27" in cases["params | value"][0].text
    assert list(cases["macs | value"]) == []
    summary = (place / "s.md").read_text()
    assert summary.startswith("## 4 claims checked, 1 moved")
    assert summary.index("params \\| value") < summary.index("| table | match |")


def test_annotations_are_ten_the_worst_first_and_escaped():
    """More are counted in a line of another kind; a text cannot end its command or add a field."""
    row = "a, b: 100%\nc"
    changes = [Change("t/t", f"{row}{i}", 1.0, 2.0, "match", "failed", "", "", (), "t.yaml", i) for i in range(13)]
    lines = ci.github(changes)

    assert len(lines) == 11
    assert (
        lines[0] == "::error file=t.yaml,line=0,title=t/t | a%2C b%3A 100%25%0Ac0::1.0 -> 2.0, by +1, match -> failed"
    )
    assert lines[-1].startswith("::notice ")
    assert "and 3 more" in lines[-1]
    cases = [(None, "match", "failed"), (2.0, "match", "differs"), (None, "match", ""), (9.0, "differs", "match")]
    cases += [(9.0, "incomparable", "incomparable"), (2.0, "incomparable", "incomparable")]
    ranks = [Change("t", "n", 1.0, after, was, now, "", "", (), "f", 1).rank for after, was, now in cases]
    assert ranks == sorted(ranks)


def test_a_summary_stays_below_one_mebibyte_and_shows_html_as_text():
    """GitHub refuses a longer one; the head with what moved stays."""
    changes = [
        Change("t/t", f"<b>{i}</b> | `x`", 1.0, 2.0, "match", "differs", "é" * 200, "", (), "t.yaml", 1)
        for i in range(9000)
    ]
    text = ci.markdown([], changes, "9000 moved")

    assert len(text.encode()) < 1 << 20
    assert text.startswith("## 9000 moved")
    assert re.search(r"and \d+ lines more, cut at GitHub's limit", text)
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
    assert "claims.xml" in check
    assert ElementTree.parse(place / "claims.xml").getroot()[0].get("failures") == "0"
