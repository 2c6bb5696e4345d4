"""Scores that another framework or a server made, judged as what a row of a table claims."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import data, judge, tables
from .claims import Claims
from .errors import JobError, ReproError
from .pipeline import Report
from .provenance import file_digest
from .reader import near
from .schema import Result


def judged(word: str, row: str, columns: Sequence[str], path: Path, scale: str, cache: Path) -> Report:
    """The verdicts on a row, or some columns of it, by the scores of a file; `cache` is the folder of the data sets.

    Raises ReproError where the ids are not those of the row's data set, each once, where there is not a score for
    each class, and where the row prints several numbers of a kind.
    """
    claims = Claims(scale)
    table = claims.table(tables.find([word])[0])
    if row not in table.rows:
        raise ReproError(f"--row {row!r}: no such row{near(row, table.rows)} Rows: {', '.join(table.rows)}", table.file)
    asked = [claims.cell(table, row, c) for c in table.columns if not columns or c in columns]
    cells = {c.column: (c, c.claim) for c in asked if c.claim and c.quantity.startswith(("top1", "top5"))}
    if not cells:
        raise ReproError(
            f"{row} claims no error or accuracy in columns {', '.join(columns or table.columns)}", table.file
        )
    if len({c.quantity for c, _ in cells.values()}) < len(cells):
        raise ReproError(
            f"{row} prints several numbers of a kind; say --column, one of: {', '.join(cells)}", table.file
        )
    proxy = table.paper.proxy if scale == "proxy" else None
    if scale == "proxy" and not proxy:
        raise ReproError("the paper states no proxy; add --scale full", table.paper.file)
    named = next(claim.dataset for _, claim in cells.values())
    try:
        ranks = _ranks(path, data.open_set(proxy.dataset.get(named, named) if proxy else named, cache))
    except JobError as error:
        raise ReproError(error.reason) from None
    origin, verdicts = f"external: {path.name} sha256 {file_digest(path)}", []
    for cell, claim in cells.values():
        hits = ranks < int(cell.quantity[3])
        right = int(hits.sum()) if cell.quantity.endswith("accuracy") else len(hits) - int(hits.sum())
        value = (1 if cell.unit == "fraction" else 100) * right / len(hits)
        result = Result(value, (value,), (hits,), ((origin,),), origin=origin)
        # A reason why it is not measured here does not hold: it was measured elsewhere.
        verdicts.append(judge.cell(replace(cell, claim=replace(claim, missing=None)), result, scale))
    return Report(table, scale, verdicts, [])


def _ranks(path: Path, images: Any) -> Any:
    """Rank of the true class of each image (N,), in the order of the data set."""
    import numpy as np

    from .evaluate import rank_of_truth

    ids, scores = _read(path)
    place, known = {name: i for i, name in enumerate(ids)}, set(images.ids)
    doubled = [name for name, count in Counter(ids).items() if count > 1]
    wrong = {"given twice": doubled, "unknown": [i for i in place if i not in known]}
    for what, which in {**wrong, "missing": [i for i in images.ids if i not in place]}.items():
        if which:
            some = f"{', '.join(which[:3])}{', ...' if len(which) > 3 else ''}"
            raise ReproError(f"{len(which)} ids {what}: {some}; ids of {images.name} are as {images.ids[0]}", str(path))
    if scores.shape != (len(ids), len(images.classes)):
        say = f"scores of shape {scores.shape}; expected ({len(ids)}, {len(images.classes)}): images, classes"
        raise ReproError(say, str(path))
    return rank_of_truth(scores[[place[i] for i in images.ids]], np.asarray(images.labels))


def _read(path: Path) -> tuple[list[str], Any]:
    """Ids and scores (N, classes): `ids` and `scores` of an npz; of parquet `id`, and a column for each class."""
    import numpy as np

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return file["ids"].astype(str).tolist(), file["scores"].astype(np.float64)
        from pandas import read_parquet

        frame = read_parquet(path)
        ids = frame.pop("id").astype(str).tolist()
        return ids, np.array(frame["scores"].tolist() if [*frame] == ["scores"] else frame, np.float64)
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        say = "expected npz with `ids` and `scores`, or parquet with `id` and a column for each class in label order"
        raise ReproError(f"{say} ({error})", str(path)) from None
