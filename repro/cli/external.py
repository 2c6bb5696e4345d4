"""`repro judge`: a row judged from scores that another framework or a server made."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..errors import OK, JobError, ReproError
from .options import data_option, store_option


@click.command(short_help="Judge a row from scores made elsewhere.")
@click.argument("table")
@click.option("--scores", required=True, type=click.Path(path_type=Path), help="npz (ids, scores) or parquet.")
@click.option("--row", required=True, help="The row that the scores are of.")
@click.option("--column", "columns", multiple=True, help="Only this column, repeatable.")
@click.option("--scale", type=click.Choice(["proxy", "full"]), default="proxy", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print data.")
@data_option
@store_option
def judge(table: str, scores: Path, row: str, columns: tuple[str, ...], scale: str, as_json: bool, store: Path) -> int:
    """Judge a ROW of TABLE by the scores that another framework or a server made. Shown, not stored."""
    from .. import data, pipeline, tables
    from ..claims import Claims
    from ..judge import cell as judged
    from ..provenance import file_digest
    from ..report import data as plain
    from ..report import terminal
    from ..schema import Result

    claims, paths = Claims(scale), tables.find([table])
    if len(paths) > 1:
        raise ReproError(f"{table!r} is several tables; expected one, as {paths[0].parent.name}/{paths[0].stem}")
    found = claims.table(paths[0])
    places = [claims.address(found, f"{found.name} | {row} | {c}") for c in columns or found.columns]
    named = {c.column: (c, c.claim) for c in (claims.cell(*p) for p in places) if c.claim and c.quantity[:3] == "top"}
    if len({c.quantity for c, _ in named.values()}) < max(len(named), 1):
        say = f"--column is to name one error or accuracy of each kind, of: {', '.join(named or found.columns)}"
        raise ReproError(say, found.file, found.line("rows", row))
    proxy = found.paper.proxy.dataset if scale == "proxy" and found.paper.proxy else {}
    claimed = next(claim.dataset for _, claim in named.values())
    try:
        ranks = _ranks(scores, data.open_set(proxy.get(claimed, claimed), store / "data"))
    except JobError as error:
        raise ReproError(error.reason) from None
    report = pipeline.Report(found, "proxy" if proxy else "full", [], [])
    origin = f"external: {scores.name} sha256 {file_digest(scores)}"
    for cell, claim in named.values():
        hits = ranks < int(cell.quantity[3])
        right = hits.sum() if cell.quantity.endswith("accuracy") else (~hits).sum()
        value = (1 if cell.unit == "fraction" else 100) * int(right) / len(hits)
        result = Result(value, (value,), (hits,), ((origin,),), origin=origin)
        # A reason why it is not measured here does not hold: it was measured elsewhere.
        report.cells.append(judged(replace(cell, claim=replace(claim, missing=None)), result, report.scale))
    if as_json:
        cells = [plain.cell(v) for v in report.cells]
        click.echo(json.dumps({"table": found.name, "scale": report.scale, "cells": cells}, indent=1))
    else:
        terminal.show_table(terminal.console(), report)
        click.echo(origin)
    return OK


def _ranks(path: Path, images: Any) -> Any:
    """Rank of the true class of each image (N,), by a file with `ids` and `scores`, or columns `id` and classes."""
    import numpy as np

    from ..evaluate import rank_of_truth

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                ids, scores = file["ids"].astype(str).tolist(), file["scores"].astype(np.float64)
        else:
            from pandas import read_parquet

            frame = read_parquet(path)
            ids, scores = frame.pop("id").astype(str).tolist(), frame.to_numpy(np.float64)
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        say = "expected npz with `ids` and `scores`, or parquet with `id` and a column for each class in label order"
        raise ReproError(f"{say} ({error})", str(path)) from None
    given, known = Counter(ids), set(images.ids)
    doubled = {name for name, count in given.items() if count > 1}
    wrong = {"given twice": doubled, "unknown": given.keys() - known, "missing": known - given.keys()}
    for what, which in wrong.items():
        if which:
            some = ", ".join(sorted(which)[:3]) + ", ..." * (len(which) > 3)
            raise ReproError(f"{len(which)} ids {what}: {some}; ids of {images.name} are as {images.ids[0]}", str(path))
    if scores.shape != (wanted := (len(ids), len(images.classes))):
        raise ReproError(f"scores of shape {scores.shape}; expected {wanted}: images, classes", str(path))
    place = {name: i for i, name in enumerate(ids)}
    return rank_of_truth(scores[[place[i] for i in images.ids]], images.labels)
