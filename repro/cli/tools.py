"""Commands around a table: `verify` counts any net, `new` begins a table file, `validate` checks one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..errors import DIFFERENCE, OK, USAGE, ReproError

TEMPLATE = """\
# One table of a paper. Write every number as it is printed; `-` is an empty cell.
title: What the caption says
where: {where}
columns: # what a column holds: a quantity, alone or with settings that hold for the whole column
  params: {{quantity: params, unit: M, label: parameters (millions)}}
  macs: {{quantity: macs, unit: G, label: multiply-adds (10^9)}}
rows: # a key for each row, the build that makes its net, the values column by column
  ResNet-18: {{build: torchvision:resnet18, values: [11.7, 1.8]}}
"""


@click.command(short_help="Count a net that is in no table.")
@click.argument("build")
@click.option("--params", metavar="N", help="Claimed parameters, as printed: 25.6M.")
@click.option("--macs", metavar="N", help="Claimed multiply-adds, as printed: 4.1G.")
@click.option("--layers", metavar="N", help="Claimed weight layers.")
@click.option("--input", "pixels", default=224, show_default=True, help="Side of the input image in pixels.")
@click.option("--depth", default=1, show_default=True, help="How far to go into the net's parts.")
@click.option("--json", "as_json", is_flag=True, help="Print data.")
def verify(build: str, pixels: int, depth: int, as_json: bool, **claimed: str | None) -> int:
    """Count a net that is in no table, part by part: repro verify timm:resnet50 --params 25.6M."""
    from ..architectures import own_source
    from ..measure import measure
    from ..printed import describe, parse
    from ..report import lists, terminal
    from ..schema import Build

    net = Build.parse(build)
    intervals = {key: parse(text, numeric=True) for key, text in claimed.items() if text}
    if net.family == "py":
        click.echo(f"this runs the code of {own_source(net)}", err=True)
    try:
        numbers = measure(net, pixels)
    except ReproError:
        raise
    except Exception as error:  # a net of the user's may break in any way
        raise ReproError(f"{build} cannot be counted: {error}") from error
    verdicts = {}
    for key, printed in intervals.items():
        found = numbers["stages"][""].get(key, 0)
        word = "match" if printed.holds(found) else "differs"
        verdicts[key] = {"claimed": printed.text, "measured": found, "verdict": word, "interval": describe(printed)}
    if as_json:
        click.echo(json.dumps({"build": build, "input": pixels, **numbers, "claims": verdicts}, indent=1))
    else:
        lists.show_stages(terminal.console(), build, pixels, numbers, depth)
        for key, v in verdicts.items():
            click.echo(f"{key}: {v['claimed']} claimed, {v['measured']:,} measured: {v['verdict']} ({v['interval']})")
    return DIFFERENCE if any(v["verdict"] == "differs" for v in verdicts.values()) else OK


@click.command(short_help="Begin a table file, with one row.")
@click.argument("name", metavar="PAPER/TABLE")
def new(name: str) -> int:
    """Write tables/PAPER/TABLE.yaml, with one row as an example, to begin from."""
    paper, slash, table = name.partition("/")
    if not slash or not all(part.replace("-", "").replace("_", "").isalnum() for part in (paper, table)):
        raise ReproError(f"{name!r}: expected PAPER/TABLE in letters, digits and dashes, such as mypaper/table1")
    path = Path("tables") / paper / f"{table}.yaml"
    if path.exists():
        raise ReproError("is there already; choose another name or edit it", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    number = table.removeprefix("table")
    path.write_text(TEMPLATE.format(where=f"Table {number}" if number.isdigit() else table), encoding="utf-8")
    click.echo(f"{path} is written. Put in the paper's rows, then: repro validate {path} && repro run {path}")
    return OK


@click.command(short_help="Check table files without running.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def validate(files: tuple[str, ...]) -> int:
    """Check table FILEs, or named tables, without running anything. Every bad file is told; exit 2 then."""
    from ..tables import find

    bad = 0
    for word in files:
        try:
            for path in find([word]):
                click.echo(f"{_checked(path)}: ok")
        except ReproError as error:
            click.echo(f"repro: {error}", err=True)
            bad += 1
    return USAGE if bad else OK


def _checked(path: Path) -> str:
    """A table at both scales, or every recipe of a paper.yaml at both. Raises ReproError."""
    from .. import recipes
    from ..claims import Claims
    from ..tables import load_paper

    if path.name == "paper.yaml":
        paper = load_paper(path.parent)
        for name in paper.recipes:
            for scale in ("full", "proxy") if paper.proxy else ("full",):
                recipes.resolve(paper, name, scale)
        return f"{path}: {len(paper.recipes)} recipes"
    full, proxy = Claims("full"), Claims("proxy")
    table = full.table(path)
    proxy.cells(proxy.table(path))
    relations, printed = full.relations(table), [c for c in full.cells(table) if c.claim]
    measured = sum(bool(c.systems) for c in printed)
    said = f"{table.file}: {len(printed)} claims, {measured} of them say how they are measured"
    return f"{said}, {len(relations)} relations"


@click.command(short_help="List evaluation protocols, or draw them.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE", help="Draw the views (PNG, SVG, PDF).")
@click.option("--json", "as_json", is_flag=True, help="Print data, with the boxes of an image of 375 x 500.")
def protocols(names: tuple[str, ...], picture: Path | None, as_json: bool) -> int:
    """List the test protocols of the papers: views, scales, windows, and what was taken where a paper is silent.

    A table names one under `protocol:`; `-o protocol=NAME` takes another, `-o protocol.resize="bicubic antialias"`
    and the like change one of its open fields.
    """
    from .. import protocols as rules
    from ..report import lists, terminal

    for name in names:
        rules.resolve([name], (256,), 224)  # an unknown one is told
    rows = [row for row in rules.table() if not names or row["name"] in names]
    if picture:
        from ..report.picture import draw

        draw([row["name"] for row in rows], picture)
        click.echo(f"{picture}: the views of {len(rows)} protocols")
    elif as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        lists.show_protocols(terminal.console(), rows, rules.CHOICES)
    return OK
