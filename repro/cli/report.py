"""`repro report`: the site of plain HTML."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import NOTHING, OK
from .options import end, options, selection


@click.command(short_help="Write TABLEs as a site of plain HTML.")
@selection
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Where it goes.")
def report(out: Path, **given: Any) -> int:
    """Write TABLEs (all of them without one) as a site of plain HTML, from the records alone; nothing is run."""
    from .. import pipeline
    from ..report import site

    chosen = options(**given)
    if not (chosen.store / "VERSION").exists():
        return end(NOTHING, f"there are no records under {chosen.store}; begin with `repro run`")
    outcome = pipeline.conclude(pipeline.prepare(chosen, make_data=False, say=lambda text: None), {})
    if outcome.unmeasured:
        return end(NOTHING, "nothing was measured; begin with `repro run`")
    pages, size = site.write(outcome, out, shlex.join(["repro", *sys.argv[1:]]))
    click.echo(out / "index.html")
    return end(OK, f"{pages} pages, {size / 1e6:.1f} MB")


# The other commands' -o changes a setting; here it names the folder, and a setting is changed by --set.
next(p for p in report.params if p.name == "overrides").opts = ["--set"]
report.params = [p for p in report.params if p.name not in ("as_json", "form")]
