"""The catalogue of data sets: what is known of each, and its images, by name.

The proxy's sets are made once, under `cache`; all others are read where `root_of` says that they lie, and `cache`
keeps an index of them. `NAME@LIST.txt` is the part of a set whose ids the list names, one a line. `facts` imports
nothing heavy for the proxy's sets.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import JobError, ReproError
from ..files import write_whole
from .sets import Files, Images, ImageSet, Looks, Unreadable, balanced, stream

if TYPE_CHECKING:
    from .index import Index

__all__ = [
    "Files",
    "ImageSet",
    "Images",
    "Looks",
    "Unreadable",
    "balanced",
    "ensure",
    "facts",
    "open_set",
    "root_of",
    "stream",
]

VERSION = 2  # of the proxy's files; raised when the same names would hold other pixels
DIGITS = ("digits-train", "digits-val", "digits-test")
BLACKLIST = "ILSVRC2014_clsloc_validation_blacklist.txt"

_IMAGENET = "WNID/*.JPEG, tars or webdataset shards; or a flat val with val.txt; or hfds/NAME"
_CIFAR10, _CIFAR100 = "cifar-10-batches-py/, as unpacked", "cifar-100-python/, as unpacked"
_SVHN, _IDX = "train_32x32.mat, test_32x32.mat, extra_32x32.mat", "the idx files, packed or not, or torchvision's root"
_PLACES = "torchvision's root: categories_places365.txt, the lists, and data_large_standard, val_large (or _256)"
# name: (reader, which part, what is to lie under the root)
CATALOGUE = {
    "imagenet-1k-train": ("imagenet", "train", _IMAGENET),
    "imagenet-1k-val": ("imagenet", "val", _IMAGENET),
    "imagenet-1k-val-48238": ("imagenet", "val", f"the same, and {BLACKLIST}"),
    "cifar10-train": ("CIFAR10", "train", _CIFAR10),
    "cifar10": ("CIFAR10", "test", _CIFAR10),
    "cifar100-train": ("CIFAR100", "train", _CIFAR100),
    "cifar100": ("CIFAR100", "test", _CIFAR100),
    "svhn-train": ("SVHN", "train", _SVHN),
    "svhn-extra": ("SVHN", "extra", _SVHN),
    "svhn-train+extra": ("SVHN", "train+extra", _SVHN),
    "svhn": ("SVHN", "test", _SVHN),
    "mnist-train": ("MNIST", "train", _IDX),
    "mnist": ("MNIST", "test", _IDX),
    "fashion-mnist-train": ("FashionMNIST", "train", _IDX),
    "fashion-mnist": ("FashionMNIST", "test", _IDX),
    "tiny-imagenet-train": ("tiny_imagenet", "train", "tiny-imagenet-200/, as unpacked"),
    "tiny-imagenet-val": ("tiny_imagenet", "val", "tiny-imagenet-200/, as unpacked"),
    "places365-train": ("places365", "train", _PLACES),
    "places365-val": ("places365", "val", _PLACES),
    "folder:NAME": ("folder", "train", "any folder of classes: CLASS/image; tars; or hfds/NAME"),
}


def known(name: str) -> tuple[str, str, str]:
    """(reader, part, layout) of a set that lies in files. Raises JobError for a name that is not in the catalogue."""
    base = name.partition("@")[0]
    base = "folder:NAME" if base.startswith("folder:") else base
    if found := CATALOGUE.get(base) or CATALOGUE.get(base.removesuffix("-test")):
        return found
    from ..reader import near

    words = [*DIGITS, *CATALOGUE]
    raise JobError(f"unknown data set {name!r}{near(name, words)} Known: {', '.join(words)}")


def check_name(name: str, file: str | None = None) -> None:
    """Raise ReproError for what names neither a set nor a family of sets, such as `imagenet-1k`."""
    if not any(n == name or n.startswith(f"{name}-") for n in (*DIGITS, *CATALOGUE)):
        try:
            known(name)
        except JobError as error:
            raise ReproError(error.reason, file) from None


def root_of(name: str) -> Path | None:
    """Where a set lies: by the environment, `REPRO_DATA_IMAGENET_1K_VAL`, or `[data]` of the nearest `repro.toml`.

    A set without a root of its own takes that of its family: `imagenet-1k` serves all that begin so. A path in
    `repro.toml` is relative to it. Raises ReproError for a `repro.toml` that cannot be used.
    """
    words = name.partition("@")[0].split("-")
    names = ["-".join(words[:n]) for n in range(len(words), 0, -1)]
    if given := next((path for word in names if (path := os.environ.get(variable(word)))), None):
        return Path(given).expanduser()
    file = next((p for f in (Path.cwd(), *Path.cwd().parents) if (p := f / "repro.toml").is_file()), None)
    try:
        roots: Any = tomllib.loads(file.read_text(encoding="utf-8")).get("data", {}) if file else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ReproError(f"not valid TOML: {error}", str(file)) from None
    for key, value in roots.items() if isinstance(roots, dict) else [("", roots)]:
        if not (key and isinstance(value, str)):
            raise ReproError(f'[data] {key}: expected NAME = "PATH", got {value!r}', str(file))
        check_name(key, f"{file}: [data]")
    found = next((roots[word] for word in names if word in roots), None)
    if found is None or file is None or found.startswith("hfds/"):
        return Path(found) if found else None
    return file.parent / Path(found).expanduser()


def variable(name: str) -> str:
    """The environment variable that holds a set's root."""
    return "REPRO_DATA_" + re.sub(r"\W", "_", name).upper()


