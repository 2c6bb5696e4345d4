"""MLflow's view of a table, against a real MLflow on sqlite and one real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repro.claims import Claims
from repro.errors import ReproError
from repro.schema import Relation, RelationVerdict
from repro.tables import find
from repro.tracking import Entry, Link, Row, address, brief, connect, names, sync, view
from repro.tracking.live import Live
from repro.tracking.ui import ui

LRN = RelationVerdict(
    Relation("lrn", "A-LRN does not improve on A", "Section 4.1", "not_better", (), "table3.yaml", 9, 0.5),
    "inconclusive", "one training a side", -0.4, (-1.2, 0.4), 0.31, 1.0, "McNemar", 2000, 1,
)  # fmt: skip


def row(key: str = "D 256", seed: int = 0, number: int = 1, top1: float | None = 7.25, **changes: Any) -> Row:
    """A row as of VGG Table 3, with a second column that bears a delta."""
    entries = (
        Entry("top-1", "top1_error", "incomparable", "27.0", 27.0, top1, None, "%", "digits say nothing of ImageNet"),
        Entry("params", "params", "match", "138", 138.0, 138.357544, 0.357544, "M"),
    )
    whole = Row(
        key, seed, number, entries, "D", {"build": "vgg:D", "recipe.optimizer.lr": "0.03", "S": "256"},
        {"val_error": 6.5}, {"torch": "2.15.0"},
        (("digits-train", "a" * 64, "training"), ("digits-test", "b" * 64, "evaluation")),
        tuple({"epoch": e, "loss": 2.0 / (e + 1)} for e in range(3)), git="0" * 40, created=1.75e9, seconds=41.5,
    )  # fmt: skip
    return replace(whole, **changes)


def brought(rows: list[Row], store: Path, partial: bool = False) -> Link:
    """Sync as Table 3 on the proxy, and have it succeed."""
    link = sync("vgg/table3", "Single scale", "proxy", rows, [LRN], store, partial)
    assert link.reason == ""
    return link


def runs(store: Path, name: str = "vgg/table3 (proxy)") -> dict[str, Any]:
    """Name to run of an experiment's rows, as MLflow's client sees them; no name stands twice."""
    client = connect(address(store))
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    named = {r.info.run_name: r for r in found}
    assert len(named) == len(found)
    parent = named.pop("all rows").info.run_id
    ours = [r for r in named.values() if "repro.digest" in r.data.tags and r.info.status != "RUNNING"]
    assert all(r.data.tags["mlflow.parentRunId"] == parent for r in ours)
    return named


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(autouse=True)
def no_server_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new store after two processes have opened it at once; once for all, since MLflow takes seconds over it."""
    store = tmp_path_factory.mktemp("opened")
    code = (
        "import sys; from pathlib import Path; from repro.tracking import Row, sync\n"
        "link = sync(sys.argv[2], 'T', 'proxy', [Row('A', 0, 1, ())], [], Path(sys.argv[1]))\n"
        "sys.exit(link.reason or link.written != 1)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, store, name]) for name in ("t1", "t2")]
    assert [p.wait(60) for p in both] == [0, 0]
    return store


@pytest.fixture
def store(tmp_path: Path, opened: Path) -> Path:
    shutil.copy(opened / "mlflow.db", tmp_path)
    return tmp_path


def test_two_processes_may_open_a_new_store_at_once(opened: Path) -> None:
    """The lock keeps MLflow's migration from being run twice at a time; both tables arrive."""
    assert all(set(runs(opened, f"{name} (proxy)")) == {"A"} for name in ("t1", "t2"))


def test_a_row_reads_back_with_all_that_its_records_hold(store: Path) -> None:
    """Numbers, verdicts, parameters, environment, revision, curve and files; the experiment tells the relations."""
    record = store / "ab12.json"
    record.write_text("{}")
    assert brought([row(files=(record,))], store) == Link("", 1, "")
    run, client = runs(store)["D 256"], connect(address(store))
    metrics, tags = run.data.metrics, run.data.tags
    assert (metrics["top1_error/claimed"], metrics["top1_error/measured"]) == (27.0, 7.25)
    assert (metrics["params/measured"], metrics["params/delta"], metrics["val_error"]) == (138.357544, 0.357544, 6.5)
    assert "top1_error/delta" not in metrics
    assert run.data.params == {"build": "vgg:D", "recipe.optimizer.lr": "0.03", "S": "256", "seed": "0"}
    assert (tags["repro.verdict"], tags["top1_error/verdict"]) == ("incomparable", "incomparable")
    assert (tags["params/verdict"], tags["top1_error/delta"]) == ("match", "incomparable")
    assert (tags["repro.table"], tags["repro.scale"], tags["top1_error/printed"]) == ("vgg/table3", "proxy", "27.0 %")
    assert (tags["env.torch"], tags["mlflow.source.git.commit"]) == ("2.15.0", "0" * 40)
    assert (run.info.status, run.info.end_time - run.info.start_time) == ("FINISHED", 41500)
    history = client.get_metric_history(run.info.run_id, "curve/loss")
    assert sorted((m.step, m.value) for m in history)[:2] == [(0, 2.0), (1, 1.0)]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "records")] == ["records/ab12.json"]
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(store / "mlartifacts")
    experiment = client.get_experiment(run.info.experiment_id)
    assert "- inconclusive: A-LRN does not improve on A (Section 4.1)" in experiment.tags["mlflow.note.content"]
    assert json.loads(experiment.tags["mlflow.sharedViewState.repro"]) == view([row()])


