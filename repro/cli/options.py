"""What commands share: the options that select and change, and the last line with its exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import data
from ..errors import ReproError

if TYPE_CHECKING:
    from ..pipeline import Options

KINDS = ("static", "metric", "relation", "speed", "setting")


def set_root(name: str, path: str) -> None:
    """Say to this process, and to those that it starts, where a set or a family of sets lies."""
    data.check_name(name)
    os.environ[data.variable(name)] = path if path.startswith("hfds/") else os.path.abspath(path)


def _set_roots(context: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> None:
    for pair in pairs:
        name, _, path = pair.partition("=")
        if not path:
            raise ReproError(f"--data {pair}: expected NAME=PATH, e.g. imagenet-1k-val=/data/imagenet/val")
        set_root(name, path)


def data_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--data NAME=PATH`, which sets the root of a data set for a command."""
    text = "Where a data set lies, repeatable; or [data] of repro.toml."
    given: dict[str, Any] = {"expose_value": False, "callback": _set_roots, "help": text}
    return click.option("--data", multiple=True, metavar="NAME=PATH", **given)(function)


def store_option(function: Callable[..., Any]) -> Callable[..., Any]:
    text = "Folder of the records."
    return click.option(
        "--store", type=click.Path(path_type=Path), default=Path("runs/store"), show_default=True, help=text
    )(function)


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--format`, for other programs and for papers; see `report.exports`."""
    forms = click.Choice(["json", "csv", "md", "latex", "model-index"])
    return click.option("--format", "form", type=forms, help="Print in a format of data or of papers.")(function)


def selection(function: Callable[..., Any]) -> Callable[..., Any]:
    """What commands that judge share: the tables, the scale, what of them, which seeds."""
    found = [
        click.argument("tables", nargs=-1, metavar="[TABLE]..."),
        click.option("--scale", type=click.Choice(["proxy", "full"]), default="proxy", show_default=True,
                     help="proxy: minutes on a laptop; full: the paper's own data and size."),
        click.option("--only", multiple=True, type=click.Choice(KINDS), metavar="KIND",
                     help="Repeatable: " + "|".join(KINDS)),
        click.option("--row", "rows", multiple=True, metavar="ROW", help="Only this row, repeatable."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first seed."),
        click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Trainings of each net."),
        click.option("-o", "overrides", multiple=True, metavar="KEY=VALUE",
                     help="Change a setting: -o recipe.epochs=2"),
        click.option("--weights", default="", metavar="timm|torchvision|FILE", help="Evaluate published weights."),
        click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="Only N images, of all classes."),
        click.option("--json", "as_json", is_flag=True, help="Print data instead of tables."),
    ]  # fmt: skip
    for option in reversed(found):
        function = option(function)
    return store_option(data_option(function))


def options(
    tables: tuple[str, ...], scale: str, only: tuple[str, ...], rows: tuple[str, ...], seed: int, seeds: int,
    overrides: tuple[str, ...], weights: str, limit: int, store: Path, jobs: int = 0, device: str = "cpu",
) -> Options:  # fmt: skip
    from ..pipeline import Options

    given = {}
    for pair in overrides:
        key, equals, value = pair.partition("=")
        room, dot, _ = key.partition(".")
        if not equals or not (key == "protocol" or (dot and room in ("recipe", "build", "protocol", "evaluate"))):
            raise ReproError(
                f"-o {pair}: expected recipe.KEY=, build.KEY=, protocol.KEY=, evaluate.KEY=VALUE or protocol=NAME"
            )
        given[key] = value
    return Options(
        tables, scale, only, rows, tuple(range(seed, seed + seeds)), jobs, device, store, given, weights, limit
    )


def cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def end(code: int, text: str) -> int:
    click.echo(f"{text} (exit {code})", err=True)
    return code
