"""The fields that may stand in a table file and in `paper.yaml`, with their types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _optional(value: Any) -> Any:
    return None if value == "no" else value


Words = Annotated[list[str], BeforeValidator(_listed)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Net(_Model):
    """One member of an ensemble: what it sets otherwise than its cell."""

    build: Words | None = None
    recipe: str | None = None
    S: str | None = None
    Q: Words | None = None
    protocol: Words | None = None
    dataset: str | None = None


class Settings(Net):
    """The fields that may stand at every level: defaults, column, row, cell."""

    label: str | None = None
    quantity: str | None = None
    unit: str | None = None
    kind: str | None = None
    setting: str | None = None
    stage: str | None = None
    as_: str | None = None
    without: Words | None = None
    times: str | None = None
    means: str | None = None
    digits: int | None = None
    missing: str | None = None
    quotes: str | None = None
    recalled: str | None = None
    where: str | None = None
    note: str | None = None
    nets: list[str | Net] | None = None
    margin: float | None = None
    input: int | None = None

    model_config = ConfigDict(extra="forbid", alias_generator=lambda name: name.rstrip("_"))


class Value(Settings):
    printed: str = "-"


class Row(Settings):
    values: list[str | Value] | dict[str, str | Value]


class RelationModel(_Model):
    text: str
    where: str
    less: list[Any] | None = None
    not_better: list[str] | None = None
    falls: list[str] | None = None
    margin: float = 0.0
    printed: str | None = None
    unit: str = "pp"
    missing: str | None = None
    note: str | None = None


class Known(_Model):
    at: Words
    cause: str
    gives: str


class TableModel(_Model):
    title: str
    where: str
    note: str | None = None
    defaults: Settings = Settings()
    columns: dict[str, str | Settings]
    rows: dict[str, Row]
    relations: dict[str, RelationModel] = {}
    known: list[Known] = []


class Optimizer(_Model):
    name: Literal["sgd"]
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0


class Schedule(_Model):
    name: Literal["plateau", "one-cycle"]
    factor: float = 0.1
    patience: int = 3
    drops: int = 3
    warmup: float = 0.3


class Init(_Model):
    name: Literal["normal", "kaiming"]
    std: float = 0.0


class Augment(_Model):
    flip: float
    colour: float
    step: int = 1  # pixels between the scales that S is drawn from


class Recipe(_Model):
    """How weights come to be, typed; `train` reads it as plain data (source by section in the file)."""

    dataset: str
    val: str
    batch: int
    epochs: int
    optimizer: Optimizer
    schedule: Schedule
    dropout: float
    init: Init
    clip: Annotated[float | None, BeforeValidator(_optional)] = None
    augment: Augment
    scale: float = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    threads: int = 1
    bar: float = 1.0


class Start(_Model):
    from_: dict[str, str]
    copy_: list[str]

    model_config = ConfigDict(extra="forbid", alias_generator=lambda name: name.rstrip("_"))


class Proxy(_Model):
    """Everything in which the proxy differs from the paper; a size that is not listed is an error."""

    why: str
    dataset: dict[str, str]
    pixels: dict[int, int]
    build: dict[str, str] = {}
    classes: int = 10
    seed_spread: dict[str, float] = {}  # by recipe: standard deviation over seeds of a net's error, in points
    note: str | None = None


class PaperModel(_Model):
    source: str
    title: str = ""
    defaults: Settings = Settings()
    missing: dict[str, str] = {}
    recipes: dict[str, dict[str, Any]] = {}
    proxy: Proxy | None = None
