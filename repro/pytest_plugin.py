"""Claims as test items: `pytest tables/vgg` collects tables as files, `pytest --repro` wherever pytest looks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("repro", "claims of papers (repro)")
    group.addoption("--repro", action="store_true", help="collect table files wherever pytest looks")
    group.addoption("--repro-run", action="store_true", help="train and evaluate too, not only count what is cheap")


def pytest_configure(config: pytest.Config) -> None:
    for kind in ("static", "metric", "setting", "relation", "speed"):
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
    """A table; what its selected claims need is planned, run and judged once, for the first of them."""

    def collect(self) -> Iterator[Row]:
        from .claims import Claims
        from .errors import ReproError

        claims, rows = Claims(), dict[str, Row]()
        try:
            table = claims.table(self.path)
            cells = [(c, c.claim) for c in claims.cells(table) if c.claim]
            found = [(c.row, c.column, f"{c.quantity}[{c.column}]", c.kind, claim.line) for c, claim in cells]
            found += [("relations", r.id, r.id, "relation", r.line) for r in claims.relations(table)]
        except ReproError as error:
            raise self.CollectError(str(error)) from None
        for name, column, *rest in found:
            if name not in rows:
                rows[name] = Row.from_parent(self, name=name)
                rows[name].claims = []
            rows[name].claims.append((f"{name} | {column}", *rest))
        yield from rows.values()

    @cached_property
    def verdicts(self) -> dict[str, Any]:
        """Verdicts by `row | column` or `relations | id`. Raises ReproError."""
        from . import gate, pipeline
        from .cli.gate import measured
        from .cli.options import cores
        from .executors import device_named

        mine = [i for i in self.session.items if isinstance(i, Claim) and i.getparent(TableFile) is self]
        wanted = tuple(dict.fromkeys(i.key.split(" | ")[0] for i in mine))
        rows = () if "relations" in wanted else wanted  # relations are judged as one family
        jobs = 1 if "PYTEST_XDIST_WORKER" in os.environ else cores()
        whole = pipeline.Options((str(self.path),), rows=rows, jobs=jobs, device=device_named("auto"))
        if self.config.getoption("--repro-run"):
            outcome = measured(whole)
        else:
            failures = measured(replace(whole, only=("static", "setting"))).failures
            outcome = pipeline.conclude(pipeline.prepare(whole, False, lambda text: None), failures)
        return {name: verdict for name, (_, verdict) in gate.items(outcome.reports[0]).items()}


class Row(pytest.Collector):
    """A row of a table, or its relations."""

    claims: list[tuple[Any, ...]]

    def collect(self) -> Iterator[Claim]:
        for key, name, kind, line in self.claims:
            item = Claim.from_parent(self, name=name)
            item.key, item.line = key, line
            item.add_marker(kind)
            yield item


class Claim(pytest.Item):
    """One printed number or relation: passes where it matches, fails where it differs and no cause is stated."""

    key: str
    line: int

    def runtest(self) -> None:
        from .errors import ReproError
        from .report.data import cell, plain

        table: Any = self.getparent(TableFile)
        try:
            v = table.verdicts[self.key]
        except ReproError as error:
            pytest.fail(str(error), pytrace=False)
        is_cell = hasattr(v, "cell")
        told = cell(v) if is_cell else {"claimed": v.relation.text, "measured": plain(v.effect), "delta": None}
        told["verdict"] = v.verdict
        for name in ("claimed", "measured", "delta", "verdict"):
            self.user_properties.append((name, "" if told[name] is None else told[name]))
        if v.verdict in ("missing", "incomparable", "inconclusive"):
            more = "; --repro-run measures it" if v.reason.startswith("not run") else ""
            pytest.skip(f"{v.verdict}: {v.reason.removeprefix('missing: ')}{more}")
        if is_cell and (known := v.known):
            pytest.xfail(f"{known['cause']}: {known['gives']}")
        if v.verdict != "match":
            claimed = f"claimed {told['claimed']}, measured {told['measured']}: "
            pytest.fail(f"{self.path}:{self.line}: {v.verdict}: {claimed}{v.reason}", pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.line - 1, self.key
