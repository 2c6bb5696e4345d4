"""`python -m benchmarks`: the lines of `repro bench`, and whether any fell below baseline.json (exit 1)."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import click

from repro.files import write_whole
from repro.report.terminal import console

from . import run, timing

BASELINE = Path(__file__).with_name("baseline.json")


@click.command()
@click.option("--quick", is_flag=True, help="Few images and repeats, nothing compiled.")
@click.option("--json", "as_json", is_flag=True, help="Print data instead of a table.")
@click.option("--line", "names", multiple=True, metavar="NAME", help="Only this line, repeatable.")
@click.option("--write", is_flag=True, help="Make what was measured the baseline of this class of processor.")
def main(quick: bool, as_json: bool, names: tuple[str, ...], write: bool) -> None:
    """Run the lines and compare them with the baseline of this class of processor."""
    found = run(names, quick, lambda text: click.echo(text, err=True))
    click.echo(json.dumps(found, indent=1)) if as_json else console().print(timing.table(found))
    known = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    if write:
        write_whole(BASELINE, json.dumps(updated(known, found), indent=1, sort_keys=True) + "\n")
        return
    worse = timing.fallen(found, known)
    for text in worse:
        click.echo(text, err=True)
    sys.exit(1 if worse else 0)


def updated(known: dict, found: list[dict]) -> dict:
    """The baseline with the lines of `found` that were run and are not void in place of its own."""
    from repro.provenance import environment

    facts = environment()
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    lines = dict(known.get(timing.processor(), {}).get("lines", {}))
    for row in found:
        if row["ratio"] is not None and not row["void"]:
            lines[row["name"]] = {"ratio": row["ratio"], "spread": row["spread"], "command": command}
    hardware = f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, {platform.system()}"
    return {**known, timing.processor(): {"hardware": hardware, "lines": lines}}


if __name__ == "__main__":
    main()
