"""Records and verdicts as MLflow runs: one experiment a table and scale, one run a row and seed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from ..schema import RelationVerdict
from . import place
from .rows import NUMBERS, ORDER, Entry, Row, digest, legal, metric_names, relations_note, row_note, view

__all__ = ["Entry", "Link", "Row", "sync"]

# MLflow's own limits for one call, and for the length of values.
_BATCH = {"metrics": 900, "params": 100, "tags": 100}
_PARAM, _TAG, _EXPERIMENT_TAG, _DIGEST = 6000, 8000, 20000, 36


@dataclass(frozen=True)
class Link:
    """Where a table went: `page` is None for the embedded store, which `ui` shows.

    `reason` is empty, or one line on why nothing could be written.
    """

    experiment: str
    uri: str
    page: str | None = None
    written: int = 0
    kept: int = 0
    reason: str = ""


def sync(
    table: str, title: str, scale: str, rows: Sequence[Row], relations: Sequence[RelationVerdict],
    store_root: Path, uri: str | None = None, partial: bool = False, force: bool = False,
) -> Link:  # fmt: skip
    """Bring the experiment `<table> (<scale>)` to what `rows` say, and return where it is.

    Rows that did not change keep their runs; a changed one is deleted and written anew; one that
    is no longer among `rows` is deleted, unless `rows` are only a `partial` table. When nothing at
    all changed, MLflow is not even imported; `force` looks all the same. Never raises for want of
    MLflow or of an answer from it: the records are the truth, and the link says why.
    """
    uri = place.address(store_root, uri)
    name, shown = f"{table} ({scale})", place.without_password(uri)
    names = metric_names(rows)
    several = len({r.seed for r in rows}) > 1
    wanted = {(r.key, r.seed): (r, _run_name(r, several), digest([r, names, several])) for r in rows}
    total = digest([title, relations, partial, [d for _, _, d in wanted.values()]])
    done = place.synced(store_root).get(shown, {}).get(name, {})
    own = uri == place.embedded(store_root)
    if done.get("digest") == total and not force and (not own or place.database(store_root).exists()):
        return Link(name, shown, place.page(shown, done["id"]), 0, len(rows))
    if place.is_away(uri):
        return Link(name, shown, reason=f"no MLflow server answers at {shown}; the results stand in the records")
    try:
        with place.locked(store_root):
            client = place.connect(uri)
            where = (store_root.resolve() / "mlartifacts").as_uri() if own else None
            experiment = _experiment(client, name, where)
            kept = _clear(client, experiment, {k: d for k, (_, _, d) in wanted.items()}, partial, own)
            new = [k for k in wanted if k not in kept]
            for key in new:
                row, run_name, identity = wanted[key]
                _write(client, experiment, table, scale, row, run_name, identity, names)
            _describe(client, experiment, table, title, scale, rows, relations, names)
            place.remember(store_root, shown, name, {"digest": total, "id": experiment})
    except ModuleNotFoundError as e:
        missing = "MLflow is not installed (pip install mlflow)" if e.name == "mlflow" else str(e)
        return Link(name, shown, reason=f"{missing}; the results stand in the records")
    except Timeout:
        return Link(name, shown, reason="another process has been writing to MLflow for two minutes; run again")
    except Exception as e:  # a view that cannot be written must not cost a run its results
        first = place.without_password((str(e).strip().splitlines() or [type(e).__name__])[0], uri)
        return Link(name, shown, reason=f"MLflow at {shown} did not take the results: {first[:300]}")
    return Link(name, shown, place.page(shown, experiment), len(new), len(kept))


# One run


def _run_name(row: Row, several: bool) -> str:
    return f"{row.key} seed {row.seed}" if several else row.key


def _write(
    client: Any, experiment: str, table: str, scale: str, row: Row,
    run_name: str, identity: str, names: Mapping[str, str],
) -> None:  # fmt: skip
    """Create, fill and end one run. Killed midway it stays RUNNING, and the next sync replaces it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    start = int(row.created * 1000)
    tags = {
        "repro.table": table, "repro.scale": scale, "repro.row": row.key, "repro.label": row.label or row.key,
        "repro.seed": str(row.seed), "repro.digest": identity, "repro.pid": place.process(), "repro.verdict": row.worst,
        "mlflow.source.name": f"repro run {table}", "mlflow.source.type": "LOCAL",
        "mlflow.note.content": row_note(row), **({"mlflow.source.git.commit": row.git} if row.git else {}),
        **{f"env.{legal(k)}": str(v) for k, v in row.environment.items()},
    }  # fmt: skip
    numbers: dict[str, float] = {}
    for e in row.entries:
        base = names[e.column]
        tags[f"{base}/verdict"] = e.verdict
        if e.printed:
            tags[f"{base}/printed"] = e.printed
        if e.delta is None:
            tags[f"{base}/delta"] = f"none: {e.verdict}"  # so that the page has the column, and why it is bare
        for part in NUMBERS:
            if isinstance(value := getattr(e, part), int | float):
                numbers[f"{base}/{part}"] = float(value)
    # What the page draws at first is the first metric, so these stand last.
    numbers |= {legal(k): v for k, v in row.metrics.items()}
    numbers |= {"row": row.number + row.seed / 1000, "verdict/code": ORDER.index(row.worst)}
    metrics = [Metric(k, float(v), start, 0) for k, v in numbers.items() if math.isfinite(v)]
    for i, point in enumerate(row.curve):
        step = int(point.get("epoch", i))
        metrics += [
            Metric(f"curve/{legal(k)}", float(v), start, step)
            for k, v in point.items()
            if k != "epoch" and isinstance(v, int | float) and math.isfinite(v)
        ]
    params = [Param(legal(k), str(v)[:_PARAM]) for k, v in {**row.params, "seed": str(row.seed)}.items() if str(v)]
    run = client.create_run(experiment, start_time=start, run_name=run_name, tags={"repro.table": table})
    run_id = run.info.run_id
    lists = {"metrics": metrics, "params": params, "tags": [RunTag(k, v[:_TAG]) for k, v in tags.items()]}
    # The tags first, since by them an unfinished run is known as ours.
    for kind in ("tags", "params", "metrics"):
        for i in range(0, len(lists[kind]), _BATCH[kind]):
            client.log_batch(run_id, **{kind: lists[kind][i : i + _BATCH[kind]]})
    if row.datasets:
        inputs = [
            DatasetInput(
                Dataset(name, d[:_DIGEST], source_type="local", source=json.dumps({"uri": f"repro:{name}"})),
                [InputTag("mlflow.data.context", context)],
            )
            for name, d, context in row.datasets
        ]
        client.log_inputs(run_id, inputs)
    for path in row.files:
        client.log_artifact(run_id, str(path), "records")
    end = start + int(row.seconds * 1000)
    client.set_terminated(run_id, "FAILED" if row.worst == "failed" else "FINISHED", end)


