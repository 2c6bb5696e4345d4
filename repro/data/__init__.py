"""The catalogue of data sets: what is known of each, and its images, by name.

A set is made once, under `root`; `facts` reads what is there and imports nothing heavy. So far the
catalogue holds the three sets of the proxy.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import JobError
from ..files import write_whole

if TYPE_CHECKING:
    import numpy as np

VERSION = 2  # of the files under `root`; raised when the same names would hold other pixels
DIGITS = ("digits-train", "digits-val", "digits-test")
ABSENT = ("imagenet-1k-train", "imagenet-1k-val", "imagenet-1k-test")  # known to tables, with no reader yet


@dataclass(frozen=True)
class Images:
    """A whole set in memory: `images` (N, H, W, 3) uint8 RGB, `labels` (N,) int64 from 0.

    `source` (N,) int64 numbers the real digit that an image was made from.
    """

    images: np.ndarray
    labels: np.ndarray
    source: np.ndarray

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the pixels and then the labels, little-endian."""
        digest = hashlib.sha256(self.images.data.cast("B"))
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def facts(name: str, root: Path) -> dict[str, Any] | None:
    """Fingerprint, images, classes, mean (RGB, 0..255) of a set that is there in this version; else None."""
    try:
        meta = json.loads((root / "digits" / "meta.json").read_text(encoding="utf-8"))
        return dict(meta["sets"][name]) if meta["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def ensure(name: str, root: Path) -> dict[str, Any]:
    """The facts of a set, made first if it is not there whole. Raises JobError if it cannot be made here."""
    return _found(name, root)[0]


def load(name: str, root: Path) -> Images:
    """All images of a set; as `ensure` otherwise."""
    return _found(name, root)[1]


def samples(name: str, root: Path, path: Path, rows: int = 8, columns: int = 12) -> None:
    """Write a PNG sheet of a set's first images, the label under each."""
    from PIL import Image, ImageDraw

    data, scale, line = load(name, root), 2, 16
    side = data.images.shape[1] * scale
    sheet = Image.new("RGB", (columns * (side + 4), rows * (side + line + 4)), "white")
    pen = ImageDraw.Draw(sheet)
    for i in range(min(rows * columns, len(data.labels))):
        x, y = i % columns * (side + 4) + 2, i // columns * (side + line + 4) + 2
        sheet.paste(Image.fromarray(data.images[i]).resize((side, side), Image.Resampling.NEAREST), (x, y))
        pen.text((x + 2, y + side + 1), f"{data.labels[i]}   (digit {data.source[i]})", fill="black", font_size=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")


def _found(name: str, root: Path) -> tuple[dict[str, Any], Images]:
    if found := _read(name, root):
        return found
    if name in ABSENT:
        raise JobError(
            f"{name} is not here, and this release has no reader for it yet; `--scale proxy` runs without it"
        )
    if name not in DIGITS:
        from ..reader import near

        known = DIGITS + ABSENT
        raise JobError(f"unknown data set {name!r}{near(name, known)} Known: {', '.join(known)}")
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

    if not (known := facts(name, root)):
        return None
    try:
        with np.load(root / "digits" / f"{name}.npz", allow_pickle=False) as file:
            images = Images(file["images"], file["labels"], file["source"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return (known, images) if images.fingerprint == known.get("fingerprint") else None


def _make(folder: Path) -> None:
    """Make the three sets. `meta.json` comes last, so that what it names is whole."""
    import numpy as np

    from . import digits

    sets = {}
    for name in DIGITS:
        data = Images(**digits.make(name))
        write_whole(folder / f"{name}.npz", partial(np.savez, **vars(data)))
        mean = data.images.sum((0, 1, 2), dtype=np.int64) / (data.images.size // 3)
        sets[name] = {"fingerprint": data.fingerprint, "images": len(data.labels), "classes": 10, "mean": mean.tolist()}
    text = json.dumps({"version": VERSION, "sets": sets}, indent=1, sort_keys=True)
    write_whole(folder / "meta.json", text)
