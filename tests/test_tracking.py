"""MLflow's view of a table, against a real MLflow on sqlite and one real server."""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import ReproError
from repro.schema import Relation, RelationVerdict
from repro.tracking import Entry, Link, Row, sync
from repro.tracking.place import address, connect, without_password
from repro.tracking.rows import legal, metric_names, relations_note, row_note, view
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


def brought(rows: list[Row], store: Path, **options: Any) -> Link:
    """Sync as Table 3 on the proxy, and have it succeed."""
    link = sync("vgg/table3", "Single scale", "proxy", rows, [LRN], store, **options)
    assert link.reason == ""
    return link


def runs(store: Path, uri: str | None = None) -> dict[str, Any]:
    """Name to run of Table 3 on the proxy, as MLflow's client sees them; no name stands twice."""
    client = connect(address(store, uri))
    experiment = client.get_experiment_by_name("vgg/table3 (proxy)")
    found = client.search_runs([experiment.experiment_id])
    named = {r.info.run_name: r for r in found}
    assert len(named) == len(found)
    return named


@pytest.fixture(autouse=True)
def no_server_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database with MLflow's tables and nothing of ours: making it takes seconds."""
    store = tmp_path_factory.mktemp("migrated")
    connect(f"sqlite:///{store / 'mlflow.db'}").search_experiments()
    return store / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, migrated: Path) -> Path:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return tmp_path


def test_a_row_reads_back_with_claim_measurement_delta_and_verdict(store: Path) -> None:
    """Everything that the issue names is in the run: numbers, verdicts, parameters, environment, revision."""
    record = store / "ab12.json"
    record.write_text('{"digest": "ab12"}')
    link = brought([row(files=(record,))], store)
    run = runs(store)["D 256"]
    assert (link.written, link.page) == (1, None)
    metrics = run.data.metrics
    assert (metrics["top1_error/claimed"], metrics["top1_error/measured"]) == (27.0, 7.25)
    assert (metrics["params/measured"], metrics["params/delta"]) == (138.357544, 0.357544)
    assert "top1_error/delta" not in metrics
    assert metrics["val_error"] == 6.5
    assert run.data.params == {"build": "vgg:D", "recipe.optimizer.lr": "0.03", "S": "256", "seed": "0"}
    tags = run.data.tags
    assert (tags["repro.verdict"], tags["top1_error/verdict"]) == ("incomparable", "incomparable")
    assert tags["params/verdict"] == "match"
    assert (tags["repro.table"], tags["repro.scale"], tags["top1_error/printed"]) == ("vgg/table3", "proxy", "27.0")
    assert (tags["env.torch"], tags["mlflow.source.git.commit"]) == ("2.15.0", "0" * 40)
    assert "27.0 %" in tags["mlflow.note.content"]
    assert (run.info.status, run.info.end_time - run.info.start_time) == ("FINISHED", 41500)
    client = connect(address(store))
    history = client.get_metric_history(run.info.run_id, "curve/loss")
    assert sorted((m.step, m.value) for m in history)[:2] == [(0, 2.0), (1, 1.0)]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "records")] == ["records/ab12.json"]
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(store / "mlartifacts")


def test_data_sets_are_inputs_with_their_digest_and_use(store: Path) -> None:
    """The training and the test set are MLflow dataset inputs, their digests cut to MLflow's 36 characters."""
    brought([row()], store)
    inputs = runs(store)["D 256"].inputs.dataset_inputs
    found = {(i.dataset.name, i.dataset.digest, i.tags[0].value) for i in inputs}
    assert found == {("digits-train", "a" * 36, "training"), ("digits-test", "b" * 36, "evaluation")}


def test_a_second_sync_writes_nothing(store: Path) -> None:
    """The same rows keep their runs, whether the last sync is remembered or MLflow is asked."""
    brought([row()], store)
    first = runs(store)["D 256"].info.run_id
    for options in ({}, {"force": True}):
        link = brought([row()], store, **options)
        assert (link.written, link.kept) == (0, 1)
        assert runs(store)["D 256"].info.run_id == first


def test_a_second_sync_does_not_import_mlflow(store: Path) -> None:
    """A new process that has nothing to write never pays for MLflow's import."""
    code = (
        "import sys; from pathlib import Path; from repro.tracking import Row, Entry, sync\n"
        "rows = [Row('A', 0, 1, (Entry('top-1', 'top1_error', 'missing'),))]\n"
        "link = sync('t', 'T', 'proxy', rows, [], Path(sys.argv[1]))\n"
        "print(link.written, link.reason, 'mlflow' in sys.modules)"
    )
    said = [subprocess.run([sys.executable, "-c", code, store], capture_output=True, text=True).stdout for _ in "12"]
    assert [s.strip() for s in said] == ["1  True", "0  False"]


