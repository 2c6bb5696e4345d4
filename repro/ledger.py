"""The tolerance ledger: what may move a number between two sound evaluations of it, by how much, and who says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .schema import Cell, Result, ViewSet

Known = Mapping[str, Any]  # the plain fields that `lines` gathers
JPEG = ("imagenet", "places365", "tiny-imagenet", "folder:")  # sets whose images are JPEGs


@dataclass(frozen=True)
class Line:
    """One cause, the points of top-1 that it was seen to move (of top-5 no more), the source, and when it applies."""

    cause: str
    points: float
    source: str
    applies: Callable[[Known], bool]

    def __str__(self) -> str:
        return f"{self.cause}: {self.points:g} ({self.source})"


def _other(known: Known, part: Callable[[Any], Any]) -> bool:
    """Whether a view set departs from what the weights' publisher states, in `part` of it."""
    return any(part(known["stated"]) != part(view) for view in known["views"])


# Points are the larger of two reports; where one was found, the line says so.
LEDGER = (
    Line("JPEG decoder", 0.02, "pytorch/vision#5941: 0.01 to 0.02 on three nets; another report 0.01",
         lambda k: k["dataset"].startswith(JPEG)),
    Line("resize filter", 0.11, "mlcommons/inference#201: bicubic 78.47, bilinear 78.36; another report 0.07",
         lambda k: k["resized"] and (not k["stated"] or _other(k, lambda v: v["resize"].split()[0]))),
    Line("no antialias", 0.82, "icml-2022#62: ResNet-18 68.93 without, 69.75 with; another report 0.8",
         lambda k: k["resized"] and (_other(k, lambda v: "antialias" in v["resize"]) if k["stated"] else
                                     any("antialias" not in v["resize"] for v in k["views"]))),
    Line("another library's resize", 0.34, "mlcommons/inference#201: PIL 78.36, OpenCV 78.02; mmpretrain#94 0.1 to 0.3",
         lambda k: k["origin"] == "external" and k["resized"]),
    Line("crop fraction", 0.5, "one report, 0.35 to 0.5",
         lambda k: bool(k["stated"]) and _other(k, lambda v: round(v["crop"] / v["Q"], 2))),
    Line("square in place of short side", 0.06, "one report, pytorch-image-models#1383",
         lambda k: any(v["side"] == "both" for v in k["views"])),
    Line("16-bit numbers", 0.23, "one report, OpenVINO's tables: bf16 0.06 on ResNet-50, 0.23 on MobileNet-v2",
         lambda k: k["dtype"] != "float32"),
    Line("another training's seed", 0.18, "one report, 0.04 to 0.18", lambda k: k["origin"] == "published"),
)  # fmt: skip


def lines(cell: Cell, result: Result) -> tuple[Line, ...]:
    """The lines that apply, by the score record's own fields and the view sets; their sum is the worst case."""
    views = [v.plain() for ensemble in cell.systems for s in ensemble for _, v in s.protocol]
    stated = result.known.get("preprocessing")
    known = {"dataset": cell.claim.dataset if cell.claim else "", "dtype": "float32", **result.known, "views": views}
    known |= {"origin": result.origin.partition(":")[0], "resized": any(v["side"] != "none" for v in views)}
    known["stated"] = {**ViewSet("grid", 224, 224).plain(), **stated} if stated else {}
    return tuple(line for line in LEDGER if line.applies(known))
