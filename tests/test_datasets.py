"""Every set of the catalogue in its true layout and encoding, made small: read, labelled, fingerprinted, checked."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import made_imagenet
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from repro import data
from repro.cli.data import data_group
from repro.data.index import BLACKLIST
from repro.errors import JobError, ReproError

Roots = Callable[..., None]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ImageNet: 5 images of train and 2 of val for each of 20 wnids. Tests copy what they change."""
    root = tmp_path_factory.mktemp("imagenet")
    made_imagenet.make(root, train_per_class=3, val_per_class=2)
    return root


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Roots:
    """Set the root of a data set for a test."""
    return lambda name, path: monkeypatch.setenv(data.variable(name), str(path))


def flat(imagenet: Path, root: Path) -> Path:
    """The images of val in one folder, as in the archive; no list."""
    root.mkdir()
    for path in (imagenet / "val").glob("*/*"):
        shutil.copy2(path, root)
    return root


def truth(imagenet: Path) -> dict[str, str]:
    """The wnid of each image of val."""
    return {p.name: p.parent.name for p in (imagenet / "val").glob("*/*")}


def packed(path: Path, members: dict[str, bytes]) -> None:
    """A tar of files."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


# ImageNet: labels


def test_labels_are_numbers_among_the_thousand_wnids(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """20 of the wnids keep their own numbers, whatever folders are there and in whatever order they were made."""
    root = tmp_path / "val"
    folders = sorted((imagenet / "val").iterdir(), key=lambda p: p.name[::-1])[:7]
    for folder in folders:
        shutil.copytree(folder, root / folder.name)
    at("imagenet-1k-val", root)

    images = data.open_set("imagenet-1k-val", tmp_path / "cache")

    assert len(images.classes) == 1000
    assert {images.classes[label] for label in images.labels} == {f.name for f in folders}
    assert all(images.classes[n] == truth(imagenet)[i] for i, n in zip(images.ids, images.labels.tolist(), strict=True))
    assert images.classes[0] == "n01440764"  # tench, and n15075141 is toilet tissue
    assert images.classes[999] == "n15075141"
    assert max(images.labels) > 20


def test_a_folder_that_is_no_wnid_is_an_error(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """Its images are not dropped in silence."""
    shutil.copytree(imagenet / "val", tmp_path / "val")
    (tmp_path / "val" / "n02099601").rename(tmp_path / "val" / "retriever")
    at("imagenet-1k", tmp_path)

    with pytest.raises(JobError, match=r"retriever/ILSVRC2012_val_\d+\.JPEG lies in no folder that names its class"):
        data.ensure("imagenet-1k-val", tmp_path / "cache")


LISTS: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "wnid": lambda t: {"val.txt": "".join(f"{f} {w}\n" for f, w in t.items())},
    "number": lambda t: {"val.txt": "".join(f"{f} {made_imagenet.wnids().index(w)}\n" for f, w in t.items())},
    "kaggle": lambda t: {
        "LOC_val_solution.csv": "ImageId,PredictionString\n"
        + "".join(f"{f[:-5]},{w} 85 1 499 272 \n" for f, w in t.items())
    },
    # The devkit counts the classes from 1 in an order of its own: here backwards.
    "devkit": lambda t: {
        "ILSVRC2012_validation_ground_truth.txt": "".join(
            f"{1000 - made_imagenet.wnids().index(t[f])}\n" for f in sorted(t)
        ),
    },
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_flat_val_folder_is_the_same_set_with_any_list(kind: str, imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """The same ids, labels, fingerprint as in folders by wnid; the devkit's numbers by its `meta.mat`."""
    from scipy.io import savemat

    at("imagenet-1k", imagenet)
    folders = data.ensure("imagenet-1k-val", tmp_path / "cache")
    root = flat(imagenet, tmp_path / "flat")
    for name, text in LISTS[kind](truth(imagenet)).items():
        (root / name).write_text(text)
    rows = [(1000 - i, wnid, "words") for i, wnid in enumerate(made_imagenet.wnids())]
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O")]
    savemat(root / "meta.mat", {"synsets": np.array(rows, kinds)})
    at("imagenet-1k-val", root)

    assert data.ensure("imagenet-1k-val", tmp_path / "cache") == folders


