"""The layouts in which data sets are handed out: listed and read by timm and torchvision, labelled by name alone."""

from __future__ import annotations

import os
import pickle
import re
import tarfile
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from ..errors import JobError, ReproError
from .sets import Files, Images, ImageSet

TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LISTS = f"""val.txt (lines FILE WNID, or FILE N with N of 0..999 counting the sorted wnids), LOC_val_solution.csv, or \
{TRUTH} with the devkit's meta.mat, in whose order it counts"""
PLACES = "categories_places365.txt"
# (set, part): folders or tars under the root, lists that tell the class of an image, and the list of classes
LAYOUTS: dict[tuple[str, str], tuple[list[str], list[str], str]] = {
    ("imagenet", "train"): (["train", "train.tar", "ILSVRC2012_img_train.tar"], [], ""),
    ("imagenet", "val"): (["val", "val.tar", "ILSVRC2012_img_val.tar"], ["val.txt", "LOC_val_solution.csv", TRUTH], ""),
    ("tiny-imagenet", "train"): (["train"], [], "wnids.txt"),
    ("tiny-imagenet", "val"): (["val"], ["val_annotations.txt"], "wnids.txt"),
    ("places365", "train"): (["data_large_standard", "data_256_standard"], ["places365_train_standard.txt"], PLACES),
    ("places365", "val"): (["val_large", "val_256"], ["places365_val.txt"], PLACES),
    ("folder", "train"): ([], [], ""),
}
# What torchvision's readers read under the root.
ARRAYS = {"CIFAR10": "cifar-10-batches-py/*", "CIFAR100": "cifar-100-python/*", "SVHN": "*_32x32.mat"}
ARRAYS |= {name: f"{name}/raw/*" for name in ("MNIST", "FashionMNIST")}

Row = tuple[str, str, int, int]  # of an image: GROUP/name, path, offset, length (-1: the whole file)
Told = dict[str, tuple[str, Path, int]]  # by an image's name without ending: its class, and the file and line that say


def wnids() -> list[str]:
    """The 1000 wnids of ImageNet-1k, sorted: the order of the labels (timm's list)."""
    return (resources.files("timm.data") / "_info" / "imagenet_synsets.txt").read_text().split()


def listed(reader: str, half: str, root: Path) -> tuple[ImageSet, set[str]]:
    """A set as it lies under its root, in the order of its ids, and the files and folders that say what is in it.

    Ids are names of files for ImageNet, whatever the layout and ending, and Tiny-ImageNet, else paths. A label is the
    number of a class among the sorted names of all. Raises JobError for what is missing, ReproError for a bad list.
    """
    if not root.exists() and root.parts[:1] != ("hfds",):
        raise JobError(f"{root} is not there")
    if reader in ARRAYS:
        return _arrays(reader, half, root)
    folders, lists, classes = LAYOUTS[reader, half]
    root = top if (top := root / "tiny-imagenet-200").is_dir() else root
    place = next((p for name in folders if (p := root / name).exists()), root)
    source, rows, watched = _hub(root, half) if root.parts[:1] == ("hfds",) else (None, *_scan(place))
    if reader == "folder" and _shards(rows):
        raise JobError(f"{place}: webdataset shards are read for ImageNet alone; unpack them to CLASS/image")
    if classes:
        names = sorted(words[0] for _, words in lines(root / classes))
        watched.add(str(root / classes))
    else:
        names = wnids() if reader == "imagenet" else sorted({r[0].split("/")[0] for r in rows if "/" in r[0]})
    number = {name: i for i, name in enumerate(names)}
    groups = [next((part for part in row[0].split("/")[:-1] if part in number), "") for row in rows]
    told: Told = {}
    if not all(groups):
        paths = [path for f in (place, root, place.parent) for name in lists if (path := f / name).is_file()][:1]
        told = _shards(rows) or (_told(paths[0]) if paths else {})
        watched |= {str(p) for p in paths} | {str(p.with_name("meta.mat")) for p in paths if p.name == TRUTH}
    labels = [_label(row[0], group, told, number, place) for row, group in zip(rows, groups, strict=True)]
    ids = [PurePosixPath(row[0]).name if "imagenet" in reader else row[0] for row in rows]
    for name, label in zip(ids if reader == "imagenet" else (), labels, strict=False):
        if number.get(name[:9], label) != label:
            raise JobError(f"{place}: {name} has the label {label}, its wnid is number {number[name[:9]]}")
        if re.match("ILSVRC2012_val_" if half == "train" else r"n\d{8}_\d", name):
            raise JobError(f"{place}: {name} is no image of {half}; set the root of {half} to its own folder")
    if reader == "imagenet":  # a shard calls them .jpg
        ids = [os.path.splitext(name)[0] + ".JPEG" for name in ids]
    keys, found = (np.array(list(map(os.fsencode, texts))) for texts in (ids, [row[1] for row in rows]))
    places = np.empty(len(rows), [("id", keys.dtype), ("path", found.dtype), ("offset", "i8"), ("length", "i8")])
    places["id"], places["path"], (places["offset"], places["length"]) = keys, found, np.array([r[2:] for r in rows]).T
    order = np.argsort(keys, kind="stable")
    if len(twice := np.flatnonzero(keys[order][1:] == keys[order][:-1])):
        raise JobError(f"{root}: two images are called {os.fsdecode(keys[order][twice[0]])}; is the set here twice?")
    return Files(places[order], np.array(labels)[order], names, "", source), watched


