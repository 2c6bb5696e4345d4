"""Commands on one number: `explain` flips a field at a time, `compare` pairs records, `demo` plants faults."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from ..errors import DIFFERENCE, OK
from .options import cores, end, options, selection

SHOWN = 12  # images that are named; --json names all
DEMO = """\
title: VGG's net A, a sixteenth as wide, on handwritten digits after sixteen epochs
where: this demonstration; the sentence is its own, the count is that of VGG's Table 2
columns: {error: {quantity: top1_error, build: vgg:A+width=1/16}, parameters: {quantity: params, unit: M, build: vgg:A}}
rows:
  at 256: {recipe: base, S: 256, Q: 256, values: [-, 133]}
  at 512: {recipe: base, S: 256, Q: 512, values: [-, -]}
relations:
  size: {text: a net errs less on images of the size it was trained on, where: here, less: [at 256, at 512]}
"""


@click.command(short_help="Find what in the protocol or build moves a number.")
@selection
def explain(tables: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Change one field of the evaluation at a time, on the same weights, and print which moves the number.

    Of a count it tries the conventions of papers: parts left out, units, two operations for a multiply-add, sizes.
    """
    from .. import explain as room
    from ..executors import Local, device_named
    from ..report.data import plain
    from ..report.progress import Lines
    from ..report.terminal import number
    from ..stats import holm

    if len(tables) != 3:
        raise click.UsageError("expected TABLE ROW COLUMN")
    chosen = options(tables[:1], **given)
    executor = lambda: Local(cores(), chosen.store / "data", device_named("auto"))  # noqa: E731
    verdict, effects = room.explain(chosen, *tables[1:], executor, Lines())
    # A number of other data or scale is near to nothing that is printed.
    printed = verdict.cell.claim.printed if verdict.cell.claim and verdict.verdict != "incomparable" else None
    aim = float(printed.value) if printed and printed.value is not None else math.nan
    effects.sort(key=lambda e: (e.value is None, -abs(e.moves)))
    numbers = [e for e in effects if not (e.value is None or isinstance(e.value, str) or math.isnan(aim))]
    near = min(numbers, key=lambda e: abs(float(e.value) - aim), default=None)
    if as_json:
        rows = [{**asdict(e), "value": plain(e.value)} for e in effects]
        found = {"value": plain(verdict.result.value), "nearest": near and near.name, "effects": rows}
        click.echo(json.dumps(found, indent=1))
        return OK
    like = printed.text if printed else ""
    value, adjusted = number(verdict.result.value, like), iter(holm([e.paired.p for e in effects if e.paired]))
    click.echo(f"{' | '.join(tables)}: {value}; {verdict.verdict}: {verdict.reason}\n    moves  gives")
    for e in effects:
        test = "  [{:+.2f}, {:+.2f}] Holm p = {:.2g}".format(*e.paired.interval, next(adjusted)) if e.paired else ""
        is_held = printed and (printed.holds(e.value) if e in numbers else printed.text == e.value)
        moved = f"{e.moves:+9.4g}  {number(e.value, like)}{test}  " if e.value is not None else "does not apply: "
        click.echo(f"  {moved}{e.name}{': ' if e.note else ''}{e.note}{'  as printed' if is_held else ''}")
    if near and verdict.verdict != "match":
        click.echo(f"nearest to {aim:g}: {near.name} gives {number(near.value, like)}; as it is: {value}")
    return OK


@click.command(short_help="Pair two records' answers image by image.")
@selection
def compare(tables: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Pair the answers of two RECORDs to the same images: difference, interval, p, and the images that changed sides.

    A RECORD is the start of a score record's digest, or TABLE|ROW|COLUMN.
    """
    from .. import compare as room

    if len(tables) != 2:
        raise click.UsageError("expected RECORD RECORD")
    sides = [room.side(word, options((), **given)) for word in tables]
    found, is_one = room.compare(*sides), sides[0].weights == sides[1].weights
    kind = "one set of weights" if is_one else "two trainings: of these weights alone"
    if as_json:
        click.echo(json.dumps({**asdict(found), "images": len(sides[0].ids), "weights": kind}, indent=1))
        return OK
    for side, ids in zip(sides, (found.gained, found.lost), strict=True):
        some = ", ".join(map(str, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
        click.echo(f"{side.name}: error {100 - 100 * side.hits.mean():.2f} % of {len(side.ids)} images")
        click.echo(f"  alone right: {len(ids)}{': ' if ids else ''}{some}")
    click.echo(f"difference {found} ({kind})")
    return OK


for _command, _words in ((explain, "TABLE ROW COLUMN"), (compare, "RECORD RECORD")):
    next(p for p in _command.params if p.name == "tables").metavar = _words


@click.command(short_help="In two minutes: a relation judged, two planted faults caught.")
def demo() -> int:
    """Train a small net, judge a sentence on it, then alter one printed digit and one weight in copies of both.

    Everything lies in a folder that is deleted at the end. Exit 1 where a planted fault is not caught.
    """
    import shutil
    import tempfile

    from safetensors.numpy import load_file, save_file

    from .. import pipeline
    from ..executors import Local
    from ..report.progress import Lines
    from ..tables import find

    def told(text: str) -> list[str]:
        """The verdicts on the count and on the sentence, as a run of the table prints them."""
        table.write_text(text, encoding="utf-8")
        outcome, _ = pipeline.run(asked, lambda: Local(cores(), asked.store / "data"), Lines())
        counted, sentence = outcome.reports[0].cells[1], outcome.reports[0].relations[0]
        click.echo(f"  {outcome.done} jobs had to be done\n  the printed count: {counted.verdict}: {counted.reason}")
        click.echo(f"  {sentence.relation.text}: {sentence.verdict}: {sentence.reason}")
        return [counted.verdict, sentence.verdict]

    with tempfile.TemporaryDirectory(prefix="repro-demo-") as name:
        table = Path(name) / "table1.yaml"
        asked = pipeline.Options((str(table),), store=Path(name, "store"), overrides={"recipe.epochs": "16"})
        shutil.copy(find(["vgg/table3"])[0].with_name("paper.yaml"), table.parent)
        click.echo("1. A net is trained on digits for sixteen epochs, evaluated at two sizes, and counted.")
        if told(DEMO) != ["match", "match"]:
            return end(DIFFERENCE, "the net has not learnt, so that nothing can be shown")
        click.echo("2. One printed digit altered, 133 to 134: the count differs.")
        digit = told(DEMO.replace("133", "134"))
        click.echo("3. One weight altered in a copy of the records: they are not believed, and would be made again.")
        copy = shutil.copytree(asked.store, table.with_name("copy"), symlinks=True)
        weights = next(copy.glob("records/train/*/*.safetensors"))
        tensors = load_file(weights)
        tensors[min(tensors)].flat[0] += 1
        save_file(tensors, weights)
        run = pipeline.prepare(replace(asked, store=copy), False, click.echo)
        again = [job.name for job in run.plan.lacking(run.has)]
        click.echo(f"  to do again: {', '.join(again) or 'nothing'}")
    caught = digit == ["differs", "match"] and any(name.startswith("train ") for name in again)
    return end(OK, "both were caught") if caught else end(DIFFERENCE, "a planted fault was not caught")
