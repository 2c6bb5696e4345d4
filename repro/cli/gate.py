"""The gates: `check` against the blessed baseline or the papers, `bless` to accept what is measured now."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import DIFFERENCE, FAILED, NOTHING, OK, ReproError
from .options import cores, end, options, selection

if TYPE_CHECKING:
    from ..gate import Change
    from ..pipeline import Options, Outcome, Report

STORE, FOLDER = Path("runs/store"), Path("runs/baseline")
_FILE = click.Path(path_type=Path)
_ASKED = ("only", "rows", "seeds", "weights", "limit")  # what a baseline keeps, so that `check` asks for the same


def _running(function: Callable[..., Any]) -> Callable[..., Any]:
    """What both commands need to run what is not recorded yet, and where baselines lie."""
    found = [
        click.option("--jobs", type=click.IntRange(1), help="Jobs at once.  [default: one a core]"),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto: a GPU if any."),
        click.option("--baseline", type=_FILE, default=FOLDER, show_default=True, help="Folder of the baselines."),
    ]
    for option in reversed(found):
        function = option(function)
    return selection(function)


def measured(chosen: Options) -> Outcome:
    """Run what is not recorded yet, and judge. Ctrl-C says what is kept."""
    from .. import pipeline
    from ..execution import Interrupted
    from ..executors import Local
    from ..report.progress import Lines

    try:
        return pipeline.run(chosen, lambda: Local(chosen.jobs, chosen.store / "data", chosen.device), Lines())[0]
    except Interrupted as stop:
        click.echo(f"{stop.done} jobs of this run are recorded", err=True)
        raise KeyboardInterrupt from None


def _chosen(jobs: int | None, device: str, **given: Any) -> Options:
    from ..executors import device_named

    return options(**given, jobs=jobs or cores(), device=device_named(device))


def _name(path: str) -> str:
    return f"{Path(path).resolve().parent.name}/{Path(path).stem}"


def _blessed(chosen: Options, folder: Path) -> dict[str, Any]:
    """Baselines by the table's path, None for a table that has none. Without a word: all that there are."""
    from .. import gate, tables

    if chosen.words:
        paths = [str(path) for path in tables.find(chosen.words)]
        return {path: gate.read(folder / f"{_name(path)}.{chosen.scale}.json") for path in paths}
    found = {}
    for path in sorted(folder.glob(f"*/*.{chosen.scale}.json")):
        was = gate.read(path) or {}
        file = next((f for f in (Path(was["file"]), tables.ROOT / f"{was['table']}.yaml") if f.is_file()), None)
        if file is None:
            raise ReproError(f"its table {was['table']} is gone; remove the baseline if that is meant", str(path))
        found[str(file)] = was
    return found


def _runs(chosen: Options, old: dict[str, Any]) -> list[tuple[Outcome, list[tuple[Any, Any, Report]]]]:
    """Run the tables of `old`; of each run the outcome, and what was and is measured of each of its tables.

    What the command line leaves open (kinds, rows, seeds) is asked as it was blessed.
    """
    from .. import gate
    from ..pipeline import Options

    groups: dict[str, list[str]] = {}
    for path, was in old.items():
        groups.setdefault(json.dumps(was["asked"] if was else {}), []).append(path)
    runs = []
    for text, paths in groups.items():
        asked = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        kept: dict[str, Any] = {k: v for k, v in asked.items() if getattr(chosen, k) == getattr(Options(), k)}
        part = replace(chosen, words=tuple(paths), **kept)
        outcome = measured(part)
        now = (gate.snapshot(r, outcome, _asked(part)) for r in outcome.reports)
        runs.append((outcome, list(zip((old[p] for p in paths), now, outcome.reports, strict=True))))
    return runs


def _broken(outcome: Outcome) -> int:
    return max(outcome.broken, len(outcome.failures))


def _asked(chosen: Options) -> dict[str, Any]:
    return {k: list(v) if isinstance(v := getattr(chosen, k), tuple) else v for k in _ASKED}


def _show(changes: list[Change]) -> None:
    """What moved, under what moved it."""
    groups: dict[str, list[Change]] = {}
    for c in changes:
        since = [f"since {c.since}"] if c.since else []
        groups.setdefault("; ".join([c.table, *since, *c.causes]), []).append(c)
    for head, found in groups.items():
        click.echo("\n".join([head, *(f"  {c.name}: {c.text} ({c.file}:{c.line})" for c in found)]))


