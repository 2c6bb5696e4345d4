"""Scores that were made elsewhere, judged by `repro judge`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from click.testing import CliRunner
from conftest import TINY

from repro.cli.main import cli
from repro.store import Store

TABLE = TINY / "table1.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory, data_root, repro):
    """A store with row A measured, what `repro run` printed of it, and the ids, scores and labels of its record."""
    store = tmp_path_factory.mktemp("made") / "store"
    store.mkdir()
    (store / "data").symlink_to(data_root)
    words = ("run", TABLE, "--row", "A", "--only", "metric", "--store", store, "--no-mlflow", "--json")
    printed = json.loads(repro(*words).stdout)["cells"]
    opened = Store(store)
    [record] = opened.all("scores")
    with np.load(opened.file(record, "npz")) as file:
        scores, labels = file["scores"], file["labels"]
    return store, printed, [f"{i:06d}" for i in range(len(labels))], scores, labels


def parquet(path: Path, ids: list[str], scores: np.ndarray) -> Path:
    pandas.DataFrame({"id": ids, **{f"class {i}": scores[:, i] for i in range(scores.shape[1])}}).to_parquet(path)
    return path


def npz(path: Path, ids: list[str], scores: np.ndarray) -> Path:
    np.savez(path, ids=np.array(ids), scores=scores)
    return path


@pytest.mark.parametrize(("write", "name"), [(npz, "s.npz"), (parquet, "s.parquet")])
def test_scores_of_a_record_in_any_order_give_the_very_same_errors(made, repro, tmp_path, write, name):
    """What `repro run` measured from these scores, `repro judge` measures from a file of them."""
    store, printed, ids, scores, _ = made
    order = np.random.default_rng(0).permutation(len(ids))
    path = write(tmp_path / name, [ids[i] for i in order], scores[order])

    told = json.loads(repro("judge", TABLE, "--scores", path, "--row", "A", "--store", store, "--json").stdout)

    assert {c["column"]: c["measured"] for c in told["cells"]} == {c["column"]: c["measured"] for c in printed}
    assert [c["verdict"] for c in told["cells"]] == ["incomparable", "incomparable"]
    origin = f"external: {name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert {c["origin"] for c in told["cells"]} == {origin}


def test_the_table_is_printed_as_diff_prints_it_and_nothing_is_stored(made, repro, tmp_path):
    """A result from elsewhere is shown with its origin; the store has the records that it had."""
    store, printed, ids, scores, _ = made
    before = sorted(p for p in store.rglob("*") if "data" not in p.parts)
    path = npz(tmp_path / "s.npz", ids, scores)

    out = repro("judge", TABLE, "--scores", path, "--row", "A", "--store", store).stdout

    lines = repro("diff", TABLE, "--row", "A", "--only", "metric", "--store", store).stdout.splitlines()
    assert [line for line in lines if line.startswith("A ")] == [x for x in out.splitlines() if x.startswith("A ")]
    assert "external: s.npz sha256 " in out
    assert sorted(p for p in store.rglob("*") if "data" not in p.parts) == before
    assert printed


def test_one_column_is_judged_alone_and_a_row_nobody_measured_can_be(made, repro, tmp_path):
    """--column narrows; a row that says why it is not measured here is judged all the same."""
    store, _, ids, _, labels = made
    path = npz(tmp_path / "s.npz", ids, np.eye(10)[labels])
    words = ("--scores", path, "--store", store, "--json")

    one = json.loads(repro("judge", TABLE, "--row", "A", "--column", "top-5", *words).stdout)
    other = json.loads(repro("judge", TABLE, "--row", "other", *words).stdout)

    assert [(c["column"], c["measured"]) for c in one["cells"]] == [("top-5", 0)]
    assert [(c["column"], c["measured"], c["verdict"]) for c in other["cells"]] == [("top-1", 0, "incomparable")]


BAD = {
    "2 ids missing: 002998, 002999; ids of digits-test are as 000000": lambda ids, s: (ids[:-2], s[:-2]),
    "2 ids unknown: x, y": lambda ids, s: (["x", "y", *ids[2:]], s),
    "1 ids given twice: 000001": lambda ids, s: (["000001", *ids[1:]], s),
    "scores of shape (3000, 9); expected (3000, 10): images, classes": lambda ids, s: (ids, s[:, :9]),
    "scores of shape (2999, 10); expected (3000, 10)": lambda ids, s: (ids, s[1:]),
    "scores of 1 of 3000 images are not finite": lambda ids, s: (ids, np.where(s == s.max(), np.nan, s)),
    "expected npz with `ids` and `scores`": lambda ids, s: (np.array(ids, object), s),
}


@pytest.mark.parametrize("message", BAD)
def test_scores_that_do_not_go_with_the_data_set_are_refused_by_the_first_few(made, tmp_path, message):
    """Missing, unknown, doubled ids, another number of classes, and pickled arrays are errors in one line."""
    store, _, ids, scores, _ = made
    path = npz(tmp_path / "bad.npz", *BAD[message](ids, scores))

    done = CliRunner().invoke(cli, ["judge", str(TABLE), "--scores", str(path), "--row=A", "--store", str(store)])
    assert message in str(done.exception)


def test_bad_words_are_one_line_and_exit_2(made, repro, tmp_path):
    """No such file, row, column; a row with two numbers of a kind; data that is not here."""
    path = npz(tmp_path / "s.npz", *made[2:4])
    dense = ("densenet/table3", "--row", "DenseNet-121")
    for words, message in {
        (TABLE, "--row", "A", "--scores", tmp_path / "none.npz"): "none.npz: expected npz with `ids` and `scores`",
        ("vgg", "--row", "A", "--scores", path): "'vgg' is several tables; expected one, as vgg/table1",
        (TABLE, "--row", "AA", "--scores", path): "has no such row or column; did you mean 'A'?",
        (
            TABLE,
            "--row=A",
            "--column=params",
            "--scores",
            path,
        ): "--column is to name one error or accuracy of each kind",
        (*dense, "--scores", path): "one error or accuracy of each kind, of: top-1 single-crop, top-1 10-crop",
        (*dense, "--column", "top-1 10-crop", "--scores", path, "--scale", "full"): "imagenet-1k-val is not here",
    }.items():
        done = repro("judge", *words, "--store", made[0], code=2)
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_at_full_scale_ids_are_the_files_names_and_a_fraction_is_a_fraction(repro, tmp_path):
    """Scores of ImageNet by the names of its files, judged against a printed accuracy of 0.790."""
    from made_imagenet import make

    from repro.data import open_set

    make(tmp_path / "imagenet", classes=10, train_per_class=1, val_per_class=2, flat_val=True)
    environment = {"REPRO_DATA_IMAGENET_1K_VAL": str(tmp_path / "imagenet" / "val")}
    words = ("--row", "Xception", "--scale", "full", "--store", tmp_path / "store", "--json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*environment.popitem())
        images = open_set("imagenet-1k-val", tmp_path / "store" / "data")
        scores = np.eye(1000)[images.labels]
        scores[:3] = 1 - scores[:3]  # three of twenty are wrong
        path = npz(tmp_path / "s.npz", list(images.ids), scores)
        cells = json.loads(repro("judge", "xception/table1", "--scores", path, *words).stdout)["cells"]

    assert images.ids[0].endswith("ILSVRC2012_val_00000001.JPEG")
    assert [(c["column"], c["claimed"], c["unit"], c["measured"]) for c in cells] == [
        ("top-1", "0.790", "fraction", 0.85),
        ("top-5", "0.945", "fraction", 0.85),
    ]
    assert all(c["verdict"] != "incomparable" for c in cells)
