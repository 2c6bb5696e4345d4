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
    rows: list[dict[str, Any]] = []
    for name in (*data.DIGITS, *data.CATALOGUE):
        root, facts = data.root_of(name), data.facts(name, store / "data")
        layout = "made here by the first run" if name in data.DIGITS else data.CATALOGUE[name][2]
        rows.append({"name": name, "root": str(root) if root else None, "expected": layout, "facts": facts})
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    for row in [] if as_json else rows:
        here = (
            f"{row['facts']['images']:,} images" if row["facts"] else "not checked yet" if row["root"] else "not here"
        )
        place = f" at {row['root']}" if row["root"] else ""
        click.echo(f"{row['name']:<22} {here}{place}\n{'':<22}   {row['expected']}")
    return end(OK, 'a root is set by --data NAME=PATH, REPRO_DATA_NAME=PATH, or in repro.toml: [data] NAME = "PATH"')


@data_group.command("check", short_help="Read every image of a set and say what is there.")
@click.argument("name")
@click.option("--root", metavar="PATH", help="Where it lies.  [default: --data, environment, repro.toml]")
@click.option("--samples", metavar="FILE", type=click.Path(path_type=Path), help="Write a sheet of images (PNG).")
@click.option("--workers", type=click.IntRange(0), help="Processes that decode.  [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print data.")
@data_option
@store_option
def check(name: str, root: str | None, samples: Path | None, workers: int | None, as_json: bool, store: Path) -> int:
    """Read every image of a data set: counts, classes, damaged files, odd encodings, fingerprint."""
    from ..plan import SIZES

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
    found = {"name": name, "root": str(data.root_of(name) or cache), "of": SIZES.get(name, (0, 0))[0] or None, **facts}
    found |= _look(images, cores() if workers is None else workers) | ({"samples": str(samples)} if samples else {})
    bad = found["unreadable"]
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        lines = {"images": f"{found['images']:,}" + (f" of {found['of']:,}" if found["of"] else "")}
        lines |= {
            key: ", ".join(f"{what} ({n:,})" for what, n in found[key].items()) or "none" for key in ("sizes", "odd")
        }
        for key, value in ({k: v for k, v in found.items() if k not in ("of", "unreadable")} | lines).items():
            click.echo(f"{key.replace('_', ' '):<16} {value}")
        for one in bad[:10]:
            click.echo(f"cannot be read   {one['path']}: {one['why']}")
    told = f"{len(bad)} of {len(images)} images cannot be read; what is measured leaves them out and says so"
    return end(FAILED, told) if bad else end(OK, "every image can be read")


def _look(images: data.ImageSet, workers: int) -> dict[str, Any]:
    """What reading all images shows: images by class, the commonest sizes, what is odd, what cannot be read."""
    odd: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    unreadable: list[dict[str, str]] = []
    if isinstance(images, data.Images):
        sizes[f"{images[0].shape[1]}x{images[0].shape[0]}"] = len(images)
    else:
        for _, seen in data.stream(data.Looks(images), range(len(images)), workers):
            if isinstance(seen, data.Unreadable):
                unreadable.append({"path": seen.path, "why": seen.why})
            else:
                sizes[f"{seen[0][1]}x{seen[0][0]}"] += 1
                odd.update(seen[1])
    counts = Counter(images.labels.tolist()).values()
    found = {"seen_classes": len(counts), "per_class": " to ".join(map(str, sorted({min(counts), max(counts)})))}
    return found | {"sizes": dict(sizes.most_common(5)), "odd": dict(odd), "unreadable": unreadable}
