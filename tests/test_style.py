"""Lint, format and types, so that CI and a developer see the same."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from conftest import HERE


@pytest.mark.parametrize(
    "command", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=["lint", "format", "types"]
)
def test_the_code_is_clean(command):
    """What `nox -s lint types` runs."""
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed; pip install -e '.[dev]'")
    done = subprocess.run([sys.executable, "-m", *command], cwd=HERE.parent, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