def test_a_flat_folder_without_a_list_says_what_to_put_where(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """Nothing is guessed."""
    at("imagenet-1k-val", flat(imagenet, tmp_path / "flat"))

    with pytest.raises(
        JobError, match=r"_00000001\.JPEG lies in no folder .*no list tells it\. Put there val\.txt \(lines FILE WNID"
    ):
        data.ensure("imagenet-1k-val", tmp_path / "cache")


def test_ground_truth_without_the_order_of_its_numbers_is_refused(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """Its numbers are not those of the sorted wnids."""
    root = flat(imagenet, tmp_path / "flat")
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("490\n361\n")
    at("imagenet-1k-val", root)

    with pytest.raises(JobError, match=r"counts in the devkit's order; put its meta\.mat beside it"):
        data.ensure("imagenet-1k-val", tmp_path / "cache")


@pytest.mark.parametrize("line", ["1000", "n00000000", "retriever"])
def test_a_word_that_is_no_class_is_told_with_its_line(line: str, imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """The error names the list and the line."""
    root = flat(imagenet, tmp_path / "flat")
    lines = [f"{name} {wnid}\n" for name, wnid in sorted(truth(imagenet).items())]
    (root / "val.txt").write_text("".join([lines[0], f"{lines[1].split()[0]} {line}\n", *lines[2:]]))
    at("imagenet-1k-val", root)

    with pytest.raises(
        ReproError, match=rf"val\.txt:2: '{line}', of ILSVRC2012_val_00000002.JPEG, is none of the 1000 classes"
    ):
        data.ensure("imagenet-1k-val", tmp_path / "cache")


def test_the_other_halfs_images_are_noticed(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """A root that holds train, or both halves under other names, is no val."""
    shutil.copytree(imagenet / "val", tmp_path / "validation")
    shutil.copytree(imagenet / "train", tmp_path / "training")
    at("imagenet-1k", tmp_path)
    with pytest.raises(JobError, match=r"n\d+_\d+\.JPEG is no image of val; set the root of val to its own folder"):
        data.ensure("imagenet-1k-val", tmp_path / "cache")
    at("imagenet-1k", tmp_path / "validation")
    with pytest.raises(
        JobError, match=r"ILSVRC2012_val_\d+\.JPEG is no image of train; set the root of train to its own"
    ):
        data.ensure("imagenet-1k-train", tmp_path / "cache")


# ImageNet: tars, shards, parts


def test_tars_hold_the_same_set(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """The archive of train, a tar of a tar for each wnid; a tar of folders; a folder of tars: one fingerprint."""
    at("imagenet-1k", imagenet)
    folders = data.ensure("imagenet-1k-train", tmp_path / "cache")
    wnids = sorted(p.name for p in (imagenet / "train").iterdir())
    (tmp_path / "each").mkdir()
    for wnid in wnids:
        packed(
            tmp_path / "each" / f"{wnid}.tar", {p.name: p.read_bytes() for p in (imagenet / "train" / wnid).iterdir()}
        )
    (tmp_path / "whole").mkdir()
    packed(
        tmp_path / "whole" / "ILSVRC2012_img_train.tar", {p.name: p.read_bytes() for p in (tmp_path / "each").iterdir()}
    )
    every = {str(p.relative_to(imagenet)): p.read_bytes() for p in (imagenet / "train").glob("*/*")}
    packed(tmp_path / "folders.tar", every)
    for root in (tmp_path / "each", tmp_path / "whole", tmp_path / "folders.tar"):
        at("imagenet-1k-train", root)
        assert data.ensure("imagenet-1k-train", tmp_path / "cache") == folders, root
        images = data.open_set("imagenet-1k-train", tmp_path / "cache")
        seen = [image.shape for _, image in data.stream(images, range(3), 0)]
        at("imagenet-1k-train", imagenet)
        assert seen == [data.open_set("imagenet-1k-train", tmp_path / "cache")[i].shape for i in range(3)]


def test_webdataset_shards_are_labelled_by_their_cls_files(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """Shards with `KEY.jpg` and `KEY.cls`; a number that is not the wnid's among the sorted is an error."""
    number = {w: i for i, w in enumerate(made_imagenet.wnids())}
    files = sorted((imagenet / "train").glob("*/*"))
    root = tmp_path / "shards"
    root.mkdir()
    for shard in range(2):
        members = {}
        for path in files[shard::2]:
            members[f"{path.stem}.jpg"] = path.read_bytes()
            members[f"{path.stem}.cls"] = str(number[path.parent.name]).encode()
        packed(root / f"imagenet1k-train-{shard:04d}.tar", members)
    at("imagenet-1k-train", root)

    images = data.open_set("imagenet-1k-train", tmp_path / "cache")
    shards = data.ensure("imagenet-1k-train", tmp_path / "cache")
    at("imagenet-1k-train", imagenet)
    assert data.ensure("imagenet-1k-train", tmp_path / "cache") == shards  # .jpg or .JPEG
    at("imagenet-1k-train", root)

    assert len(images) == len(files)
    assert all(images.classes[n] == i[:9] for i, n in zip(images.ids, images.labels.tolist(), strict=True))
    assert images[5].shape == np.array(Image.open(files[5])).shape
    packed(
        root / "imagenet1k-train-0002.tar",
        {f"{files[0].stem}b.jpg": files[0].read_bytes(), f"{files[0].stem}b.cls": b"3"},
    )
    with pytest.raises(JobError, match=r"has the label 3, its wnid is number \d+"):
        data.ensure("imagenet-1k-train", tmp_path / "cache")
    at("folder:shards", root)
    with pytest.raises(JobError, match="webdataset shards are read for ImageNet alone"):  # no class is a shard's name
        data.ensure("folder:shards", tmp_path / "cache")


def test_the_48238_images_are_those_that_are_not_blacklisted(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """Without the list the error says where to put it; with it those images are gone, and the fingerprint differs."""
    shutil.copytree(imagenet / "val", tmp_path / "val")
    at("imagenet-1k", tmp_path)
    with pytest.raises(JobError, match=f"put {BLACKLIST} into {tmp_path}"):
        data.ensure("imagenet-1k-val-48238", tmp_path / "cache")

    (tmp_path / BLACKLIST).write_text("36\n3\n")
    images = data.open_set("imagenet-1k-val-48238", tmp_path / "cache")

    assert len(images) == data.ensure("imagenet-1k-val-48238", tmp_path / "cache")["images"] == 38
    assert not {"ILSVRC2012_val_00000003.JPEG", "ILSVRC2012_val_00000036.JPEG"} & set(images.ids)
    fingerprints = {
        data.ensure(n, tmp_path / "cache")["fingerprint"] for n in ("imagenet-1k-val", "imagenet-1k-val-48238")
    }
    assert len(fingerprints) == 2
    (tmp_path / BLACKLIST).write_text("77\n")
    with pytest.raises(JobError, match="none of the images that it leaves out is in"):
        data.ensure("imagenet-1k-val-48238", tmp_path / "cache")


def test_a_list_names_a_part_of_any_set(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """Ids one a line; one that is not there is an error with its line; the part is a set like any other."""
    at("imagenet-1k", imagenet)
    whole, some = data.open_set("imagenet-1k-val", tmp_path / "cache"), tmp_path / "some.txt"
    some.write_text(f"{whole.ids[7]}\n{whole.ids[2]} more words\n")

    images = data.open_set(f"imagenet-1k-val@{some}", tmp_path / "cache")

    assert images.ids == [whole.ids[2], whole.ids[7]]
    assert images.labels.tolist() == whole.labels[[2, 7]].tolist()
    assert (images[1] == whole[7]).all()
    digits, empty = tmp_path / "digits.txt", tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(JobError, match=r"empty.txt: names no image"):
        data.ensure(f"imagenet-1k-val@{empty}", tmp_path / "cache")
    some.write_text(f"{whole.ids[7]}\nILSVRC2012_val_00000099.JPEG\n")
    with pytest.raises(JobError, match=r"some.txt:2: imagenet-1k-val has no image 'ILSVRC2012_val_00000099.JPEG'"):
        data.ensure(f"imagenet-1k-val@{some}", tmp_path / "cache")
    with pytest.raises(ReproError, match=r"digits.txt: cannot be read"):
        data.ensure(f"imagenet-1k-val@{digits}", tmp_path / "cache")


# Pixels


def test_odd_files_become_rgb_as_torchvision_makes_them(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """CMYK, grey, a PNG named .JPEG and an EXIF mark: the very pixels of torchvision's own loader."""
    from torchvision.datasets.folder import default_loader

    at("imagenet-1k", imagenet)
    images = data.open_set("imagenet-1k-val", tmp_path / "cache")
    paths = {p.name: p for p in (imagenet / "val").glob("*/*")}

    for i in range(5):
        assert (images[i] == np.array(default_loader(paths[images.ids[i]]))).all()
    assert images[3].shape == (75, 101, 3)  # marked as turned, and left as it lies


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_in_order_with_what_cannot_be_read_in_its_place(
    workers: int, imagenet: Path, at: Roots, tmp_path: Path
) -> None:
    """Images of mixed sizes; a cut file, an empty one and one of noise are told by path and reason."""
    shutil.copytree(imagenet / "val", tmp_path / "val")
    paths = {p.name: p for p in (tmp_path / "val").glob("*/*")}
    bad = {n: paths[f"ILSVRC2012_val_{n + 1:08d}.JPEG"] for n in (6, 7, 8)}
    bad[6].write_bytes(bad[6].read_bytes()[:900])
    bad[7].write_bytes(b"")
    bad[8].write_bytes(b"\xff\xd8" + bytes(500))
    at("imagenet-1k", tmp_path)
    images = data.open_set("imagenet-1k-val", tmp_path / "cache")
    order = [9, 8, 7, 6, 5, *range(39, 15, -1)]

    found = list(data.stream(images, order, workers))

    assert [i for i, _ in found] == order
    for i, image in found:
        if i in bad:
            assert isinstance(image, data.Unreadable)
            assert image.path == str(bad[i])
            assert image.why
        else:
            assert (image == images[i]).all()


# The index


def test_a_fingerprint_follows_content_and_label_and_nothing_else(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """A touched file keeps it; a changed, a moved, a new and a lost one change it."""
    shutil.copytree(imagenet / "val", tmp_path / "val")
    at("imagenet-1k", tmp_path)
    seen = [data.ensure("imagenet-1k-val", tmp_path / "cache")["fingerprint"]]
    files = sorted((tmp_path / "val").glob("*/*"))

    def now() -> str:
        assert data.facts("imagenet-1k-val", tmp_path / "cache") is None  # the change is noticed
        return str(data.ensure("imagenet-1k-val", tmp_path / "cache")["fingerprint"])

    os.utime(files[0])
    assert now() == seen[0]
    content = bytearray(files[0].read_bytes())
    content[-5] ^= 1
    files[0].write_bytes(content)
    seen.append(now())
    files[1].rename(files[-1].parent / files[1].name)
    seen.append(now())
    (files[-1].parent / "ILSVRC2012_val_00000099.JPEG").write_bytes(files[2].read_bytes())
    seen.append(now())
    files[2].unlink()
    seen.append(now())
    assert len(set(seen)) == 5
    assert data.facts("imagenet-1k-val", tmp_path / "cache")["fingerprint"] == seen[-1]  # type: ignore[index]


def test_an_index_spares_the_second_reading(
    imagenet: Path, at: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unchanged files are read once; a damaged index is made again."""
    at("imagenet-1k", imagenet)
    first = data.ensure("imagenet-1k-val", tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr("repro.data.index.listed", None)
        assert data.ensure("imagenet-1k-val", tmp_path / "cache") == first
        assert len(data.open_set("imagenet-1k-val", tmp_path / "cache")) == 40
    (path,) = (tmp_path / "cache" / "index").glob("*.npz")
    path.write_bytes(path.read_bytes()[:-999])
    assert data.facts("imagenet-1k-val", tmp_path / "cache") is None
    assert data.ensure("imagenet-1k-val", tmp_path / "cache") == first


def test_two_images_of_one_name_are_an_error(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """Ids are names of files, so a copy of the set within itself is noticed."""
    shutil.copytree(imagenet / "val", tmp_path / "val")
    shutil.copytree(imagenet / "val", tmp_path / "val" / "again")
    at("imagenet-1k", tmp_path)

    with pytest.raises(JobError, match=r"two images are called ILSVRC2012_val_00000001\.JPEG"):
        data.ensure("imagenet-1k-val", tmp_path / "cache")


def test_a_link_to_nothing_is_told_by_its_path(at: Roots, tmp_path: Path) -> None:
    """An image that is listed and not there has no fingerprint."""
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "1.png").symlink_to(tmp_path / "nothing.png")
    at("folder:pets", tmp_path / "pets")

    with pytest.raises(JobError, match=r"pets/cat/1\.png: No such file or directory"):
        data.ensure("folder:pets", tmp_path / "cache")


def test_reading_images_draws_nothing_from_the_generator_of_weights(imagenet: Path, at: Roots, tmp_path: Path) -> None:
    """Else a net that is built after it would have other weights in each process, and after a stop."""
    import torch

    at("imagenet-1k", imagenet)
    before = torch.get_rng_state()
    assert len(list(data.stream(data.open_set("imagenet-1k-val", tmp_path / "cache"), range(3), 0))) == 3
    assert torch.equal(torch.get_rng_state(), before)


# The other sets, in their true formats

RANDOM = np.random.default_rng(0)


class Python2(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes bytes as the text of Python 2, in which the real batches were written."""

    def save_text(self, obj: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(obj)) + obj)
        self.memoize(obj)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, bytes: save_text}  # type: ignore[attr-defined]


def pickled(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    Python2(stream, protocol=2).dump(content)
    path.write_bytes(stream.getvalue().replace(b"cnumpy._core.", b"cnumpy.core."))


def made_cifar(root: Path, hundred: bool) -> np.ndarray:
    """The batches as Python wrote them: rows of 3072 bytes, red first. The pixels of the last one, for tests."""
    folder = root / ("cifar-100-python" if hundred else "cifar-10-batches-py")
    names = ["train", "test"] if hundred else [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name in names:
        pixels = RANDOM.integers(0, 256, (6, 3072), dtype=np.uint8)
        labels = (
            {"fine_labels": [99, 1, 2, 3, 4, 5], "coarse_labels": [0] * 6}
            if hundred
            else {"labels": [9, 1, 2, 3, 4, 5]}
        )
        pickled(folder / name, {"batch_label": name, "data": pixels, "filenames": ["a.png"] * 6, **labels})
    if hundred:
        pickled(
            folder / "meta", {"fine_label_names": [f"fine {i}" for i in range(100)], "coarse_label_names": ["x"] * 20}
        )
    else:
        pickled(folder / "batches.meta", {"label_names": [f"name {i}" for i in range(10)], "num_vis": 3072})
    return pixels.reshape(6, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("hundred", [False, True], ids=["cifar10", "cifar100"])
def test_cifar_is_read_from_its_batches(hundred: bool, at: Roots, tmp_path: Path) -> None:
    """Both halves; fine labels of CIFAR-100; names from the meta file; a mean, since it is cheap."""
    pixels, name = made_cifar(tmp_path, hundred), "cifar100" if hundred else "cifar10"
    at(name, tmp_path)

    test, train = (data.open_set(n, tmp_path / "cache") for n in (name, f"{name}-train"))

    assert (np.stack([test[i] for i in range(6)]) == pixels).all()
    assert test.labels.tolist() == [99 if hundred else 9, 1, 2, 3, 4, 5]
    assert len(train) == (6 if hundred else 30)
    assert len(test.classes) == (100 if hundred else 10)
    assert data.facts(name, tmp_path / "cache")["mean"] == pytest.approx(pixels.reshape(-1, 3).mean(0))  # type: ignore[index]
    assert data.facts(f"{name}-test", tmp_path / "cache") == data.facts(name, tmp_path / "cache")
    lost = next((tmp_path).glob("cifar-*/test*"))
    lost.unlink()
    with pytest.raises(JobError, match=f"FileNotFoundError reading cifar-.* directory: '{lost}'"):
        data.ensure(name, tmp_path / "cache")


def test_a_pickle_that_would_run_code_is_refused(at: Roots, tmp_path: Path) -> None:
    """CIFAR's batches are pickles; only lists, texts and arrays are taken from one."""

    class Harm:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    made_cifar(tmp_path, False)
    pickled(tmp_path / "cifar-10-batches-py" / "test_batch", {"data": Harm(), "labels": [1]})
    at("cifar10", tmp_path)

    with pytest.raises(JobError, match=r"posix\.mkdir has no place in a file of images"):
        data.ensure("cifar10", tmp_path / "cache")
    assert not (tmp_path / "harm").exists()


def test_svhn_is_read_from_its_mat_files(at: Roots, tmp_path: Path) -> None:
    """(32, 32, 3, N) with labels 1 to 10, where 10 is the digit 0; extra, and train with extra after it."""
    from scipy.io import savemat

    pixels = RANDOM.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    for i, half in enumerate(("train", "test", "extra")):
        savemat(
            tmp_path / f"{half}_32x32.mat",
            {"X": pixels + np.uint8(i), "y": np.array([[10], [1], [9], [i + 1]], np.uint8)},
        )
    at("svhn", tmp_path)

    test, both = data.open_set("svhn", tmp_path / "cache"), data.open_set("svhn-train+extra", tmp_path / "cache")

    assert test.labels.tolist() == [0, 1, 9, 2]
    assert (test[2] == pixels[..., 2] + np.uint8(1)).all()
    assert both.labels.tolist() == [0, 1, 9, 1, 0, 1, 9, 3]
    assert (both[7] == pixels[..., 3] + np.uint8(2)).all()
    assert data.ensure("svhn-extra", tmp_path / "cache")["images"] == 4
    done = CliRunner().invoke(data_group, ["check", "svhn", "--json", "--store", str(tmp_path / "store")])
    assert json.loads(done.stdout)["sizes"] == {"32x32": 4}


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnist_is_read_from_its_idx_files(name: str, folder: str, at: Roots, tmp_path: Path) -> None:
    """Where torchvision puts them; grey becomes RGB."""
    pixels, raw = RANDOM.integers(0, 256, (5, 28, 28), dtype=np.uint8), tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    for half, turn in (("train", 0), ("t10k", 1)):
        images = struct.pack(">IIII", 2051, 5, 28, 28) + np.roll(pixels, turn, axis=0).tobytes()
        (raw / f"{half}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{half}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 5) + bytes([5, 0, 4, turn, 9]))
    at(name, tmp_path)

    test, train = data.open_set(name, tmp_path / "cache"), data.open_set(f"{name}-train", tmp_path / "cache")

    assert test.labels.tolist() == [5, 0, 4, 1, 9]
    assert train.labels.tolist() == [5, 0, 4, 0, 9]
    assert (test[1] == train[0]).all()
    assert (train[0] == pixels[0][..., None]).all()
    assert len(test.classes) == 10
    assert data.facts(name, tmp_path / "cache")["mean"] == pytest.approx([pixels.mean()] * 3)  # type: ignore[index]
    (raw / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 4) + bytes([5, 0, 4, 1]))
    with pytest.raises(JobError, match="5 images, but 4 labels"):
        data.ensure(name, tmp_path / "cache")
    shutil.rmtree(raw)
    with pytest.raises(JobError, match=r"RuntimeError reading \w+/raw/\*: Dataset not found\.$"):
        data.ensure(name, tmp_path / "cache")


def test_tiny_imagenet_is_read_as_it_is_unpacked(at: Roots, tmp_path: Path) -> None:
    """train/WNID/images, and val/images with val_annotations.txt; labels by sorted wnids, not by the file's order."""
    root, wnids = tmp_path / "tiny-imagenet-200", ["n03444034", "n02124075", "n04067472"]
    boxes, random = [], np.random.default_rng(1)
    for place, wnid in enumerate(wnids):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for k in range(2):
            image = made_imagenet.encode(made_imagenet.picture(place, 3, (64, 64), random), "grey" if k else "plain")
            (folder / f"{wnid}_{k}.JPEG").write_bytes(image)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
        boxes.append(f"val_{place}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    (root / "val" / "images").mkdir(parents=True)
    for place in range(3):
        picture = made_imagenet.picture(place, 3, (64, 64), random)
        (root / "val" / "images" / f"val_{place}.JPEG").write_bytes(made_imagenet.encode(picture, "plain"))
    (root / "val" / "val_annotations.txt").write_text("".join(boxes))
    (root / "wnids.txt").write_text("\n".join(wnids))
    at("tiny-imagenet", tmp_path)

    train, val = (data.open_set(f"tiny-imagenet-{half}", tmp_path / "cache") for half in ("train", "val"))

    assert val.classes == train.classes == sorted(wnids)
    assert val.labels.tolist() == [1, 0, 2]
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert train[1].shape == (64, 64, 3)
    (root / "wnids.txt").write_text("\n".join([*wnids, "n00000001"]))  # the list of classes is watched too
    assert data.open_set("tiny-imagenet-train", tmp_path / "cache").labels.tolist() == [1, 1, 2, 2, 3, 3]
    (root / "val" / "val_annotations.txt").write_text("".join(boxes[1:]))
    with pytest.raises(JobError, match=r"val_0\.JPEG lies in no folder that names its class, and no list tells it"):
        data.ensure("tiny-imagenet-val", tmp_path / "cache")


def test_places365_is_read_by_its_lists(at: Roots, tmp_path: Path) -> None:
    """As torchvision lays it out: the lists of the devkit beside val_256 and data_256_standard."""
    names = {"/a/airfield": 0, "/a/apartment_building/outdoor": 1, "/z/zen_garden": 2}
    lists = {
        "categories_places365.txt": "".join(f"{n} {i}\n" for n, i in names.items()),
        "places365_val.txt": "Places365_val_00000001.jpg 2\nPlaces365_val_00000002.jpg 0\n",
        "places365_train_standard.txt": "".join(f"{n}/00000001.jpg {i}\n" for n, i in names.items()),
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    random = np.random.default_rng(2)
    for path in ("val_256/Places365_val_00000001.jpg", "val_256/Places365_val_00000002.jpg",
                 *(f"data_256_standard{n}/00000001.jpg" for n in names)):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(made_imagenet.encode(made_imagenet.picture(1, 3, (32, 32), random), "plain"))
    at("places365", tmp_path)

    val, train = (data.open_set(f"places365-{half}", tmp_path / "cache") for half in ("val", "train"))

    assert val.labels.tolist() == [2, 0]
    assert val.classes == list(names)
    assert train.labels.tolist() == [0, 1, 2]
    assert train.ids[1] == "a/apartment_building/outdoor/00000001.jpg"
    assert val[0].shape == (32, 32, 3)
    (tmp_path / "places365_val.txt").unlink()
    with pytest.raises(JobError, match=r"_00000001\.jpg lies in no folder that names its class, and no list tells it"):
        data.ensure("places365-val", tmp_path / "cache")


def test_any_folder_of_classes_is_a_set(at: Roots, tmp_path: Path) -> None:
    """Classes are the sorted names of the folders; a loose image is an error."""
    for name in ("dog/1.webp", "cat/deep/2.bmp", "10/3.png", "9/4.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 6), "red").save(tmp_path / "pets" / name)
    at("folder:pets", tmp_path / "pets")

    images = data.open_set("folder:pets", tmp_path / "cache")

    assert images.classes == ["10", "9", "cat", "dog"]
    assert list(zip(images.ids, images.labels.tolist(), strict=True)) == [
        ("10/3.png", 0), ("9/4.png", 1), ("cat/deep/2.bmp", 2), ("dog/1.webp", 3)
    ]  # fmt: skip
    assert "mean" not in data.ensure("folder:pets", tmp_path / "cache")
    assert data.root_of("folder:pets-val") is None  # no folder is the family of another
    (tmp_path / "pets.zip").write_bytes(b"PK")
    at("folder:zip", tmp_path / "pets.zip")
    with pytest.raises(JobError, match=r"pets\.zip: is no folder and no \.tar"):
        data.ensure("folder:zip", tmp_path / "cache")
    Image.new("RGB", (8, 6)).save(tmp_path / "pets" / "loose.png")
    with pytest.raises(JobError, match=r"loose\.png lies in no folder that names its class"):
        data.ensure("folder:pets", tmp_path / "cache")


def test_a_hugging_face_set_needs_its_package_or_is_read(at: Roots, tmp_path: Path) -> None:
    """Without `datasets` one line says what to install; with it a set on this disk is read by timm."""
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 6), "red").save(tmp_path / "pets" / "train" / name / f"{i}.png")
    at("folder:pets", f"hfds/{tmp_path / 'pets'}")
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(JobError, match="needs the package `datasets`: pip install datasets"):
            data.ensure("folder:pets", tmp_path / "cache")
        return

    images = data.open_set("folder:pets", tmp_path / "cache")

    assert images.classes == ["cat", "dog"]
    assert images.labels.tolist() == [0, 1]
    assert images[1].shape == (6, 8, 3)


# What is missing, and roots


def test_a_set_without_a_root_says_how_to_give_one(tmp_path: Path) -> None:
    """And what is to lie there."""
    with pytest.raises(
        JobError, match=r"^svhn is not here; say where it lies with --data svhn=PATH or in repro.toml \(train_32"
    ):
        data.ensure("svhn", tmp_path)
    assert data.facts("svhn", tmp_path) is None
    with pytest.raises(JobError, match="unknown data set 'imagenet-1k-val-test'"):  # val is no test set
        data.ensure("imagenet-1k-val-test", tmp_path)


def test_roots_come_from_the_environment_then_from_the_nearest_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set's own root goes before its family's; a path in the file is relative to the file."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "repro.toml").write_text('[data]\nimagenet-1k = "sets/imagenet"\nsvhn-extra = "/far"\nsvhn = "/near"\n')
    monkeypatch.chdir(tmp_path / "deep" / "er")

    assert data.root_of("imagenet-1k-val-48238@part.txt") == tmp_path / "sets" / "imagenet"
    assert data.root_of("svhn-extra") == Path("/far")
    assert data.root_of("svhn-train+extra") == data.root_of("svhn") == Path("/near")
    assert data.root_of("cifar10") is None
    monkeypatch.setenv("REPRO_DATA_IMAGENET_1K_VAL", "/env")
    assert data.root_of("imagenet-1k-val") == data.root_of("imagenet-1k-val-48238") == Path("/env")
    assert data.root_of("imagenet-1k-train") == tmp_path / "sets" / "imagenet"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[data\n", r"repro\.toml: not valid TOML: .*line 1"),
        ("[data]\nsvhn = 3\n", r"repro\.toml: \[data\] svhn: expected NAME = \"PATH\", got 3"),
        ('[data]\nsvhn = ""\n', r"repro\.toml: \[data\] svhn: expected NAME = \"PATH\", got ''"),
        ("data = 3\n", r"repro\.toml: \[data\] : expected NAME = \"PATH\", got 3"),
        (
            '[data]\nimagnet-1k = "/x"\n',
            r"repro\.toml: \[data\]: unknown data set 'imagnet-1k'",
        ),
    ],
)
def test_a_bad_repro_toml_is_one_line_with_its_place(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong, in which file, at which line or key."""
    (tmp_path / "repro.toml").write_text(text)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ReproError, match=words):
        data.root_of("svhn")


@pytest.mark.parametrize("n", [0, 7, 20, 33, 60, 100])
def test_a_limit_takes_as_many_of_each_class_as_can_be(n: int) -> None:
    """The same images always, all different; classes differ by one at most until one runs out."""
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(20), [1, 5] + [3] * 18))

    some = data.balanced(labels, n)

    assert len(some) == len(set(some.tolist())) == min(n, 60)
    assert (some == np.sort(some)).all()
    assert (some == data.balanced(labels, n)).all()
    assert set(data.balanced(labels, 7).tolist()) <= set(data.balanced(labels, 20).tolist())
    counts, sizes = (np.bincount(labels[k], minlength=20) for k in (some, slice(None)))
    assert all(c >= min(counts.max() - 1, s) for c, s in zip(counts, sizes, strict=True))


# The command


def test_check_tells_what_is_there_and_what_is_damaged(repro: Any, imagenet: Path, tmp_path: Path) -> None:
    """Counts, odd encodings, the damaged file by path, exit 3; then a sheet of samples, and exit 0 without it."""
    shutil.copytree(imagenet / "val", tmp_path / "in" / "val")
    bad = next((tmp_path / "in").rglob("ILSVRC2012_val_00000009.JPEG"))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:1500])

    done = repro(
        "data", "check", "imagenet-1k-val", "--root", tmp_path / "in", "--json", "--store", tmp_path / "s", code=3
    )

    found = json.loads(done.stdout)
    assert [u["path"] for u in found["unreadable"]] == [str(bad)]
    assert "truncated" in found["unreadable"][0]["why"]
    assert found["odd"] == {"CMYK": 1, "grey": 1, "EXIF-rotated": 1, "PNG named .JPEG": 1}
    assert (found["images"], found["classes"], found["seen_classes"]) == (40, 1000, 20)
    assert "1 of 40 images cannot be read" in done.stderr
    bad.write_bytes(whole)
    sheet = tmp_path / "sheet.png"
    done = repro("data", "check", "imagenet-1k-val", "--data", f"imagenet-1k={tmp_path / 'in'}", "--samples", sheet,
                 "--store", tmp_path / "s")  # fmt: skip
    words = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert words["images"] == "40"
    assert words["odd"] == "CMYK (1), grey (1), EXIF-rotated (1), PNG named .JPEG (1)"
    assert (words["classes"], words["seen"], words["whole"]) == ("1000", "classes   20", "set      50000")
    with Image.open(sheet) as image:
        assert image.format == "PNG"


def test_check_says_in_one_line_what_is_missing(repro: Any, at: Roots, tmp_path: Path) -> None:
    """A folder that is not there or empty: 3; a name that is not known: 2."""
    done = repro("data", "check", "imagenet-1k-val", "--root", tmp_path / "no", "--store", tmp_path / "s", code=3)
    assert done.stderr == f"{tmp_path / 'no'} is not there (exit 3)\n"
    at("imagenet-1k-val", tmp_path)
    with pytest.raises(JobError, match=f"^{tmp_path}: no images are there$"):
        data.ensure("imagenet-1k-val", tmp_path / "s")
    done = repro("data", "check", "imagenet-1k-vall", "--root", tmp_path, code=2)
    assert "unknown data set 'imagenet-1k-vall'; did you mean 'imagenet-1k-val'?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_list_names_every_set_with_its_root(repro: Any, imagenet: Path, tmp_path: Path) -> None:
    """The roots come from `repro.toml` of the working folder."""
    (tmp_path / "repro.toml").write_text(f'[data]\nimagenet-1k = "{imagenet}"\n')

    rows = json.loads(repro("data", "list", "--json", "--store", tmp_path / "s", cwd=tmp_path).stdout)

    assert {r["name"]: r["root"] for r in rows if r["here"] == "not checked yet"} == {
        n: str(imagenet) for n in ("imagenet-1k-train", "imagenet-1k-val", "imagenet-1k-val-48238")
    }
    assert [r["name"] for r in rows] == [*data.DIGITS, *data.CATALOGUE]
    assert "not checked yet" in repro("data", "list", "--store", tmp_path / "s", cwd=tmp_path).stdout
