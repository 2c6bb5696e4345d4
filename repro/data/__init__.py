"""The catalogue of data sets: what is known of each, and its images, by name.

A set is made or found by `ensure`, once, under `root`; `facts` reads what `ensure` left there and
imports nothing heavy. So far the catalogue holds the three sets of the proxy.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import JobError

if TYPE_CHECKING:
    import numpy as np

VERSION = 1  # of the files under `root`; raised when the same names would hold other pixels
DIGITS = ("digits-train", "digits-val", "digits-test")
# Known to tables, with no reader here yet.
ABSENT = ("imagenet-1k-train", "imagenet-1k-val", "imagenet-1k-test")


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
    """What is known of a set that is there: fingerprint, images, classes, mean (RGB, 0..255).

    None where the set is not there yet, is of another version, or is not in the catalogue.
    """
    try:
        meta = json.loads((root / "digits" / "meta.json").read_text(encoding="utf-8"))
        return dict(meta["sets"][name]) if meta["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def ensure(name: str, root: Path) -> dict[str, Any]:
    """The facts of a set, which is made if it is not there or its bytes are no longer the same.

    Safe for several processes at once. Raises JobError for a set that cannot be made here.
    """
    if name not in DIGITS:
        raise JobError(_unavailable(name))
    from filelock import FileLock

    folder = root / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        known = facts(name, root)
        if known is None or _read(name, root, known["fingerprint"]) is None:
            _make(root)
            known = facts(name, root)
    if known is None:
        raise JobError(f"{folder}: the files that were just written cannot be read back; is the disk full?")
    return known


def load(name: str, root: Path) -> Images:
    """All images of a set, made first if need be. Raises JobError as `ensure` does."""
    known = facts(name, root)
    images = _read(name, root, known["fingerprint"]) if known else None
    if images is None:
        images = _read(name, root, ensure(name, root)["fingerprint"])
    if images is None:
        raise JobError(f"{root / 'digits'}: {name} changes on disk while it is read; is another program writing there?")
    return images


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


def _unavailable(name: str) -> str:
    if name in ABSENT:
        return (
            f"{name} is not here, and this release has no reader for it yet; "
            "`--scale proxy` runs without it"
        )
    near = difflib.get_close_matches(name, DIGITS + ABSENT, 1, 0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown data set {name!r}{hint} Known: {', '.join(DIGITS + ABSENT)}"


def _read(name: str, root: Path, fingerprint: str) -> Images | None:
    """The set's file, or None where it is not there or not what the fingerprint says."""
    import zipfile

    import numpy as np

    try:
        with np.load(root / "digits" / f"{name}.npz", allow_pickle=False) as file:
            images = Images(file["images"], file["labels"], file["source"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return images if images.fingerprint == fingerprint else None


def _make(root: Path) -> None:
    """Make the three sets. `meta.json` comes last, so that what it names is whole."""
    import numpy as np

    from . import digits

    sets: dict[str, Mapping[str, Any]] = {}
    for name in DIGITS:
        data = Images(**digits.make(name))
        file = io.BytesIO()
        np.savez(file, images=data.images, labels=data.labels, source=data.source)
        _write(root / "digits" / f"{name}.npz", file.getbuffer())
        sets[name] = {
            "fingerprint": data.fingerprint,
            "images": len(data.labels),
            "classes": 10,
            "mean": [float(data.images[..., c].sum(dtype=np.int64)) / data.images[..., c].size for c in range(3)],
        }
    text = json.dumps({"version": VERSION, "sets": sets}, indent=1, sort_keys=True)
    _write(root / "digits" / "meta.json", text.encode())


def _write(path: Path, content: bytes | memoryview) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
