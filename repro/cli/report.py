"""`repro report`: the site of plain HTML."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from ..errors import NOTHING, OK
from .options import end, options, selection


@click.command(short_help="Write TABLEs as a site of plain HTML.")
@selection
@click.option("-o", "--out", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
              help="Where the site goes; index.html is its front page.")  # fmt: skip
def report(out: Path, **given: Any) -> int:
    """Write TABLEs (all of them without one) as a site of plain HTML, from the records alone; nothing is run.

    It opens from the file, without a server or a network.
    """
    from .. import pipeline
    from ..report import site

    begun, chosen = time.monotonic(), options(**given)
    if not (chosen.store / "VERSION").exists():
        return end(NOTHING, f"there are no records under {chosen.store}; begin with `repro run`")
    outcome = pipeline.conclude(pipeline.prepare(chosen, make_data=False, say=lambda text: None), {})
    found = site.write(outcome, out, shlex.join(["repro", *sys.argv[1:]]), _options(given))
    click.echo(out / "index.html")
    took = f"{found['pages']} pages, {found['bytes'] / 1e6:.1f} MB, in {time.monotonic() - begun:.0f} s"
    return end(NOTHING, f"nothing was measured; {took}") if outcome.unmeasured else end(OK, took)


def _options(given: dict[str, Any]) -> str:
    """The given options by which `repro run` makes the records that are told of."""
    context, words = click.get_current_context(), []
    for option in context.command.params:
        name = str(option.name)
        if name in set(given) - {"tables", "rows", "only", "store"} and given[name] != option.get_default(context):
            for value in given[name] if isinstance(given[name], tuple) else (given[name],):
                words += ["-o" if name == "overrides" else option.opts[0], str(value)]
    return f" {shlex.join(words)}" if words else ""


# The other commands' -o changes a setting; here it names the folder, and a setting is changed by --set.
next(p for p in report.params if p.name == "overrides").opts = ["--set"]
report.params = [p for p in report.params if p.name != "as_json"]