def test_data_sets_are_inputs_with_their_digest_and_use(store: Path) -> None:
    """The training and the test set are MLflow dataset inputs, their digests cut to MLflow's 36 characters."""
    brought([row()], store)
    inputs = runs(store)["D 256"].inputs.dataset_inputs
    found = {(i.dataset.name, i.dataset.digest, i.tags[0].value) for i in inputs}
    assert found == {("digits-train", "a" * 36, "training"), ("digits-test", "b" * 36, "evaluation")}


def test_a_second_sync_writes_nothing_and_does_not_import_mlflow(store: Path) -> None:
    """What is remembered is not looked at again, in a new process neither."""
    rows = [Row("A", 0, 1, (Entry("top-1", "top1_error", "missing"),))]
    assert sync("t", "T", "proxy", rows, [], store).written == 1
    code = (
        "import sys; from pathlib import Path; from repro.tracking import Row, Entry, sync\n"
        "rows = [Row('A', 0, 1, (Entry('top-1', 'top1_error', 'missing'),))]\n"
        "print(sync('t', 'T', 'proxy', rows, [], Path(sys.argv[1])), 'mlflow' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code, store], capture_output=True, text=True).stdout
    assert said.strip() == f"{Link()} False"


def test_a_changed_row_is_replaced_and_the_others_stay(store: Path) -> None:
    """A new verdict makes a new run in place of the old; the page never shows a row twice."""
    brought([row("D 256"), row("E 256", number=2)], store)
    before = {name: r.info.run_id for name, r in runs(store).items()}
    assert brought([row("D 256", top1=6.0), row("E 256", number=2)], store).written == 1
    after = runs(store)
    assert after["D 256"].data.metrics["top1_error/measured"] == 6.0
    assert after["D 256"].info.run_id != before["D 256"]
    assert after["E 256"].info.run_id == before["E 256"]


def test_rows_that_are_gone_leave_the_page_unless_the_table_is_partial(store: Path) -> None:
    """`--row` must not empty the page; a whole table without a row takes it away."""
    brought([row("D 256"), row("E 256", number=2)], store)
    brought([row("D 256", top1=6.0)], store, partial=True)
    assert set(runs(store)) == {"D 256", "E 256"}
    brought([row("D 256", top1=6.0)], store)
    assert set(runs(store)) == {"D 256"}


def test_the_run_above_the_rows_has_the_table_and_its_pictures(store: Path) -> None:
    """All claims as a table artifact that MLflow can read back, verdicts counted, a picture; rows hang below it."""
    link = sync(
        "vgg/table3", "Single scale", "proxy", [row(), row("E 256")], [], store, pictures=lambda: {"plot": "<svg/>"}
    )
    client = connect(address(store))
    parent = client.get_run(runs(store)["D 256"].data.tags["mlflow.parentRunId"])
    assert link.written == 2
    assert parent.data.metrics["verdicts/match"] == 2
    table = json.loads(Path(client.download_artifacts(parent.info.run_id, "claims.json")).read_text())
    assert table["columns"] == ["row", "seed", "column", "printed", "unit", "measured", "delta", "verdict", "reason"]
    assert [line[0] for line in table["data"]] == ["D 256", "D 256", "E 256", "E 256"]
    assert Path(client.download_artifacts(parent.info.run_id, "plot.svg")).read_text() == "<svg/>"


def test_an_effect_that_is_no_number_keeps_nothing_from_the_page(store: Path) -> None:
    """Of one training a side there may be no finite minimum detectable effect."""
    endless = replace(LRN, mde=float("inf"), effect=float("nan"))
    assert sync("vgg/table3", "T", "proxy", [row()], [endless], store) == Link("", 1, "")
    assert sync("vgg/table3", "T", "proxy", [row()], [endless], store) == Link("", 0, "")


def test_the_weights_of_a_row_are_a_model_that_goes_with_its_run(store: Path) -> None:
    """A logged model with the weights' digest; a replaced run leaves no second one behind."""
    brought([row(model="c" * 64)], store)
    brought([row(model="d" * 64)], store)
    client = connect(address(store))
    experiment = client.get_experiment_by_name("vgg/table3 (proxy)").experiment_id
    found = client.search_logged_models([experiment])
    assert [(m.tags["repro.sha256"], m.source_run_id) for m in found] == [("d" * 64, runs(store)["D 256"].info.run_id)]


def test_each_seed_has_its_run(store: Path) -> None:
    """They stand below each other, sorted by the row and then the seed."""
    brought([row(seed=0), row(seed=1)], store)
    assert {n: r.data.metrics["row"] for n, r in runs(store).items()} == {"D 256": 1.0, "D 256 seed 1": 1.001}


def test_a_killed_sync_is_ended_and_written_anew(store: Path) -> None:
    """Our own run that is left RUNNING does not stay; a stranger's and another store's at work do."""
    brought([row()], store)
    ours, client = runs(store)["D 256"], connect(address(store))
    tags = {k: v for k, v in ours.data.tags.items() if k.startswith("repro.")}
    experiment = ours.info.experiment_id
    orphan = client.create_run(experiment, run_name="killed", tags=tags).info.run_id
    client.create_run(experiment, run_name="another store's", tags=tags | {"repro.store": "elsewhere:/runs/store"})
    client.create_run(experiment, run_name="a stranger's")
    brought([row(top1=6.0)], store)
    assert client.get_run(orphan).info.status == "KILLED"
    status = {n: r.info.status for n, r in runs(store).items()}
    assert status == {"D 256": "FINISHED", "a stranger's": "RUNNING", "another store's": "RUNNING"}


def test_a_failed_cell_makes_a_failed_run(store: Path) -> None:
    """The worst verdict of the row is its tag and its status."""
    failed = Entry("top-1", "top1_error", "failed", "27.0", 27.0, reason="does not learn")
    brought([row(entries=(failed, row().entries[1]))], store)
    run = runs(store)["D 256"]
    assert (run.info.status, run.data.tags["repro.verdict"]) == ("FAILED", "failed")
    assert run.data.tags["top1_error/reason"] == "does not learn"


def test_the_view_is_rebuilt_from_the_records(store: Path) -> None:
    """A deleted experiment comes back, a damaged memory costs a look; rows that are there are kept."""
    brought([row()], store)
    client = connect(address(store))
    client.delete_experiment(client.get_experiment_by_name("vgg/table3 (proxy)").experiment_id)
    (store / "mlflow.synced.json").write_text("{broken")
    assert brought([row()], store).written == 0
    assert set(runs(store)) == {"D 256"}


def test_without_mlflow_the_reason_is_one_line(tmp_path: Path) -> None:
    """Where MLflow is not installed a run goes on, and says what is missing."""
    code = (
        "import sys; sys.modules['mlflow'] = None; from pathlib import Path; from repro.tracking import Row, sync\n"
        "print(sync('t', 'T', 'proxy', [Row('A', 0, 1, ())], [], Path(sys.argv[1])).reason)"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert re.fullmatch(r"not brought to sqlite:\S+, but the records are complete: .* mlflow .*\n", said.stdout)
    assert said.stderr == ""


def test_a_server_that_is_away_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a server costs the run nothing but a line, which shows no password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    link = sync("t", "T", "proxy", [Row("A", 0, 1, ())], [], tmp_path)
    assert re.match(r"not brought to http://127\.0\.0\.1:\d+, but the records are complete: ", link.reason)
    assert "secret" not in link.reason
    with pytest.raises(ReproError, match=r"MLflow cannot show http://127"):
        ui(tmp_path)


def test_the_page_is_served_and_takes_results_of_another_store(store: Path, tmp_path_factory: pytest.TempPathFactory,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """`ui` says where the runs are and ends on Ctrl-C; meanwhile `MLFLOW_TRACKING_URI` reaches it as a server."""
    brought([row("D 256"), row("E 256", number=2)], store)
    port = free_port()
    code = f"from pathlib import Path; from repro.tracking.ui import ui; ui(Path({str(store)!r}), {port})"
    command = [sys.executable, "-u", "-c", code]
    page = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert page.stdout is not None
    try:
        said = []
        for line in page.stdout:
            said.append(line.strip())
            if "Ctrl-C" in line:
                break
        base = f"http://127.0.0.1:{port}"
        table, compare = said[said.index("vgg/table3 (proxy)") + 1 :][:2]
        query = "viewStateShareKey=repro&workflowType=machine_learning"
        assert re.fullmatch(rf"table    {base}/#/experiments/\d+/runs\?{query}", table)
        assert all(r.info.run_id in compare for r in runs(store).values())
        assert urllib.request.urlopen(base).status == 200
        with pytest.raises(ReproError, match=rf"port {port} is taken; choose another with --port"):
            ui(store, port)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", base)
        other = tmp_path_factory.mktemp("other")
        record = other / "cd34.json"
        record.write_text("{}")
        assert brought([row("D 256", top1=5.0, files=(record,))], other).page == table.split()[1]
        assert not (other / "mlflow.db").exists()
        assert runs(other)["D 256"].data.metrics["top1_error/measured"] == 5.0
        assert brought([row("D 256", top1=5.0, files=(record,))], other).written == 0
        addresses: list[str] = []
        ui(other, out=addresses.append)
        assert table in addresses[0]
    finally:
        page.send_signal(signal.SIGINT)
        assert page.wait(30) == 0
    assert "closed" in page.stdout.read()
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", port)) != 0


def test_the_page_of_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    """One line, and no server."""
    with pytest.raises(ReproError, match=r"there is no MLflow database at .*; `repro run` writes one"):
        ui(tmp_path)


def test_a_port_on_which_something_else_listens_is_taken(store: Path) -> None:
    """Also where it speaks no HTTP: one line, and no server is started in vain."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ReproError, match="is taken; choose another with --port"):
            ui(store, other.getsockname()[1])


def test_metrics_are_named_by_quantity_or_by_column(store: Path) -> None:
    """Table 2's columns all hold counts; two columns never write the same metric, and MLflow takes every name."""
    counts = [Entry(c, "params", "match", "1", 1.0, 1.0, 0.0) for c in ("A, A-LRN", "A; A-LRN", "B*")]
    whole = row(entries=(*counts, Entry("top-1", "top1_error", "match")))
    assert names(whole) == ["A_ A-LRN", "A_ A-LRN_", "B_", "top1_error"]
    brought([whole], store)
    assert "A_ A-LRN_/delta" in runs(store)["D 256"].data.metrics


def test_no_name_of_our_tables_needs_a_mark_to_be_told_apart() -> None:
    """Characters that MLflow refuses become `_`, and the names still differ."""
    claims = Claims()
    for table in map(claims.table, find(["vgg"])):
        rows: dict[str, list[Entry]] = {}
        for cell in claims.cells(table):
            rows.setdefault(cell.row, []).append(Entry(cell.column, cell.quantity, "missing"))
        found = [name for key, entries in rows.items() for name in names(Row(key, 0, 0, tuple(entries)))]
        assert not [name for name in found if name.endswith("_")]


def test_the_saved_view_has_claim_measurement_and_delta_side_by_side() -> None:
    """A delta column is there even where no delta can be: then it is the tag that says why."""
    state = view([row()])
    assert state["selectedColumns"][:6] == [
        "metrics.`top1_error/claimed`", "metrics.`top1_error/measured`", "tags.`top1_error/delta`",
        "metrics.`params/claimed`", "metrics.`params/measured`", "metrics.`params/delta`",
    ]  # fmt: skip
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`row`", True)


def test_a_password_is_not_kept_or_shown() -> None:
    """Only the host stands in the file of syncs and in links."""
    assert brief("https://me:p@ss@host:5000/x") == "https://host:5000/x"
    assert brief("no https://me:p@ss@host\nor") == "no https://host"
    assert brief("sqlite:////a/b@c/mlflow.db") == "sqlite:////a/b@c/mlflow.db"


def test_a_run_of_the_command_is_on_the_page_and_the_next_leaves_it(repro: Any, store: Path) -> None:
    """`repro run table2` brings its counts with claim and delta; again, with nothing new, it touches no file of it."""
    said = repro("run", "table2", "--store", store).stdout
    assert f"MLflow page: repro ui --store {store}" in said.replace("\n", "")
    (run,) = runs(store, "vgg/table2 (proxy)").values()
    found = {part: run.data.metrics[f"D/{part}"] for part in ("claimed", "measured", "delta")}
    assert found == {"claimed": 138.0, "measured": 138.357544, "delta": pytest.approx(0.357544)}
    assert run.data.tags["D/verdict"] == "match"
    before = (store / "mlflow.db").stat().st_mtime_ns, (store / "mlflow.db").read_bytes()
    repro("run", "table2", "--store", store)
    assert ((store / "mlflow.db").stat().st_mtime_ns, (store / "mlflow.db").read_bytes()) == before


def test_a_training_at_work_is_on_the_page_and_goes_on_in_its_run(store: Path) -> None:
    """New lines of its log become metrics by epoch; after a kill the same run goes on; it ends with the job."""
    folder = store / "partial" / "abc123"
    folder.mkdir(parents=True)
    log = folder / "log.jsonl"

    def told(live: Live, epochs: int) -> Any:
        numbers = [{"epoch": e, "loss": 1 / (e + 1), "images_per_second": 50.0} for e in range(epochs)]
        log.write_text("".join(json.dumps(line) + "\n" for line in numbers))
        live([("train A", folder)])
        client = connect(address(store))
        (run,) = client.search_runs([client.get_experiment_by_name("trainings").experiment_id])
        return run, sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss"))

    live = Live(store, after=0, every=0)
    assert told(live, 2)[1] == [(0, 1.0), (1, 0.5)]
    run, history = told(Live(store, after=0, every=0), 4)  # another process, after a kill
    assert history == [(0, 1.0), (1, 0.5), (2, 1 / 3), (3, 0.25)]
    assert run.info.run_name == "train A"
    assert 0 < run.data.metrics["system/memory_percent"] <= 100
    live([])
    assert connect(address(store)).get_run(run.info.run_id).info.status == "FINISHED"
    Live(log, after=0, every=0)([("train A", folder)])  # says nothing, and raises nothing


@pytest.fixture
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database of a PostgreSQL server that lives as long as the test."""
    pytest.importorskip("psycopg2", reason="needs psycopg2")
    found = [shutil.which("initdb"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if not (initdb := next(filter(None, found), None)):
        pytest.skip("PostgreSQL is not installed")
    # A server refuses to run as root.
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        if subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("run as root, and there is no user postgres to run the server")
        who = {"user": "postgres"}
    folder, port, ctl = Path(tempfile.mkdtemp()), free_port(), str(Path(initdb).with_name("pg_ctl"))
    if who:
        shutil.chown(folder, "postgres")
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/", **who}
    subprocess.run([initdb, "-D", folder / "db", "-U", "repro", "--auth=trust", "--no-sync"], **quiet)
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
    subprocess.run([ctl, "-D", folder / "db", "-l", folder / "log", "-w", "-o", options, "start"], **quiet)
    try:
        yield f"postgresql+psycopg2://repro@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([ctl, "-D", folder / "db", "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_server_with_postgresql_takes_the_records(
    postgresql: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real `mlflow server` over PostgreSQL: rows, table and models arrive, and a second sync writes nothing."""
    port = free_port()
    base, artifacts = f"http://127.0.0.1:{port}", (tmp_path / "artifacts").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", postgresql, "--artifacts-destination", artifacts]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"{base}/health", timeout=1):
                break
            time.sleep(0.1)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", base)
        rows = [row("D 256", model="c" * 64), row("E 256", number=2)]
        assert brought(rows, store).written == 2
        found = runs(store)
        assert found["D 256"].data.metrics["top1_error/claimed"] == 27.0
        client = connect(address(store))
        parent = found["D 256"].data.tags["mlflow.parentRunId"]
        assert json.loads(Path(client.download_artifacts(parent, "claims.json")).read_text())["data"]
        assert len(client.search_logged_models([found["D 256"].info.experiment_id])) == 1
        assert brought(rows, store).written == 0
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