def test_a_changed_row_is_replaced_and_the_others_stay(store: Path) -> None:
    """A new verdict makes a new run in place of the old; the page never shows a row twice."""
    brought([row("D 256"), row("E 256", number=2)], store)
    before = {name: r.info.run_id for name, r in runs(store).items()}
    link = brought([row("D 256", top1=6.0), row("E 256", number=2)], store)
    after = runs(store)
    assert (link.written, link.kept) == (1, 1)
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


def test_several_seeds_are_named_and_one_alone_is_not(store: Path) -> None:
    """A run per row and seed; with one seed the run bears the row's name."""
    brought([row(seed=0), row(seed=1)], store)
    found = runs(store)
    assert set(found) == {"D 256 seed 0", "D 256 seed 1"}
    assert [found[f"D 256 seed {i}"].data.metrics["row"] for i in (0, 1)] == [1.0, 1.001]  # by which the page sorts
    brought([row(seed=0)], store)
    assert set(runs(store)) == {"D 256"}


def test_a_killed_sync_is_ended_and_written_anew(store: Path) -> None:
    """A run that its killed process left RUNNING does not stay on the page, nor does a stranger's run go."""
    brought([row()], store)
    client = connect(address(store))
    experiment = client.get_experiment_by_name("vgg/table3 (proxy)").experiment_id
    orphan = client.create_run(experiment, run_name="D 256", tags={"repro.table": "vgg/table3"}).info.run_id
    client.create_run(experiment, run_name="a stranger's")
    brought([row()], store, force=True)
    assert client.get_run(orphan).info.status == "KILLED"
    assert {n: r.info.status for n, r in runs(store).items()} == {"D 256": "FINISHED", "a stranger's": "RUNNING"}


def test_a_failed_cell_makes_a_failed_run(store: Path) -> None:
    """The worst verdict of the row is its tag and its status."""
    failed = Entry("top-1", "top1_error", "failed", "27.0", 27.0, reason="does not learn")
    brought([row(entries=(failed, row().entries[1]))], store)
    run = runs(store)["D 256"]
    assert (run.info.status, run.data.tags["repro.verdict"]) == ("FAILED", "failed")
    assert run.data.metrics["verdict/code"] == 5


def test_a_long_training_log_fits(store: Path) -> None:
    """More points than MLflow takes in a call; a value that is no number is left out."""
    curve = tuple({"epoch": e, "loss": float("nan") if e == 3 else 1.0, "lr": 0.1} for e in range(700))
    brought([row(curve=curve)], store)
    history = connect(address(store)).get_metric_history(runs(store)["D 256"].info.run_id, "curve/loss")
    assert len(history) == 699


def test_the_view_is_rebuilt_when_its_database_or_experiment_is_deleted(store: Path) -> None:
    """MLflow holds nothing that the records do not: deleting its database costs a sync."""
    brought([row()], store)
    client = connect(address(store))
    client.delete_experiment(client.get_experiment_by_name("vgg/table3 (proxy)").experiment_id)
    assert brought([row()], store, force=True).reason == ""
    assert set(runs(store)) == {"D 256"}
    (store / "mlflow.synced.json").write_text("{broken")
    assert brought([row()], store).kept == 1


