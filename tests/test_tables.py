"""Every mistake in a table file is told in one line: file, line, field, what is expected."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import HERE

from repro import tables
from repro.claims import Claims, merged
from repro.errors import ReproError
from repro.recipes import resolve

PAPER = """\
source: a paper
defaults: {dataset: imagenet-1k-val, protocol: dense}
recipes:
  base:
    dataset: imagenet-1k-train
    val: imagenet-1k-val
    batch: 256
    epochs: 74
    optimizer: {name: sgd, lr: 1e-2, momentum: 0.9, weight_decay: 5e-4}
    schedule: {name: plateau}
    dropout: 0.5
    init: {name: normal, std: 0.1}
    augment: {flip: 0.5, colour: 0.1}
    proxy: {epochs: 10, val: digits-val}
  fine:
    like: base
    optimizer: {lr: 1e-3}
    start: {from: {recipe: base, S: 256}, copy: [all]}
proxy:
  why: small
  dataset: {imagenet-1k-train: digits-train, imagenet-1k-val: digits-test}
  pixels: {224: 32, 256: 40, 384: 56, 512: 72}
  build: {width: 1/8, input: 32, classes: 10, pools: 3}
"""
TABLE = """\
title: A table
where: Table 1
columns: {top-1: top1_error, params: {quantity: params, unit: M}}
rows:
  A: {build: vgg:A, recipe: base, S: 256, Q: 256, values: [25.60, 133]}
  D: {build: vgg:D, recipe: fine, S: 256..512, Q: [256, 384, 512], values: [-, 138]}
relations:
  deep: {text: D beats A, where: Section 1, less: [D, A]}
