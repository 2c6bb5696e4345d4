"""The commands. Exit codes are those of `errors`, and the last line says in words which one it is."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import DIFFERENCE, FAILED, INTERRUPTED, NOTHING, OK, USAGE, ReproError
from .bench import bench
from .data import data_group
from .explain import compare, demo, explain
from .external import judge
from .gate import bless, check
from .options import cores, end, format_option, options, selection, store_option
from .report import report
from .tools import new, protocols, validate, verify

if TYPE_CHECKING:
    from ..pipeline import Outcome


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


@cli.command(short_help="Train, evaluate and count what TABLEs claim.")
@selection
@click.option("--jobs", type=click.IntRange(1), help="Jobs at once.  [default: one a core; at full scale one a GPU]")
@click.option("--processes", type=click.IntRange(1), default=1, help="Processes that share one training (torchrun).")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto: a GPU if any.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--on", default="", metavar="GPU", help="With --dry-run: the hours on an h100, a100, v100, ...")
@click.option("--no-mlflow", is_flag=True, help="Leave the MLflow page as it is.")
def run(
    dry_run: bool, on: str, no_mlflow: bool, as_json: bool, jobs: int | None, processes: int, device: str, **given: Any
) -> int:
    """Train, evaluate and count what TABLEs claim, and judge it. Without TABLE, all of them."""
    from .. import pipeline
    from ..execution import Interrupted
    from ..executors import Local, device_named
    from ..report.progress import Lines
    from ..tracking.live import Live
    from .show import plan_lines, show_outcome

    device = device_named(device)
    is_alone = device != "cpu" and given["scale"] == "full"  # one net at a time fills a GPU
    chosen = options(**given, jobs=jobs or (1 if is_alone else max(1, cores() // processes)), device=device)
    lines = Lines() if no_mlflow else Lines(Live(chosen.store))
    if dry_run:
        prepared = pipeline.prepare(chosen, make_data=False, say=lines.say)
        click.echo("\n".join(plan_lines(prepared, chosen.jobs, on)))
        if blocked := prepared.plan.blocked:
            return end(FAILED, f"{len(blocked)} cells could not be measured")
        return OK if prepared.plan.jobs or prepared.plan.evaluations else end(NOTHING, "nothing was selected")
    executor = lambda: Local(chosen.jobs, chosen.store / "data", device, processes)  # noqa: E731
    try:
        outcome, prepared = pipeline.run(chosen, executor, lines)
    except Interrupted as stop:
        kept = f"{stop.done} jobs of this run are recorded"
        begun = f"; {len(stop.begun)} go on from their last epoch" if stop.begun else ""
        again = shlex.join(["repro", *sys.argv[1:]])
        return end(INTERRUPTED, f"interrupted: {kept}{begun}. To go on: {again}")
    page = [] if no_mlflow or outcome.unmeasured else _track(outcome, prepared)
    show_outcome(outcome, chosen.store, as_json, page)
    return _finish(outcome)


def _track(outcome: Outcome, prepared: Any) -> list[str]:
    """Send what was measured to MLflow; where that cannot be, say so and go on from the records."""
    from .page import send

    try:
        return send(outcome, prepared)
    except Exception as error:
        return [f"not updated ({type(error).__name__}: {error}); the records are complete"]


def _finish(outcome: Outcome) -> int:
    if outcome.broken or outcome.failures:
        return end(FAILED, f"{max(outcome.broken, len(outcome.failures))} planned cells or jobs could not be measured")
    if outcome.unmeasured:
        return end(NOTHING, "nothing was measured; `repro list` shows the tables, `--only` and `--row` narrow them")
    return end(OK, "all planned work is done")


@cli.command(short_help="Print TABLEs from the records alone.")
@selection
@click.option("--strict", is_flag=True, help="Exit 1 where a cell or a relation differs.")
@format_option
def diff(strict: bool, form: str | None, as_json: bool, **given: Any) -> int:
    """Print TABLEs from the records alone; nothing is run."""
    from .. import pipeline
    from ..report import exports
    from .show import show_outcome

    chosen = options(**given)
    if not (chosen.store / "VERSION").exists():
        return end(NOTHING, f"there are no records under {chosen.store}; begin with `repro run`")
    prepared = pipeline.prepare(chosen, make_data=False, say=lambda text: None)
    outcome = pipeline.conclude(prepared, {})
    if form:
        click.echo(exports.render(outcome, form))
    else:
        show_outcome(outcome, chosen.store, as_json)
    verdicts = [v.verdict for r in outcome.reports for v in r.cells]
    verdicts += [v.verdict for r in outcome.reports for v in r.relations]
    if outcome.unmeasured:
        return end(NOTHING, "nothing was measured; begin with `repro run`")
    if strict and "differs" in verdicts:
        return end(DIFFERENCE, f"{verdicts.count('differs')} claims differ")
    return OK


@cli.command(short_help="Bring the MLflow page to what the records say.")
@selection
def sync(as_json: bool, **given: Any) -> int:
    """Bring the MLflow page, or the server in MLFLOW_TRACKING_URI, to what the records say; nothing is run."""
    from .. import pipeline
    from .page import send

    prepared = pipeline.prepare(options(**given), make_data=False, say=lambda text: None)
    outcome = pipeline.conclude(prepared, {})
    if outcome.unmeasured:
        return end(NOTHING, "nothing was measured; begin with `repro run`")
    places = send(outcome, prepared)
    click.echo(json.dumps(places) if as_json else "\n".join(places))
    return OK


@cli.command("list", short_help="List papers, tables, or every number they print.")
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--claims", is_flag=True, help="Every printed number.")
@click.option("--json", "as_json", is_flag=True, help="Print data.")
@store_option
def list_(tables: tuple[str, ...], claims: bool, as_json: bool, store: Path) -> int:
    """List papers with what the records say of their claims, tables of one paper, or with --claims every number."""
    from .show import show_list

    return show_list(tables, claims, as_json, store)


@cli.command(short_help="Print a TABLE as the paper prints it.")
@click.argument("table")
@click.option("--json", "as_json", is_flag=True, help="Print data.")
@click.option(
    "--samples", metavar="FILE", type=click.Path(path_type=Path), help="Write a sheet of the proxy's images (PNG)."
)
@format_option
@store_option
def show(table: str, as_json: bool, samples: Path | None, form: str | None, store: Path) -> int:
    """Print a TABLE as the paper prints it, for proof-reading, with protocols and relations."""
    from .show import show_claims, show_samples

    if samples:
        return show_samples(table, samples, store)
    return show_claims(table, form, as_json)


@cli.command()
@store_option
@click.option("--port", default=5000, show_default=True, help="Port on 127.0.0.1.")
def ui(store: Path, port: int) -> int:
    """Open the MLflow page on the records."""
    from ..tracking.ui import ui as page

    page(store.resolve(), port, click.echo)
    return OK


@cli.command(short_help="Say what is here, and what is damaged.")
@store_option
def doctor(store: Path) -> int:
    """Say what is here: versions, hardware, data, records; find what is damaged, and what to do."""
    from ..doctor import examine

    found = examine(store)
    for ok, what, note in found:
        click.echo(f"{'ok  ' if ok else 'MEND'} {what}: {note}")
    bad = sum(not ok for ok, _, _ in found)
    return end(FAILED, f"{bad} to mend") if bad else end(OK, "all is well")


_commands = (verify, new, validate, protocols, bench, check, bless, data_group, report, explain, compare, demo, judge)
for _command in _commands:
    cli.add_command(_command)
