"""The layouts in which sets of image files are handed out, listed by timm and torchvision; labels go by name alone."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ..errors import JobError, ReproError
from .sets import Files

LISTS = (
    "val.txt (lines `FILE WNID`, or `FILE N`, N of 0..999 counting the sorted wnids), LOC_val_solution.csv, or "
    "ILSVRC2012_validation_ground_truth.txt with map_clsloc.txt or meta.mat of the devkit, in whose order it counts"
)


class Row(NamedTuple):
    """An image found: its name, the folder or tar that may say its class, and where its bytes are."""

    name: str
    group: str
    path: str
    offset: int = 0
    length: int = -1


def wnids() -> list[str]:
    """The 1000 wnids of ImageNet-1k, sorted: the order of the labels (timm's list)."""
    return (resources.files("timm.data") / "_info" / "imagenet_synsets.txt").read_text().split()


def first(root: Path, *words: str) -> Path:
    """The first of `words` that is there under the root; else the root itself."""
    return next((p for w in words if (p := root / w).exists()), root)


def scan(place: Path) -> list[Row]:
    """All images under a folder, in a tar, or in a folder's tars. Raises JobError where there are none."""
    from timm.data.readers import add_img_extensions
    from timm.data.readers.reader_image_folder import ReaderImageFolder
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar
    from torchvision.datasets.folder import IMG_EXTENSIONS

    add_img_extensions(IMG_EXTENSIONS)  # timm knows three; what it does not know it passes over
    try:
        if place.is_dir() and not any(place.glob("*.tar")):
            reader = ReaderImageFolder(str(place))
            names = {v: k for k, v in reader.class_to_idx.items()}
            return [Row(os.path.relpath(p, place), names[label], p) for p, label in reader.samples]
        reader, rows = ReaderImageInTar(str(place), cache_tarinfo=False), []
    except (RuntimeError, OSError, ValueError, AssertionError, tarfile.ReadError) as error:
        empty = "Found 0 images" in str(error) or "unpack" in str(error)
        raise JobError(f"{place}: {'no images are there' if empty else error or 'no folder and no .tar'}") from None
    for (member, parent, child), label in zip(reader.samples, reader.targets, strict=True):
        path, start = os.path.join(place, parent) if parent else str(place), child.offset_data if child else 0
        rows.append(Row(member.name, reader.class_idx_to_name[label], path, start + member.offset_data, member.size))
    return rows


def files(
    root: Path, rows: Sequence[Row], ids: Sequence[str], labels: Sequence[int], classes: Sequence[str],
    lists: Iterable[Path] = (), reader: Any = None,
) -> Files:  # fmt: skip
    """A set of rows, in the order of their ids. Raises JobError where two images have one id."""
    keys = np.array([i.encode() for i in ids])
    order = np.argsort(keys, kind="stable")
    if len(twice := np.flatnonzero(keys[order][1:] == keys[order][:-1])):
        raise JobError(f"{root}: two images are called {keys[order][twice[0]].decode()}; is the set here twice?")
    paths = np.array([os.fsencode(row.path) for row in rows])
    watched = set(map(str, lists))
    if reader is None:
        names = {row.path for row in rows}
        folders = {f for p in {os.path.dirname(name) for name in names} for f in (Path(p), *Path(p).parents)}
        watched |= names | {str(f) for f in folders if f.is_relative_to(root)}
    places = np.empty(len(rows), [("id", keys.dtype), ("path", paths.dtype), ("offset", "i8"), ("length", "i8")])
    places["id"], places["path"] = keys, paths
    places["offset"], places["length"] = [row.offset for row in rows], [row.length for row in rows]
    return Files(places[order], np.array(labels, np.int64)[order], list(classes), frozenset(watched), reader)


Told = dict[str, tuple[str, Path, int]]  # by the name of an image: wnid or number, and the file and line that say so


def imagenet(root: Path, half: str) -> Files:
    """Folders or tars named by wnid; webdataset shards; a flat val folder or tar with a list; a Hugging Face set.

    Ids are the names of the files, `ILSVRC2012_val_00000001.JPEG`, in every layout.
    """
    reader, rows, lists = _hub(root, half) or (None, [], [])
    place = first(root, half, f"{half}.tar", f"ILSVRC2012_img_{half}.tar", f"Data/CLS-LOC/{half}")
    rows, classes = rows or scan(place), wnids()
    number = {wnid: i for i, wnid in enumerate(classes)}
    names = [PurePosixPath(row.name).name for row in rows]
    if reader:  # there NAME_WNID.JPEG
        parts = [re.fullmatch(r"(.*?)_?(n\d{8})(\.\w+)", n) for n in names]
        told: Told = {p[1] + p[3]: (p[2], root, 0) for p in parts if p}
        names = [p[1] + p[3] if p else n for p, n in zip(parts, names, strict=True)]
    elif any(row.group in number for row in rows):
        told = {n: (row.group, Path(row.path), 0) for n, row in zip(names, rows, strict=True)}
    else:
        folders = [f for f in (place, place.parent, root) if f.is_dir()]
        told, lists = (found, []) if (found := _shards(rows)) else _truth(folders)
    if other := [n for n in names if re.match(r"ILSVRC2012_val_" if half == "train" else r"n\d{8}_\d", n)]:
        raise JobError(f"{place}: {other[0]} is an image of the other half; set the root of {half} to its own folder")
    if lacking := [n for n in names if n not in told]:
        why = f"{lists[0]} does not tell" if lists else f"no list tells. Put beside them {LISTS}"
        raise JobError(
            f"{place}: the class of {len(lacking)} images, {lacking[0]} first: no folder is a wnid, and {why}"
        )
    labels = [_label(*told[name], number) for name in names]
    for name, label in zip(names, labels, strict=True):
        if (own := number.get(name[:9], label)) != label:
            raise JobError(f"{place}: {name} has the label {label}, but its wnid is number {own} of the sorted ones")
    return files(place, rows, names, labels, classes, lists, reader)


def _shards(rows: Sequence[Row]) -> Told:
    """What the `.cls` beside each image of webdataset shards says."""
    found: Told = {}
    for path in {row.path for row in rows if row.length >= 0}:
        with tarfile.open(path) as tar:
            words = {m.name[:-4]: tar.extractfile(m) for m in tar if m.isfile() and m.name.endswith(".cls")}
            for row in rows if words else ():
                if row.path == path and (file := words.get(os.path.splitext(row.name)[0])):
                    found[PurePosixPath(row.name).name] = file.read().decode().strip(), Path(path), 0
    return found


def _truth(folders: Sequence[Path]) -> tuple[Told, list[Path]]:
    """What the first list that is in one of the folders says, and that list."""
    for folder in folders:
        if (path := folder / "val.txt").is_file():
            return {file: (word, path, n) for n, (file, word) in pairs(path)}, [path]
        if (path := folder / "LOC_val_solution.csv").is_file():
            return {f"{file}.JPEG": (word, path, n) for n, (file, word) in pairs(path)[1:]}, [path]
        if (path := folder / "ILSVRC2012_validation_ground_truth.txt").is_file():
            if (order := folder / "map_clsloc.txt").is_file():
                own = {count: wnid for _, (wnid, count) in pairs(order)}
            elif (order := folder / "meta.mat").is_file():
                from scipy.io import loadmat

                synsets = loadmat(order, squeeze_me=True)["synsets"]
                own = {str(int(s["ILSVRC2012_ID"])): str(s["WNID"]) for s in synsets}
            else:
                raise JobError(f"{path} counts in the devkit's order; put its map_clsloc.txt or meta.mat beside it")
            lines = ((n, own.get(word, f"{word}?")) for n, (word,) in pairs(path, 1))
            return {f"ILSVRC2012_val_{n:08d}.JPEG": (wnid, path, n) for n, wnid in lines}, [path, order]
    return {}, []


def pairs(path: Path, words: int = 2) -> list[tuple[int, list[str]]]:
    """Line number and the first words of each line that is not empty. Raises ReproError for a line with fewer."""
    try:
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ReproError(f"cannot be read: {error}", str(path)) from None
    found = [(n, line.replace(",", " ").split()[:words]) for n, line in lines if line.strip()]
    if short := [(n, line) for n, line in found if len(line) < words]:
        raise ReproError(f"expected {words} words, got {' '.join(short[0][1])!r}", str(path), short[0][0])
    return found


def _label(word: str, path: Path, line: int, number: Mapping[str, int]) -> int:
    if word in number or (word.isdecimal() and int(word) < len(number)):
        return number[word] if word in number else int(word)
    raise ReproError(f"{word!r} is neither a wnid of ImageNet-1k nor a number of 0..999", str(path), line)


def _hub(root: Path, half: str) -> tuple[Any, list[Row], list[Path]] | None:
    """timm's reader of a root `hfds/NAME` or `hfds//PATH`, its rows and files; None for a folder. Raises JobError."""
    if root.parts[:1] != ("hfds",):
        return None
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")  # nothing is fetched
    try:
        import datasets  # type: ignore[import-not-found]  # noqa: F401
        from timm.data.readers import create_reader
    except ImportError:
        raise JobError(f"{root} needs the package `datasets`: pip install datasets") from None
    name = str(root).removeprefix("hfds/")
    name = f"/{name}" if os.path.exists(f"/{name}") else name
    try:
        reader = create_reader(f"hfds/{name}", split={"val": "validation"}.get(half, half))
    except Exception as error:  # of the many that the package raises for what is not on this disk
        raise JobError(f"{root}: {type(error).__name__}: {error}") from None
    paths = reader.dataset.select_columns([reader.image_key]).flatten()[f"{reader.image_key}.path"]
    rows = [Row(path or f"{i:08d}", "", str(root), i) for i, path in enumerate(paths)]
    own = Path(name).rglob("*") if name.startswith("/") else ()
    return reader, rows, [*own, *(Path(f["filename"]) for f in reader.dataset.cache_files)]


def folder(root: Path, half: str) -> Files:
    """Any folder of classes, or its tars, or a Hugging Face set; classes are the sorted names of the folders."""
    if hub := _hub(root, half):
        reader, rows, lists = hub
        ids, labels = [f"{row.offset:08d}" for row in rows], list(reader.iter_targets())
        return files(root, rows, ids, labels, list(reader.class_to_idx), lists, reader)
    rows = scan(root)
    tops = [PurePosixPath(r.name).parts[0] if r.length < 0 else r.group for r in rows]
    ids = [r.name if r.length < 0 else f"{top}/{PurePosixPath(r.name).name}" for r, top in zip(rows, tops, strict=True)]
    if loose := [name for name, top in zip(ids, tops, strict=True) if name == top or not top]:
        raise JobError(f"{root}: {loose[0]} lies in no folder that names its class; expected CLASS/image")
    number = {name: i for i, name in enumerate(sorted(set(tops)))}
    return files(root, rows, ids, [number[t] for t in tops], list(number))


def tiny_imagenet(root: Path, half: str) -> Files:
    """train/WNID/images/*.JPEG, or val/images with val_annotations.txt; classes are the sorted lines of wnids.txt."""
    root = first(root, "tiny-imagenet-200")
    lists = [root / "wnids.txt", root / "val" / "val_annotations.txt"]
    rows, number = scan(root / half), {w: i for i, w in enumerate(sorted(w for _, (w,) in pairs(lists[0], 1)))}
    truth = dict(words for _, words in pairs(lists[1])) if half == "val" else {}
    ids = [PurePosixPath(r.name).name for r in rows]
    words = [truth.get(i, "") for i in ids] if half == "val" else [PurePosixPath(r.name).parts[0] for r in rows]
    if odd := [(i, w) for i, w in zip(ids, words, strict=True) if w not in number]:
        raise JobError(f"{root / half}: the class of {odd[0][0]}, {odd[0][1]!r}, is not in {lists[0]}")
    return files(root / half, rows, ids, [number[w] for w in words], list(number), lists)


def places365(root: Path, half: str) -> Files:
    """torchvision's layout: the lists of the devkit; data_large_standard, val_large, or the same with 256."""
    from torchvision.datasets import Places365

    split, large = {"train": ("train-standard", "data_large_standard"), "val": ("val", "val_large")}[half]
    # Without torchvision's checksums, which only the whole original passes; the fingerprint says what was read.
    lists = Places365._FILE_LIST_META[split][0], Places365._CATEGORIES_META[0]
    names = {"_FILE_LIST_META": {split: (lists[0], None)}, "_CATEGORIES_META": (lists[1], None)}
    try:
        found: Any = type("Places365", (Places365,), names)(str(root), split, not (root / large).is_dir())
    except (RuntimeError, ValueError, OSError) as error:
        raise JobError(f"{root}: {str(error).split(' You can set')[0]}") from None
    rows = [Row(os.path.relpath(p, found.images_dir), "", p) for p, _ in found.imgs]
    return files(root, rows, [r.name for r in rows], found.targets, found.classes, [root / name for name in lists])