"""


@pytest.fixture
def load(tmp_path: Path):
    """Write a table (and its paper) and load it as its name would."""

    def write(table: str = TABLE, paper: str = PAPER) -> tables.Table:
        folder = tmp_path / "made"
        folder.mkdir(exist_ok=True)
        (folder / "paper.yaml").write_text(paper)
        (folder / "table1.yaml").write_text(table)
        return tables.load(folder / "table1.yaml")

    return write


def test_numbers_keep_every_decimal(load):
    """`25.60` is not `25.6`: scalars are read as the strings that they are."""
    table = load()

    assert table.rows["A"]["values"]["top-1"]["printed"] == "25.60"
    assert Claims().cell(table, "A", "top-1").claim.printed.text == "25.60"


def test_settings_merge_from_paper_to_cell(load):
    """The innermost level wins, and `no` unsets what was inherited."""
    table = load(TABLE.replace("values: [25.60, 133]", "values: [{printed: 25.60, protocol: grid, Q: no}, 133]"))

    assert merged(table, "A", "params")["protocol"] == ["dense"]
    assert merged(table, "A", "top-1")["protocol"] == ["grid"]
    assert "Q" not in merged(table, "A", "top-1")


def test_the_proxy_changes_sizes_data_and_width_and_nothing_else(load):
    """A cell at the proxy has the listed pixels; static cells stay at full scale."""
    table = load()
    full, proxy = Claims("full"), Claims("proxy")

    (system,) = proxy.cell(table, "D", "top-1").systems[0]
    assert (system.S, system.input, system.dataset) == ((40, 72), 32, "digits-test")
    assert [v.Q for _, v in system.protocol] == [40, 56, 72]
    assert dict(system.build.args) == {"width": "1/8", "input": "32", "classes": "10", "pools": "3"}
    (system,) = full.cell(table, "D", "top-1").systems[0]
    assert (system.S, system.input, system.dataset, system.build.args) == ((256, 512), 224, "imagenet-1k-val", ())
    assert proxy.cell(table, "D", "params").systems[0][0].build.args == ()


def test_a_recipe_is_resolved_along_like_proxy_and_options(load):
    """like < proxy < -o, deep in the nested fields, typed."""
    table = load()
    recipe, start = resolve(table.paper, "fine", "proxy", {"recipe.optimizer.momentum": "0.5"})

    assert recipe["epochs"] == 10
    assert recipe["optimizer"] == {"name": "sgd", "lr": 1e-3, "momentum": 0.5, "nesterov": False, "weight_decay": 5e-4}
    assert (recipe["dataset"], recipe["val"]) == ("digits-train", "digits-val")
    assert start.from_ == {"recipe": "base", "S": "256"}
    assert resolve(table.paper, "fine", "full")[0]["epochs"] == 74


def check_message(load, table: str, paper: str, *parts: str) -> None:
    def read() -> None:
        loaded = load(table, paper)
        claims = Claims("proxy")
        claims.cells(loaded)
        claims.relations(loaded)
        resolve(loaded.paper, "fine", "proxy")

    with pytest.raises(ReproError) as caught:
        read()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, text


MISTAKES = [
    (
        "misspelt key",
        ("recipe: base,", "recpie: base,"),
        ("table1.yaml:5:", "unknown key 'recpie'", "did you mean 'recipe'?"),
    ),
    ("misspelt top key", ("title:", "tilte:"), ("table1.yaml:1:", "'tilte'", "did you mean 'title'?")),
    ("no number", ("25.60", "25.6O"), ("table1.yaml:5:", "A | top-1", "25.6O", "expected")),
    ("comma", ("25.60", "25,60"), ("table1.yaml:5:", "3 values for 2 columns", "quote a number with a comma")),
    ("unknown build", ("vgg:D", "vgg:F"), ("table1.yaml:6:", "unknown net 'F'", "A, A-LRN, B, C, D, E")),
    ("unknown family", ("vgg:D", "vgq:D"), ("table1.yaml:6:", "unknown family 'vgq'", "did you mean 'vgg'?")),
    ("unknown protocol", ("S: 256, Q: 256,", "S: 256, Q: 256, protocol: dens,"), ("table1.yaml:5:", "'dens'", "dense")),
    ("unknown quantity", ("top1_error", "top1_eror"), ("table1.yaml:3:", "'top1_eror'", "did you mean 'top1_error'?")),
    ("unknown recipe", ("recipe: base,", "recipe: bass,"), ("table1.yaml:5:", "'bass'", "did you mean 'base'?")),
    ("size off the proxy", ("Q: 256,", "Q: 300,"), ("table1.yaml:5:", "size 300", "pixels")),
    ("S no number", ("S: 256, Q", "S: big, Q"), ("table1.yaml:5:", "S is 'big'", "256..512")),
    ("duplicate row", ("  D: {", "  A: {"), ("table1.yaml:6:", "'A'", "twice")),
    ("anchor", ("{build: vgg:A", "&a {build: vgg:A"), ("table1.yaml:5:", "anchors")),
    ("unknown side", ("less: [D, A]", "less: [F, A]"), ("table1.yaml:8:", "no row is called 'F'", "A, D")),
    ("two tests", ("less: [D, A]", "less: [D, A], falls: [A, D]"), ("table1.yaml:8:", "it has 2")),
    ("not YAML", ("where: Table 1", "where: [Table 1"), ("table1.yaml:", "is not YAML")),
    ("missing title", ("title: A table\n", ""), ("table1.yaml:1:", "'title' is missing")),
]


@pytest.mark.parametrize(("change", "parts"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_in_a_table_is_one_line_with_its_place(load, change, parts):
    """File, line, field, what is expected."""
    assert change[0] in TABLE
    check_message(load, TABLE.replace(*change, 1), PAPER, *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (("lr: 1e-3", "lr: fast"), ("paper.yaml:17:", "lr", "'fast'", "number")),
        (
            ("optimizer: {lr: 1e-3}", "optimiser: {lr: 1e-3}"),
            ("paper.yaml:17:", "'optimiser'", "did you mean 'optimizer'?"),
        ),
        (("name: plateau", "name: step"), ("paper.yaml:10:", "'step'", "plateau")),
        (("why: small", "whi: small"), ("paper.yaml:20:", "'whi'")),
        (("like: base", "like: basis"), ("paper.yaml:", "'basis'")),
    ],
)
def test_a_mistake_in_a_paper_is_one_line_with_its_place(load, change, parts):
    """Recipes and the proxy are checked as tables are."""
    check_message(load, TABLE, PAPER.replace(*change, 1), *parts)


def test_a_known_difference_is_an_equation_that_gives_the_printed_number(load):
    """The loader evaluates `gives`, and refuses one that falls outside the printed interval."""
    good = TABLE + "known:\n  - {at: [A | params], cause: biases left out, gives: 132.5 + 2**0 / 4}\n"
    assert load(good).known[("A", "params")]["cause"] == "biases left out"

    with pytest.raises(ReproError, match=r"table1.yaml:10: known difference at 'A \| params': 140 is 140, not 133"):
        Claims().cells(load(good.replace("132.5 + 2**0 / 4", "140")))
    thousands = good.replace("unit: M}", "unit: K}").replace("133", "130000")
    cell = Claims().cells(load(thousands.replace("132.5 + 2**0 / 4", "130 * 10**3 + 0.4")))[1]
    assert cell.claim.known == {"cause": "biases left out", "gives": "130 * 10**3 + 0.4"}


def test_arithmetic_is_exact_and_reads_nothing_else():
    """Numbers, + - * / **, brackets and floor; no names, no calls."""
    assert tables.arithmetic("3*8*7*7 + 24*64") == Decimal(2712)
    assert tables.arithmetic("floor(7/2) - 0.1") == Decimal("2.9")
    with pytest.raises(ReproError, match="only numbers"):
        tables.arithmetic("__import__('os')")


@pytest.mark.parametrize("text", ["1/0", "floor(1/0)", "10**10**10", "(-1)**(1/2)", "True", "1 +", "\0"])
def test_arithmetic_without_a_value_is_one_line_with_its_place(text):
    """A division by zero in a table is a mistake of its author's, no traceback."""
    with pytest.raises(ReproError, match=r"^table1.yaml:3: .* is no arithmetic$"):
        tables.arithmetic(text, "table1.yaml", 3)


