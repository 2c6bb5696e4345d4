"""Commands on one number: `explain` flips a field at a time, `compare` pairs records, `demo` plants faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..errors import DIFFERENCE, OK
from .options import cores, end, options, store_option

SHOWN = 12  # images that are named; --json names all


def _evaluation(function: Callable[..., Any]) -> Callable[..., Any]:
    """What says how cells are evaluated, as for `repro run`."""
    for option in (
        click.option("--scale", type=click.Choice(["proxy", "full"]), default="proxy", show_default=True),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
        click.option("-o", "overrides", multiple=True, metavar="KEY=VALUE", help="As for `repro run`."),
        click.option("--weights", default="", metavar="timm|torchvision|FILE", help="As for `repro run`."),
        click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="Only N images, of all classes."),
        click.option("--json", "as_json", is_flag=True, help="Print data."),
    ):
        function = option(function)
    return store_option(function)


def _show(value: Any) -> str:
    return value if isinstance(value, str) else f"{float(value):.6g}"


@click.command(short_help="Find what in the protocol or build moves a number.")
@click.argument("table")
@click.argument("row")
@click.argument("column")
@click.option("--aim", type=float, metavar="N", help="The number to come near, in place of the printed one.")
@_evaluation
def explain(table: str, row: str, column: str, aim: float | None, as_json: bool, **given: Any) -> int:
    """Change one field of the evaluation at a time, on the same weights, and print which moves the number.

    Of a count it tries the conventions of papers: parts left out, units, two operations for a multiply-add, sizes.
    """
    from .. import explain as room
    from ..executors import Local, device_named
    from ..report.data import plain
    from ..report.progress import Lines
    from ..stats import holm

    chosen = options((table,), only=(), rows=(), seeds=1, **given)
    executor = lambda: Local(cores(), chosen.store / "data", device_named("auto"))  # noqa: E731
    verdict, effects = room.explain(chosen, row, column, executor, Lines())
    value, claim = verdict.result.value, verdict.cell.claim if verdict.verdict != "incomparable" else None
    aim = float(claim.printed.value) if aim is None and claim and claim.printed.value is not None else aim
    effects.sort(key=lambda e: (e.value is None, -abs(e.moves)))
    numbers = [e for e in effects if aim is not None and e.value is not None and not isinstance(e.value, str)]
    near = min(numbers, key=lambda e: abs(float(e.value) - (aim or 0.0)), default=None)
    if as_json:
        rows = [{**asdict(e), "value": plain(e.value)} for e in effects]
        found = {"value": plain(value), "aim": aim, "nearest": near and near.name, "effects": rows}
        click.echo(json.dumps(found, indent=1))
        return OK
    click.echo(f"{table} | {row} | {column}: {_show(value)}; {verdict.verdict}: {verdict.reason}")
    adjusted = iter(holm([e.paired.p for e in effects if e.paired]))
    for e in effects:
        low, high = e.paired.interval if e.paired else (0.0, 0.0)
        test = f"  [{low:+.2f}, {high:+.2f}] Holm p = {next(adjusted):.2g}" if e.paired else ""
        is_held = claim and (claim.printed.holds(e.value) if e in numbers else claim.printed.text == e.value)
        holds = "  as printed" if is_held else ""
        moved = f"{e.moves:+9.4g}  {_show(e.value)}{test}  " if e.value is not None else "does not apply: "
        click.echo(f"  {moved}{e.name}{holds}{': ' + e.note if e.note else ''}")
    if near is None or aim is None:
        click.echo("there is no number to come near; --aim N gives one")
    elif abs(float(near.value) - aim) < abs(float(value) - aim):
        click.echo(f"nearest to {aim:g}: {near.name} gives {_show(near.value)}")
    else:
        click.echo(f"nothing comes nearer to {aim:g}")
    return OK


@click.command(short_help="Pair two records' answers image by image.")
@click.argument("first", metavar="RECORD")
@click.argument("second", metavar="RECORD")
@_evaluation
def compare(first: str, second: str, as_json: bool, **given: Any) -> int:
    """Pair the answers of two RECORDs to the same images: difference, interval, p, and the images that changed sides.

    A RECORD is the start of a score record's digest, or TABLE|ROW|COLUMN.
    """
    from .. import compare as room

    chosen = options((), only=(), rows=(), seeds=1, **given)
    one, two = (room.side(word, chosen) for word in (first, second))
    found = room.compare(one, two)
    errors = [100 - 100 * float(side.hits.mean()) for side in (one, two)]
    kind = "one set of weights" if one.weights == two.weights else "two trainings: of these weights alone"
    changed = [one.ids[list(places)].tolist() for places in (found.gained, found.lost)]
    if as_json:
        data = {**asdict(found), "errors": errors, "images": len(one.ids), "weights": kind}
        click.echo(json.dumps({**data, "gained": changed[0], "lost": changed[1]}, indent=1))
        return OK
    for side, error in zip((one, two), errors, strict=True):
        click.echo(f"{side.name}: error {error:.2f} % of {len(side.ids)} images of {side.spec['dataset']}")
    low, high = found.interval
    interval = f"95 % interval {low:+.2f} to {high:+.2f}, p = {found.p:.2g}"
    click.echo(f"difference {found.effect:+.2f} pp, {interval} ({kind})")
    for side, ids in zip((one, two), changed, strict=True):
        some = ", ".join(map(str, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
        click.echo(f"only {side.name} is right: {len(ids)} images{': ' if ids else ''}{some}")
    return OK


DEMO = """\
title: VGG's net A on handwritten digits, after twelve epochs
where: this demonstration; the sentence is its own, the count is that of VGG's Table 2
columns: {error: top1_error, parameters: {quantity: params, unit: M}}
rows:
  at 256: {build: vgg:A, recipe: base, S: 256, Q: 256, values: [-, 133]}
  at 512: {build: vgg:A, recipe: base, S: 256, Q: 512, values: [-, -]}