def facts(name: str, cache: Path) -> dict[str, Any] | None:
    """Fingerprint, images, classes of a set that is here, in this version and unchanged; else None.

    `mean` (RGB, 0..255) is there where it is known or cheap: not for folders of one's own, nor Tiny-ImageNet and
    Places365. `decoder` is there where images are decoded: what does it, with its version.
    """
    if name in DIGITS:
        try:
            meta = json.loads((cache / "digits" / "meta.json").read_text(encoding="utf-8"))
            return dict(meta["sets"][name]) if meta["version"] == VERSION else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
    try:
        index, which = _indexed(name, cache, None)
    except JobError:
        return None
    return index.facts(which)


def ensure(name: str, cache: Path, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """The facts of a set, made or indexed first if need be. Raises JobError if it is not here, with what to do."""
    if name in DIGITS:
        return _found(name, cache)[0]
    index, which = _indexed(name, cache, say)
    return index.facts(which)


def open_set(name: str, cache: Path) -> ImageSet:
    """The images of a set; as `ensure` otherwise."""
    if name in DIGITS:
        return _found(name, cache)[1]
    from .index import part

    index, which = _indexed(name, cache, lambda text: None)
    return part(index.open(), which, name)


def samples(name: str, cache: Path, path: Path, rows: int = 8, columns: int = 12) -> None:
    """Write a PNG sheet of up to `rows` x `columns` images of a set, from all classes alike, each over its class."""
    from PIL import Image, ImageDraw

    images, side, line = open_set(name, cache), 144, 16
    which = balanced(images.labels, rows * columns)
    rows = -(-len(which) // columns)
    sheet = Image.new("RGB", (columns * (side + 4), rows * (side + line + 4)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, i in enumerate(which[images.labels[which].argsort(kind="stable")]):
        x, y = place % columns * (side + 4) + 2, place // columns * (side + line + 4) + 2
        try:
            image = Image.fromarray(images[i])
            size = [max(1, round(n * side / max(image.size))) for n in image.size]
            sheet.paste(image.resize((size[0], size[1]), Image.Resampling.NEAREST), (x, y))
        except Unreadable:
            pen.text((x + 2, y + 2), "cannot be read", fill="black", font_size=12)
        label = int(images.labels[i])
        pen.text((x + 2, y + side + 1), f"{label}  {images.classes[label]}", fill="black", font_size=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")


load = open_set


def _indexed(name: str, cache: Path, say: Callable[[str], None] | None) -> tuple[Index, Any]:
    """The index of the whole set, and the places of those images that the name means; made unless `say` is None."""
    reader, half, layout = known(name)
    if (root := root_of(name)) is None:
        raise JobError(f"{name} is not here; say where it lies with --data {name}=PATH or in repro.toml ({layout})")
    from filelock import FileLock

    from .index import Index, chosen

    index = Index(cache, reader, half, root)
    if not index.read():
        if say is None:
            raise JobError(f"{name} has not been indexed")
        index.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{index.path}.lock"):
            if not index.read():  # another process may have been first
                index.make(say)
    return index, chosen(index, name, BLACKLIST if "-48238" in name.partition("@")[0] else "")


def _found(name: str, root: Path) -> tuple[dict[str, Any], Images]:
    """The facts and images of one of the proxy's sets, all three made first where it is not there whole."""
    if found := _read(name, root):
        return found
    from filelock import FileLock

    folder = root / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (found := _read(name, root)):  # another process may have been first
            _make(folder)
            found = _read(name, root)
    if not found:
        raise JobError(f"{folder}: the files that were just written cannot be read back; is the disk full?")
    return found


def _read(name: str, root: Path) -> tuple[dict[str, Any], Images] | None:
    """A set's facts and images, or None where its file is not there or not what the fingerprint says."""
    import zipfile

    import numpy as np

    if not (meta := facts(name, root)):
        return None
    try:
        with np.load(root / "digits" / f"{name}.npz", allow_pickle=False) as file:
            images = Images(file["images"], file["labels"], file["source"], name, tuple("0123456789"))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return (meta, images) if images.fingerprint == meta.get("fingerprint") else None


def _make(folder: Path) -> None:
    """Make the three sets. `meta.json` comes last, so that what it names is whole."""
    import numpy as np

    from . import digits

    sets = {}
    for name in DIGITS:
        made: Any = digits.make(name)
        data = Images(**made)
        write_whole(folder / f"{name}.npz", partial(np.savez, **made))
        mean = data.images.sum((0, 1, 2), dtype=np.int64) / (data.images.size // 3)
        sets[name] = {"fingerprint": data.fingerprint, "images": len(data.labels), "classes": 10, "mean": mean.tolist()}
    text = json.dumps({"version": VERSION, "sets": sets}, indent=1, sort_keys=True)
    write_whole(folder / "meta.json", text)
