"""The catalogue of data sets, and what the proxy's images are."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from repro import data
from repro.data import digits
from repro.errors import JobError


@pytest.fixture(scope="module")
def root(data_root: Path) -> Path:
    """A folder in which the three sets have been made."""
    return data_root


def test_importing_the_catalogue_loads_nothing_heavy() -> None:
    """Names and facts are for rooms that must start fast."""
    code = "import sys, repro.data as d; d.facts('digits-train', __import__('pathlib').Path('.')); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sklearn", "numpy", "PIL", "filelock"} & set(modules)


@pytest.mark.parametrize(("name", "count"), [("digits-train", 2000), ("digits-val", 1000), ("digits-test", 3000)])
def test_a_set_is_what_its_facts_say(root: Path, name: str, count: int) -> None:
    """Shapes, types, number of images, mean colour and fingerprint are those of the files."""
    known, images = data.facts(name, root), data.open_set(name, root)
    assert known is not None
    assert isinstance(images, data.Images)
    assert images.images.shape == (count, 72, 72, 3)
    assert images.images.dtype == np.uint8
    assert images.labels.shape == images.source.shape == (known["images"],)
    assert sorted(set(images.labels.tolist())) == list(range(known["classes"]))
    assert known["fingerprint"] == images.fingerprint
    assert known["mean"] == pytest.approx(images.images.reshape(-1, 3).mean(0), abs=1e-9)


def test_no_source_digit_is_in_two_sets(root: Path) -> None:
    """The halves share no digit, and all 1,797 are used."""
    sources = [set(data.open_set(name, root).source.tolist()) for name in data.DIGITS]
    assert [len(s) for s in sources] == [1000, 200, 597]
    assert len(set.union(*sources)) == 1797


def test_a_label_is_that_of_its_source_digit(root: Path) -> None:
    """`source` is a digit's place in scikit-learn's order."""
    from sklearn.datasets import load_digits

    images = data.open_set("digits-test", root)
    assert (load_digits().target[images.source] == images.labels).all()


def test_a_set_made_again_is_the_same_to_the_bit(root: Path) -> None:
    """The seed alone decides."""
    again = digits.make("digits-val")
    assert data.Images(**again).fingerprint == data.facts("digits-val", root)["fingerprint"]  # type: ignore[index]


def test_an_image_depends_on_its_own_index_alone(root: Path) -> None:
    """Image 7 drawn by itself is image 7 of the set."""
    from sklearn.datasets import load_digits

    images = data.open_set("digits-val", root)
    digit = (load_digits().images[images.source[7]] / 16).astype(np.float32)
    stream = np.random.Philox(key=digits.SEED, counter=[0, 0, 7, 2])
    assert (digits.draw(digit, np.random.Generator(stream)) == images.images[7]).all()


@given(seed=st.integers(0, 2**32), side=st.integers(26, 57))
@settings(max_examples=20, deadline=None)
def test_a_digit_is_enlarged_as_a_pixel_by_pixel_loop_does(seed: int, side: int) -> None:
    """The fast bilinear enlargement equals the definition, and stays within 0 and 1."""
    digit = np.random.default_rng(seed).random((8, 8), np.float32)
    slow = np.zeros((side, side))
    for y in range(side):
        for x in range(side):
            v, u = (y + 0.5) * 8 / side - 0.5, (x + 0.5) * 8 / side - 0.5
            for i in range(8):
                for j in range(8):
                    slow[y, x] += digit[i, j] * max(0.0, 1 - abs(v - i)) * max(0.0, 1 - abs(u - j))
    fast = digits.enlarge(digit, side)
    assert np.abs(fast - slow).max() < 1e-5
    assert fast.min() >= 0
    assert fast.max() <= 1


def test_facts_are_none_before_the_set_is_made(tmp_path: Path) -> None:
    """So are those of another version of the files."""
    assert data.facts("digits-train", tmp_path) is None
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "meta.json").write_text(json.dumps({"version": -1, "sets": {"digits-train": {}}}))
    assert data.facts("digits-train", tmp_path) is None


@pytest.mark.parametrize("harm", ["truncated", "flipped", "gone", "meta"])
def test_a_damaged_file_is_made_again(harm: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is short, changed or gone is noticed by `load`, and comes back the same."""
    monkeypatch.setattr(data, "DIGITS", ("digits-val",))
    before = data.ensure("digits-val", tmp_path)
    path = tmp_path / "digits" / "digits-val.npz"
    content = bytearray(path.read_bytes())
    if harm == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "gone":
        path.unlink()
    else:
        (tmp_path / "digits" / "meta.json").write_text("{")
    assert data.open_set("digits-val", tmp_path).fingerprint == before["fingerprint"]
    assert data.ensure("digits-val", tmp_path) == before == data.facts("digits-val", root)


def test_two_at_once_make_a_set_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second waits, and finds the set."""
    monkeypatch.setattr(data, "DIGITS", ("digits-val",))
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: data.ensure("digits-val", tmp_path), range(2))
    assert one == two
    assert sorted(p.name for p in (tmp_path / "digits").iterdir() if p.suffix != "") == ["digits-val.npz", "meta.json"]


def test_a_misspelt_name_gets_the_nearest_one(tmp_path: Path) -> None:
    """An unknown set is no silent nothing."""
    with pytest.raises(JobError, match=r"unknown data set 'digit-test'; did you mean 'digits-test'\? Known: digits-"):
        data.open_set("digit-test", tmp_path)


def test_a_sheet_of_samples_is_a_png(root: Path, tmp_path: Path) -> None:
    """Rows and columns of images at twice their size, with room for a label."""
    path = tmp_path / "new" / "sheet.png"
    data.samples("digits-val", root, path, rows=2, columns=3)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (3 * 148, 2 * 164)
