"""A `Table` to cells and relations: settings merged level by level, put on the scale that is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from . import protocols, tables
from .architectures import LIBRARIES
from .architectures import check as check_build
from .errors import ReproError
from .fields import RelationModel
from .printed import parse
from .reader import near
from .schema import KINDS, QUANTITIES, Build, Cell, Claim, Relation, System
from .tables import Table

Key = tuple[str, str, str]
# What a cell must say, one of these, before a claim of that kind can be measured.
_NEEDS = {"static": ("build", "nets"), "metric": ("recipe", "nets"), "setting": ("setting",)}
_EXTRA = ("stage", "as_", "without", "times", "setting", "margin", "weights")
_TESTS = ("less", "not_better", "falls")


@contextmanager
def _placed(file: str, line: Callable[[str], int], prefix: str = "") -> Iterator[None]:
    """Give a mistake that knows no place the file, and the line that `line` finds for its message."""
    try:
        yield
    except ReproError as error:
        if error.file:
            raise
        raise ReproError(prefix + error.message, file, line(error.message)) from None


@dataclass
class Claims:
    """The cells and relations of tables at one scale. Tables that an address names are read too.

    `overrides` are `-o key=value` pairs whose key starts with `recipe.`, `build.` or is `protocol`. `weights` is
    `timm` or `torchvision`, for those that a row names of that library, a file, or empty: nets are trained.
    """

    scale: str = "proxy"
    overrides: Mapping[str, str] = field(default_factory=dict)
    weights: str = ""
    _tables: dict[str, Table] = field(default_factory=dict)
    _named: dict[str, Table] = field(default_factory=dict)

    def table(self, path: Path) -> Table:
        """Load a table once."""
        table = self._tables.get(str(path))
        if table is None:
            table = self._tables[str(path)] = tables.load(path)
            self._named.setdefault(table.name, table)
        return table

    def named(self, name: str) -> Table:
        """A table that was loaded, by its name."""
        return self._named[name]

    def cells(self, table: Table) -> list[Cell]:
        """Every cell of a table, printed or not, row by row."""
        return [self.cell(table, row, column) for row in table.rows for column in table.columns]

    def cell(self, table: Table, row: str, column: str) -> Cell:
        """One cell, with its claim and the systems it speaks of."""
        settings = merged(table, row, column)
        quantity = settings.get("quantity", "")
        kind, unit, _ = QUANTITIES.get(quantity, ("", "", ""))
        kind, unit = settings.get("kind", kind), settings.get("unit", unit)
        is_own = any(need in settings for need in _NEEDS.get(kind, ()))  # it says itself how it is measured
        loads = kind == "metric" and bool(self.weights)
        if kind in table.paper.missing and not is_own and not (loads and {"build", "weights"} & settings.keys()):
            settings.setdefault("missing", table.paper.missing[kind])
        if kind == "metric" and self.scale == "proxy" and table.paper.proxy is None:
            settings.setdefault("missing", f"{table.paper.file} states no proxy; --scale full measures it")
        if loads and (why := self._unloadable(table, settings)):
            settings.setdefault("missing", why)
        if kind not in KINDS or (quantity not in QUANTITIES and "missing" not in settings):
            say = f"{row} | {column}: quantity {quantity!r} is not measured{near(quantity, QUANTITIES)} Known: "
            say += f"{', '.join(QUANTITIES)}. Any other needs `kind:` ({', '.join(KINDS)}) and `missing:`"
            raise ReproError(say, table.file, table.line("columns", column))
        settings |= {"quantity": quantity, "kind": kind, "unit": unit}
        systems: tuple[tuple[System, ...], ...] = ()
        if "missing" not in settings:
            try:
                with _placed(table.file, lambda message: _blame(table, row, column, message)):
                    systems = self._systems(table, settings)
                    if not systems and settings.get("printed", "-") != "-":
                        raise ReproError("values need a `build:` (vgg:D), `nets:`, or `missing:` with the reason")
            except ReproError as error:
                if not loads or is_own:
                    raise
                settings["missing"] = error.message  # a row that was not written to be measured
        claim = _claim(table, row, column, settings)
        extra: dict[str, Any] = {k: settings[k] for k in _EXTRA if k in settings}
        return Cell(table.name, row, column, claim, quantity, kind, unit, systems, extra)

    def _unloadable(self, table: Table, settings: Mapping[str, Any]) -> str | None:
        """Why the published weights that are asked for cannot measure a cell, if they cannot."""
        for net in settings.get("nets", ()):
            one = self.cell(*self.address(table, net)) if isinstance(net, str) else None
            if one and one.claim and one.claim.missing:
                return one.claim.missing
        if self.weights in LIBRARIES and self.scale == "proxy":
            return "published weights are of the paper's own data: --scale full"
        if self.weights in LIBRARIES and self.weights not in settings.get("weights", {}) and "nets" not in settings:
            return f"the table names no weights of {self.weights} for this row"
        return None

    def _systems(self, table: Table, settings: Mapping[str, Any]) -> tuple[tuple[System, ...], ...]:
        """An ensemble for each net that is claimed; `nets` is one ensemble of several."""
        if "nets" not in settings:
            library = self.weights in LIBRARIES and settings["kind"] == "metric"  # whose net goes with its weights
            builds = [f"{self.weights}:{settings['weights'][self.weights].partition('.')[0]}"] if library else []
            return tuple((self._system(table, settings, build),) for build in builds or settings.get("build", []))
        members: list[System] = []
        for net in settings["nets"]:
            if isinstance(net, str):  # an address: the nets of that cell, whatever quantity stands there
                members += self.cell(*self.address(table, net)).systems[0]
            else:
                own = {**settings, **net}
                members.append(self._system(table, own, own["build"][0]))
        return (tuple(members),)

    def _system(self, table: Table, settings: Mapping[str, Any], text: str) -> System:
        # Counts and settings are of the paper's own net and recipe, whatever the scale.
        at = self if settings["kind"] == "metric" else Claims("full", self.overrides)
        word, pixels = at.weights, at.size(table, settings.get("input", 224))
        if word in LIBRARIES:  # the library's own net, which its weights fit
            word = f"{word}:{settings['weights'][word]}"
            net = Build.parse(word.partition(".")[0])
            check_build(net)
        else:
            net = at.net(table, text)
        if settings["kind"] == "static":
            return System(net, input=pixels)
        words = [self.overrides["protocol"]] if "protocol" in self.overrides else settings.get("protocol", [])
        choices = {k.removeprefix("protocol."): v for k, v in self.overrides.items() if k.startswith("protocol.")}
        Q = [at.size(table, int(q)) for q in settings.get("Q", [])]
        is_whole = all(w in protocols.PROTOCOLS and protocols.PROTOCOLS[w].Q for w in words)
        scaled = Q or (words and is_whole)
        views = protocols.resolve(words, Q, pixels, lambda q: at.size(table, q), choices) if scaled else ()
        dataset, recipe = settings.get("dataset", ""), settings.get("recipe", "")
        if recipe not in table.paper.recipes and not word and (recipe or settings["kind"] == "metric"):
            raise ReproError(f"recipe {recipe!r} is not in {table.paper.file}{near(recipe, table.paper.recipes)}")
        if settings["kind"] == "metric":
            needs = {"protocol"} | ({"Q"} if not is_whole else set()) | ({"S"} if not word else set())
            for need in sorted(needs):
                if need not in settings:
                    raise ReproError(f"{need} is missing for the build {text}")
            if at.scale == "proxy" and table.paper.proxy:
                dataset = table.paper.proxy.dataset.get(dataset, dataset)
        return System(net, recipe, at.span(table, settings.get("S", "0")), dataset, views, pixels, word)

    def net(self, table: Table, text: str) -> Build:
        """A build of the table's with what the command line and, at its scale, the proxy change."""
        given = {k.removeprefix("build."): v for k, v in self.overrides.items() if k.startswith("build.")}
        net = Build.parse(text)
        net = Build(net.family, net.net).with_args({**dict(net.args), **given})
        if self.scale == "proxy" and table.paper.proxy:
            net = net.with_args(table.paper.proxy.build)
        check_build(net)
        return net

    def size(self, table: Table, pixels: int) -> int:
        """A size of the paper's in the pixels of the scale that is run."""
        proxy = table.paper.proxy
        if self.scale != "proxy" or proxy is None:
            return pixels
        if pixels not in proxy.pixels:
            known = ", ".join(str(p) for p in proxy.pixels)
            raise ReproError(f"size {pixels} is not in the proxy's `pixels:` of {table.paper.file} ({known})")
        return proxy.pixels[pixels]

    def span(self, table: Table, text: str) -> tuple[int, int]:
        """`256` or `256..512` as the smallest and largest training scale, in pixels of the scale run."""
        low, _, high = text.partition("..")
        try:
            ends = int(low), int(high or low)
        except ValueError:
            raise ReproError(f"S is {text!r}; expected pixels, as 256, or a range, as 256..512") from None
        return (self.size(table, ends[0]), self.size(table, ends[1])) if ends[0] else ends

    def address(self, table: Table, text: str) -> tuple[Table, str, str]:
        """`table | row | column` as a table and keys; a bare word is a row of this table."""
        parts = [p.strip() for p in text.split("|")]
        if parts[0] in table.rows:
            parts = [table.name, *parts]
        if len(parts) < 2:
            raise ReproError(f"no row is called {text!r}{near(text, table.rows)} Rows: {', '.join(table.rows)}")
        if parts[0] != table.name:
            path = Path(table.file).with_name(f"{parts[0].split('/')[-1]}.yaml")
            if not path.is_file():
                raise ReproError(f"address {text!r}: there is no {path}")
            table = self.table(path)
        row, column = parts[1], parts[2] if len(parts) > 2 else next(iter(table.columns))
        if row not in table.rows or column not in table.columns:
            raise ReproError(f"address {text!r}: {table.name} has no such row or column{near(row, table.rows)}")
        return table, row, column

    def relations(self, table: Table) -> list[Relation]:
        """The relations of a table file, their sides as cell keys."""
        return [self._relation(table, id_, model) for id_, model in table.relations.items()]

    def _relation(self, table: Table, id_: str, model: RelationModel) -> Relation:
        tests = [t for t in _TESTS if getattr(model, t) is not None]
        test = tests[0] if tests else ""
        with _placed(table.file, lambda message: table.line("relations", id_, test), f"relation {id_!r}: "):
            if len(tests) != 1:
                raise ReproError(f"it needs one of {', '.join(_TESTS)}; it has {len(tests)}")
            pairs = self._pairs(table, test, getattr(model, test))
            printed = parse(model.printed, numeric=True) if model.printed else None
        return Relation(id_, model.text, model.where, test, pairs, table.file, table.line("relations", id_),
                        model.margin, printed, model.unit, model.missing)  # fmt: skip

    def _pairs(self, table: Table, test: str, sides: Sequence[Any]) -> tuple[tuple[Key, Key], ...]:
        if test == "falls":
            pairs: list[Any] = list(pairwise(sides))
        else:
            pairs = list(sides) if all(isinstance(s, list) for s in sides) else [sides]
        keys: list[tuple[Key, Key]] = []
        for pair in pairs:
            if len(pair) != 2:
                raise ReproError(f"a pair has two sides, this has {len(pair)}: {pair}")
            one, two = ((t.name, row, column) for t, row, column in (self.address(table, side) for side in pair))
            keys.append((one, two))
        return tuple(keys)

    def sides(self, table: Table, relations: Sequence[Relation]) -> list[Cell]:
        """The cells that relations speak of, also those of other tables."""
        keys = {key for r in relations if not r.missing for pair in r.pairs for key in pair}
        return [self.cell(table if t == table.name else self.named(t), row, column) for t, row, column in sorted(keys)]