relations:
  size: {text: a net errs less on images of the size it was trained on, where: here, less: [at 256, at 512]}
"""


@click.command(short_help="In two minutes: a relation judged, two planted faults caught.")
def demo() -> int:
    """Train a small net, judge a sentence on it, then alter one printed digit and one weight in copies of both.

    Everything lies in a folder that is deleted at the end. Exit 1 where a planted fault is not caught.
    """
    import shutil
    import tempfile

    from safetensors import safe_open
    from safetensors.numpy import save_file

    from .. import pipeline
    from ..executors import Local
    from ..report import terminal
    from ..report.progress import Lines
    from ..tables import find

    def asked(folder: Path, store: Path) -> pipeline.Options:
        return pipeline.Options((str(folder / "table1.yaml"),), store=store, overrides={"recipe.epochs": "12"})

    def told(folder: Path, store: Path) -> tuple[str, str]:
        """The verdicts on the count and on the sentence, from the records alone."""
        run = pipeline.prepare(asked(folder, store), False, click.echo)
        for job in run.plan.lacking(run.has):
            click.echo(f"  to be done again, for no sound record is there: {job.name}")
        report = pipeline.conclude(run, {}).reports[0]
        counted = next(v for v in report.cells if v.cell.claim)
        click.echo(f"  133 or 134 M parameters printed: {counted.verdict}: {counted.reason}")
        click.echo(f"  the sentence: {report.relations[0].verdict}: {report.relations[0].reason}")
        return counted.verdict, report.relations[0].verdict

    with tempfile.TemporaryDirectory(prefix="repro-demo-") as name:
        one, two, store, copy = (Path(name) / part for part in ("one", "two", "store", "copy"))
        for folder, text in ((one, DEMO), (two, DEMO.replace("133", "134"))):
            folder.mkdir()
            shutil.copy(find(["vgg/table3"])[0].with_name("paper.yaml"), folder)
            (folder / "table1.yaml").write_text(text, encoding="utf-8")
        click.echo("1. A table of one net; it is trained for twelve epochs, evaluated at two sizes, and counted.")
        outcome, _ = pipeline.run(asked(one, store), lambda: Local(cores(), store / "data"), Lines())
        terminal.show_table(terminal.console(), outcome.reports[0])
        first = told(one, store)
        click.echo("2. One printed digit altered in a copy of the table, 133 to 134; nothing is run.")
        digit = told(two, store)
        click.echo("3. One weight altered in a copy of the records; nothing is run.")
        shutil.copytree(store, copy, symlinks=True)
        weights = next(copy.glob("records/train/*/*.safetensors"))
        with safe_open(weights, framework="np") as stream:
            meta, tensors = stream.metadata(), {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
        tensors[min(tensors)].flat[0] += 1
        save_file(tensors, weights, meta)
        weight = told(one, copy)
    caught = first == ("match", "match") and digit == ("differs", "match") and weight == ("match", "missing")
    return end(OK, "both were caught") if caught else end(DIFFERENCE, "a planted fault was not caught")
