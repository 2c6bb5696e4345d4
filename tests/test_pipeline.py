"""The main job in real processes: what is done once stays done, whatever happens to the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import HERE, TINY

TABLE = TINY / "table1.yaml"


def start(store: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "repro", "run", str(TABLE), "--store", str(store), "--no-mlflow", "--json", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE.parent, start_new_session=True
    )


def wait_for_epoch(process: subprocess.Popen[str], store: Path) -> None:
    """Wait until a training has ended its first epoch and not its last."""
    while process.poll() is None:
        logs = list((store / "partial").glob("*/log.jsonl"))
        if any(log.stat().st_size for log in logs):
            return
        time.sleep(0.02)
    pytest.fail("the run ended before it could be stopped: " + process.communicate()[1])


@pytest.fixture(scope="module")
def done(tmp_path_factory, data_root, repro):
    """A store in which the table was run once, and what that run printed."""
    store = tmp_path_factory.mktemp("done") / "store"
    (store / "data").mkdir(parents=True)
    os.symlink(data_root / "digits", store / "data" / "digits")
    return store, repro("run", TABLE, "--store", store, "--no-mlflow", "--json")


def measured(text: str) -> dict[tuple[str, str], object]:
    return {(c["row"], c["column"]): c["measured"] for c in json.loads(text)["cells"]}


def test_json_holds_every_cell_and_relation_with_the_promised_fields(done):
    """The shape that other programs read."""
    table = json.loads(done[1].stdout)

    assert set(table) == {"table", "scale", "cells", "relations", "summary"}
    assert (table["table"], table["scale"]) == ("tiny/table1", "proxy")
    fields = {"row", "column", "quantity", "kind", "claimed", "unit", "measured", "delta", "verdict", "reason", "known"}
    assert all(set(cell) == fields for cell in table["cells"])
    fields = {"id", "text", "effect", "interval", "p_value", "p_adjusted", "test", "n", "seeds", "verdict", "reason"}
    assert all(set(relation) - {"mde"} == fields for relation in table["relations"])
    cells = {(c["row"], c["column"]): c for c in table["cells"]}
    assert cells["A", "params"]["measured"] == 132.863336
    assert cells["A", "params"]["verdict"] == "match"
    assert cells["B", "params"]["verdict"] == "differs"
    assert cells["A", "top-1"]["verdict"] == "incomparable"
    assert cells["A", "top-1"]["delta"] is None
    assert cells["other", "top-1"]["reason"] == "nobody can measure this"


def test_the_second_run_does_no_job_and_says_the_same(done, repro):
    """Same identity, no work."""
    store, first = done
    before = {p: p.stat().st_mtime_ns for p in (store / "records").rglob("*")}
    again = repro("run", TABLE, "--store", store, "--no-mlflow", "--json")

    assert again.stdout == first.stdout
    assert {p: p.stat().st_mtime_ns for p in (store / "records").rglob("*")} == before
    assert repro("diff", TABLE, "--store", store, "--json").stdout == first.stdout


def test_a_fused_cell_is_a_mean_of_stored_scores_and_no_job(done):
    """Two scales share the score record of the one; the mean is computed, never run."""
    store, _ = done

    assert len(list((store / "records" / "scores").rglob("*.json"))) == 3  # A at 40 and 56, B at 40
    assert len(list((store / "records" / "train").rglob("*.json"))) == 2


def test_a_fresh_store_comes_to_the_same_digits(done, new_store, repro):
    """Same seed, machine, versions and threads: the same table to the last digit."""
    assert repro("run", TABLE, "--store", new_store, "--no-mlflow", "--json").stdout == done[1].stdout


def test_a_killed_run_goes_on_to_the_same_end(done, new_store, repro):
    """kill -9 in a training: no worker lives on, nothing recorded is lost, the end is the same."""
    process = start(new_store)
    wait_for_epoch(process, new_store)
    workers = psutil.Process(process.pid).children(recursive=True)
    kept = {p.name for p in (new_store / "records").rglob("*.json")}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive

    again = repro("run", TABLE, "--store", new_store, "--no-mlflow", "--json")
    assert again.stdout == done[1].stdout
    assert kept <= {p.name for p in (new_store / "records").rglob("*.json")}


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(new_store):
    """Exit 130, in words, and nothing half-written among the records."""
    process = start(new_store)
    wait_for_epoch(process, new_store)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)

    assert process.returncode == 130
    last = said.strip().splitlines()[-1]
    assert "interrupted: " in last
    assert "jobs of this run are recorded" in last
    assert "To go on: repro run" in last
    for path in (new_store / "records").rglob("*.json"):
        json.loads(path.read_text())


def test_two_runs_at_once_train_nothing_twice(done, new_store):
    """Both end well, with the same table, and each record is made by one of them."""
    one, two = start(new_store), start(new_store)
    outputs = [one.communicate(timeout=200), two.communicate(timeout=200)]

    assert [one.returncode, two.returncode] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] == done[1].stdout
    made = [p for p in (new_store / "records").rglob("*.json") if p.parent.parent.name == "train"]
    assert len(made) == 2
    assert not list((new_store / "partial").iterdir())


def test_damaged_weights_are_set_aside_and_their_scores_are_void(done, tmp_path, repro):
    """A file whose checksum is not the recorded one is made again, with all that rests on it."""
    import shutil

    store = tmp_path / "store"
    shutil.copytree(done[0], store, symlinks=True)
    weights = next((store / "records" / "train").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")

    plan = repro("run", TABLE, "--store", store, "--dry-run").stdout
    assert "train vgg:" in plan
    assert repro("run", TABLE, "--store", store, "--no-mlflow", "--json").stdout == done[1].stdout


def test_options_enter_the_identity(done, repro):
    """-o changes a setting, and the plan says what is to be done again and why."""
    store, _ = done
    plan = repro("run", TABLE, "--store", store, "--dry-run", "-o", "recipe.optimizer.lr=0.02").stdout

    assert "train vgg:A base S=40 seed 0" in plan
    assert "again, since recipe" in plan


def test_a_net_that_has_not_learnt_is_a_failed_job(done, tmp_path, repro):
    """A training above the bar is recorded as failed with its reason, and exit 3 says so."""
    store = done[0]
    words = ("run", TABLE, "--store", store, "--no-mlflow", "--row", "A", "-o", "recipe.optimizer.lr=1e-9")
    words += ("-o", "recipe.epochs=1")
    first = repro(*words, code=3)
    assert "has not learnt: validation error" in first.stderr
    assert "F failed: has not learnt" in first.stdout

    again = repro(*words, code=3)
    assert "FAILED" not in again.stderr  # the outcome is kept; no other seed is drawn in its place
    assert "F failed: has not learnt" in again.stdout
