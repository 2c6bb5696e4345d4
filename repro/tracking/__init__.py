"""Records and verdicts as MLflow runs: an experiment a table and scale, a run a row and seed, one above them all."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..provenance import digest
from ..schema import RelationVerdict
from ..store import Store
from .rows import PARTS, Entry, Row, legal, names, view

__all__ = ["Entry", "Link", "Row", "address", "brief", "connect", "is_absent", "legal", "names", "page", "sync", "view"]

_LAYOUT = 2  # part of every digest: raise it when the same rows are to be written in another way
_ORDER = ("match", "incomparable", "inconclusive", "missing", "differs", "failed")  # a row bears its cells' last
_Key = tuple[str, str]  # row and seed
_PARENT = ("", "")  # row and seed of the run above the rows'


@dataclass(frozen=True)
class Link:
    """How many runs a sync wrote, its `page` on a server, and in one line why it could not write."""

    page: str = ""
    written: int = 0
    reason: str = ""


def sync(
    table: str, title: str, scale: str, rows: Sequence[Row], relations: Sequence[RelationVerdict],
    store_root: Path, partial: bool = False, pictures: Callable[[], Mapping[str, str]] = dict,
) -> Link:  # fmt: skip
    """Bring the experiment `<table> (<scale>)` to what `rows` say, and return where it is.

    Rows that did not change keep their runs; a changed one is written anew, one that is not among `rows` deleted,
    unless they are only a `partial` table. A run above them has the table of all claims, the counts of verdicts,
    and what `pictures` gives, SVG by name. When nothing changed since the sync that `mlflow.synced.json` tells of,
    MLflow is not imported. Where it cannot be written, the link says why.
    """
    store_root = store_root.resolve()
    uri, name = address(store_root), f"{table} ({scale})"
    found = {(row.key, str(row.seed)): row for row in rows}
    wanted = {key: _digest(asdict(row) | {"files": [p.name for p in row.files]}) for key, row in found.items()}
    total = _digest([title, [asdict(r) for r in relations], partial, list(wanted.values())])
    place = f"{brief(uri)} {name}"
    done, experiment = _synced(store_root).get(place, ("", ""))
    if done == total and not is_absent(uri):
        return Link(page(uri, experiment))
    said = "\n".join(f"- {r.verdict}: {r.relation.text} ({r.relation.where})" for r in relations)
    about = {
        "repro.table": table, "mlflow.note.content": f"{title}\n\n{said}",
        "mlflow.experimentKind": "custom_model_development",  # without it the page asks each visitor
        "mlflow.sharedViewState.repro": json.dumps(view(rows)),
    }  # fmt: skip
    own = None if uri.startswith("http") else (store_root / "mlartifacts").as_uri()
    common = {"repro.table": table, "repro.scale": scale, "repro.store": f"{socket.gethostname()}:{store_root}"}
    try:
        with Store(store_root).lock("mlflow").acquire(timeout=120):
            client = connect(uri)
            experiment = _experiment(client, name, own, about)
            runs = _clear(client, experiment, wanted, partial, common["repro.store"])
            new = wanted.keys() - runs.keys()
            for key in sorted(new):
                runs[key] = _write(client, experiment, found[key], common | {"repro.digest": wanted[key]})
            # The run above is kept where only a part of the table was run.
            parent = runs.pop(_PARENT, "") or _write_parent(client, experiment, title, rows, common, pictures())
            for run in runs.values():
                client.set_tag(run, "mlflow.parentRunId", parent)
            synced = _synced(store_root) | {place: [total, experiment]}
            write_whole(store_root / "mlflow.synced.json", json.dumps(synced, indent=1, sort_keys=True) + "\n")
    except Exception as error:  # a view that cannot be written must not cost a run its results
        return Link(reason=brief(f"not brought to {uri}, but the records are complete: {error}"))
    return Link(page(uri, experiment), len(new))


def address(store_root: Path) -> str:
    """The tracking URI: `MLFLOW_TRACKING_URI`, else the store's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(store_root / 'mlflow.db').as_posix()}"


def is_absent(uri: str) -> bool:
    """Whether an address names a database file that is not there."""
    return uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()


def page(uri: str, experiment: str) -> str:
    """The table of runs on a server, in the columns of the saved view; empty for a database."""
    query = "viewStateShareKey=repro&workflowType=machine_learning"
    return f"{brief(uri)}/#/experiments/{experiment}/runs?{query}" if uri.startswith("http") else ""


def brief(text: str) -> str:
    """The first line of a text, short and without a password."""
    return re.sub(r"//[^/\s]*@", "//", text.splitlines()[0])[:300]


