"""The fields that may stand in a table file and in `paper.yaml`, with their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_serializer, model_validator

T = TypeVar("T")
Listed = Annotated[list[T], BeforeValidator(lambda value: value if isinstance(value, list) else [value])]
Words = Listed[str]
Optional = Annotated[float | None, BeforeValidator(lambda value: None if value == "no" else value)]
Share = Annotated[float, Field(ge=0, lt=1)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Triple = Annotated[list[float], Field(min_length=3, max_length=3)]


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
    as_: str | None = Field(default=None, alias="as")
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
    weights: dict[str, str] | None = None


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


class _Grown(_Model):
    """A model whose dump leaves out fields that came later and are at their default, so that old digests hold."""

    FIRST: ClassVar[str]  # the fields that are always in the dump

    @model_serializer(mode="wrap")
    def _brief(self, dump: Any) -> dict[str, Any]:
        first, fields = self.FIRST.split(), type(self).model_fields
        return {k: v for k, v in dump(self).items() if k in first or v != fields[k].get_default()}


class Optimizer(_Grown):
    """Arguments as torch names them; `rmsprop-tf` is timm's, with eps under the root and averages from one."""

    FIRST = "name lr momentum nesterov weight_decay"
    name: Literal["sgd", "rmsprop", "rmsprop-tf", "adam", "adamw"]
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    betas: Pair = [0.9, 0.999]
    alpha: float = 0.99  # of rmsprop: the decay of the mean of squares
    eps: float = 1e-8
    no_decay: Listed[Literal["norms", "biases"]] = []  # parameters without weight decay


class Schedule(_Grown):
    """How the rate goes over the training; `every` and `milestones` are in `unit`, from its beginning."""

    FIRST = "name factor patience drops warmup"
    name: Literal["plateau", "one-cycle", "constant", "steps", "exponential", "linear", "cosine", "polynomial"]
    factor: float = 0.1
    patience: int = 3
    drops: int = 3
    warmup: float = 0.3  # of one-cycle: the share of the training
    unit: Literal["epochs", "iterations"] = "epochs"
    milestones: Listed[float] = []  # of steps: at each the rate is multiplied by factor
    every: Annotated[float, Field(gt=0)] = 1.0  # of exponential: so often the rate is multiplied by factor
    end: float = 0.0  # of linear, cosine, polynomial: the last rate as a share of the first
    power: float = 1.0  # of polynomial
    warmup_epochs: float = 0.0
    warmup_steps: int = 0
    warmup_from: float = 0.0  # the share of the rate that the warm-up begins with
    warmup_shape: Literal["linear", "constant"] = "linear"


class Init(_Grown):
    """Weights of convolutions and linear layers; `as built` leaves all as the build makes them, from the seed."""

    FIRST = "name std"
    name: Literal["normal", "kaiming", "xavier", "as built"]
    std: float = 0.0
    bias: float = 0.0
    ones: Listed[str] = []  # layers whose biases are one, by name (AlexNet)
    slope: float = 0.0  # of kaiming: the slope below zero (PReLU)


class Augment(_Grown):
    """What is done to an image on its way in; the stronger kinds come from torchvision."""

    FIRST = "flip colour step"
    flip: float
    colour: float
    step: PositiveInt = 1  # pixels between the scales that S is drawn from
    crop: Literal["scale", "area", "pad", "whole"] = "scale"
    pad: int = 4  # of crop pad: pixels of the mean colour on each side
    area: Pair = [0.08, 1.0]  # of crop area: share of the image
    aspect: Pair = [0.75, 4 / 3]
    interpolation: Literal["bilinear", "bicubic", "random"] = "bilinear"  # of crop area
    jitter: float = 0.0  # brightness, contrast, saturation by 1 - jitter to 1 + jitter, in random order
    randaugment: Annotated[list[int], Field(max_length=2)] = []  # operations, and their magnitude of 30


class Recipe(_Grown):
    """How weights come to be, typed; a dump of it is what `train` reads (source by section in the file)."""

    FIRST = """dataset val batch epochs optimizer schedule dropout init clip augment scale dtype memory_format threads
        bar"""
    dataset: str
    val: str
    batch: PositiveInt
    epochs: PositiveInt
    iterations: Annotated[int, Field(ge=0)] = 0  # where given, the training ends after so many, whatever `epochs` says
    optimizer: Optimizer
    schedule: Schedule
    dropout: Share | Literal["as built"]
    init: Init
    clip: Optional = None
    augment: Augment
    mean: Triple | None = None  # taken off the pixels, 0..255; else that of the training set
    scale: float | Triple = 1.0  # then multiplies them, by channel where there are three
    label_smoothing: Share = 0.0
    mixup: float = 0.0  # alpha
    aux: float = 0.0  # weight of the losses of a net's other outputs
    ema: Share = 0.0  # decay by step of the average of weights that is kept; 0 keeps the last weights
    polyak: float | None = None  # from this epoch on the plain mean of the weights after each step is kept
    bn_batch: Annotated[int, Field(ge=0)] = (
        0  # images that pass the net together, and that BN normalises over; 0 is the batch
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    tf32: bool = False
    cudnn_benchmark: bool = False
    deterministic: bool = True
    compile: bool = False
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    threads: PositiveInt = 1
    bar: Optional = 1.0  # share of chance's error; `no`: it may not learn
    val_view: Literal["dense", "centre"] = "dense"  # how an epoch's validation error is measured, at the mean S

    @classmethod
    def of(cls, dump: Mapping[str, Any]) -> Recipe:
        """A dumped recipe made whole again; it need not name its data sets."""
        return cls.model_validate({"dataset": "", "val": "", **dump})

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        rate = self.schedule
        if rate.name in ("plateau", "one-cycle") and (rate.warmup_epochs or rate.warmup_steps):
            raise ValueError(f"{rate.name} has no warm-up by epochs or steps")
        if self.ema and self.polyak is not None:
            raise ValueError("either ema or polyak is averaged, not both")
        return self


class Start(_Model):
    from_: dict[str, str] = Field(alias="from")
    copy_: list[str] = Field(alias="copy")


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
