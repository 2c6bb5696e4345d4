"""The tolerance ledger: what may move a number between two sound evaluations of it, by how much, and who says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .schema import Cell, Result, ViewSet

JPEG = ("imagenet", "places365", "tiny-imagenet", "folder:")  # sets whose images are JPEGs


@dataclass(frozen=True)
class Line:
    """One cause, the points of top-1 that it was seen to move (of top-5 no more), the source, and when it applies."""

    cause: str
    points: float
    source: str
    applies: Callable[[Mapping[str, Any]], bool]  # of the fields that `lines` gathers

    def __str__(self) -> str:
        return f"{self.cause}: {self.points:g} ({self.source})"


# Points are the larger of two reports; where one was found, the line says so.
LEDGER = (
    Line("JPEG decoder", 0.02, "pytorch/vision#5941: 0.01 to 0.02 on three nets; another report 0.01",
         lambda k: k["dataset"].startswith(JPEG)),
    Line("resize filter", 0.11, "mlcommons/inference#201: bicubic 78.47, bilinear 78.36; another report 0.07",
         lambda k: "filter" in k["open"]),
    Line("no antialias", 0.82, "icml-2022#62: ResNet-18 68.93 without, 69.75 with; another report 0.8",
         lambda k: "antialias" in k["open"]),
    Line("another library's resize", 0.34, "mlcommons/inference#201: PIL 78.36, OpenCV 78.02; mmpretrain#94 0.1 to 0.3",
         lambda k: k["origin"] == "external" and "filter" in k["open"]),
    Line("crop fraction", 0.5, "one report, 0.35 to 0.5", lambda k: "crop" in k["open"]),
    Line("square in place of short side", 0.06, "one report, pytorch-image-models#1383", lambda k: "both" in k["open"]),
    Line("reduced precision", 0.23, "one report, OpenVINO's tables: bf16 0.06 on ResNet-50, 0.23 on MobileNet-v2",
         lambda k: k["dtype"] != "float32"),
    Line("another training's seed", 0.18, "one report, 0.04 to 0.18", lambda k: k["origin"] == "published"),
)  # fmt: skip


def lines(cell: Cell, result: Result) -> tuple[Line, ...]:
    """The lines that apply, by the score record's own fields and the view sets; their sum is the worst case."""
    stated = result.known.get("preprocessing") or {}
    views = [view_set for ensemble in cell.systems for system in ensemble for _, view_set in system.protocol]
    known = {"dataset": cell.claim.dataset if cell.claim else "", "dtype": "float32", **result.known}
    known["origin"] = result.origin.partition(":")[0]
    known["open"] = set().union(*(_open(v, stated) for v in views)) if views else {"filter"}
    return tuple(line for line in LEDGER if line.applies(known))


def _open(view: ViewSet, stated: Mapping[str, Any]) -> set[str]:
    """In what a view set departs from what the weights' publisher states; a filter that nobody states is open."""
    if view.side == "none":
        return set()
    own, other = view.resize.split(), str(stated.get("resize", "any antialias")).split()
    crop = round(stated.get("crop", 0) / stated.get("Q", 1), 2)
    is_cut = bool(crop) and view.kind == "grid" and round(view.crop / view.Q, 2) != crop
    departs = {"filter": own[0] != other[0], "antialias": len(own) != len(other), "crop": is_cut}
    return {view.side, *(what for what, does in departs.items() if does)}
