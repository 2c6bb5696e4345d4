"""Commands on one number: `explain` flips a field at a time, `compare` pairs records, `demo` plants faults."""

from __future__ import annotations

import json
from dataclasses import asdict
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
@click.option("--aim", type=float, metavar="N", help="The number to come near, in place of the printed one.")
@selection
def explain(tables: tuple[str, ...], aim: float | None, as_json: bool, **given: Any) -> int:
    """Change one field of the evaluation at a time, on the same weights, and print which moves the number.

    Of a count it tries the conventions of papers: parts left out, units, two operations for a multiply-add, sizes.
    """
    from .. import explain as room
    from ..executors import Local, device_named
    from ..report.data import plain
    from ..report.progress import Lines
    from ..stats import holm

    if len(tables) != 3:
        raise click.UsageError("expected TABLE ROW COLUMN")
    chosen = options(tables[:1], **given)
    executor = lambda: Local(cores(), chosen.store / "data", device_named("auto"))  # noqa: E731
    verdict, effects = room.explain(chosen, tables[1], tables[2], executor, Lines())
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
    click.echo(f"{' | '.join(tables)}: {_show(value)}; {verdict.verdict}: {verdict.reason}")
    adjusted = iter(holm([e.paired.p for e in effects if e.paired]))
    for e in effects:
        test = "  [{:+.2f}, {:+.2f}] Holm p = {:.2g}".format(*e.paired.interval, next(adjusted)) if e.paired else ""
        is_held = claim and (claim.printed.holds(e.value) if e in numbers else claim.printed.text == e.value)
        moved = f"{e.moves:+9.4g}  {_show(e.value)}{test}  " if e.value is not None else "does not apply: "
        click.echo(f"  {moved}{e.name}{': ' if e.note else ''}{e.note}{'  as printed' if is_held else ''}")
    said = (
        f"nearest to {aim:g}: {near.name} gives {_show(near.value)}" if near else "--aim N names a number to come near"
    )
    click.echo(f"{said}; as it is: {_show(value)}")
    return OK


def _show(value: Any) -> str:
    return value if isinstance(value, str) else f"{float(value):.6g}"


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
    found = room.compare(*sides)
    kind = (
        "one set of weights" if len({side.weights for side in sides}) == 1 else "two trainings: of these weights alone"
    )
    if as_json:
        click.echo(json.dumps({**asdict(found), "images": len(sides[0].ids), "weights": kind}, indent=1))
        return OK
    for side, ids in zip(sides, (found.gained, found.lost), strict=True):
        some = ", ".join(map(str, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
        click.echo(f"{side.name}: error {100 - 100 * side.hits.mean():.2f} % of {len(side.ids)} images")
        click.echo(f"  alone right: {len(ids)}{': ' if ids else ''}{some}")
    test = "95 % interval {:+.2f} to {:+.2f}, p = {:.2g}".format(*found.interval, found.p)
    click.echo(f"difference {found.effect:+.2f} pp, {test} ({kind})")
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

    def told(text: str, store: Path) -> tuple[int, str, str]:
        """How many jobs a run of the table had to do, and the verdicts on the count and on the sentence."""
        (folder / "table1.yaml").write_text(text, encoding="utf-8")
        asked = pipeline.Options((str(folder / "table1.yaml"),), store=store, overrides={"recipe.epochs": "16"})
        outcome, _ = pipeline.run(asked, lambda: Local(cores(), store / "data"), Lines())
        counted, sentence = outcome.reports[0].cells[1], outcome.reports[0].relations[0]
        click.echo(f"  {outcome.done} jobs had to be done\n  the printed count: {counted.verdict}: {counted.reason}")
        click.echo(f"  {sentence.relation.text}: {sentence.verdict}: {sentence.reason}")
        return outcome.done, counted.verdict, sentence.verdict

    with tempfile.TemporaryDirectory(prefix="repro-demo-") as name:
        folder = Path(name)
        shutil.copy(find(["vgg/table3"])[0].with_name("paper.yaml"), folder)
        click.echo("1. A net is trained on digits for sixteen epochs, evaluated at two sizes, and counted.")
        first = told(DEMO, folder / "store")
        click.echo("2. One printed digit altered, 133 to 134: the count differs.")
        digit = told(DEMO.replace("133", "134"), folder / "store")
        click.echo(
            "3. One weight altered in a copy of the records: they are not believed, and the net is trained again."
        )
        shutil.copytree(folder / "store", folder / "copy", symlinks=True)
        weights = next((folder / "copy").glob("records/train/*/*.safetensors"))
        tensors = load_file(weights)
        tensors[min(tensors)].flat[0] += 1
        save_file(tensors, weights)
        weight = told(DEMO, folder / "copy")
    caught = digit == (0, "differs", "match") and weight[0] > 0 and first[1:] == weight[1:] == ("match", "match")
    return end(OK, "both were caught") if caught else end(DIFFERENCE, "a planted fault was not caught")
