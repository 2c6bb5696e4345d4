"""The catalogue of data sets: what is known of each, and its images, by name.

The proxy's sets are made once, under `cache`; all others are read where `root_of` says that they lie, and `cache`
keeps an index of them. `NAME@LIST.txt` is the part of such a set whose ids the list names, one a line.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import JobError, ReproError
from ..files import write_whole
from .sets import Files, Images, ImageSet, Looks, Unreadable, balanced, stream

__all__ = ["Files", "ImageSet", "Images", "Looks", "Unreadable", "balanced", "stream"]

VERSION = 2  # of the proxy's files; raised when the same names would hold other pixels
DIGITS = ("digits-train", "digits-val", "digits-test")
_IMAGENET = "WNID/*.JPEG, tars or webdataset shards; or a flat val with val.txt; or hfds/NAME"
_TWO = {  # sets of a training and a test half: torchvision's class, and what lies under the root
    "cifar10": ("CIFAR10", "cifar-10-batches-py/, as unpacked"),
    "cifar100": ("CIFAR100", "cifar-100-python/, as unpacked"),
    "mnist": ("MNIST", "MNIST/raw/, the idx files unpacked"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw/, the idx files unpacked"),
    "svhn": ("SVHN", "train_32x32.mat, test_32x32.mat"),
}
# name: (reader, part, what is to lie under the root)
CATALOGUE = {
    "imagenet-1k-train": ("imagenet", "train", _IMAGENET),
    "imagenet-1k-val": ("imagenet", "val", _IMAGENET),
    "imagenet-1k-val-48238": ("imagenet", "val", "the same, and ILSVRC2014_clsloc_validation_blacklist.txt"),
    **{f"{name}-train": (reader, "train", layout) for name, (reader, layout) in _TWO.items()},
    **{name: (reader, "test", layout) for name, (reader, layout) in _TWO.items()},
    "svhn-extra": ("SVHN", "extra", "extra_32x32.mat"),
    "svhn-train+extra": ("SVHN", "train+extra", "train_32x32.mat, extra_32x32.mat"),
    **{f"tiny-imagenet-{p}": ("tiny-imagenet", p, "tiny-imagenet-200/, as unpacked") for p in ("train", "val")},
    "places365-train": ("places365", "train", "the lists, and data_large_standard/ or data_256_standard/"),
    "places365-val": ("places365", "val", "the lists, and val_large/ or val_256/"),
    "folder:NAME": ("folder", "train", "any folder of classes: CLASS/image; tars; or hfds/NAME"),
}


def known(name: str) -> tuple[str, str, str]:
    """(reader, part, layout) of a set that lies in files. Raises JobError for a name that is not in the catalogue."""
    base = "folder:NAME" if name.startswith("folder:") else name.partition("@")[0]
    whole = base.removesuffix("-test")
    if found := CATALOGUE.get(whole if whole in _TWO else base):
        return found
    from ..reader import near

    words = [*DIGITS, *CATALOGUE]
    raise JobError(f"unknown data set {name!r}{near(name, words)} Known: {', '.join(words)}")


def check_name(name: str, file: str | None = None) -> None:
    """Raise ReproError for what names neither a set nor a family of sets, such as `imagenet-1k`."""
    try:
        if not any(n == name or n.startswith(f"{name}-") for n in (*DIGITS, *CATALOGUE)):
            known(name)
    except JobError as error:
        raise ReproError(error.reason, file) from None


def variable(name: str) -> str:
    """The environment variable that holds a set's root."""
    return "REPRO_DATA_" + re.sub(r"\W", "_", name).upper()