def _label(name: str, group: str, told: Told, number: dict[str, int], place: Path) -> int:
    """The number of an image's class, which its folder tells, or a list by the image's path or name alone."""
    stem = os.path.splitext(name)[0]
    if found := told.get(stem) or told.get(stem.rpartition("/")[2]):
        word, path, line = found
        if word not in number and not (word.isdecimal() and int(word) < len(number)):
            raise ReproError(f"{word!r}, of {name}, is none of the {len(number)} classes", str(path), line)
        return number[word] if word in number else int(word)
    if not group:
        need = f". Put there {LISTS}" if len(number) == 1000 else ""
        raise JobError(f"{place}: {name} lies in no folder that names its class, and no list tells it{need}")
    return number[group]


def _scan(place: Path) -> tuple[list[Row], set[str]]:
    """All images under a folder, in a tar, or in a folder's tars. Raises JobError where there are none."""
    from timm.data.readers import add_img_extensions
    from timm.data.readers.reader_image_folder import ReaderImageFolder
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar
    from torchvision.datasets.folder import IMG_EXTENSIONS

    add_img_extensions(IMG_EXTENSIONS)  # timm knows three; what it does not know it passes over
    rows: list[Row] = []
    try:
        if place.is_dir() and not any(place.glob("*.tar")):
            rows = [(os.path.relpath(p, place), p, 0, -1) for p, _ in ReaderImageFolder(str(place)).samples]
        else:
            reader = ReaderImageInTar(str(place), cache_tarinfo=False)
            for (member, parent, child), label in zip(reader.samples, reader.targets, strict=True):
                name = f"{reader.class_idx_to_name[label]}/{PurePosixPath(member.name).name}"
                start = member.offset_data + (child.offset_data if child else 0)
                rows.append((name, os.path.join(place, parent) if parent else str(place), start, member.size))
    except (RuntimeError, OSError, ValueError, AssertionError, tarfile.ReadError) as error:
        empty = "Found 0 images" in str(error) or "unpack" in str(error)
        told = "no images are there" if empty else str(error) or "is no folder and no .tar"
        raise JobError(f"{place}: {told}") from None
    files = {row[1] for row in rows}
    folders = {f for name in {os.path.dirname(f) for f in files} for f in (Path(name), *Path(name).parents)}
    return rows, files | {str(f) for f in folders if f.is_relative_to(place)}


