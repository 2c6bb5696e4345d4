"""Where runs are kept: the tracking address, the lock of the embedded database, what was last brought there."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

VIEW = "repro"  # the key of the saved view of columns that a link to the page names


def address(store_root: Path, uri: str | None = None) -> str:
    """The tracking URI: the one given, else `MLFLOW_TRACKING_URI`, else the store's own database."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or embedded(store_root)


def page(uri: str, experiment: str) -> str | None:
    if not uri.startswith("http"):
        return None
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"


def database(store_root: Path) -> Path:
    return store_root.resolve() / "mlflow.db"


def embedded(store_root: Path) -> str:
    return f"sqlite:///{database(store_root).as_posix()}"


def without_password(text: str, uri: str | None = None) -> str:
    """`text`, by default an address itself, without the user and password that `uri` bears."""
    secret, at, _ = urlsplit(uri or text).netloc.rpartition("@")
    return text.replace(secret + at, "") if at else text


def is_away(uri: str) -> bool:
    """Whether a server does not answer at all; MLflow's own client would ask for minutes."""
    if not uri.startswith("http"):
        return False
    try:
        with urllib.request.urlopen(f"{without_password(uri).rstrip('/')}/health", timeout=10):
            return False
    except urllib.error.HTTPError:  # it wants a password, or has no such page: but it is there
        return False
    except OSError:
        return True


@contextmanager
def locked(store_root: Path) -> Iterator[None]:
    """Hold the one lock of MLflow in this store: two that open a new database at once break it."""
    folder = store_root / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "mlflow.lock", timeout=120):
        yield


def connect(uri: str) -> Any:
    """A client, with MLflow kept from chatting, from phoning home, and from waiting for long."""
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }  # fmt: skip
    for key, value in quiet.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def is_alive(process: str) -> bool:
    """Whether `host:pid` is another process of this machine, and running."""
    host, _, pid = process.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as e:
        return isinstance(e, PermissionError)
    return True


def synced(store_root: Path) -> dict[str, Any]:
    """URI -> experiment -> {digest, id} of the last sync; empty where there is no such file."""
    try:
        return dict(json.loads((store_root / "mlflow.synced.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def remember(store_root: Path, uri: str, name: str, entry: Mapping[str, str]) -> None:
    """Note a sync; under the lock, and whole or not at all."""
    state = synced(store_root)
    state.setdefault(uri, {})[name] = dict(entry)
    part = store_root / "mlflow.synced.part"
    part.write_text(json.dumps(state, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, store_root / "mlflow.synced.json")