def root_of(name: str) -> Path | None:
    """Where a set lies: by the environment, `REPRO_DATA_IMAGENET_1K_VAL`, or `[data]` of the nearest `repro.toml`.

    A set without a root of its own takes that of its family: `imagenet-1k` serves all that begin so, but no folder
    another. A path in `repro.toml` is relative to it. Raises ReproError for a `repro.toml` that cannot be used.
    """
    base = name.partition("@")[0]
    words = [base] if base.startswith("folder:") else base.split("-")
    names = ["-".join(words[:n]) for n in range(len(words), 0, -1)]
    if given := next((path for word in names if (path := os.environ.get(variable(word)))), None):
        return Path(given).expanduser()
    file = next((p for f in (Path.cwd(), *Path.cwd().parents) if (p := f / "repro.toml").is_file()), None)
    if file is None:
        return None
    try:
        roots: Any = tomllib.loads(file.read_text(encoding="utf-8")).get("data", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ReproError(f"not valid TOML: {error}", str(file)) from None
    for key, value in roots.items() if isinstance(roots, dict) else [("", roots)]:
        if not (key and value and isinstance(value, str)):
            raise ReproError(f'[data] {key}: expected NAME = "PATH", got {value!r}', str(file))
        check_name(key, f"{file}: [data]")
    found = next((roots[word] for word in names if word in roots), None)
    return found and (Path(found) if found.startswith("hfds/") else file.parent / Path(found).expanduser())


def facts(name: str, cache: Path) -> dict[str, Any] | None:
    """Fingerprint, images, classes of a set that is here, in this version and unchanged; else None.

    `mean` (RGB, 0..255) is there where it is known or cheap, `decoder` (name, version) where images are decoded.
    """
    if name in DIGITS:
        try:
            meta = json.loads((cache / "digits" / "meta.json").read_text(encoding="utf-8"))
            return dict(meta["sets"][name]) if meta["version"] == VERSION else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
    try:
        return dict(_look_up(name, cache, None)[0])
    except JobError:
        return None


def ensure(name: str, cache: Path, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """The facts of a set, made or indexed first if need be. Raises JobError if it is not here, with what to do."""
    return _digits(name, cache)[0] if name in DIGITS else _look_up(name, cache, say)[0]


def open_set(name: str, cache: Path) -> ImageSet:
    """The images of a set; as `ensure` otherwise."""
    return _digits(name, cache)[1] if name in DIGITS else _look_up(name, cache, lambda text: None)[1]()


def _look_up(name: str, cache: Path, say: Callable[[str], None] | None) -> tuple[Any, Callable[[], ImageSet]]:
    reader, half, layout = known(name)
    if (root := root_of(name)) is None:
        raise JobError(f"{name} is not here; say where it lies with --data {name}=PATH or in repro.toml ({layout})")
    from .index import look_up

    return look_up(name, reader, half, root, cache, say)


def _digits(name: str, cache: Path) -> tuple[dict[str, Any], Images]:
    """The facts and images of one of the proxy's sets; all are made where one is not there with its fingerprint."""
    import numpy as np
    from filelock import FileLock

    folder = cache / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        for make in (False, True):
            if make:
                _make(folder)
            try:
                with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
                    images = Images(file["images"], file["labels"], file["source"], name, tuple("0123456789"))
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
                continue
            if (meta := facts(name, cache)) and meta.get("fingerprint") == images.fingerprint:
                return meta, images
    raise JobError(f"{folder}: the files that were just written cannot be read back; is the disk full?")


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
    write_whole(folder / "meta.json", json.dumps({"version": VERSION, "sets": sets}, indent=1, sort_keys=True))


def samples(name: str, cache: Path, path: Path, rows: int = 8, columns: int = 12) -> None:
    """Write a PNG sheet of up to `rows` x `columns` images of a set, from all classes alike, each over its class."""
    from PIL import Image, ImageDraw

    images, side, line = open_set(name, cache), 144, 16
    which = balanced(images.labels, rows * columns)
    sheet = Image.new("RGB", (columns * (side + 4), -(-len(which) // columns) * (side + line + 4)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, i in enumerate(which[images.labels[which].argsort(kind="stable")]):
        x, y = place % columns * (side + 4) + 2, place // columns * (side + line + 4) + 2
        label = int(images.labels[i])
        pen.text((x + 2, y + side + 1), f"{label}  {images.classes[label]}", fill="black")
        try:
            pixels = images[i]
        except Unreadable:
            continue  # an empty place
        width, height = (max(1, round(n * side / max(pixels.shape))) for n in pixels.shape[1::-1])
        sheet.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST), (x, y))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")