def _hub(root: Path, half: str) -> tuple[Any, list[Row], set[str]]:
    """timm's reader of a Hugging Face set on this disk, `hfds/NAME` or `hfds//PATH`. Raises JobError."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")  # nothing is fetched
    name = str(root).removeprefix("hfds/")
    name = f"/{name}" if os.path.exists(f"/{name}") else name
    try:
        from timm.data.readers.reader_hfds import ReaderHfds

        reader = ReaderHfds(name, split={"val": "validation"}.get(half, half))
    except ImportError:
        raise JobError(f"{root} needs the package `datasets`: pip install datasets") from None
    except Exception as error:  # of the many that the package raises for what is not on this disk
        raise JobError(f"{root}: {type(error).__name__}: {error}") from None
    paths = reader.dataset.select_columns(["image"]).flatten()["image.path"]
    classes = {i: name.replace("/", "_") for name, i in reader.class_to_idx.items()}
    rows: list[Row] = []
    for i, (path, label) in enumerate(zip(paths, reader.iter_targets(), strict=True)):
        wnid = re.fullmatch(r"(.*)_(n\d{8})(\.\w+)", path or "")  # ImageNet's are named so
        rows.append((f"{wnid[2]}/{wnid[1]}{wnid[3]}" if wnid else f"{classes[label]}/{i:08d}", str(root), i, -1))
    return reader, rows, {file["filename"] for file in reader.dataset.cache_files}


def _shards(rows: list[Row]) -> Told:
    """What the `.cls` beside each image of webdataset shards says; nothing of what lies in no tar."""
    found: Told = {}
    for path in {row[1] for row in rows if row[3] >= 0}:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".cls") and (file := tar.extractfile(member)):
                    found[PurePosixPath(member.name).stem] = file.read().decode().strip(), Path(path), 0
    return found


def _told(path: Path) -> Told:
    """What a list says of images. Raises JobError for the devkit's numbers without the devkit's order."""
    if path.name != TRUTH:
        return {os.path.splitext(w[0].lstrip("/"))[0]: (w[1], path, n) for n, w in lines(path, 2)}
    from scipy.io import loadmat

    if not (order := path.with_name("meta.mat")).is_file():
        raise JobError(f"{path} counts in the devkit's order; put its meta.mat beside it")
    wnid = {str(int(s["ILSVRC2012_ID"])): str(s["WNID"]) for s in loadmat(order, squeeze_me=True)["synsets"]}
    return {f"ILSVRC2012_val_{n:08d}": (wnid.get(words[0], f"{words[0]}?"), path, n) for n, words in lines(path)}


def lines(path: Path, least: int = 1) -> list[tuple[int, list[str]]]:
    """Number and words of each line that is not empty. Raises ReproError for one with fewer words than `least`."""
    try:
        found = [(n, line.replace(",", " ").split()) for n, line in enumerate(path.read_text().splitlines(), 1)]
    except (OSError, UnicodeDecodeError) as error:
        raise ReproError(f"cannot be read: {error}", str(path)) from None
    if short := [n for n, words in found if 0 < len(words) < least]:
        raise ReproError(f"expected {least} words in this line", str(path), short[0])
    return [(n, words) for n, words in found if words]


class _Plain(pickle.Unpickler):
    """Lists, texts and arrays alone: torchvision unpickles freely, which is safe for the original's checksum only."""

    known: ClassVar = {"numpy": ("_reconstruct", "ndarray", "dtype"), "_codecs": ("encode",)}

    def find_class(self, module: str, name: str) -> Any:
        if name in self.known.get(module.split(".")[0], ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of images")


def _arrays(reader: str, half: str, root: Path) -> tuple[Images, set[str]]:
    """A set of torchvision's by the name of its class, without the checksums, which only the whole original passes."""
    import torchvision.datasets

    library: Any = getattr(torchvision.datasets, reader)
    bare: dict[str, Any] = {"_check_integrity": lambda self: True}
    try:
        if "CIFAR" in reader:
            bare["meta"] = {**library.meta, "md5": None}
            for name, _ in (*library.train_list, *library.test_list, (library.meta["filename"], None)):
                with (root / library.base_folder / name).open("rb") as file:
                    _Plain(file, encoding="latin1").load()
        given: Any = [{"split": p} for p in half.split("+")] if reader == "SVHN" else [{"train": half == "train"}]
        parts = [type(reader, (library,), bare)(str(root), **which) for which in given]
        pixels = np.concatenate([np.asarray(part.data) for part in parts])
        labels = np.concatenate([np.asarray(part.labels if reader == "SVHN" else part.targets) for part in parts])
    except Exception as error:  # of the many that the readers raise for a file that is damaged or not there
        told = str(error).partition(" You can use download=True")[0]  # which nothing here does
        raise JobError(f"{root}: {type(error).__name__} reading {ARRAYS[reader]}: {told}") from None
    if len(pixels) != len(labels):
        raise JobError(f"{root}: {len(pixels)} images, but {len(labels)} labels")
    pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if reader == "SVHN" else pixels
    classes = getattr(library, "classes", None) or getattr(parts[0], "classes", list("0123456789"))
    return Images(pixels, labels.astype(np.int64), None, "", list(classes)), set(map(str, root.glob(ARRAYS[reader])))
