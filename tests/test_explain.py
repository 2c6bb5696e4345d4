"""`explain` names a cause that was planted, on images and in counts; `demo` catches the faults that it plants."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from repro import data, explain, pipeline
from repro.cli.main import cli
from repro.errors import ReproError
from repro.evaluate import rank_of_truth
from repro.executors import Local
from repro.report.progress import Lines
from repro.schema import ViewSet

NET = '''
from torch import nn


def small(classes):
    """Three blocks with batch normalisation and two linear layers, for images of 32 pixels."""
    widths, blocks = (3, 8, 16, 32), []
    for a, b in zip(widths, widths[1:]):
        blocks += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b, eps=1e-5), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Module()
    net.features = nn.Sequential(*blocks)
    net.classifier = nn.Sequential(nn.Linear(512, 48), nn.ReLU(), nn.Linear(48, classes))
    net.forward = lambda x: net.classifier(net.features(x).flatten(1))
    return net
'''
PAPER = """
source: a made-up paper
defaults: {dataset: digits-test, build: "py:planted_net:small", recipe: base, S: 256, Q: 256}
recipes:
  base:
    dataset: digits-train
    val: digits-val
    batch: 64
    epochs: 4
    optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
    schedule: {name: one-cycle, warmup: 0.3}
    dropout: 0
    init: {name: kaiming}
    augment: {flip: 0, colour: 0}
    scale: 0.0157
    bar: 0.98
proxy:
  why: the tests need a net that trains in seconds
  dataset: {}
  pixels: {224: 32, 256: 40, 288: 48}
  build: {classes: 10}
"""
TABLE = """
title: One net under two protocols
where: Table 1
columns: {top-1: top1_error}
rows:
  dense: {protocol: dense, values: [PRINTED]}
  centre: {protocol: centre, values: [PRINTED]}
"""
OWN = {"dense": ViewSet("dense", 40, 32), "centre": ViewSet("grid", 40, 32, flips=False)}
# What is planted in each row, and how the engine is told: a view set otherwise, or another argument.
PLANTED = {
    "protocol.resize='bicubic antialias'": ("centre", {"resize": "bicubic antialias"}, {}),
    "protocol.resize='bilinear'": ("centre", {"resize": "bilinear"}, {}),
    "protocol.Q='288'": ("centre", {"Q": 48}, {}),
    "protocol.flips='no'": ("dense", {"flips": False}, {}),
    "protocol.cells='softmax'": ("dense", {"cells": "softmax"}, {}),
    "protocol.views='logits'": ("dense", {"views": "logits"}, {}),
    "evaluate.mean='0 0 0' evaluate.scale=''": ("centre", {}, {"mean": (0, 0, 0)}),
    "evaluate.mean='127.5 127.5 127.5' evaluate.scale='0.007843137'":
        ("centre", {}, {"mean": (127.5,) * 3, "scale": 1 / 127.5}),
    "evaluate.bn_eps='0.001'": ("centre", {}, {"eps": 1e-3}),
}  # fmt: skip


class Kept(Local):
    """The workers of one call serve the next: starting them is what takes long here."""

    def end(self):
        pass


@pytest.fixture(scope="module")
def workers(data_root):
    kept = Kept(1, data_root)
    yield lambda: kept
    Local.end(kept)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_root, workers):
    """A folder with the paper and a store in which its net was trained once; the working folder finds the net."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted_net.py").write_text(NET)
    (folder / "paper.yaml").write_text(PAPER)
    (folder / "table1.yaml").write_text(TABLE.replace("PRINTED", "50.0"))
    (folder / "store" / "data").mkdir(parents=True)
    os.symlink(data_root / "digits", folder / "store" / "data" / "digits")
    before = Path.cwd()
    os.chdir(folder)
    options = pipeline.Options((str(folder / "table1.yaml"),), store=folder / "store", limit=1000)
    try:
        outcome, _ = pipeline.run(options, workers, Lines())
        assert [v.verdict for v in outcome.reports[0].cells] == ["inconclusive"] * 2
        yield options
    finally:
        os.chdir(before)


