"""MLflow's page on a store: starts its server on this machine alone, and says where to look."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from ..errors import ReproError
from ..store import Store
from . import address, brief, connect, is_absent, page


def ui(store_root: Path, port: int = 5000, out: Callable[[str], None] = print) -> None:
    """Serve the store's page on 127.0.0.1 until Ctrl-C; of a server in `MLFLOW_TRACKING_URI`, say the addresses.

    Raises ReproError where there is nothing to show, no MLflow, no free port, or a server that does not start.
    """
    uri = address(store_root := store_root.resolve())
    away = uri.startswith("http")
    if is_absent(uri):
        raise ReproError(f"there is no MLflow database at {uri}; `repro run` writes one")
    base = brief(uri).rstrip("/") if away else f"http://127.0.0.1:{port}"
    if not away and _is_taken(port):
        raise ReproError(f"port {port} is taken; choose another with --port")
    try:
        links = _links(store_root, uri, base)
    except Exception as error:
        raise ReproError(brief(f"MLflow cannot show {uri}: {error}")) from error
    if away:
        out(links)
        return
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--default-artifact-root", (store_root / "mlartifacts").as_uri()]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = store_root / "mlflow.log"
    # `kill` ends this process as Ctrl-C does; the server has a session of its own, to be ended whole.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with log.open("wb") as words:
        server = subprocess.Popen(command, stdout=words, stderr=words, env=env, cwd=store_root, start_new_session=True)
    try:
        while server.poll() is None and not _is_taken(port):
            time.sleep(0.2)
        if server.poll() is None:
            out(f"{links}MLflow is at {base}; Ctrl-C ends it")
            server.wait()
        raise ReproError(f"MLflow's server ended by itself; its last words are in {log}")
    except KeyboardInterrupt:
        out("MLflow's page is closed")
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(server.pid, sign)
                server.wait(timeout=10)


def _links(store_root: Path, uri: str, base: str) -> str:
    """Lines for each experiment of ours: its name, its table of runs, and if they are few the page that compares."""
    lines = []
    with Store(store_root).lock("mlflow").acquire(timeout=120):
        client = connect(uri)
        for e in client.search_experiments(order_by=["name ASC"]):
            if "repro.table" not in e.tags:
                continue
            lines += [e.name, f"  table    {page(base, e.experiment_id)}"]
            found = client.search_runs([e.experiment_id], max_results=26, order_by=["metrics.row ASC"])
            runs = [r.info.run_id for r in found if "row" in r.data.metrics]  # without the run above them
            if 1 < len(runs) <= 24:  # more make the link too long to be shown, and its page slow (mlflow#21841)
                ids, of = quote(json.dumps(runs, separators=(",", ":")), safe=","), quote(json.dumps([e.experiment_id]))
                query = f"runs={ids}&experiments={of}&workflowType=machine_learning"
                lines.append(f"  compare  {base}/#/compare-runs?{query}")
    return "".join(f"{line}\n" for line in lines)


def _is_taken(port: int) -> bool:
    """Whether anything listens there, MLflow or not."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