def test_two_processes_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    """The lock keeps MLflow's migration from being run twice at a time; both tables arrive."""
    code = (
        "import sys; from pathlib import Path; from repro.tracking import Row, Entry, sync\n"
        "link = sync(sys.argv[2], 'T', 'proxy', [Row('A', 0, 1, ())], [], Path(sys.argv[1]))\n"
        "sys.exit(link.reason or link.written != 1)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, tmp_path, name]) for name in ("t1", "t2")]
    assert [p.wait(60) for p in both] == [0, 0]
    assert set(json.loads((tmp_path / "mlflow.synced.json").read_text()).popitem()[1]) == {"t1 (proxy)", "t2 (proxy)"}


def test_without_mlflow_the_reason_is_one_line(tmp_path: Path) -> None:
    """Where MLflow is not installed a run goes on, and says what is missing."""
    code = (
        "import sys; sys.modules['mlflow'] = None; from pathlib import Path; from repro.tracking import Row, sync\n"
        "print(sync('t', 'T', 'proxy', [Row('A', 0, 1, ())], [], Path(sys.argv[1])).reason)"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    expected = "MLflow is not installed (pip install mlflow); the results stand in the records"
    assert (said.stdout.strip(), said.stderr) == (expected, "")


def test_a_server_that_is_away_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a server costs the run nothing but a line, which shows no password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    link = sync("t", "T", "proxy", [Row("A", 0, 1, ())], [], tmp_path)
    said = r"no MLflow server answers at http://127\.0\.0\.1:\d+; the results stand in the records"
    assert re.fullmatch(said, link.reason)
    assert "secret" not in link.uri
    with pytest.raises(ReproError, match=r"no MLflow server answers at http://127"):
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
        assert said[0] == "vgg/table3 (proxy)"
        assert said[1] == f"table    {base}/#/experiments/1/runs?viewStateShareKey=repro&workflowType=machine_learning"
        assert all(r.info.run_id in said[2] for r in runs(store).values())
        assert urllib.request.urlopen(base).status == 200
        monkeypatch.setenv("MLFLOW_TRACKING_URI", base)
        other = tmp_path_factory.mktemp("other")
        record = other / "cd34.json"
        record.write_text("{}")
        assert brought([row("D 256", top1=5.0, files=(record,))], other).page == said[1].split()[1]
        assert not (other / "mlflow.db").exists()
        assert runs(other)["D 256"].data.metrics["top1_error/measured"] == 5.0
        assert brought([row("D 256", top1=5.0, files=(record,))], other).written == 0
    finally:
        page.send_signal(signal.SIGINT)
        assert page.wait(30) == 0
    assert "closed" in page.stdout.read()
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", port)) != 0


def test_the_page_refuses_an_empty_store_and_a_taken_port(store: Path) -> None:
    """Both are told in one line with what to do."""
    with pytest.raises(ReproError, match=r"no MLflow database in .* yet; `repro run` writes one"):
        ui(store / "empty")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        with pytest.raises(ReproError, match=r"port \d+ is taken; choose another with --port"):
            ui(store, s.getsockname()[1])


@given(st.lists(st.text(max_size=250), unique=True, max_size=5))
def test_names_become_legal_keys_and_stay_different(names: list[str]) -> None:
    """MLflow's rules hold of every key, as one part of a path, and no two names share one."""
    keys = [legal(n) for n in names]
    assert len(set(keys)) == len(names)
    for key in keys:
        assert re.fullmatch(r"[\w.\- ]{1,200}", key)
        assert posixpath.normpath(f"{key}/measured") == f"{key}/measured"


@given(st.text(alphabet="ab,x2c-/. ", max_size=8))
def test_a_coded_name_can_be_read_back(name: str) -> None:
    """The code loses nothing: read from the left, its plain inverse gives the name again."""
    back = re.sub(r"-x([0-9a-f]*)-", lambda m: chr(int(m[1], 16)) if m[1] else "", legal(name))
    assert back == name


def test_columns_that_share_a_quantity_name_their_metrics_themselves() -> None:
    """Table 2's columns all hold counts; two columns never write the same metric."""
    counts = [Entry(c, "params", "match") for c in ("A, A-LRN", "A; A-LRN", "B*")]
    names = metric_names([row(entries=(*counts, Entry("top-1", "top1_error", "match")))])
    assert names == {"A, A-LRN": "A-x2c- A-LRN", "A; A-LRN": "A-x3b- A-LRN", "B*": "B", "top-1": "top1_error"}


def test_the_saved_view_has_claim_measurement_and_delta_side_by_side() -> None:
    """A delta column is there even where no delta can be: then it is the tag that says why."""
    state = view([row()], metric_names([row()]))
    assert state["selectedColumns"][:6] == [
        "metrics.`top1_error/claimed`", "metrics.`top1_error/measured`", "tags.`top1_error/delta`",
        "metrics.`params/claimed`", "metrics.`params/measured`", "metrics.`params/delta`",
    ]  # fmt: skip
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`row`", True)


def test_notes_are_markdown_tables_that_text_cannot_break() -> None:
    """A `|` in a reason stays inside its cell; decimals stay as printed."""
    note = row_note(row(entries=(Entry("top-1", "top1_error", "differs", "25.60", 25.6, 27.0, 1.4, "%", "a | b"),)))
    last = note.splitlines()[-1].replace("\u00a0", "")
    assert last == r"| top-1 | 25.60 % | 27 | +1.4 | differs | a \| b |"
    assert "| -0.4" in relations_note("Single scale", [LRN])
    assert relations_note("Single scale", []) == "Single scale"


def test_a_password_is_not_kept_or_shown() -> None:
    """Only the host stands in the file of syncs and in links."""
    assert without_password("https://me:p@ss@host:5000/x") == "https://host:5000/x"
    assert without_password("no https://me:p@ss@host", "https://me:p@ss@host") == "no https://host"
    assert without_password("sqlite:////a/b@c/mlflow.db") == "sqlite:////a/b@c/mlflow.db"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_importing_tracking_imports_no_mlflow() -> None:
    """The command line stays quick: MLflow is imported by the functions that need it."""
    code = "import sys, repro.tracking, repro.tracking.ui; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}).returncode == 0
