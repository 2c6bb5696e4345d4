"""The commands. Exit codes are those of `errors`, and the last line says in words which one it is."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import DIFFERENCE, FAILED, INTERRUPTED, NOTHING, OK, USAGE, ReproError
from .bench import bench
from .tools import new, protocols, validate, verify

if TYPE_CHECKING:
    from ..pipeline import Options, Outcome

KINDS = ("static", "metric", "relation", "speed", "setting")


def main() -> None:
    """Run a command; a mistake of the user's is one line on stderr and exit code 2."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = cli.main(standalone_mode=False)
    except ReproError as error:
        click.echo(f"repro: {error}", err=True)
        code = USAGE
    except click.exceptions.Abort:
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = USAGE
    except KeyboardInterrupt:
        click.echo("interrupted (exit 130)", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    sys.exit(code if isinstance(code, int) else OK)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "auto_envvar_prefix": "REPRO"},
    epilog="Start with `repro run table3`. Exit codes: 0 done, 1 a difference (diff --strict), 2 bad words or "
    "file, 3 some work could not run, 5 nothing selected or measured, 130 interrupted.",
)
@click.version_option(__version__, prog_name="repro")
def cli() -> None:
    """Unit tests for papers: a paper's table in, what you measure and a verdict beside every number out.

    TABLE is a name (vgg/table3), a short name (table3), a paper (vgg: all its tables) or a path.
    """


def _store(function: Callable[..., Any]) -> Callable[..., Any]:
    text = "Folder of the records."
    return click.option(
        "--store", type=click.Path(path_type=Path), default=Path("runs/store"), show_default=True, help=text
    )(function)