# The experiment


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=artifacts))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _clear(
    client: Any, experiment: str, wanted: Mapping[tuple[str, int], str], partial: bool, own: bool
) -> set[tuple[str, int]]:
    """Delete what is not as wanted, and return the rows and seeds that are there already."""
    kept: set[tuple[str, int]] = set()
    token = None
    runs = []
    while True:
        some = client.search_runs([experiment], max_results=1000, page_token=token)
        runs += [r for r in some if "repro.table" in r.data.tags]
        if not (token := some.token):
            break
    for run in runs:
        tags = run.data.tags
        if run.info.status == "RUNNING":  # nobody ends a killed process's run but the next one
            if not own and place.is_alive(tags.get("repro.pid", "")):
                continue
            client.set_terminated(run.info.run_id, "KILLED")
        else:
            key = (tags.get("repro.row", ""), int(tags.get("repro.seed", "0")))
            same = tags.get("repro.digest") == wanted.get(key)
            if key not in kept and (same or (partial and key not in wanted)):
                kept.add(key)
                continue
        client.delete_run(run.info.run_id)
    return kept & set(wanted)


def _describe(
    client: Any, experiment: str, table: str, title: str, scale: str, rows: Sequence[Row],
    relations: Sequence[RelationVerdict], names: Mapping[str, str],
) -> None:  # fmt: skip
    """Tags of the experiment: what it is, the relations, and the saved view with its columns."""
    columns = json.dumps(view(rows, names))
    tags = {
        "repro.table": table, "repro.scale": scale,
        "mlflow.experimentKind": "custom_model_development",  # without it the page asks each visitor
        "mlflow.note.content": relations_note(title, relations)[:_EXPERIMENT_TAG],
        **({f"mlflow.sharedViewState.{place.VIEW}": columns} if len(columns) <= _EXPERIMENT_TAG else {}),
    }  # fmt: skip
    for key, value in tags.items():
        client.set_experiment_tag(experiment, key, value)