def measured(options, row, view=None, mean=None, scale=None, eps=None):
    """The row's error under another view set or argument, by a call of the engine past plan, work and store."""
    import torch
    from safetensors import safe_open

    from repro.architectures import make
    from repro.evaluate.engine import scores
    from repro.schema import Build

    net = make(Build.parse("py:planted_net:small+classes=10"))
    with safe_open(next((options.store / "records" / "train").rglob("*.safetensors")), framework="pt") as stream:
        meta = stream.metadata()
        net.load_state_dict({key: stream.get_tensor(key) for key in stream.keys()})  # noqa: SIM118
    for module in net.modules():
        if eps and isinstance(module, torch.nn.BatchNorm2d):
            module.eps = eps
    images, view_set = data.open_set("digits-test", options.store / "data"), replace(OWN[row], **(view or {}))
    part = data.balanced(images.labels, options.limit)
    own_mean, own_scale = json.loads(meta["mean"]), json.loads(meta["scale"])
    found = scores(net, images.images[part], [view_set], mean or own_mean, scale or own_scale)[view_set]
    return 100 * float(np.mean(rank_of_truth(found, images.labels[part]) > 0))


@pytest.fixture(scope="module")
def effects(trained, workers):
    """What explain says of each row, its evaluations run once."""
    return {row: explain.explain(trained, row, "top-1", workers, Lines()) for row in OWN}


def test_the_base_is_the_rows_own_number(trained, effects):
    """Against the engine called by hand."""
    for row, (verdict, _) in effects.items():
        assert verdict.result.value == pytest.approx(measured(trained, row))


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_cause_is_found(trained, effects, name):
    """The number under each other choice, by the engine alone, is what explain gives for that very choice."""
    row, view, more = PLANTED[name]
    number = measured(trained, row, view, **more)
    verdict, found = effects[row]
    nearest = min((e for e in found if e.value is not None), key=lambda e: abs(e.value - number))

    assert nearest.value == pytest.approx(number)
    assert name in [e.name for e in found if e.value == pytest.approx(number)]
    effect = next(e for e in found if e.name == name)
    assert effect.moves == pytest.approx(number - verdict.result.value)
    assert effect.paired.effect == pytest.approx(effect.moves)
    changed = len(effect.paired.gained) - len(effect.paired.lost)
    assert changed == round(effect.moves * 10)


def test_at_least_six_kinds_of_cause_are_told_apart(trained, effects):
    """Planted causes that move the number, and whose value no other choice gives."""
    alone = []
    for name, (row, _, _) in PLANTED.items():
        values = [e.value for e in effects[row][1] if e.value is not None]
        value = next(e.value for e in effects[row][1] if e.name == name)
        if value != effects[row][0].result.value and values.count(value) == 1:
            alone.append(name)

    assert len(alone) >= 6, alone


def test_what_cannot_matter_is_said_with_the_reason(effects):
    """No class map in a crop, one view without flips, square images, no JPEG, no bottleneck."""
    notes = {e.name: e.note for e in effects["centre"][1] if e.value is None}

    assert (
        notes["protocol.cells='softmax'"]
        == "there is no class map: the net sees windows, or averages before its last layer"
    )
    assert notes["protocol.views='logits'"] == "one view each, and softmax keeps its order"
    assert notes["protocol.rounding='nearest'"] == "its views of these images stay the same"
    assert notes["decoder='another'"] == "its images are no JPEGs"
    assert notes["evaluate.build.stride='3x3'"] == "py has one convention"


def test_nothing_is_trained(trained, effects):
    """Flips are evaluations of the weights that are there."""
    assert len(list((trained.store / "records" / "train").rglob("*.json"))) == 1


def test_the_command_names_the_planted_cause(trained, effects, repro):
    """A claim printed from another resize: the last line says which, and the JSON holds the images."""
    number = measured(trained, "centre", {"resize": "bilinear"})
    (Path("table1.yaml")).write_text(TABLE.replace("PRINTED", f"{number:.4f}"))
    words = ("explain", "table1.yaml", "centre", "top-1", "--store", trained.store, "--limit", 1000)
    done = repro(*words, cwd=Path.cwd())
    found = json.loads(CliRunner().invoke(cli, [*map(str, words), "--json"]).stdout)

    assert done.stderr.count("this runs the code of ") == 1
    assert done.stdout.splitlines()[-1].startswith(f"nearest to {number:g}: protocol.resize='bilinear'")
    assert "as printed" in done.stdout
    assert found["nearest"] == "protocol.resize='bilinear'"
    near = next(e for e in found["effects"] if e["name"] == found["nearest"])
    assert len(near["paired"]["gained"]) - len(near["paired"]["lost"]) == round(near["moves"] * 10)


