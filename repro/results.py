"""Records to results: counts in the claim's unit, and errors of weighted means of stored scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from . import protocols
from .plan import Plan, Trained
from .schema import UNITS, Cell, Record, Result
from .store import Store
from .tables import arithmetic

if TYPE_CHECKING:
    import numpy as np

_RANKS = {"top1_error": 1, "top1_accuracy": 1, "top5_error": 5, "top5_accuracy": 5}


class Results:
    """What the records of a store say of the cells of a plan. Nothing is run here.

    `failures` gives reasons by digest for jobs that broke in this run and left no record.
    """

    def __init__(self, plan: Plan, store: Store, failures: Mapping[str, str] | None = None) -> None:
        self.plan, self.store, self.failures = plan, store, failures or {}
        self._read: dict[tuple[str, str], Record | None] = {}
        self._ranks: dict[tuple[Trained, ...], np.ndarray] = {}

    def record(self, kind: str, digest: str) -> Record | None:
        """A record of the store, read once."""
        key = kind, digest
        if key not in self._read:
            self._read[key] = self.store.read(kind, digest)
        return self._read[key]

    def result(self, cell: Cell) -> Result:
        """The measurement of a cell, or why there is none."""
        if cell.claim and cell.claim.missing:
            return Result(missing=cell.claim.missing)
        if reason := self.plan.blocked.get(cell.key):
            return Result(missing=reason)
        if cell.key in self.plan.counts:
            return self._counted(cell, self.plan.counts[cell.key])
        if cell.key in self.plan.systems:
            return self._evaluated(cell, self.plan.systems[cell.key])
        return Result(missing="not run")

    def _counted(self, cell: Cell, digests: Sequence[str]) -> Result:
        if (word := cell.extra.get("setting", "")).startswith("protocol."):
            return Result(value=_of_views(cell, word.removeprefix("protocol.")))
        values = []
        for digest in digests:
            record = self.record("settings" if cell.kind == "setting" else "measure", digest)
            if record is None or record.failed:
                return self._absent([digest], record)
            values.append(counted(cell, record.numbers))
        value = _farthest(cell, values)
        if value is None:
            return Result(missing=f"{cell.extra.get('setting') or cell.extra.get('stage')} is not read from this net")
        return Result(value=value, records=tuple(digests))

    def _evaluated(self, cell: Cell, ensembles: Sequence[Sequence[tuple[Trained, ...]]]) -> Result:
        results = [self._one(cell, seeds) for seeds in ensembles]
        broken = next((r for r in results if r.failed or r.missing), None)
        return broken or results[_index_farthest(cell, [r.value for r in results])]

    def _one(self, cell: Cell, seeds: Sequence[tuple[Trained, ...]]) -> Result:
        k = _RANKS[cell.quantity]
        hits, per_seed, records, origin, left_out = [], [], [], "", 0
        known: Mapping[str, Any] = {}
        for members in seeds:
            digests = [d for m in members for _, d in m.scores]
            weights = [m.weights for m in members]
            for member in members:
                published, trained = self.plan.published.get(member.weights), self.record("train", member.weights)
                if published is None and (trained is None or trained.failed):
                    return self._absent([member.weights], trained)
                sha256 = published.sha256 if published else trained.files["safetensors"] if trained else ""
                if published:
                    origin = "; ".join(filter(None, (f"published: {published.origin}", published.differs)))
                for _, digest in member.scores:
                    scores = self.record("scores", digest)
                    if scores is None:
                        return self._absent([digest], None)
                    if scores.numbers["weights_sha256"] != sha256:
                        return Result(missing="its scores are of other weights than the store's; run again")
                    known, left_out = known or scores.spec, scores.numbers.get("left_out", 0)
            ranks = self._fused(members)
            hits.append(ranks < k)
            right, images = int(hits[-1].sum()), len(ranks)
            whole = 1 if cell.unit == "fraction" else 100
            per_seed.append(whole * (right if cell.quantity.endswith("accuracy") else images - right) / images)
            records += [*weights, *digests]
        return Result(
            value=sum(per_seed) / len(per_seed),
            per_seed=tuple(per_seed),
            hits=tuple(hits),
            weights=tuple(tuple(m.weights for m in members) for members in seeds),
            records=tuple(dict.fromkeys(records)),
            origin=origin,
            limit=known.get("limit", 0),
            left_out=left_out,
            known=known,
        )

    def _fused(self, members: tuple[Trained, ...]) -> np.ndarray:
        """Rank of the true class (N,) under the mean over members of their weighted scores."""
        import numpy as np

        if members in self._ranks:
            return self._ranks[members]
        total, labels = None, None
        for member in members:
            for weight, digest in member.scores:
                record = self.record("scores", digest)
                assert record is not None
                with np.load(self.store.file(record, "npz"), allow_pickle=False) as data:
                    labels = data["labels"]
                    part = data["scores"].astype(np.float64) * (float(weight) / len(members))
                total = part if total is None else total + part
        assert total is not None
        assert labels is not None
        truth = total[np.arange(len(labels)), labels]
        # Ties count against the net: torch and numpy have no order for them.
        ranks: np.ndarray = (total >= truth[:, None]).sum(axis=1) - 1
        self._ranks[members] = ranks
        return ranks

    def _absent(self, digests: Sequence[str], record: Record | None) -> Result:
        if record is not None and record.failed:
            return Result(failed=record.failed)
        for digest in digests:
            if digest in self.failures:
                return Result(failed=self.failures[digest])
        return Result(missing="not run yet")


def _of_views(cell: Cell, word: str) -> Any:
    """A fact of the view sets themselves: views of an image that is no square, scales, Q or crop."""
    sets = [view_set for _, view_set in cell.systems[0][0].protocol]
    found: dict[str, Any] = {
        "views": sum(view.count for v in sets for view in protocols.views(v, 768, 1024)),
        "scales": len({v.Q for v in sets}),
        "Q": sorted({v.Q for v in sets}),
        "crop": sets[0].crop if sets else 0,
    }
    value = found.get(word)
    return ", ".join(map(str, value)) if isinstance(value, list) else value if value is None else Decimal(value)


def counted(cell: Cell, numbers: Mapping[str, Any]) -> Any:
    """A count in the claim's unit, a setting, or the text of a stage; None where it was not read."""
    if cell.kind == "setting":
        found = [numbers.get(key) for key in cell.extra.get("setting", "").split()]
        flat = [x for value in found for x in (value if isinstance(value, list) else [value])]
        if not flat or any(x is None for x in flat):
            return None
        is_one = len(flat) == 1 and not isinstance(found[0], list)
        return flat[0] if is_one else ", ".join(map(str, flat))
    stages = [_stage(numbers["stages"], name) for name in cell.extra.get("stage", "").split() or [""]]
    if any(stage is None for stage in stages):
        return None
    value = _of_stages(cell, stages, numbers["stages"])  # type: ignore[arg-type]
    if value is None or isinstance(value, str):
        return value
    return Decimal(value) * arithmetic(cell.extra.get("times", "1")) / UNITS.get(cell.unit, Decimal(1))


