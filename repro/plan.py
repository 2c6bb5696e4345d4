"""Cells and facts to jobs: what must be trained, evaluated and counted, each once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from . import recipes
from .claims import Claims
from .errors import ReproError
from .fields import Start
from .provenance import NUMERICS, digest, source_of, version
from .schema import Build, Cell, Job, System, ViewSet
from .tables import Table

if TYPE_CHECKING:
    from .weights import Published

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Trained:
    """One system's weights under one seed, and the weighted score records of its protocol."""

    weights: str
    scores: tuple[tuple[Fraction, str], ...]


@dataclass(frozen=True)
class Evaluation:
    """The view sets wanted of one set of weights on one data set, by score record."""

    name: str
    spec: Mapping[str, Any]
    views: dict[str, ViewSet] = field(default_factory=dict)

    @property
    def weights(self) -> str:
        return str(self.spec["weights"])

    def job(self, has: Callable[[str, str], bool]) -> Job | None:
        """The evaluation of those view sets whose records are not there, in one pass."""
        lack = {d: v for d, v in self.views.items() if not has("scores", d)}
        if not lack:
            return None
        spec = {**self.spec, "views": [v.plain() for v in lack.values()]}
        # On the proxy 50 crops at one scale take about a dozen times as long as a dense pass.
        cost = sum(20.0 if v.kind == "grid" else 1.5 for v in lack.values())
        return Job("evaluate", self.name, spec, tuple(lack), (self.weights,), cost)


