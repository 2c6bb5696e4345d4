"""What the README tells a reader to type is typed here."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib

import made_imagenet
import pytest
from conftest import HERE

README = (HERE.parent / "README.md").read_text(encoding="utf-8")


def block(mark: str) -> str:
    """The code block under a mark."""
    found = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", README, re.S)
    assert found, f"README has no block {mark}"
    return found[1]


@pytest.mark.parametrize("line", block("examples").splitlines())
def test_every_example_runs(line, repro, tmp_path_factory):
    """Each line of the commands, on one store of the session's, in the README's order."""
    store = tmp_path_factory.getbasetemp() / "readme-store"
    words = shlex.split(line)
    assert words[0] == "repro"
    has_store = words[1] in ("run", "diff", "doctor", "explain", "report", "list")

    repro(*words[1:], *(["--store", store] if has_store else []), cwd=store.parent)


def test_the_example_table_is_checked_and_matches(repro, tmp_path):
    """The YAML of the README, saved and run by path."""
    (tmp_path / "table2.yaml").write_text(block("table"))
    done = repro("run", tmp_path / "table2.yaml", "--store", tmp_path / "s", "--no-mlflow")

    assert "2 cells: 2 match" in done.stdout


def test_the_page_on_adding_a_paper_can_be_followed(repro, tmp_path):
    """Each file of the page is written and each line typed in one folder, in the page's order."""
    for line in block("new").splitlines():
        done = repro(*shlex.split(line)[1:], cwd=tmp_path)
    assert "2 cells: 2 match" in done.stdout
    for path in ("tables/mypaper/table1.yaml", "nets.py"):
        (tmp_path / path).write_text(block(f"paper: {path}"))
    for line in block("paper: then").splitlines():
        done = repro(*shlex.split(line)[1:], cwd=tmp_path)

    assert "9 cells: 7 match, 1 differs, 1 missing" in done.stdout
    assert "the fully connected layers are left out, (15470264320 - 123633664) / 1e9" in done.stdout
    assert f"runs the code of {tmp_path / 'nets.py'}" in done.stdout + done.stderr


def test_full_scale_begins_as_the_page_says(repro, tmp_path):
    """On a generated ImageNet: it is checked, the cost is told, and weights that are not here are named."""
    made_imagenet.make(tmp_path / "imagenet", classes=20, train_per_class=1, val_per_class=1)
    lines = [line.replace("/data/imagenet", str(tmp_path / "imagenet")) for line in block("full").splitlines()]
    for line in lines[:-1]:
        repro(*shlex.split(line)[1:], cwd=tmp_path)
    assert (tmp_path / "sheet.png").is_file()
    elsewhere = {"TORCH_HOME": str(tmp_path / "hub"), "HTTPS_PROXY": "http://127.0.0.1:9"}  # no network
    said = repro(*shlex.split(lines[-1])[1:], cwd=tmp_path, code=3, env=elsewhere)
    assert "vgg16-397923af.pth" in said.stdout


def test_the_gate_is_green_after_a_blessing(repro, tmp_path):
    """The two lines of the page, in an empty folder."""
    for line in block("gate").splitlines():
        done = repro(*shlex.split(line)[1:], cwd=tmp_path)
    assert "0 moved" in done.stdout + done.stderr


def test_claims_are_tests_as_the_page_says(tmp_path):
    """The three lines, in an empty folder; the second is one passing test."""
    for line in block("pytest").splitlines():
        words = [w.replace("tables/", f"{HERE.parent}/tables/") for w in shlex.split(line)]
        command = [sys.executable, "-m", *words, "-p", "no:cacheprovider", "-c", "/dev/null"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        if "::" in line:
            assert "1 passed" in done.stdout
    assert (tmp_path / "claims.xml").is_file()


def test_the_two_commands_install_what_the_project_declares():
    """Each makes its own environment and installs by the constraints; CI calls the second."""
    run, tests = block("run").strip(), block("tests").strip()
    extras = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert run.endswith(".venv/bin/repro run table3")
    assert tests.endswith("-m pytest -n 2 --dist loadfile")
    assert "dev" in extras
    for command in (run, tests):
        assert command.startswith("python3 -m venv ")
        assert "-c constraints.txt -e" in command
    assert "tests -->" in (HERE.parent / ".ci" / "run").read_text()
