"""Records to rows of the MLflow page, whatever made them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from repro.cli.page import _curve, _rows
from repro.schema import Build, Cell, Record, Result, System, Verdict, ViewSet


def rows(result: Result, records: list[Record], seeds: tuple[int, ...]) -> list[Any]:
    """The rows of a table of one cell that was measured so."""
    view = ViewSet("ten", 256, 224)
    system = System(Build.parse("torchvision:vgg16"), dataset="imagenet-1k-val", protocol=((1, view),))  # type: ignore[arg-type]
    cell = Cell("vgg/table3", "D", "top-1", None, "top1_error", "metric", "%", ((system,),))
    table = SimpleNamespace(name="vgg/table3", rows={"D": {}})
    report: Any = SimpleNamespace(table=table, scale="full", cells=[Verdict(cell, result, "match", 0.1)])
    found = {(r.kind, r.digest): r for r in records}
    results = SimpleNamespace(record=lambda kind, digest: found.get((kind, digest)))
    store = SimpleNamespace(file=lambda record, name: Path(f"{record.digest}.{name}"))
    run: Any = SimpleNamespace(options=SimpleNamespace(seeds=seeds), store=store)
    return list(_rows(report, SimpleNamespace(results=results), run))  # type: ignore[arg-type]


def test_published_weights_are_one_row_at_any_number_of_seeds() -> None:
    """They are evaluated once; the row says whose they are, and no training scale that they do not have."""
    spec = {"weights": "w", "dataset": "imagenet-1k-val", "fingerprint": "f", "mean": [1, 2, 3], "scale": 1.0}
    scores = Record(1, "s", "scores", "n", {**spec, "origin": "torchvision:vgg16.V1, sha256 w"}, {}, {}, {}, 1.0, 2.0)
    result = Result(27.3, (27.3,), (), (("w",),), ("w", "s"), origin="published: torchvision:vgg16.V1")

    (row,) = rows(result, [scores], (0, 1, 2))
    assert (row.seed, row.entries[0].measured, row.model, row.curve) == (0, 27.3, "", ())
    assert row.params["weights"] == "torchvision:vgg16.V1, sha256 w"
    assert row.params["Q"] == "256"
    assert "S" not in row.params


def test_each_training_of_a_row_is_one_row_with_its_own_scores() -> None:
    """Seed by seed, the trainings and the scores made with them, and each one's error."""
    records = []
    for n in "ab":
        train = {"data": {"digits-train": n}, "recipe": {"optimizer": {"lr": 0.1}, "batch": 8}}
        scores = {"weights": n, "dataset": "digits-test", "fingerprint": "f"}
        records += [Record(1, n, "train", n, train, {"val_error": 5.0}, {"safetensors": n * 64}, {}, 1.0, 2.0)]
        records += [Record(1, f"s{n}", "scores", n, scores, {}, {}, {}, 1.0, 2.0)]
    result = Result(7.0, (6.0, 8.0), (), (("a",), ("b",)), ("a", "sa", "b", "sb"))

    first, second = rows(result, records, (4, 5))
    assert [(r.seed, r.entries[0].measured, r.model[0]) for r in (first, second)] == [(4, 6.0, "a"), (5, 8.0, "b")]
    assert [path.name for path in second.files] == ["b.json", "sb.json"]
    assert (first.params["recipe.optimizer.lr"], first.metrics) == ("0.1", {"val_error": 5.0})


def test_only_numbers_of_a_log_are_sent(tmp_path: Path) -> None:
    """MLflow takes numbers as metrics and nothing else."""
    log = tmp_path / "log.jsonl"
    log.write_text('{"epoch": 0, "loss": 2.5, "wait": 0.1, "left_out": 2, "note": "a word", "lr": null}\n')
    assert list(_curve(log)) == [{"epoch": 0, "loss": 2.5, "wait": 0.1, "left_out": 2}]
    assert list(_curve(tmp_path / "none.jsonl")) == []
