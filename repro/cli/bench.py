"""`repro bench`: the benchmarks that stand beside a clone's `repro/`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ..errors import OK, ReproError

ROOT = Path(__file__).resolve().parents[2]


@click.command(short_help="Time what the README claims of speed.")
@click.option("--quick", is_flag=True, help="Few images and repeats, nothing compiled: about five minutes.")
@click.option("--gpu", is_flag=True, help="The lines that need a GPU, and no others.")
@click.option("--json", "as_json", is_flag=True, help="Print data instead of a table.")
@click.option("--line", "names", multiple=True, metavar="NAME", help="Only this line, repeatable.")
def bench(quick: bool, gpu: bool, as_json: bool, names: tuple[str, ...]) -> int:
    """Time each claim of speed against what others would run, and compare the answers. Needs a clone."""
    if not (ROOT / "benchmarks" / "timing.py").is_file():
        raise ReproError("`repro bench` needs the folder benchmarks/ of a clone; a wheel does not have it")
    sys.path.insert(0, str(ROOT))
    import benchmarks
    from benchmarks import timing

    from ..report.terminal import console

    found = benchmarks.run(names, quick, lambda text: click.echo(text, err=True), gpu)
    click.echo(json.dumps(found, indent=1)) if as_json else console().print(timing.table(found))
    return OK
