"""The commands around a table: verify, new, validate, and the report of many tables."""

from __future__ import annotations

import json

import pytest
from conftest import TINY


def test_verify_counts_a_net_of_a_library_against_claims(repro):
    """Exit 0 where all hold, 1 where one differs; the counts are those of the net that was built."""
    done = repro("verify", "torchvision:resnet18", "--params", "11.7M", "--macs", "1.8G", "--layers", "18")
    assert "params: 11.7M claimed, 11,689,512 measured: match" in done.stdout
    done = repro("verify", "torchvision:resnet18", "--params", "11.6M", "--json", code=1)
    found = json.loads(done.stdout)

    assert found["claims"]["params"]["verdict"] == "differs"
    assert found["stages"]["layer4"]["output"] == [512, 7, 7]
    assert found["macs_fvcore"] == found["stages"][""]["macs"] == 1814073344


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("verify", "resnet50"), "build 'resnet50' is not of the form family:net"),
        (("verify", "timm:resnet50", "--params", "many"), "'many' is not a number"),
        (("verify", "py:nowhere:net"), "no module 'nowhere' is found from here"),
        (("verify", "py:json:nothing"), "cannot be built: module 'json' has no attribute 'nothing'"),
        (("new", "table1"), "expected PAPER/TABLE"),
        (("new", "../x/table1"), "expected PAPER/TABLE"),
        (("validate", "nothere.yaml"), "no such file: nothere.yaml"),
    ],
)
def test_bad_words_are_one_line(repro, words, said):
    """What is wrong and what was expected, on stderr, exit 2."""
    done = repro(*words, code=2)

    line = next(line for line in done.stderr.splitlines() if line.startswith("repro: "))
    assert said in line
    assert done.stdout == ""


def test_a_new_table_validates_and_is_never_written_over(repro, tmp_path):
    """The file that `new` writes is whole; a second call leaves it alone."""
    repro("new", "mine/table7", cwd=tmp_path)
    text = (tmp_path / "tables/mine/table7.yaml").read_text()
    assert "where: Table 7" in text
    done = repro("new", "mine/table7", cwd=tmp_path, code=2)
    assert "is there already" in done.stderr
    assert (tmp_path / "tables/mine/table7.yaml").read_text() == text


def test_validate_tells_every_bad_file(repro, tmp_path):
    """Two of three files are wrong: both are told with their lines, the good one is counted; exit 2."""
    good = "title: t\nwhere: Table 1\ncolumns: {n: params}\nrows: {a: {build: vgg:A, values: [133]}}\n"
    for name, text in (("good", good), ("a", good.replace("vgg:A", "vgg:Z")), ("b", good.replace("title", "titel"))):
        (tmp_path / f"{name}.yaml").write_text(text)
    done = repro("validate", *(tmp_path / f"{n}.yaml" for n in ("a", "good", "b")), code=2)

    assert "tiny/paper.yaml: 2 recipes: ok" in repro("validate", TINY / "paper.yaml").stdout
    assert "good.yaml: 1 claims, 1 of them say how they are measured, 0 relations: ok" in done.stdout
    assert "a.yaml:4: unknown net 'Z'" in done.stderr
    assert "b.yaml:1: unknown key 'titel'; did you mean 'title'?" in done.stderr


def test_validate_reads_the_recipes_of_a_paper_whole(repro, tmp_path):
    """A misspelt field of a recipe is told with its line, not found by the first run."""
    text = (TINY / "paper.yaml").read_text()
    (tmp_path / "paper.yaml").write_text(text.replace("momentum:", "momentun:", 1))
    line = text[: text.index("momentum:")].count("\n") + 1
    done = repro("validate", tmp_path / "paper.yaml", code=2)
    assert f"paper.yaml:{line}: unknown key 'momentun'; did you mean 'momentum'?" in done.stderr


def test_many_tables_are_told_by_a_line_each(repro, tmp_path):
    """Past sixteen tables come counts, with differences split by cause, then every number that differs."""
    text = "title: t\nwhere: Table {n}\ncolumns: {{n: params}}\nrows: {{a: {{build: vgg:A, values: [{v}]}}}}\n"
    known = 'known: [{at: a, cause: a slip, gives: "1 + 1"}]\n'
    for n in range(17):
        v = {0: 2, 1: 3}.get(n, 133)
        (tmp_path / f"table{n}.yaml").write_text(text.format(n=n, v=v) + (known if n == 0 else ""))
    done = repro("run", *sorted(tmp_path.glob("*.yaml")), "--store", tmp_path / "s", "--no-mlflow", cwd=TINY.parent)

    total = next(line for line in done.stdout.splitlines() if line.startswith("all "))
    assert total.split() == ["all", "15", "1", "1", "0", "0", "0", "0"]
    assert "| a | n: 2 printed, 132.9 measured; a slip: 1 + 1" in done.stdout
    assert "| a | n: 3 printed, 132.9 measured\n" in done.stdout


def test_protocols_are_listed_as_data_and_drawn(repro, tmp_path):
    """GoogLeNet's 144 crops as boxes in plain numbers; a picture of two protocols; a wrong name is told."""
    [found] = json.loads(repro("protocols", "googlenet144", "--json").stdout)
    boxes = [box for view_set in found["view_sets"] for box in view_set["boxes"]]
    assert (found["views"], len(boxes), boxes[0]) == (144, 72, [0, 0, 224, 224])
    repro("protocols", "grid", "spp96", "--picture", tmp_path / "views.png")
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")
    assert "did you mean 'googlenet144'?" in repro("protocols", "googlenet14", code=2).stderr


def test_an_open_field_of_a_protocol_can_be_changed(repro, tmp_path):
    """The other choice is new work for evaluations alone; one that does not exist is told with those that do."""
    plain = repro("run", TINY / "table1.yaml", "--dry-run", "--store", tmp_path / "s").stdout
    other = repro("run", TINY / "table1.yaml", "--dry-run", "--store", tmp_path / "s", "-o", "protocol.flips=no").stdout
    assert plain.count("train") == other.count("train") > 0
    wrong = repro("run", TINY / "table1.yaml", "--store", tmp_path / "s", "-o", "protocol.resize=lanczos", code=2)
    assert "resize: bilinear antialias, bicubic antialias, bilinear" in wrong.stderr
