"""The types that pass between the rooms, all frozen, and the closed list of quantities."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from .errors import ReproError

# Verdicts, in the order in which a summary names them, each with the letter that a table shows.
VERDICTS = {
    "match": "M",
    "differs": "D",
    "inconclusive": "I",
    "incomparable": "X",
    "missing": "-",
    "failed": "F",
}

KINDS = ("static", "metric", "relation", "speed", "setting")

# quantity: (kind, unit, who measures it). Any other word in a table needs `kind:` and `missing:`.
QUANTITIES: dict[str, tuple[str, str, str]] = {
    "params": ("static", "M", "measure"),
    "macs": ("static", "G", "measure"),
    "flops": ("static", "G", "measure"),  # two operations for a multiply-add
    "layers": ("static", "count", "measure"),  # weight layers on the longest path
    "weighted": ("static", "count", "measure"),  # all weight layers
    "neurons": ("static", "count", "measure"),
    "blocks": ("static", "count", "measure"),
    "channels": ("static", "count", "measure"),
    "receptive_field": ("static", "count", "measure"),
    "stride": ("static", "count", "measure"),  # of a stage's output against the input
    "shape": ("static", "shape", "measure"),  # any counts of a stage, written as the paper writes them
    "composition": ("static", "shape", "measure"),
    "top1_error": ("metric", "%", "evaluate"),
    "top5_error": ("metric", "%", "evaluate"),
    "top1_accuracy": ("metric", "%", "evaluate"),
    "top5_accuracy": ("metric", "%", "evaluate"),
    "setting": ("setting", "", "settings"),
}

# How many of one unit make one: a count in `M` is divided by 1e6 before it meets its claim.
UNITS: dict[str, Decimal] = {
    **{unit: Decimal(10) ** power for unit, power in {"K": 3, "M": 6, "G": 9, "B": 9, "T": 12}.items()},
    **{f"1e{power}": Decimal(10) ** power for power in range(1, 30)},
}


@dataclass(frozen=True)
class Printed:
    """A number as the paper prints it, and the interval of values that round to it.

    `low` and `high` are in the claim's own unit; both None for a word. An open end does not
    belong to the interval. `spread` is the `b` of `a ± b`, which is never a tolerance.
    """

    text: str
    low: Decimal | None = None
    high: Decimal | None = None
    low_open: bool = False
    high_open: bool = True
    approximate: bool = False
    spread: Decimal | None = None
    means: str = ""  # the value that printed words stand for, as the table reads them

    @property
    def value(self) -> Decimal | None:
        """The printed number itself: the middle of its interval, or the one bound of `<25`."""
        if self.low is None or self.high is None:
            return self.low if self.high is None else self.high
        return (self.low + self.high) / 2

    def holds(self, value: Decimal | float | int) -> bool:
        """Whether `value`, in the claim's unit, is one that would be printed so."""
        exact = value if isinstance(value, Decimal) else Decimal(str(value))
        if self.low is None and self.high is None:
            return False
        above = self.low is None or (exact > self.low if self.low_open else exact >= self.low)
        below = self.high is None or (exact < self.high if self.high_open else exact <= self.high)
        return above and below


@dataclass(frozen=True)
class Build:
    """What makes a network: `vgg:B+filters=5x5` is family `vgg`, net `B`, args `{filters: 5x5}`."""

    family: str
    net: str
    args: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Build:
        """Read a build string. Raises ReproError where it is not `family:net+name=value...`."""
        family, colon, rest = text.partition(":")
        net, *args = rest.split("+")
        pairs = dict(a.split("=", 1) for a in args if "=" in a)
        if not (colon and family and net) or len(pairs) != len(args):
            raise ReproError(f"build {text!r} is not of the form family:net+name=value, e.g. vgg:D+width=1/8")
        return cls(family, net, tuple(sorted(pairs.items())))

    def with_args(self, extra: Mapping[str, Any]) -> Build:
        """The same net with more arguments; those already there stay."""
        args = {**{k: str(v) for k, v in extra.items()}, **dict(self.args)}
        return Build(self.family, self.net, tuple(sorted(args.items())))

    def __str__(self) -> str:
        return f"{self.family}:{self.net}" + "".join(f"+{k}={v}" for k, v in self.args)


def number(text: str) -> int | float | str:
    """An argument's value: `32` an int, `1/8` and `.5` a float, anything else the text."""
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        return text


@dataclass(frozen=True)
class ViewSet:
    """One rescale of the image and one kind of view on it (`protocols` computes the boxes).

    `Q` is the side in pixels after the rescale; `crop` the side of a window. `cells` and `views` say what is
    averaged over the class map and over crops and flips.
    """

    kind: str  # dense | full | grid | ten | six
    Q: int
    crop: int
    grid: int = 1
    flips: bool = True
    side: str = "short"
    rounding: str = "down"
    region: str = "image"
    resize: str = "bilinear antialias"
    cells: str = "logits"
    views: str = "softmax"

    def plain(self) -> dict[str, Any]:
        return asdict(self)