def _stage(stages: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """A stage by its name, or by the end of it where only one name ends so (`block1` for `features.block1`)."""
    if name in stages:
        return stages[name]
    found = [n for n in stages if n.endswith(f".{name}")]
    return stages[found[0]] if len(found) == 1 else None


def _of_stages(cell: Cell, stages: Sequence[Mapping[str, Any]], all_: Mapping[str, Any]) -> int | str | None:
    """What a cell's quantity is of its stages: the sum of counts, the last one's shape, the words of all."""
    last = stages[-1]
    output = last.get("output") or [0]
    channels = output[0] if len(output) != 2 else output[1]  # (C, H, W), or (tokens, C)
    if cell.quantity == "composition":
        return " ".join(stage.get("composition", "") for stage in stages)
    if cell.quantity == "shape":
        height, width = output[-2:] if len(output) == 3 else (1, 1)
        known = {**last, "channels": channels, "height": height, "width": width, "tokens": output[0]}
        try:
            return str(cell.extra.get("as_", "{height}×{width}×{channels}")).format_map(known)
        except (KeyError, ValueError):
            return None
    if cell.quantity == "channels":
        return int(channels)
    if cell.quantity in ("receptive_field", "stride"):
        reach: int | None = last.get("field" if cell.quantity == "receptive_field" else "jump")
        return reach
    key, factor = ("macs", 2) if cell.quantity == "flops" else (cell.quantity, 1)
    total: int = sum(stage.get(key, 0) for stage in stages)
    for name in cell.extra.get("without", ()):
        if name in ("biases", "norms"):
            total -= sum(stage.get(name, 0) for stage in stages) if key == "params" else 0
        elif (left_out := _stage(all_, name)) is not None:
            total -= left_out.get(key, 0)
        else:
            return None
    return total * factor


def _index_farthest(cell: Cell, values: Sequence[Any]) -> int:
    """Which of several values lies farthest from the claim: each net must bear out the number."""
    aim = cell.claim.printed.value if cell.claim else None
    if len(values) == 1 or aim is None or isinstance(values[0], str):
        text = cell.claim.printed.text if cell.claim else ""
        return next((i for i, v in enumerate(values) if isinstance(v, str) and v != text), 0)
    return max(range(len(values)), key=lambda i: abs(Decimal(str(values[i])) - aim))


def _farthest(cell: Cell, values: Sequence[Any]) -> Any:
    if any(v is None for v in values):
        return None
    text = (cell.claim.printed.means or cell.claim.printed.text) if cell.claim else ""
    if len(values) > 1 and (ends := re.fullmatch(r"\d+(\s*(?:[–-]|to)\s*)\d+", text)):
        # A range over nets claims its ends.
        return f"{min(values):f}{ends[1]}{max(values):f}"
    return values[_index_farthest(cell, values)]