def _selection(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `run` and `diff` share: the tables, the scale, what of them, which seeds."""
    options = [
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
        click.option("--json", "as_json", is_flag=True, help="Print data instead of tables."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return _store(function)


def _options(
    tables: tuple[str, ...], scale: str, only: tuple[str, ...], rows: tuple[str, ...], seed: int, seeds: int,
    overrides: tuple[str, ...], store: Path, jobs: int = 0, device: str = "cpu",
) -> Options:  # fmt: skip
    from ..pipeline import Options

    given = {}
    for pair in overrides:
        key, equals, value = pair.partition("=")
        room, dot, _ = key.partition(".")
        if not equals or not (key == "protocol" or (dot and room in ("recipe", "build", "protocol"))):
            raise ReproError(f"-o {pair}: expected recipe.KEY=, build.KEY=, protocol.KEY=VALUE or protocol=NAME")
        given[key] = value
    return Options(tables, scale, only, rows, tuple(range(seed, seed + seeds)), jobs, device, store, given)


@cli.command(short_help="Train, evaluate and count what TABLEs claim.")
@_selection
@click.option("--jobs", type=click.IntRange(1), help="Jobs at once.  [default: one a core]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto: a GPU if any.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--no-mlflow", is_flag=True, help="Leave the MLflow page as it is.")
def run(dry_run: bool, no_mlflow: bool, as_json: bool, jobs: int | None, device: str, **given: Any) -> int:
    """Train, evaluate and count what TABLEs claim, and judge it. Without TABLE, all of them."""
    from .. import pipeline
    from ..execution import Interrupted
    from ..executors import Local, device_named
    from ..report.progress import Lines
    from .show import plan_lines, show_outcome

    options = _options(**given, jobs=jobs or _cores(), device=device_named(device))
    lines = Lines()
    if dry_run:
        prepared = pipeline.prepare(options, make_data=False, say=lines.say)
        click.echo("\n".join(plan_lines(prepared, options.jobs)))
        return OK if prepared.plan.jobs else _end(NOTHING, "nothing was selected")
    executor = lambda: Local(options.jobs, options.store / "data", options.device)  # noqa: E731
    try:
        outcome, prepared = pipeline.run(options, executor, lines)
    except Interrupted as stop:
        kept = f"{stop.done} jobs of this run are recorded"
        begun = f"; {len(stop.begun)} go on from their last epoch" if stop.begun else ""
        again = shlex.join(["repro", *sys.argv[1:]])
        return _end(INTERRUPTED, f"interrupted: {kept}{begun}. To go on: {again}")
    page = [] if no_mlflow or outcome.unmeasured else _track(outcome, prepared)
    show_outcome(outcome, options.store, as_json, page)
    return _finish(outcome)


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _track(outcome: Outcome, prepared: Any) -> list[str]:
    """Send what was measured to MLflow; where that cannot be, say so and go on from the records."""
    from .page import send

    try:
        return send(outcome, prepared)
    except Exception as error:
        return [f"not updated ({type(error).__name__}: {error}); the records are complete"]


def _finish(outcome: Outcome) -> int:
    if outcome.unmeasured:
        return _end(NOTHING, "nothing was measured; `repro list` shows the tables, `--only` and `--row` narrow them")
    if outcome.broken or outcome.failures:
        return _end(FAILED, f"{max(outcome.broken, len(outcome.failures))} planned cells or jobs could not be measured")
    return _end(OK, "all planned work is done")


def _end(code: int, text: str) -> int:
    click.echo(f"{text} (exit {code})", err=True)
    return code


@cli.command(short_help="Print TABLEs from the records alone.")
@_selection
@click.option("--strict", is_flag=True, help="Exit 1 where a cell or a relation differs.")
def diff(strict: bool, as_json: bool, **given: Any) -> int:
    """Print TABLEs from the records alone; nothing is run."""
    from .. import pipeline
    from .show import show_outcome

    options = _options(**given)
    if not (options.store / "VERSION").exists():
        return _end(NOTHING, f"there are no records under {options.store}; begin with `repro run`")
    prepared = pipeline.prepare(options, make_data=False, say=lambda text: None)
    outcome = pipeline.conclude(prepared, {})
    show_outcome(outcome, options.store, as_json)
    verdicts = [v.verdict for r in outcome.reports for v in r.cells]
    verdicts += [v.verdict for r in outcome.reports for v in r.relations]
    if outcome.unmeasured:
        return _end(NOTHING, "nothing was measured; begin with `repro run`")
    if strict and "differs" in verdicts:
        return _end(DIFFERENCE, f"{verdicts.count('differs')} claims differ")
    return OK


@cli.command("list", short_help="List tables, or every number they print.")
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--claims", is_flag=True, help="Every printed number.")
@click.option("--json", "as_json", is_flag=True, help="Print data.")
def list_(tables: tuple[str, ...], claims: bool, as_json: bool) -> int:
    """List tables, or with --claims every number they print."""
    from .show import show_list

    return show_list(tables, claims, as_json)


@cli.command(short_help="Print a TABLE as the paper prints it.")
@click.argument("table")
@click.option("--json", "as_json", is_flag=True, help="Print data.")
@click.option(
    "--samples", metavar="FILE", type=click.Path(path_type=Path), help="Write a sheet of the proxy's images (PNG)."
)
@_store
def show(table: str, as_json: bool, samples: Path | None, store: Path) -> int:
    """Print a TABLE as the paper prints it, for proof-reading, with protocols and relations."""
    from .show import show_claims, show_samples

    if samples:
        return show_samples(table, samples, store)
    return show_claims(table, as_json)


@cli.command()
@_store
@click.option("--port", default=5000, show_default=True, help="Port on 127.0.0.1.")
def ui(store: Path, port: int) -> int:
    """Open the MLflow page on the records."""
    from ..tracking.ui import ui as page

    page(store.resolve(), port, click.echo)
    return OK


@cli.command(short_help="Say what is here, and what is damaged.")
@_store
def doctor(store: Path) -> int:
    """Say what is here: versions, hardware, data, records; find what is damaged, and what to do."""
    from ..doctor import examine

    found = examine(store)
    for ok, what, note in found:
        click.echo(f"{'ok  ' if ok else 'MEND'} {what}: {note}")
    bad = sum(not ok for ok, _, _ in found)
    return _end(FAILED, f"{bad} to mend") if bad else _end(OK, "all is well")


for _command in (verify, new, validate, protocols, bench):
    cli.add_command(_command)
