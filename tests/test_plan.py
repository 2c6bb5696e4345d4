"""Cells to jobs: equal jobs are joined, and only what changed is done again."""

from __future__ import annotations

import pytest
from conftest import TINY

from repro import tables
from repro.claims import Claims
from repro.errors import ReproError
from repro.plan import Plan, Planner

FACTS = {"fingerprint": "f", "images": 8000, "classes": 10}


def plan(*words: str, scale: str = "full", seeds: tuple[int, ...] = (0,), facts=FACTS, **overrides: str) -> Plan:
    """The plan of tables with every data set at hand."""
    claims = Claims(scale, overrides=overrides)
    planner = Planner(claims, lambda name: facts, seeds)
    for path in tables.find(words):
        table = claims.table(path)
        for cell in [*claims.cells(table), *claims.sides(table, claims.relations(table))]:
            planner.add(claims.table(tables.ROOT / f"{cell.table}.yaml") if cell.table != table.name else table, cell)
    return planner.plan


def trainings(found: Plan) -> list[str]:
    return [j.name for j in found.jobs.values() if j.kind == "train"]


def view_sets(found: Plan) -> int:
    return sum(len(e.views) for e in found.evaluations.values())


def test_tables_that_need_the_same_net_train_it_once():
    """Tables 3 to 6: thirteen trainings, forty view sets, and no fusion is a job."""
    assert len(trainings(plan("table3"))) == 13
    assert view_sets(plan("table3")) == 14
    assert view_sets(plan("table3", "table4")) == 34
    assert view_sets(plan("table3", "table4", "table5")) == 40
    found = plan("table3", "table4", "table5", "table6")
    assert (len(trainings(found)), view_sets(found)) == (13, 40)


def test_a_training_stands_behind_its_parent():
    """The chain is A, then the deep net at 256, at 384, with jitter; all of one seed."""
    found = plan("table3", seeds=(0, 1))
    jobs = {j.digest: j for j in found.jobs.values() if j.kind == "train"}
    assert len(jobs) == 26
    order = list(found.jobs)
    for job in jobs.values():
        for need in job.needs:
            assert order.index(need) < order.index(job.digest)
            assert jobs[need].spec["seed"] == job.spec["seed"]
    job = next(j for j in jobs.values() if j.name == "train vgg:D jitter S=256..512 seed 1")
    chain = []
    while job:
        chain.append(job.name)
        job = jobs[job.needs[0]] if job.needs else None
    assert chain == [
        "train vgg:D jitter S=256..512 seed 1",
        "train vgg:D at384 S=384 seed 1",
        "train vgg:D deep S=256 seed 1",
        "train vgg:A base S=256 seed 1",
    ]


@pytest.mark.parametrize(
    ("facts", "change", "again"),
    [
        (FACTS, {"recipe.optimizer.lr": "0.5"}, True),
        (FACTS, {"build.dropout": "0.1"}, True),
        ({**FACTS, "fingerprint": "other"}, {}, True),
        (FACTS, {"protocol": "centre"}, False),
    ],
)
def test_any_change_of_identity_is_new_work(facts, change, again):
    """A rate, an argument or other pixels train anew; another protocol only evaluates anew."""
    before, after = plan("table3"), plan("table3", facts=facts, **change)

    digests = [{j.digest for j in p.jobs.values() if j.kind == "train"} for p in (before, after)]
    assert digests[0].isdisjoint(digests[1]) == again
    scores = [{d for e in p.evaluations.values() for d in e.views} for p in (before, after)]
    assert scores[0] != scores[1]


def test_only_the_view_sets_that_are_lacking_are_evaluated():
    """A record that is there is not made again; the rest is one job over the same images."""
    found = plan("table5", scale="proxy")
    evaluation = next(iter(found.evaluations.values()))
    first, *rest = evaluation.views

    job = evaluation.job(lambda kind, digest: digest == first)
    assert job.outputs == tuple(rest)
    assert evaluation.job(lambda kind, digest: True) is None


def test_a_data_set_that_is_not_here_blocks_its_cells_alone():
    """The reason names the set; static cells are planned all the same."""
    found = plan(str(TINY / "table1.yaml"), facts=None)

    assert set(found.blocked.values()) == {"imagenet-1k-val is not here"}
    assert len(found.counts) == 3


def test_settings_and_counts_are_planned_at_full_scale_whatever_the_scale():
    """The proxy never stands in for what can be checked exactly."""
    for scale in ("proxy", "full"):
        found = plan("text", "table2", scale=scale)
        builds = {j.spec["build"] for j in found.jobs.values() if j.kind in ("measure", "settings")}
        assert builds == {f"vgg:{net}" for net in ("A", "A-LRN", "B", "C", "D", "E")}
        assert {j.spec["recipe"]["epochs"] for j in found.jobs.values() if j.kind == "settings"} == {74}


def test_a_recipe_that_starts_from_itself_is_refused(tmp_path):
    """A circle of warm starts ends in one line."""
    for path in TINY.glob("*.yaml"):
        (tmp_path / path.name).write_text(
            path.read_text().replace("recipe: base, S: 256}, copy", "recipe: deep, S: 256}, copy")
        )
    with pytest.raises(ReproError, match="starts from itself"):
        plan(str(tmp_path / "table1.yaml"))
