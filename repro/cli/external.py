"""`repro judge`: a row judged from scores that were made elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..errors import OK
from .options import data_option, store_option


@click.command(short_help="Judge a row from scores made elsewhere.")
@click.argument("table")
@click.option("--scores", required=True, type=click.Path(path_type=Path), help="npz (ids, scores) or parquet.")
@click.option("--row", required=True, help="The row that the scores are of.")
@click.option("--column", "columns", multiple=True, help="Only this column, repeatable.")
@click.option("--scale", type=click.Choice(["proxy", "full"]), default="proxy", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print data.")
@data_option
@store_option
def judge(table: str, scores: Path, row: str, columns: tuple[str, ...], scale: str, as_json: bool, store: Path) -> int:
    """Judge a ROW of TABLE by the scores that another framework or a server made. Shown, not stored."""
    from ..external import judged
    from ..report import data, terminal

    report = judged(table, row, columns, scores, scale, store / "data")
    if as_json:
        cells = [data.cell(v) for v in report.cells]
        click.echo(json.dumps({"table": report.table.name, "scale": scale, "cells": cells}, indent=1))
    else:
        terminal.show_table(terminal.console(), report)
        click.echo(report.cells[0].result.origin)
    return OK
