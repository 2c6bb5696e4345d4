"""A `Table` to cells: settings merged level by level, and put on the scale that is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from . import protocols, tables
from .architectures import check as check_build
from .errors import ReproError
from .printed import parse
from .reader import near
from .schema import KINDS, QUANTITIES, Build, Cell, Claim, Relation, System
from .tables import Table

Key = tuple[str, str, str]
_FIELDS = ("build", "recipe", "S", "Q", "protocol", "dataset")  # what `nets` may set of its own


@dataclass
class Claims:
    """The cells and relations of tables at one scale. Tables that an address names are read too.

    `overrides` are `-o key=value` pairs whose key starts with `recipe.`, `build.` or `protocol.`.
    """

    scale: str = "proxy"
    root: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    _tables: dict[str, Table] = field(default_factory=dict)

    def table(self, path: Path) -> Table:
        """Load a table once."""
        table = self._tables.get(str(path))
        if table is None:
            table = self._tables[str(path)] = tables.load(path)
        return table

    def named(self, name: str) -> Table:
        """A table that was loaded, by its name."""
        return next(t for t in self._tables.values() if t.name == name)

    def cells(self, table: Table) -> list[Cell]:
        """Every cell of a table, printed or not, row by row."""
        return [self.cell(table, row, column) for row in table.rows for column in table.columns]

    def cell(self, table: Table, row: str, column: str) -> Cell:
        """One cell, with its claim and the systems it speaks of."""
        settings = merged(table, row, column)
        line = table.line("rows", row, "values", column)
        if line == table.line("rows", row):
            line = table.line("rows", row, "values")
        quantity = settings.get("quantity")
        if quantity is None:
            raise ReproError(f"cell {row} | {column}: no quantity is given", table.file, line)
        kind, unit, _ = QUANTITIES.get(quantity, (settings.get("kind"), settings.get("unit", ""), ""))
        kind, unit = settings.get("kind", kind), settings.get("unit", unit)
        missing = settings.get("missing")
        if kind == "metric" and self.scale == "proxy" and table.paper.proxy is None and not missing:
            missing = settings["missing"] = f"{table.paper.file} states no proxy; --scale full measures it"
        if kind not in KINDS or (quantity not in QUANTITIES and not missing):
            place = table.line("columns", column) if column in table.columns else line
            say = f"quantity {quantity!r} is not measured{near(quantity, QUANTITIES)} "
            raise ReproError(
                say + f"Known: {', '.join(QUANTITIES)}. Any other needs `kind:` ({', '.join(KINDS)}) and `missing:`",
                table.file,
                place,
            )
        claim = self._claim(table, row, column, settings, quantity, kind, unit, line)
        systems: tuple[tuple[System, ...], ...] = ()
        if not missing:
            try:
                systems = self._systems(table, settings, kind)
            except ReproError as error:
                if error.file:
                    raise
                raise ReproError(error.message, table.file, self._blame(table, row, column, error.message)) from None
        extra: dict[str, Any] = {k: settings[k] for k in ("stage", "setting", "margin") if k in settings}
        return Cell(table.name, row, column, claim, quantity, kind, unit, systems, extra)

    def _blame(self, table: Table, row: str, column: str, message: str) -> int:
        """The line of the field that a message is about: the innermost level that sets it."""
        word = message.split()[1] if message.startswith("unknown ") else message.split()[0]
        name = {"family": "build", "net": "build", "argument": "build", "size": "Q"}.get(word, word)
        for where in (("rows", row, "values", column), ("rows", row), ("columns", column), ("defaults",)):
            if (*where, name) in table.lines:
                return table.line(*where, name)
        return table.line("rows", row)

    def _claim(
        self,
        table: Table,
        row: str,
        column: str,
        settings: Mapping[str, Any],
        quantity: str,
        kind: str,
        unit: str,
        line: int,
    ) -> Claim | None:
        text = settings.get("printed", "-")
        if text == "-":
            return None
        numeric = kind != "setting" and quantity != "composition" and quantity in QUANTITIES
        try:
            printed = parse(settings.get("means", text), settings.get("digits"), numeric=numeric, unit=unit)
        except ReproError as error:
            raise ReproError(f"{row} | {column}: {error.message}", table.file, line) from None
        return Claim(
            printed=replace(printed, text=text, means=settings.get("means", "")),
            quantity=quantity,
            kind=kind,
            unit=unit,
            where=settings.get("where", table.where),
            file=table.file,
            line=line,
            dataset="" if kind in ("static", "setting") else settings.get("dataset", ""),
            missing=settings.get("missing"),
            known=table.known.get((row, column)),
            quotes=settings.get("quotes"),
            recalled="recalled" in settings,
            note=settings.get("note"),
        )

    def _systems(self, table: Table, settings: Mapping[str, Any], kind: str) -> tuple[tuple[System, ...], ...]:
        if nets := settings.get("nets"):
            members: list[System] = []
            for net in nets:
                if isinstance(net, str):
                    # An address: the nets of that cell, whatever quantity stands there.
                    other, row, column = self.address(table, net)
                    members += self.cell(other, row, column).systems[0]
                else:
                    unknown = [k for k in net if k not in _FIELDS]
                    if unknown:
                        raise ReproError(f"nets: unknown key {unknown[0]!r}; known: {', '.join(_FIELDS)}")
                    fields = {
                        k: [v] if k in ("build", "Q", "protocol") and isinstance(v, str) else v for k, v in net.items()
                    }
                    members.append(
                        self._system(table, {**settings, **fields}, (fields.get("build") or settings["build"])[0], kind)
                    )
            return (tuple(members),)
        if not settings.get("build"):
            return () if settings.get("printed", "-") == "-" else self._no_build()
        return tuple((self._system(table, settings, b, kind),) for b in settings["build"])

    def _no_build(self) -> tuple[tuple[System, ...], ...]:
        raise ReproError("values need a `build:` (vgg:D), `nets:`, or `missing:` with the reason")

    def _system(self, table: Table, settings: Mapping[str, Any], build: str, kind: str) -> System:
        net = self.net(table, build, full=True)
        pixels = int(settings.get("input", 224))
        if kind == "setting":
            views = (
                protocols.resolve(settings["protocol"], [int(q) for q in settings["Q"]], pixels)
                if "Q" in settings
                else ()
            )
            return System(net, settings.get("recipe", ""), self._span(table, settings, True), "", views, pixels)
        if kind != "metric":
            return System(net, input=pixels)
        proxy = table.paper.proxy
        dataset = settings.get("dataset", "")
        if self.scale == "proxy" and proxy:
            dataset = proxy.dataset.get(dataset) or dataset
            net, pixels = self.net(table, build), self._size(table, pixels)
        for need in ("recipe", "S", "Q", "protocol"):
            if need not in settings:
                raise ReproError(f"{need} is missing for the build {build}")
        Q = [self._size(table, int(q)) for q in settings["Q"]]
        if settings["recipe"] not in table.paper.recipes:
            known = table.paper.recipes
            raise ReproError(
                f"recipe {settings['recipe']!r} is not in {table.paper.file}{near(settings['recipe'], known)}"
            )
        words = [self.overrides["protocol"]] if "protocol" in self.overrides else settings["protocol"]
        protocol = protocols.resolve(words, Q, pixels)
        return System(net, settings["recipe"], self._span(table, settings), dataset, protocol, pixels)

    def net(self, table: Table, text: str, full: bool = False) -> Build:
        """A build of the table's with what the command line and, at its scale, the proxy change."""
        given = {k.removeprefix("build."): v for k, v in self.overrides.items() if k.startswith("build.")}
        net = Build.parse(text)
        net = Build(net.family, net.net).with_args({**dict(net.args), **given})
        if self.scale == "proxy" and table.paper.proxy and not full:
            net = net.with_args(table.paper.proxy.build)
        check_build(net)
        return net

    def _size(self, table: Table, pixels: int) -> int:
        """A size of the paper's in the pixels of the scale that is run."""
        proxy = table.paper.proxy
        if self.scale != "proxy" or proxy is None:
            return pixels
        if pixels not in proxy.pixels:
            known = ", ".join(str(p) for p in proxy.pixels)
            raise ReproError(f"size {pixels} is not in the proxy's `pixels:` of {table.paper.file} ({known})")
        return proxy.pixels[pixels]

    def _span(self, table: Table, settings: Mapping[str, Any], full: bool = False) -> tuple[int, int]:
        return self.span(table, settings.get("S", "0"), full)

    def span(self, table: Table, text: str, full: bool = False) -> tuple[int, int]:
        """`256` or `256..512` as the smallest and largest training scale, in pixels of the scale run."""
        low, _, high = text.partition("..")
        try:
            ends = int(low), int(high or low)
        except ValueError:
            raise ReproError(f"S is {text!r}; expected pixels, as 256, or a range, as 256..512") from None
        return ends if full or not ends[0] else (self._size(table, ends[0]), self._size(table, ends[1]))

    def address(self, table: Table, text: str) -> tuple[Table, str, str]:
        """`table | row | column` as a table and keys; a bare word is a row of this table."""
        parts = [p.strip() for p in text.split("|")]
        if parts[0] in table.rows:
            parts = [table.name, *parts]
        if len(parts) < 2:
            raise ReproError(f"no row is called {text!r}{near(text, table.rows)} Rows: {', '.join(table.rows)}")
        if parts[0] != table.name:
            name = parts[0].split("/")[-1]
            path = Path(table.file).parent / f"{name}.yaml"
            if not path.is_file():
                raise ReproError(f"address {text!r}: there is no {path}")
            table = self.table(path)
        row, column = parts[1], parts[2] if len(parts) > 2 else next(iter(table.columns))
        if row not in table.rows or column not in table.columns:
            raise ReproError(f"address {text!r}: {table.name} has no such row or column{near(row, table.rows)}")
        return table, row, column

    def relations(self, table: Table) -> list[Relation]:
        """The relations of a table file, their sides as cell keys."""
        return list(self._relations(table))

    def _relations(self, table: Table) -> Iterator[Relation]:
        for id_, model in table.relations.items():
            line = table.line("relations", id_)
            tests = {k: v for k in ("less", "not_better", "falls") if (v := getattr(model, k)) is not None}
            if len(tests) != 1:
                raise ReproError(
                    f"relation {id_!r} needs one of less, not_better, falls; it has {len(tests)}", table.file, line
                )
            ((test, sides),) = tests.items()
            try:
                keys = self._sides(table, test, sides)
                printed = parse(model.printed, numeric=True) if model.printed else None
            except ReproError as error:
                raise ReproError(
                    f"relation {id_!r}: {error.message}", table.file, table.line("relations", id_, test)
                ) from None
            yield Relation(
                id_,
                model.text,
                model.where,
                test,
                keys,
                table.file,
                line,
                model.margin,
                printed,
                model.unit,
                model.missing,
            )

    def _sides(self, table: Table, test: str, sides: Sequence[Any]) -> tuple[tuple[Key, Key], ...]:
        if test == "falls":
            pairs: list[Any] = list(pairwise(sides))
        else:
            pairs = list(sides) if all(isinstance(s, list) for s in sides) else [sides]
        keys = []
        for pair in pairs:
            if len(pair) != 2:
                raise ReproError(f"a pair has two sides, this has {len(pair)}: {pair}")
            a, b = (self.address(table, side) for side in pair)
            keys.append(((a[0].name, a[1], a[2]), (b[0].name, b[1], b[2])))
        return tuple(keys)

    def sides(self, table: Table, relations: Sequence[Relation]) -> list[Cell]:
        """The cells that relations speak of, also those of other tables."""
        keys = {key for r in relations if not r.missing for pair in r.pairs for key in pair}
        return [self.cell(table if t == table.name else self.named(t), row, column) for t, row, column in sorted(keys)]


def merged(table: Table, row: str, column: str) -> dict[str, Any]:
    """The settings of a cell: paper < table < column < row < cell; `no` unsets an inherited field."""
    of_row = {k: v for k, v in table.rows[row].items() if k != "values"}
    of_cell = table.rows[row]["values"].get(column, {})
    out: dict[str, Any] = {}
    for level in (table.paper.defaults, table.defaults, table.columns[column], of_row, of_cell):
        out.update(level)
    return {k: v for k, v in out.items() if v not in ("no", ["no"])}