def _claim(table: Table, row: str, column: str, settings: Mapping[str, Any]) -> Claim | None:
    """What the cell prints, or None for `-`."""
    text, means, kind = settings.get("printed", "-"), settings.get("means", ""), settings["kind"]
    if text == "-":
        return None
    line = table.line("rows", row, "values", column)
    if line == table.line("rows", row):  # a list of values has no key for each
        line = table.line("rows", row, "values")
    words_may_stand = kind == "setting" or settings["quantity"] in ("composition", "shape")
    numeric = settings["quantity"] in QUANTITIES and not words_may_stand
    with _placed(table.file, lambda message: line, f"{row} | {column}: "):
        printed = parse(means or text, settings.get("digits"), numeric=numeric, unit=settings["unit"])
    known = dict(table.known.get((row, column), {}))
    at = int(known.pop("line", 0))
    if known and not printed.holds(gives := tables.arithmetic(known["gives"])):
        say = f"known difference at '{row} | {column}': {known['gives']} is {gives}, not {text} {settings['unit']}"
        raise ReproError(say, table.file, at)
    return Claim(
        printed=replace(printed, text=text, means=means),
        quantity=settings["quantity"],
        kind=kind,
        unit=settings["unit"],
        where=settings.get("where", table.where),
        file=table.file,
        line=line,
        dataset="" if kind in ("static", "setting") else settings.get("dataset", ""),
        missing=settings.get("missing"),
        known=known or None,
        quotes=settings.get("quotes"),
        recalled="recalled" in settings,
    )


def _blame(table: Table, row: str, column: str, message: str) -> int:
    """The line of the field that a message is about: the innermost level that sets it."""
    word = message.removeprefix("unknown ").split()[0]
    name = {"family": "build", "net": "build", "argument": "build", "size": "Q"}.get(word, word)
    for where in (("rows", row, "values", column), ("rows", row), ("columns", column), ("defaults",)):
        if (*where, name) in table.lines:
            return table.line(*where, name)
    return table.line("rows", row)


def merged(table: Table, row: str, column: str) -> dict[str, Any]:
    """The settings of a cell: paper < table < column < row < cell; `no` unsets an inherited field."""
    of_row = {k: v for k, v in table.rows[row].items() if k != "values"}
    of_cell = table.rows[row]["values"].get(column, {})
    out: dict[str, Any] = {}
    for level in (table.paper.defaults, table.defaults, table.columns[column], of_row, of_cell):
        out.update(level)
    part = table.columns[column].get("stage", "")
    if part.startswith(".") and out["stage"] == of_row.get("stage"):
        out["stage"] += part  # a column of parts: `.reduce3x3` of each row's stage
    return {k: v for k, v in out.items() if v not in ("no", ["no"])}
