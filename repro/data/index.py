"""What is known of a set that lies in files: its listing and a SHA-256 of each image, kept until a file changes."""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import JobError
from ..files import write_whole
from . import arrays, layouts
from .sets import Files, Images, ImageSet, Unreadable

VERSION = 1  # of the index files
IMAGENET_MEAN = [123.675, 116.28, 103.53]  # RGB of the training images, as torchvision and timm state it


def listed(reader: str, half: str, root: Path) -> tuple[ImageSet, Iterable[str]]:
    """A set as it lies under its root, and the files and folders that it came from. Raises JobError."""
    if not root.exists() and root.parts[:1] != ("hfds",):
        raise JobError(f"{root} is not there")
    if hasattr(layouts, reader):
        found: Files = getattr(layouts, reader)(root, half)
        return found, found.watched
    images, paths = arrays.load(reader, root, half)
    return images, map(str, paths)


class Index:
    """The listing and digests of one whole set under one root, kept in a file of `cache`."""

    def __init__(self, cache: Path, reader: str, half: str, root: Path) -> None:
        self.reader, self.half, self.root = reader, half, root
        place = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:12]
        self.path = cache / "index" / f"{reader.lower()}-{half or 'all'}-{place}.npz"
        self.kept: dict[str, Any] = {}

    def read(self) -> bool:
        """Whether an index is here and every file and folder of the set is as it was: same size, same time."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                self.kept = dict(file)
            same = np.array_equal(_stamps(self.kept["watched"]), self.kept["stamps"])
            return same and int(self.kept["version"]) == VERSION
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return False

    def make(self, say: Callable[[str], None]) -> None:
        """List the set and read every image once. Raises JobError for what is missing or not readable as files."""
        images, files = listed(self.reader, self.half, self.root)
        watched = np.array(sorted(os.fsencode(f) for f in files))
        self.kept = {"version": VERSION, "watched": watched}
        self.kept["stamps"] = _stamps(watched)  # before the reading: a change during it is noticed at the next use
        self.kept |= {"ids": np.array([i.encode() for i in images.ids]), "labels": images.labels}
        self.kept |= {"classes": np.array(images.classes), "digests": _digests(images, f"{self.root}", say)}
        if isinstance(images, Images):
            axes = (0, 1, 2) if images.images.ndim == 4 else None
            self.kept["mean"] = images.images.mean(axes, dtype=np.float64)
        elif images.reader is None:
            self.kept["places"] = images.places
        write_whole(self.path, lambda file: np.savez(file, **self.kept))

    def open(self) -> ImageSet:
        """The set: from the listing alone, or read again where a library holds it."""
        if "places" in self.kept:
            return Files(self.kept["places"], self.kept["labels"], self.kept["classes"].tolist())
        return listed(self.reader, self.half, self.root)[0]

    def facts(self, which: np.ndarray) -> dict[str, Any]:
        """Of the images at the places `which`: fingerprint over (id, label, content), number, and what is known."""
        from PIL import __version__, features

        digest = hashlib.sha256()
        for key, label, content in zip(*(self.kept[k][which] for k in ("ids", "labels", "digests")), strict=True):
            digest.update(b"%s\0%d\0" % (key, label) + content.tobytes())
        found = {"fingerprint": digest.hexdigest(), "images": len(which), "classes": len(self.kept["classes"])}
        if "mean" not in self.kept:
            jpeg = features.version("libjpeg_turbo") or features.version("jpg")
            found |= {"decoder": f"pillow {__version__}, jpeg {jpeg}"}
        if self.reader == "imagenet" or "mean" in self.kept:
            found["mean"] = np.broadcast_to(self.kept.get("mean", IMAGENET_MEAN), 3).tolist()
        return found


def _stamps(paths: Iterable[bytes]) -> np.ndarray:
    """Size and time of change (ns) of each file; a folder's change when one in it comes or goes. (N, 2) int64."""
    found = [(s.st_size, s.st_mtime_ns) for s in map(os.stat, map(bytes, paths))]
    return np.array(found, np.int64).reshape(-1, 2)


def _digests(images: ImageSet, name: str, say: Callable[[str], None]) -> np.ndarray:
    """SHA-256 of each image's bytes, (N, 32) uint8, read by threads."""
    found, told, read = np.empty((len(images), 32), np.uint8), time.monotonic(), 0

    def one(i: int) -> int:
        content = images.content(i)
        found[i] = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
        return len(content)

    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        for start in range(0, len(images), 1024):
            try:
                read += sum(pool.map(one, range(start, min(start + 1024, len(images)))))
            except Unreadable as error:  # the file itself: no fingerprint would be true of it
                raise JobError(str(error)) from None
            if time.monotonic() - told > 5:
                told = time.monotonic()
                say(f"{name}: {start + 1024:,} of {len(images):,} images read, {read / 2**30:.1f} GiB")
    return found


def chosen(index: Index, name: str, drop: str) -> np.ndarray:
    """The places of the images that a name means: without those of the list `drop`, those of `@LIST` alone."""
    ids, (base, _, keep) = index.kept["ids"], name.partition("@")
    here = np.ones(len(ids), bool)
    if drop:
        paths = [f / drop for f in (index.root, index.root / index.half, index.root.parent) if (f / drop).is_file()]
        if not paths:
            raise JobError(f"{base}: the list of the images to leave out is not there; put {drop} into {index.root}")
        gone = [b"ILSVRC2012_val_%08d.JPEG" % int(n) for _, (n,) in layouts.pairs(paths[0], 1)]
        here &= ~np.isin(ids, np.array(gone))
    if keep:
        wanted = {word.encode(): n for n, (word,) in layouts.pairs(Path(keep), 1)}
        here &= np.isin(ids, np.array(list(wanted)))
        if lacking := wanted.keys() - set(ids[here].tolist()):
            odd = min(lacking, key=wanted.__getitem__)
            raise JobError(f"{keep}:{wanted[odd]}: {base} has no image {odd.decode()!r}")
    return np.flatnonzero(here)


def part(images: ImageSet, which: np.ndarray, name: str) -> ImageSet:
    """The images at some places, under a name."""
    if isinstance(images, Files):
        return replace(images, places=images.places[which], labels=images.labels[which], name=name)
    ids = [images.ids[i] for i in which]
    return Images(images.images[which], images.labels[which], None, name, images.classes, ids)
