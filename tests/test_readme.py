"""What the README tells a reader to type is typed here."""

from __future__ import annotations

import re
import shlex
import tomllib

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
    has_store = words[1] in ("run", "diff", "doctor")

    repro(*words[1:], *(["--store", store] if has_store else []))


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


def test_the_two_commands_install_what_the_project_declares():
    """Each makes its own environment and installs by the constraints; CI calls the second."""
    run, tests = block("run").strip(), block("tests").strip()
    extras = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert run.endswith(".venv/bin/repro run table3")
    assert tests.endswith("-m pytest")
    assert "dev" in extras
    for command in (run, tests):
        assert command.startswith("python3 -m venv ")
        assert "-c constraints.txt -e" in command
    assert "tests -->" in (HERE.parent / ".ci" / "run").read_text()