def test_untrained_nets_and_unknown_columns_are_one_line(new_store, repro):
    """With what to type first."""
    words = ("explain", "table3", "A 256", "top-1", "--store", new_store)
    assert "first: repro run table3 --row 'A 256'" in repro(*words, code=2).stderr
    for table, column, message in (
        ("vgg/table2", "F", "no metric or count stands there. Columns: A,A-LRN, B"),
        ("vgg", "E", "'vgg' is several tables; expected one, as vgg/table1"),
    ):
        asked = pipeline.Options((table,), store=new_store)
        with pytest.raises(ReproError, match=message):
            explain.explain(asked, "Number of parameters", column, None, Lines())


SQUARE = """
from torch import nn


class square(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 1, 3))

    def forward(self, x):
        assert x.shape[-1] == 224
        return super().forward(x)
"""
COUNTS = """
title: Counts, printed by other conventions
where: Table 1
columns:
  params: {quantity: params, unit: M}
  macs: {quantity: macs, unit: G}
  last map: {quantity: shape, stage: conv5_x, as: "{height}×{width}"}
rows:
  with 2^20: {build: "resnet:50", values: [24.37, 7.72, 10×10]}
  cut: {build: "vgg:D", values: [138.35, 15.35, -]}
  later stride: {build: "resnet:50", values: [25.504, 4.09, -]}
  of 1001: {build: "resnet:50", values: [25.559, 4.411, -]}
"""


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """The table of counts and a store of its own."""
    folder = tmp_path_factory.mktemp("conventions")
    (folder / "paper.yaml").write_text("source: made up\n")
    (folder / "table1.yaml").write_text(COUNTS)
    return pipeline.Options((str(folder / "table1.yaml"),), store=folder / "store")


@pytest.mark.parametrize(
    ("row", "column", "cause"),
    [
        ("with 2^20", "params", "units of 2^20"),
        ("with 2^20", "macs", "two operations for a multiply-add, or one"),
        ("cut", "params", "cut, not rounded"),
        ("cut", "macs", "without fully connected layers"),
        ("later stride", "macs", "stride 3x3"),
        ("later stride", "params", "without norms"),
        ("of 1001", "params", "1001 classes"),
        ("of 1001", "macs", "input of 229"),
    ],
)
def test_a_planted_convention_is_found(counts, workers, row, column, cause):
    """Published counts of known nets, by hand: 25,557,032 parameters, 3.858e9 and 4.089e9 multiply-adds."""
    verdict, found = explain.explain(counts, row, column, workers, Lines())
    printed = verdict.cell.claim.printed
    holds = [e.name for e in found if e.value is not None and printed.holds(e.value)]

    assert verdict.verdict == "differs"
    assert cause in holds


def test_words_are_explained_as_words(counts, repro):
    """A map of another input size; the line says that it is as printed."""
    text = repro("explain", counts.words[0], "with 2^20", "last map", "--store", counts.store).stdout

    assert text.startswith(f"{counts.words[0]} | with 2^20 | last map: 7×7; differs: ")
    assert "10×10  input of 299  as printed" in text


def test_a_net_that_fits_one_size_alone_is_counted_at_that_size(counts, workers):
    """An error without words is told in ours."""
    Path("square_net.py").write_text(SQUARE)
    table = Path(counts.words[0]).with_name("table2.yaml")
    rows = '  one: {build: "py:square_net:square", input: 224, values: [0.01]}'
    table.write_text(f"title: one\nwhere: here\ncolumns: {{params: {{quantity: params, unit: K}}}}\nrows:\n{rows}\n")
    asked = replace(counts, words=(str(table),))
    found = {e.name: e for e in explain.explain(asked, "one", "params", workers, Lines())[1]}

    assert found["input of 299"].note == "it is not read from this net"
    assert "input of 224" not in found  # as it is


@pytest.mark.slow
def test_the_demo_catches_both_faults(repro):
    """Within two minutes, and what is told is what happened."""
    first, digit, weight = re.split(r"^\d\. ", repro("demo").stdout, flags=re.M)[1:]

    assert "the printed count: match: 132.863336 is in [132.5, 133.5)" in first
    assert "the printed count: differs: 132.863336 is not in [133.5, 134.5)" in digit
    assert "  0 jobs had to be done" in digit
    assert "  to do again: train vgg:A" in weight
    assert all("of the size it was trained on: match: " in step for step in (first, digit))
