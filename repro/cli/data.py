"""`repro data`: which data sets there are, where each is looked for, and whether it is whole."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from .. import data
from ..errors import FAILED, OK, JobError
from .options import cores, data_option, end, set_root, store_option


@click.group("data")
def data_group() -> None:
    """The data sets: what is expected where, and whether it is whole."""


@data_group.command("list")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print data.")
@store_option
def list_(store: Path, as_json: bool) -> int:
    """List the data sets, what is to lie under the root of each, and what is here."""
    made, rows = dict.fromkeys(data.DIGITS, ("", "", "made here by the first run")), []
    for name, (_, _, layout) in (made | data.CATALOGUE).items():
        root, facts = data.root_of(name), data.facts(name, store / "data")
        here = f"{facts['images']:,} images" if facts else "not checked yet" if root else "not here"
        rows.append({"name": name, "root": str(root or ""), "here": here, "expected": layout})
    lines = [f"{r['name']:<22} {r['here']:<18} {r['root']}\n{'':<22} {r['expected']}" for r in rows]
    click.echo(json.dumps(rows, indent=1) if as_json else "\n".join(lines))
    return end(OK, 'a root is set by --data NAME=PATH, REPRO_DATA_NAME=PATH, or in repro.toml: [data] NAME = "PATH"')


@data_group.command("check", short_help="Read every image of a set and say what is there.")
@click.argument("name")
@click.option("--root", metavar="PATH", help="Where it lies.  [default: --data, environment, repro.toml]")
@click.option("--samples", metavar="FILE", type=click.Path(path_type=Path), help="Write a sheet of images (PNG).")
@click.option("--json", "as_json", is_flag=True, help="Print data.")
@data_option
@store_option
def check(name: str, root: str | None, samples: Path | None, as_json: bool, store: Path) -> int:
    """Read every image of a data set: counts, classes, damaged files, odd encodings, fingerprint."""
    from ..recipes import SIZES

    base, cache = name.partition("@")[0], store / "data"
    data.check_name(base)
    if root:
        set_root(base, root)
    try:
        facts = data.ensure(name, cache, lambda text: click.echo(text, err=True))
        images = data.open_set(name, cache)
        if samples:
            data.samples(name, cache, samples)
    except JobError as error:
        return end(FAILED, error.reason)
    counts, odd, sizes, bad = Counter(images.labels.tolist()).values(), Counter[str](), Counter[str](), []
    if isinstance(images, data.Images):
        sizes["{2}x{1}".format(*images.images.shape)] = len(images)
    else:
        for _, seen in data.stream(data.Looks(**vars(images)), range(len(images)), cores()):
            if isinstance(seen, data.Unreadable):
                bad.append({"path": seen.path, "why": seen.why})
            else:
                sizes[f"{seen[0][1]}x{seen[0][0]}"] += 1
                odd.update(seen[1])
    found: dict[str, Any] = {"name": name, "root": str(data.root_of(name) or cache), **facts}
    found |= {"whole_set": SIZES.get(name, ("unknown",))[0], "seen_classes": len(counts)}
    found |= {"per_class": " to ".join(map(str, sorted({min(counts), max(counts)})))}
    found |= {"sizes": dict(sizes.most_common(5)), "odd": dict(odd), "samples": str(samples or "none")}
    if as_json:
        click.echo(json.dumps(found | {"unreadable": bad}, indent=1))
    else:
        for key, value in found.items():
            many = ", ".join(f"{what} ({n:,})" for what, n in value.items()) if isinstance(value, dict) else value
            click.echo(f"{key.replace('_', ' '):<14} {many or 'none'}")
        for one in bad[:10]:
            click.echo(f"cannot be read {one['path']}: {one['why']}")
    told = f"{len(bad)} of {len(images)} images cannot be read; what is measured leaves them out and says so"
    return end(FAILED, told) if bad else end(OK, "every image can be read")