# A protocol: view sets with the weights of their scores in the mean; the weights add up to one.
Protocol = tuple[tuple[Fraction, ViewSet], ...]


@dataclass(frozen=True)
class System:
    """One net, trained one way and evaluated one way, at the scale that is being run.

    `weights` names published weights, or a file of them, that are evaluated in place of a training.
    """

    build: Build
    recipe: str = ""
    S: tuple[int, int] = (0, 0)
    dataset: str = ""
    protocol: Protocol = ()
    input: int = 224
    weights: str = ""


@dataclass(frozen=True)
class Claim:
    """One printed number, with everything that says what it claims and where it stands."""

    printed: Printed
    quantity: str
    kind: str
    unit: str
    where: str
    file: str
    line: int
    dataset: str = ""
    missing: str | None = None
    known: Mapping[str, str] | None = None
    quotes: str | None = None
    recalled: bool = False


@dataclass(frozen=True)
class Cell:
    """A place in a table, with its claim (None where nothing is printed) and how to measure it.

    `systems` holds one ensemble for each net that the number is claimed of; an ensemble is the
    nets whose scores are averaged, mostly one.
    """

    table: str
    row: str
    column: str
    claim: Claim | None
    quantity: str
    kind: str
    unit: str
    systems: tuple[tuple[System, ...], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)  # stage, setting

    @property
    def key(self) -> tuple[str, str, str]:
        return self.table, self.row, self.column


@dataclass(frozen=True)
class Relation:
    """A statement of the paper's between cells.

    `test` is `less` (each pair: the first error is below the second), `not_better` (the first
    does not beat the second by `margin` points) or `falls` (errors fall along the chain of
    cells). Sides are cell keys.
    """

    id: str
    text: str
    where: str
    test: str
    pairs: tuple[tuple[tuple[str, str, str], tuple[str, str, str]], ...]
    file: str
    line: int
    margin: float = 0.0
    printed: Printed | None = None
    unit: str = "pp"
    missing: str | None = None


@dataclass(frozen=True)
class Job:
    """The unit of work. `spec` is plain data, and with `needs` all that its digest covers.

    `outputs` are the digests of the records that it makes: one for a training or a count, one
    for each view set of an evaluation.
    """

    kind: str  # measure | settings | train | evaluate
    name: str
    spec: Mapping[str, Any]
    outputs: tuple[str, ...]
    needs: tuple[str, ...] = ()
    cost: float = 1.0  # expected seconds on one core

    @property
    def digest(self) -> str:
        return self.outputs[0]


@dataclass(frozen=True)
class Record:
    """What a job left on disk. `files` maps a file's name to its SHA-256."""

    version: int
    digest: str
    kind: str  # measure | settings | train | scores
    name: str
    spec: Mapping[str, Any]
    numbers: Mapping[str, Any]
    files: Mapping[str, str]
    environment: Mapping[str, Any]
    seconds: float
    created: float  # seconds since the epoch
    failed: str | None = None


@dataclass(frozen=True)
class Result:
    """What was measured of one cell: a value for each seed, and their mean.

    `value` is in the unit of the claim; a word or a list for text quantities. `hits` holds for
    each seed whether each image was answered right (bool, in the dataset's order), from which
    relations are judged; `weights` names the trainings, so that two results of the same weights
    are known as such. `origin` says whose weights or scores they are where they were not trained
    here (`published: ...`, `external: ...`); `limit` is the size of the part of the data set that was
    looked at, 0 for all of it; `left_out` how many images could not be read.
    """

    value: Any = None
    per_seed: tuple[float, ...] = ()
    hits: tuple[Any, ...] = ()
    weights: tuple[tuple[str, ...], ...] = ()
    records: tuple[str, ...] = ()
    missing: str | None = None
    failed: str | None = None
    origin: str = ""
    limit: int = 0
    left_out: int = 0
    known: Mapping[str, Any] = field(default_factory=dict)  # how the first scores were made: their record's spec


@dataclass(frozen=True)
class Verdict:
    """What a measured value says of its claim; `reason` is one line for a reader.

    `ledger` are the lines of the tolerance ledger that were allowed for.
    """

    cell: Cell
    result: Result
    verdict: str
    delta: float | None = None
    reason: str = ""
    known: Mapping[str, str] | None = None
    ledger: tuple[str, ...] = ()


@dataclass(frozen=True)
class RelationVerdict:
    """What the measured sides say of a relation. Effects and intervals are in points (pp)."""

    relation: Relation
    verdict: str
    reason: str = ""
    effect: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    test: str = ""
    n: int = 0
    seeds: int = 0
    mde: float | None = None  # minimum detectable effect, in points