def test_a_mistake_in_a_cell_on_a_line_of_its_own_has_that_line(load):
    """The line is that of the misspelt key, also below a list of values."""
    table = TABLE.replace("values: [25.60, 133]", "values: [\n    25.60,\n    {printed: 133,\n     untis: M}]")
    check_message(load, table, PAPER, "table1.yaml:8:", "unknown key 'untis'", "did you mean 'unit'?")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimizer.lr": "fast"}, "-o recipe: optimizer lr is 'fast': input should be a valid number"),
        ({"optimizer.lrr": "1"}, "-o recipe: unknown key 'lrr'; did you mean 'lr'?"),
        ({"ema": "0.9", "polyak": "1"}, "-o recipe: either ema or polyak is averaged, not both"),
    ],
)
def test_a_mistake_on_the_command_line_is_not_laid_on_the_file(load, given, said):
    """Nothing is wrong with the recipe in paper.yaml, so no line of it is named."""
    with pytest.raises(ReproError) as caught:
        resolve(load().paper, "base", "proxy", {f"recipe.{key}": value for key, value in given.items()})
    assert str(caught.value).startswith(said)


def test_a_table_named_twice_is_found_once():
    """By its name and by its path."""
    [path] = tables.find(["vgg/table3"])
    assert tables.find(["vgg/table3", str(path), "vgg/table3"]) == [path]


def test_an_unknown_table_suggests_the_nearest():
    """A wrong name ends in what to type next."""
    with pytest.raises(
        ReproError, match=r"no table is called 'tabel3'; did you mean 'table3'\? `repro list` shows all."
    ):
        tables.find(["tabel3"])


def test_a_paper_without_a_proxy_leaves_its_metrics_missing(load):
    """A held-out table works as one file: its counts are planned, its errors say what would measure them."""
    table = load(paper="source: a paper\ndefaults: {dataset: imagenet-1k-val, protocol: dense}\n")

    cell = Claims("proxy").cell(table, "A", "top-1")
    assert cell.systems == ()
    assert "states no proxy; --scale full measures it" in cell.claim.missing
    assert Claims("proxy").cell(table, "A", "params").systems


def test_no_printed_number_is_dropped(repro):
    """As many claims in each table as when it was proof-read against the paper; a change is made here on purpose."""
    found = Counter(row["table"] for row in json.loads(repro("list", "--claims", "--json").stdout))

    assert found == json.loads((HERE / "claims_per_table.json").read_text())
