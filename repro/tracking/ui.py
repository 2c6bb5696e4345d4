"""MLflow's page on a store: starts its server on this machine alone, and says where to look."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from ..errors import ReproError
from .place import address, connect, database, embedded, is_away, locked, page, without_password

# A link that compares names every run: beyond this it is too long to be shown, and its page slow (mlflow#21841).
COMPARED = 24
_HOST = "127.0.0.1"
_PATIENCE = 90  # seconds that a server may take to answer for the first time


def ui(store_root: Path, port: int = 5000, out: Callable[[str], None] = print) -> None:
    """Serve the store's MLflow page until Ctrl-C; `port` 0 takes a free one.

    With `MLFLOW_TRACKING_URI` set to a server, only its addresses are said. Raises ReproError
    where there is nothing to show, no MLflow, no free port, or a server that does not start.
    """
    uri = address(store_root)
    try:
        if uri.startswith("http"):
            if is_away(uri):
                raise ReproError(f"no MLflow server answers at {without_password(uri)} (MLFLOW_TRACKING_URI)")
            _say(links(store_root, without_password(uri)), out)
            return
        if uri == embedded(store_root) and not database(store_root).exists():
            raise ReproError(f"no MLflow database in {store_root} yet; `repro run` writes one")
        found = links(store_root, base := f"http://{_HOST}:{_free(port)}")
    except ModuleNotFoundError as e:
        raise ReproError(f"{e.name} is not installed; the page needs it: pip install mlflow") from e
    log = store_root / "mlflow.log"
    # `kill` ends this process as Ctrl-C does, so that no server stays behind.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = _start(uri, store_root, int(base.rpartition(":")[2]), log)
    try:
        _wait(server, base, log)
        _say(found, out)
        out(f"MLflow is at {base}; Ctrl-C ends it")
        if server.wait() != 0:
            raise ReproError(f"MLflow's server ended by itself; its last words are in {log}")
    except KeyboardInterrupt:
        out("MLflow's page is closed")
    finally:
        _end(server)
        signal.signal(signal.SIGTERM, before)


def links(store_root: Path, base: str) -> list[tuple[str, str, str]]:
    """(experiment, address of its table of runs, address that compares them, if few), at `base`."""
    with locked(store_root):
        tracking = connect(address(store_root))
        found = []
        for e in sorted(tracking.search_experiments(), key=lambda e: str(e.name)):
            if "repro.table" in e.tags:
                runs = tracking.search_runs([e.experiment_id], max_results=COMPARED + 1, order_by=["metrics.row ASC"])
                ids = [r.info.run_id for r in runs]
                query = f"runs={_listed(ids)}&experiments={_listed([e.experiment_id])}&workflowType=machine_learning"
                compare = f"{base}/#/compare-runs?{query}" if 1 < len(ids) <= COMPARED else ""
                found.append((e.name, page(base, e.experiment_id) or "", compare))
    return found


def _listed(words: list[str]) -> str:
    return quote(json.dumps(words, separators=(",", ":")), safe=",")


def _say(found: list[tuple[str, str, str]], out: Callable[[str], None]) -> None:
    for name, table, compare in found:
        out(f"{name}\n  table    {table}" + (f"\n  compare  {compare}" if compare else ""))


def _free(port: int) -> int:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((_HOST, port))
        except OSError as e:
            raise ReproError(f"port {port} is taken; choose another with --port, or --port 0 for any") from e
        return int(s.getsockname()[1])


def _start(uri: str, store_root: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1",
        "--backend-store-uri", uri, "--default-artifact-root", (store_root.resolve() / "mlartifacts").as_uri(),
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("wb") as words:
        # A session of its own: Ctrl-C then reaches this process alone, which ends the server and its workers.
        return subprocess.Popen(
            command, stdout=words, stderr=subprocess.STDOUT, env=environment, cwd=store_root, start_new_session=True
        )


def _wait(server: subprocess.Popen[bytes], base: str, log: Path) -> None:
    """Until the server answers. Raises ReproError where it ends or says nothing for too long."""
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise ReproError(f"MLflow's server did not start; its words are in {log}")


def _end(server: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
            server.wait(timeout=10)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