@click.command(short_help="Exit 1 where anything moved since it was blessed.")
@_running
@click.option("--claims", is_flag=True, help="The other gate: exit 1 where a claim differs without a known cause.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML, a case for each claim.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write a job summary, what moved on top.")
@click.option("--github", is_flag=True, help="Print annotations at the lines of the tables.")
def check(
    claims: bool, junit: Path | None, markdown: Path | None, github: bool, as_json: bool, baseline: Path, **given: Any
) -> int:
    """Run or reuse what TABLEs need, and compare with what was blessed. Without TABLE: all that have a baseline."""
    from .. import gate, tables
    from ..report import ci

    chosen = _chosen(**given)
    old = dict.fromkeys(map(str, tables.find(chosen.words))) if claims else _blessed(chosen, baseline)
    runs = _runs(chosen, {path: was for path, was in old.items() if was or claims})
    new, changes = [], []
    for was, now, report in (found for _, several in runs for found in several):
        new.append(now)
        changes += gate.compare(was, now, report) if was else gate.unexplained(report)
    changes.sort(key=lambda c: c.rank)
    absent, broken = [_name(p) for p in old if not (old[p] or claims)], sum(_broken(outcome) for outcome, _ in runs)
    if as_json:
        click.echo(json.dumps([{**asdict(c), "delta": c.delta} for c in changes], indent=1, ensure_ascii=False))
    else:
        _show(changes)
    say = f"{sum(len(m['cells']) for m in new)} claims checked, {len(changes)} "
    say += "differ without a known cause" if claims else "moved"
    if broken:
        code, say = FAILED, f"{say}, {broken} planned cells or jobs could not be measured"
    elif changes:
        code = DIFFERENCE
    else:
        nothing = absent or all(outcome.unmeasured for outcome, _ in runs)
        code = NOTHING if nothing else OK
        say = say if not nothing or absent else "nothing was measured, or nothing was ever blessed"
    if absent:
        say += f"; no baseline of {', '.join(absent)}: `repro bless` makes one"
    if changes and not (claims or broken or chosen.overrides):
        usual = (("--scale", chosen.scale, "proxy"), ("--store", chosen.store, STORE), ("--baseline", baseline, FOLDER))
        words = [word for key, value, default in usual if value != default for word in (key, str(value))]
        names = dict.fromkeys(c.table for c in changes)
        say += f"; if that is meant: {shlex.join(['repro', 'bless', *names, *words, '--reason', 'WHY'])}"
    for line in ci.github(changes) if github else ():
        click.echo(line)
    for file, content in ((junit, ci.junit(new, changes)), (markdown, ci.markdown(new, changes, say))):
        if file:
            file.write_text(content, encoding="utf-8")
    return end(code, say)


@click.command(short_help="Accept what is measured now as the baseline.")
@_running
@click.option("--reason", required=True, help="Why the change is meant; kept in the baseline.")
def bless(reason: str, as_json: bool, baseline: Path, **given: Any) -> int:
    """Run or reuse what TABLEs need, show what moved, and keep it as the baseline, with the reason."""
    from .. import gate, tables

    chosen, written = _chosen(**given), 0
    if not reason.strip() or chosen.overrides:
        raise ReproError("bless takes a reason in words, and tables as they are, without -o")
    chosen = replace(chosen, words=tuple(map(str, tables.find(chosen.words))))
    runs = _runs(chosen, _blessed(chosen, baseline))
    if broken := sum(_broken(outcome) for outcome, _ in runs):
        return end(FAILED, f"{broken} planned cells or jobs could not be measured; nothing was blessed")
    for was, now, report in (found for _, several in runs for found in several):
        if all(entry["verdict"] == "missing" for entry in now["cells"].values()):
            continue
        changes = gate.compare(was, now, report, whole=True) if was else []
        _show(changes)
        path = baseline / f"{now['table']}.{chosen.scale}.json"
        fresh = gate.write(path, now, was, reason)
        written += fresh
        told = f"{len(changes)} of {len(now['cells'])} claims moved" if was else f"{len(now['cells'])} claims, new"
        click.echo(f"{path}: {told}" if fresh else f"{path}: as blessed")
    return end(NOTHING if all(outcome.unmeasured for outcome, _ in runs) else OK, f"{written} baselines written")
