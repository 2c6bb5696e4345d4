"""Two sets of answers to the same images: paired difference, interval, p-value, and the images that changed sides."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import pipeline, stats
from .errors import ReproError
from .store import Store

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Side:
    """Answers of one net under one protocol: `hits` and `ids` (N,) by image, `spec` of a score record."""

    name: str
    hits: np.ndarray
    ids: np.ndarray
    spec: Any
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Paired:
    """The second side's error less the first's in points, with 95 % interval and exact McNemar's p.

    `gained` are the images that the first side alone answers right, `lost` the second alone.
    """

    effect: float
    interval: tuple[float, float]
    p: float
    gained: list[Any]
    lost: list[Any]

    def __str__(self) -> str:
        return "{:+.2f} pp, 95 % interval {:+.2f} to {:+.2f}, p = {:.2g}".format(self.effect, *self.interval, self.p)


def paired(first: np.ndarray, second: np.ndarray, ids: np.ndarray | None = None) -> Paired:
    """Compare answers (N,) bool to the same images, named `ids` or numbered; the images alone are drawn at random."""
    import numpy as np

    differences, names = first.astype(np.int64) - second, np.arange(len(first)) if ids is None else ids
    low, high = stats.over_images(differences[None]).interval()
    changed = (names[differences == sign].tolist() for sign in (1, -1))
    return Paired(100 * float(differences.mean()), (100 * low, 100 * high), stats.sign_flip(differences), *changed)


def compare(first: Side, second: Side) -> Paired:
    """The two sides' paired difference. Raises ReproError where they do not answer for the same images."""
    for key in ("dataset", "fingerprint", "limit"):
        one, two = (side.spec.get(key, 0) for side in (first, second))
        if one != two:
            raise ReproError(f"different images: {key} is {one} of {first.name} and {two} of {second.name}")
    if first.ids.tolist() != second.ids.tolist():
        raise ReproError(f"different images were read of {first.name} and {second.name}; run again what lacks some")
    return paired(first.hits, second.hits, first.ids)


def side(word: str, options: pipeline.Options) -> Side:
    """The side of a score record, by the start of its digest (top-1), or of `TABLE|ROW|COLUMN`. Raises ReproError."""
    if not (options.store / "VERSION").is_file():
        raise ReproError("there are no records; begin with `repro run`", str(options.store))
    store = Store(options.store)
    if "|" not in word:
        return recorded(store, word)
    table, row, *column = (part.strip() for part in word.split("|"))
    asked = replace(options, words=(table,), rows=(row,), only=("metric",))
    reports = pipeline.conclude(pipeline.prepare(asked, False, lambda text: None), {}).reports
    cell = next((v for r in reports for v in r.cells if v.cell.column in (column or [v.cell.column])), None)
    if cell is None or not cell.result.hits:
        why = cell.reason if cell else "no such metric column"
        raise ReproError(f"{word}: {why}; `repro run {table} --row {row!r}` measures the row")
    found = recorded(store, next(digest for digest in cell.result.records if store.has("scores", digest)))
    return replace(found, name=word, hits=cell.result.hits[0], weights=cell.result.weights[0])


def recorded(store: Store, start: str) -> Side:
    """The side of the one score record whose digest begins so. Raises ReproError where there is none, or several."""
    import numpy as np

    is_digest = re.fullmatch("[0-9a-f]{4,32}", start)
    found = [p.stem for p in store.root.glob(f"records/scores/{start[:2]}/{start}*.json")] if is_digest else []
    if len(found) != 1:
        say = f"{start!r} begins the digest of {len(found)} score records; expected one, or TABLE|ROW|COLUMN"
        raise ReproError(" ".join([say, *sorted(found)[:9]]), str(store.root))
    record = store.read("scores", found[0])
    if record is None or store.sound(record):
        raise ReproError(f"score record {found[0]} is damaged; `repro doctor` says what to do", str(store.root))
    with np.load(store.file(record, "npz"), allow_pickle=False) as data:
        ids = data["ids"] if "ids" in data else np.arange(len(data["ranks"]))
        return Side(start, data["ranks"] < 1, ids, record.spec, (str(record.spec["weights"]),))
