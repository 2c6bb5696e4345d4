"""The gate: `check` compares with what was blessed, `bless` accepts what is measured now."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import DIFFERENCE, FAILED, NOTHING, OK, ReproError
from .options import cores, end, options, selection

if TYPE_CHECKING:
    from ..gate import Change
    from ..pipeline import Options, Outcome

FOLDER = Path("runs/baseline")
_FILE = click.Path(path_type=Path)
_jobs = click.option("--jobs", type=click.IntRange(1), help="Jobs at once.  [default: one a core]")
_device = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto: a GPU if any.")


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


def _show(changes: list[Change]) -> None:
    for c in changes:
        click.echo(f"{c.table} | {c.name}: {c.text}\n    {c.why}; {c.file}:{c.line}")


@click.command(short_help="Exit 1 where anything moved since it was blessed.")
@selection
@_jobs
@_device
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML, a case for each claim.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write a job summary, what moved on top.")
@click.option("--github", is_flag=True, help="Print annotations at the lines of the tables.")
def check(junit: Path | None, markdown: Path | None, github: bool, as_json: bool, **given: Any) -> int:
    """Run or reuse what TABLEs need, and compare with what was blessed. Without TABLE: all that have a baseline.

    Give it the options that `bless` had. The other gate, against the papers, is `repro diff --strict`.
    """
    from .. import gate, tables
    from ..report import ci

    chosen = _chosen(**given)
    ending = f".{chosen.scale}.json"
    every = [p.relative_to(FOLDER).as_posix().removesuffix(ending) for p in sorted(FOLDER.glob(f"*/*{ending}"))]
    words = chosen.words or [path if Path(path := f"tables/{name}.yaml").is_file() else name for name in every]
    paths = {f"{p.resolve().parent.name}/{p.stem}": str(p) for p in (tables.find(words) if words else [])}
    old = {name: gate.read(FOLDER / f"{name}{ending}") for name in paths}
    absent = [name for name, was in old.items() if not was]
    if len(absent) == len(old):
        return end(NOTHING, f"no baseline of {', '.join(absent) or 'any table'}; `repro bless TABLE` makes one")
    outcome = measured(replace(chosen, words=tuple(paths[name] for name, was in old.items() if was)))
    new = [gate.snapshot(report, outcome, chosen.seeds) for report in outcome.reports]
    pairs = zip(filter(None, old.values()), new, outcome.reports, strict=True)
    changes = [change for was, now, report in pairs for change in gate.compare(was, now, report, outcome)]
    changes.sort(key=lambda c: ("failed", "differs", "missing", c.now).index(c.now))  # the worst first
    say = f"{sum(len(now['cells']) for now in new)} claims checked, {len(changes)} moved"
    broken = max(outcome.broken, len(outcome.failures))
    code = FAILED if broken else DIFFERENCE if changes else NOTHING if absent or outcome.unmeasured else OK
    if broken:
        say += f", {broken} planned cells or jobs could not be measured"
    elif changes:
        words = ["repro", "bless", *dict.fromkeys(c.table for c in changes), *_unusual(given)]
        say += f"; if that is meant: {shlex.join(words)} --reason WHY"
    say += f"; no baseline of {', '.join(absent)}" if absent else ""
    if as_json:
        click.echo(json.dumps([asdict(c) for c in changes], indent=1, ensure_ascii=False))
    else:
        _show(changes)
    if github and changes:
        click.echo("\n".join(ci.github(changes)))
    for file, content in ((junit, ci.junit(new, changes)), (markdown, ci.markdown(new, changes, say))):
        if file:
            file.write_text(content, encoding="utf-8")
    return end(code, say)


def _unusual(given: dict[str, Any]) -> list[str]:
    """The words of the options of a check that are not the usual ones, as `bless` takes them."""
    words = []
    for p in bless.params:
        value = given.get(p.name or "")
        if p.name not in ("tables", "jobs") and value not in (None, (), p.get_default(click.Context(bless))):
            words += [str(w) for v in (value if p.multiple else [value]) for w in (p.opts[0], v)]
    return words


@click.command(short_help="Accept what is measured now as the baseline.")
@selection
@_jobs
@_device
@click.option("--reason", required=True, help="Why the change is meant; kept in the baseline.")
def bless(reason: str, as_json: bool, **given: Any) -> int:
    """Run or reuse what TABLEs need, show what moved, and keep it as the baseline, with the reason."""
    from .. import gate

    chosen, written = _chosen(**given), 0
    if not reason.strip() or chosen.overrides:
        raise ReproError("bless takes a reason in words, and tables as they are, without -o")
    outcome = measured(chosen)
    if broken := max(outcome.broken, len(outcome.failures)):
        return end(FAILED, f"{broken} planned cells or jobs could not be measured; nothing was blessed")
    for report in outcome.reports:
        path = FOLDER / f"{report.table.name}.{chosen.scale}.json"
        was, now = gate.read(path), gate.snapshot(report, outcome, chosen.seeds)
        changes = gate.compare(was, now, report, outcome) if was else []
        _show(changes)
        if (was or now["cells"]) and gate.write(path, now, was, report, reason):
            click.echo(f"{path}: {f'{len(changes)} moved of' if was else 'new,'} {len(now['cells'])} claims")
            written += 1
    return end(NOTHING if outcome.unmeasured else OK, f"{written} baselines written")