@cache
def connect(uri: str) -> Any:
    """A quiet client that soon gives up. Hold the lock `mlflow`: two that open a new database at once break it."""
    quiet = {"DISABLE_TELEMETRY": "true", "ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "LOGGING_LEVEL": "WARNING"}
    for key, value in {**quiet, "HTTP_REQUEST_MAX_RETRIES": "1", "HTTP_REQUEST_TIMEOUT": "20"}.items():
        os.environ.setdefault(f"MLFLOW_{key}", value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _synced(store_root: Path) -> dict[str, Any]:
    """Address and experiment -> digest and number of the experiment at the last sync."""
    with suppress(OSError, ValueError):
        return dict(json.loads((store_root / "mlflow.synced.json").read_text(encoding="utf-8")))
    return {}


def _digest(data: Any) -> str:
    plain = json.loads(json.dumps(data, default=str), parse_constant=str)  # an effect may be no number
    return digest([_LAYOUT, plain])


def _write_parent(
    client: Any, experiment: str, title: str, rows: Sequence[Row], tags: dict[str, str], pictures: Mapping[str, str]
) -> str:
    """The run above the rows': how many cells have which verdict, the table of all claims, the pictures."""
    entries = [(row, e) for row in rows for e in row.entries]
    tags = tags | {"repro.digest": "parent", "repro.row": "", "repro.seed": "", "mlflow.note.content": title}
    start = int(max((row.created for row in rows), default=0) * 1000)
    parent = client.create_run(experiment, start_time=start, run_name="all rows", tags=tags).info.run_id
    for verdict in _ORDER:
        client.log_metric(parent, f"verdicts/{verdict}", sum(e.verdict == verdict for _, e in entries))
    columns = {"row": [row.key for row, _ in entries], "seed": [row.seed for row, _ in entries]}
    words = ("column", "printed", "unit", "measured", "delta", "verdict", "reason")
    columns |= {word: [str(getattr(e, word) or "") for _, e in entries] for word in words}
    client.log_table(parent, columns, "claims.json")
    for name, svg in pictures.items():
        client.log_text(parent, svg, f"{name}.svg")
    client.set_terminated(parent, "FINISHED", start)
    return str(parent)


def _write(client: Any, experiment: str, row: Row, tags: dict[str, str]) -> str:
    """Create, fill and end one run. Killed midway it stays RUNNING, and the next sync replaces it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param

    start, worst = int(row.created * 1000), max((e.verdict for e in row.entries), key=_ORDER.index, default="missing")
    tags |= {"repro.row": row.key, "repro.seed": str(row.seed), "repro.label": row.label, "repro.verdict": worst}
    tags |= {"mlflow.source.git.commit": row.git, **{f"env.{legal(k)}": v for k, v in row.environment.items()}}
    numbers = {**row.metrics, "row": row.number + row.seed / 1000}  # the page sorts by `row`
    for name, e in zip(names(row), row.entries, strict=True):
        printed = f"{e.printed} {e.unit}".strip()
        tags |= {f"{name}/verdict": e.verdict, f"{name}/printed": printed, f"{name}/reason": e.reason}
        # A word where a number is wanting, so that the page shows the column, and why it is bare.
        for part, word in zip(PARTS, (printed or "nothing", e.measured or e.verdict, e.verdict), strict=True):
            if isinstance(value := getattr(e, part), int | float):
                numbers[f"{name}/{part}"] = value
            else:
                tags[f"{name}/{part}"] = str(word)
    metrics = [Metric(k, v, start, 0) for k, v in numbers.items()]
    for point in row.curve:
        metrics += [Metric(f"curve/{k}", v, start, int(point["epoch"])) for k, v in point.items() if k != "epoch"]
    params = [Param(legal(k), v) for k, v in {**row.params, "seed": str(row.seed)}.items()]
    run_name = f"{row.key} seed {row.seed}" if row.seed else row.key
    run_id = client.create_run(experiment, start_time=start, run_name=run_name, tags=tags).info.run_id
    client.log_batch(run_id, metrics=metrics, params=params)
    for name, fingerprint, context in row.datasets:
        source = json.dumps({"uri": f"repro:{name}"})
        data = Dataset(name, fingerprint[:36], "local", source)  # MLflow takes no more than 36
        client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", context)])])
    for path in row.files:
        client.log_artifact(run_id, str(path), "records")
    if row.model:
        about = {"repro.sha256": row.model}
        model = client.create_logged_model(experiment, legal(row.key), run_id, about, model_type="weights").model_id
        client.finalize_logged_model(model, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(model, 0)])
    client.set_terminated(run_id, "FAILED" if worst == "failed" else "FINISHED", start + int(row.seconds * 1000))
    return str(run_id)


def _experiment(client: Any, name: str, artifacts: str | None, tags: Mapping[str, str]) -> str:
    """The experiment's number, made or taken out of the bin where need be, and told its tags."""
    found = client.get_experiment_by_name(name)
    number = str(found.experiment_id if found else client.create_experiment(name, artifact_location=artifacts))
    if found and found.lifecycle_stage == "deleted":
        client.restore_experiment(number)
    for key, value in tags.items():
        if len(value) <= 20_000:  # MLflow takes no more
            client.set_experiment_tag(number, key, value)
    return number


def _clear(client: Any, experiment: str, wanted: Mapping[_Key, str], partial: bool, here: str) -> dict[_Key, str]:
    """Delete those of our runs that are not as wanted, and return the others by row and seed."""
    kept: dict[_Key, str] = {}
    for run in client.search_runs([experiment], max_results=10_000):
        tags, is_running = run.data.tags, run.info.status == "RUNNING"
        if "repro.digest" not in tags or (is_running and tags.get("repro.store") != here):
            continue  # a stranger's, or another store's that is being written
        key = tags["repro.row"], tags["repro.seed"]
        is_wanted = wanted.get(key) == tags["repro.digest"] or (partial and key not in wanted)
        if is_wanted and not is_running and key not in kept:
            kept[key] = run.info.run_id
            continue
        if is_running:  # we hold the store's lock, so its process is dead, and nobody else would ever end it
            client.set_terminated(run.info.run_id, "KILLED")
        for model in client.search_logged_models([experiment], f"source_run_id='{run.info.run_id}'"):
            client.delete_logged_model(model.model_id)
        client.delete_run(run.info.run_id)
    return kept
