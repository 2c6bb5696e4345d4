"""Claims as test items: `pytest tables/vgg` collects tables as files, `pytest --repro` wherever pytest looks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .schema import RelationVerdict, Verdict

_KINDS = ("static", "metric", "setting", "relation", "speed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; `--repro-run` may take hours, so without it only counts and settings are run."""
    group = parser.getgroup("repro", "claims of papers (repro)")
    group.addoption("--repro", action="store_true", help="collect table files wherever pytest looks")
    group.addoption("--repro-run", action="store_true", help="train and evaluate too what the store lacks")
    group.addoption("--repro-scale", choices=("proxy", "full"), default="proxy", help="as repro run --scale")
    group.addoption("--repro-store", type=Path, default=Path("runs/store"), metavar="DIR", help="folder of the records")


def pytest_configure(config: pytest.Config) -> None:
    """Marks by kind, for `-m static`."""
    for kind in _KINDS:
        config.addinivalue_line("markers", f"{kind}: a {kind} claim in a table of a paper (repro)")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> TableFile | None:
    """A table, where it, its paper's folder or the folder of papers is named, or with --repro."""
    if file_path.suffix not in (".yaml", ".yml") or file_path.name == "paper.yaml":
        return None
    config = parent.config
    named = {(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args}
    if file_path not in named:
        near = config.getoption("--repro") or named & set(file_path.parents[:2])
        keys = set(re.findall(r"^(title|columns|rows):", file_path.read_text("utf-8", "replace"), re.M) if near else ())
        if len(keys) < 3:
            return None
    return TableFile.from_parent(parent, path=file_path)


class TableFile(pytest.File):
    """A table; what its selected claims need is planned, run and judged once, as the first of them is set up."""

    verdicts: dict[tuple[str, str], Verdict | RelationVerdict] | None = None

    def collect(self) -> Iterator[Row]:
        from .claims import Claims
        from .errors import ReproError

        claims = Claims(self.config.getoption("--repro-scale"))
        try:
            table = claims.table(self.path)
            found = [(c.row, c.column, c.quantity, c.kind, c.claim.line) for c in claims.cells(table) if c.claim]
            found += [("relations", r.id, "", "relation", r.line) for r in claims.relations(table)]
        except ReproError as error:
            raise self.CollectError(str(error)) from None
        for name in dict.fromkeys(row for row, *_ in found):
            row = Row.from_parent(self, name=name)
            row.claims = [(f"{q}[{c}]" if q else c, (r, c), k, n) for r, c, q, k, n in found if r == name]
            yield row

    def judge(self) -> dict[tuple[str, str], Verdict | RelationVerdict]:
        """Verdicts by row and column (relations under `relations`). Raises ReproError."""
        from . import pipeline
        from .cli.gate import measured
        from .cli.options import cores
        from .executors import device_named

        mine = [i for i in self.session.items if isinstance(i, Claim) and i.getparent(TableFile) is self]
        rows = () if any(i.key[0] == "relations" for i in mine) else tuple(dict.fromkeys(i.key[0] for i in mine))
        option = self.config.getoption
        whole = pipeline.Options(
            (str(self.path),), option("--repro-scale"), rows=rows, store=option("--repro-store"),
            jobs=1 if "PYTEST_XDIST_WORKER" in os.environ else cores(), device=device_named("auto"),
        )  # fmt: skip
        outcome = measured(whole if option("--repro-run") else replace(whole, only=("static", "setting")))
        if not option("--repro-run"):
            outcome = pipeline.conclude(pipeline.prepare(whole, False, lambda text: None), outcome.failures)
        [report] = outcome.reports
        cells = {(v.cell.row, v.cell.column): v for v in report.cells}
        return {**cells, **{("relations", r.relation.id): r for r in report.relations}}


class Row(pytest.Collector):
    """A row of a table, or its relations."""

    claims: list[tuple[str, tuple[str, str], str, int]]

    def collect(self) -> Iterator[Claim]:
        for name, key, kind, line in self.claims:
            item = Claim.from_parent(self, name=name)
            item.key, item.line = key, line
            item.add_marker(kind)
            yield item


class Claim(pytest.Item):
    """One printed number or relation: passes where it matches, fails where it differs and no cause is stated."""

    key: tuple[str, str]
    line: int

    def setup(self) -> None:
        from .errors import ReproError

        table = self.getparent(TableFile)
        assert table
        try:
            table.verdicts = table.verdicts or table.judge()
        except ReproError as error:
            pytest.fail(str(error), pytrace=False)
        self.verdict: Any = table.verdicts[self.key]

    def runtest(self) -> None:
        from .report.data import cell, relation

        v, is_cell = self.verdict, self.key[0] != "relations"
        told = cell(v) if is_cell else {"claimed": v.relation.text, "measured": relation(v)["effect"], "delta": None}
        for name in ("claimed", "measured", "delta"):
            self.user_properties.append((name, "" if told[name] is None else told[name]))
        self.user_properties.append(("verdict", v.verdict))
        if v.verdict in ("missing", "incomparable", "inconclusive"):
            more = "; --repro-run measures it" if v.reason.startswith("not run") else ""
            pytest.skip(f"{v.verdict}: {v.reason.removeprefix('missing: ')}{more}")
        if is_cell and v.known:
            pytest.xfail(f"{v.known['cause']}: {v.known['gives']}")
        if v.verdict != "match":
            claimed = f"claimed {told['claimed']}, measured {told['measured']}: "
            pytest.fail(f"{self.path}:{self.line}: {v.verdict}: {claimed}{v.reason}", pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.line - 1, f"{self.key[0]} | {self.key[1]}"
