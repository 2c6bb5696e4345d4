"""What the tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
TINY = HERE / "papers" / "tiny"


# A shell that starts the tests in the background has them ignore Ctrl-C, and their children too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repro():
    """The real command in a process of its own, from the root of the project."""

    def call(
        *words: object, code: int | None = 0, env: dict[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "COLUMNS", "MLFLOW_TRACKING_URI")
        }
        done = subprocess.run(
            [sys.executable, "-m", "repro", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=300,
            env=environment | (env or {}),
            **{"cwd": HERE.parent, **options},  # type: ignore[call-overload]
        )
        if code is not None:
            assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's data folder with the proxy's sets, made once for all tests."""
    from repro import data

    root = tmp_path_factory.mktemp("data")
    for name in data.DIGITS:
        data.ensure(name, root)
    return root


@pytest.fixture
def new_store(tmp_path: Path, data_root: Path) -> Path:
    """An empty store that has the proxy's sets already (linked, not copied)."""
    store = tmp_path / "store"
    (store / "data").mkdir(parents=True)
    for folder in data_root.iterdir():
        os.symlink(folder, store / "data" / folder.name)
    return store