@dataclass
class Plan:
    """Jobs by digest, each behind what it needs, and the evaluations of what they train.

    `systems` holds, for each metric cell, claimed net and seed, the members whose scores are averaged;
    `published` the weights that are loaded and not trained; `counts` the record that a static or setting
    cell reads; `blocked` why a cell cannot be measured here.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    systems: dict[Key, list[list[tuple[Trained, ...]]]] = field(default_factory=dict)
    published: dict[str, Published] = field(default_factory=dict)
    counts: dict[Key, list[str]] = field(default_factory=dict)
    blocked: dict[Key, str] = field(default_factory=dict)

    def lacking(self, has: Callable[[str, str], bool]) -> list[Job]:
        """The jobs whose records are not there; a training stands behind its parent."""
        evaluations = (e.job(has) for e in self.evaluations.values())
        return [j for j in self.jobs.values() if not has(j.kind, j.digest)] + [j for j in evaluations if j]


@dataclass
class Planner:
    """Fills a plan cell by cell. `facts` gives a data set's fingerprint and classes, or None.

    `find` gives published weights by their word and net, or raises ReproError with what to fetch; `limit` is the
    size of the part of a data set that is evaluated, 0 for all of it.
    """

    claims: Claims
    facts: Callable[[str], Mapping[str, Any] | None]
    seeds: Sequence[int] = (0,)
    find: Callable[[str, Build], Published] | None = None
    limit: int = 0
    plan: Plan = field(default_factory=Plan)
    _recipes: dict[tuple[str, str], tuple[dict[str, Any], Start | None]] = field(default_factory=dict)

    def add(self, table: Table, cell: Cell) -> None:
        """Plan what measures a cell; a cell with a reason not to be measured adds nothing."""
        if not cell.systems or cell.key in self.plan.systems or cell.key in self.plan.counts:
            return
        if cell.kind == "static":
            self.plan.counts[cell.key] = [self._measure(e[0]) for e in cell.systems]
        elif cell.kind == "setting":
            self.plan.counts[cell.key] = [self._settings(table, e[0]) for e in cell.systems]
        elif cell.kind == "metric":
            lacking = [n for e in cell.systems for s in e for n in self._sets(table, s) if self.facts(n) is None]
            if lacking:
                self.plan.blocked[cell.key] = f"{lacking[0]} is not here"
                return
            try:
                published = {s: self._published(s) for e in cell.systems for s in e if s.weights}
            except ReproError as error:
                self.plan.blocked[cell.key] = str(error)
                return
            self.plan.systems[cell.key] = [
                [
                    tuple(self._scored(table, system, published.get(system), seed) for system in ensemble)
                    for seed in (self.seeds[:1] if published else self.seeds)
                ]
                for ensemble in cell.systems
            ]

    def _published(self, system: System) -> Published:
        if self.find is None:
            raise ReproError("published weights are not looked up here")
        found = self.find(system.weights, system.build)
        self.plan.published[found.sha256[:32]] = found
        return found

    def _recipe(self, table: Table, name: str) -> tuple[dict[str, Any], Start | None]:
        key = table.paper.file, name
        if key not in self._recipes:
            self._recipes[key] = recipes.resolve(table.paper, name, self.claims.scale, self.claims.overrides)
        return self._recipes[key]

    def _sets(self, table: Table, system: System) -> list[str]:
        if system.weights:
            return [system.dataset]
        recipe, _ = self._recipe(table, system.recipe)
        return [system.dataset, recipe["dataset"], recipe["val"]]

    def _measure(self, system: System) -> str:
        spec = {"build": str(system.build), "input": system.input, "source": source_of(system.build)}
        spec["numerics"] = NUMERICS["measure"]
        return self._job("measure", f"count {system.build}", spec, 2.0)

    def _settings(self, table: Table, system: System) -> str:
        recipe: dict[str, Any] = {}
        start: Start | None = None
        if system.recipe:
            recipe, start = recipes.resolve(table.paper, system.recipe, "full", self.claims.overrides)
        images, classes = recipes.SIZES.get(recipe.get("dataset", ""), (0, 1000))
        spec = {
            "build": str(system.build),
            "input": system.input,
            "classes": classes,
            "recipe": recipe,
            "S": list(system.S),
            "copy": start.copy_ if start else [],
            "images": images,
            "source": source_of(system.build),
            "numerics": NUMERICS["settings"],
        }
        return self._job("settings", f"settings {system.build} {system.recipe}", spec, 1.0)

    def _job(self, kind: str, name: str, spec: Mapping[str, Any], cost: float, needs: tuple[str, ...] = ()) -> str:
        key = digest({"kind": kind, "spec": spec})
        if key not in self.plan.jobs:
            self.plan.jobs[key] = Job(kind, name, spec, (key,), needs, cost)
        return key

    def _train(
        self, table: Table, build: Build, name: str, S: tuple[int, int], pixels: int, seed: int, depth: int = 0
    ) -> str:
        if depth > 20:
            raise ReproError(f"recipe {name!r} starts from itself", table.paper.file)
        recipe, start = self._recipe(table, name)
        parent = None
        if start:
            origin = start.from_
            net = self.claims.net(table, origin["build"]) if "build" in origin else build
            span = self.claims.span(table, origin["S"]) if "S" in origin else S
            parent = self._train(table, net, origin.get("recipe", name), span, pixels, seed, depth + 1)
        facts = {n: self.facts(n) or {} for n in (recipe["dataset"], recipe["val"])}
        data = facts[recipe["dataset"]]
        spec = {
            "build": str(build),
            "input": pixels,
            "classes": data.get("classes", 1000),
            "recipe": recipe,
            "S": list(S),
            "seed": seed,
            "data": {n: f.get("fingerprint") for n, f in facts.items()},
            "parent": parent,
            "copy": start.copy_ if start else [],
            "source": source_of(build),
            "numerics": NUMERICS["train"],
        }
        cost = recipe["epochs"] * data.get("images", 0) * 6e-4
        scale = f"{S[0]}" if S[0] == S[1] else f"{S[0]}..{S[1]}"
        plain = self._plain(table, build)
        return self._job(
            "train", f"train {plain} {name} S={scale} seed {seed}", spec, cost, (parent,) if parent else ()
        )

    def _plain(self, table: Table, build: Build) -> str:
        """The build as the table names it, without what the proxy adds."""
        proxy = table.paper.proxy.build if table.paper.proxy else {}
        return str(Build(build.family, build.net, tuple((k, v) for k, v in build.args if proxy.get(k) != v)))

    def _scored(self, table: Table, system: System, published: Published | None, seed: int) -> Trained:
        facts, given = self.facts(system.dataset) or {}, self.claims.overrides
        args = {k.removeprefix("evaluate.build."): v for k, v in given.items() if k.startswith("evaluate.build.")}
        net = Build.parse(published.build) if published else system.build
        build = Build(net.family, net.net).with_args({**dict(net.args), **args})
        common: dict[str, Any] = {
            "build": str(build),
            "input": system.input,
            "classes": facts.get("classes", 1000),
            "dataset": system.dataset,
            "fingerprint": facts.get("fingerprint"),
            "dtype": given.get("evaluate.dtype", "float32"),
            "resizer": f"torch {version('torch')}",
            "numerics": NUMERICS["evaluate"],
        }
        if "decoder" in facts:
            common["decoder"] = facts["decoder"]
        if published:
            common |= {"weights": published.sha256[:32], "mean": published.mean, "scale": published.scale}
            common["origin"] = published.origin
            if published.preprocessing:
                common["preprocessing"] = dict(published.preprocessing)
            name = f"evaluate {published.origin}"
        else:
            common["weights"] = self._train(table, system.build, system.recipe, system.S, system.input, seed)
            name = self.plan.jobs[common["weights"]].name.replace("train ", "evaluate ")
        common |= _altered(given)
        if self.limit:
            common["limit"] = self.limit
            name += f", {self.limit} images"
        # One job fills all the view sets of the same weights on the same images.
        evaluation = self.plan.evaluations.setdefault(digest(common), Evaluation(name, common))
        scores = []
        for weight, views in system.protocol:
            key = digest({"kind": "scores", "spec": {**common, "view": views.plain()}})
            evaluation.views[key] = views
            scores.append((weight, key))
        return Trained(common["weights"], tuple(scores))


def _altered(given: Mapping[str, str]) -> dict[str, Any]:
    """What `-o evaluate.KEY=` changes of an evaluation alone: normalisation, the epsilon of batch normalisation."""
    found: dict[str, Any] = {}
    for key in ("mean", "scale", "bn_eps", "threads"):
        if text := given.get(f"evaluate.{key}"):
            try:
                numbers = [float(part) for part in text.replace(",", " ").split()]
            except ValueError:
                raise ReproError(f"-o evaluate.{key}={text}: expected numbers, as 123.7,116.3,103.5") from None
            found[key] = numbers if len(numbers) > 1 else numbers[0]
    return found
