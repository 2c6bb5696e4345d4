"""What is known of a set that lies in files: its listing and a SHA-256 of each image, kept until a file changes."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ..errors import JobError
from ..files import write_whole
from .layouts import lines, listed
from .sets import Files, Images, ImageSet

VERSION = 2  # of the index; raised when it would hold something else
BLACKLIST = "ILSVRC2014_clsloc_validation_blacklist.txt"
Say = Callable[[str], None]


def look_up(
    name: str, reader: str, half: str, root: Path, cache: Path, say: Say | None
) -> tuple[dict[str, Any], Callable[[], ImageSet]]:
    """The facts of a set that lies under a root, and what opens it. Raises JobError where it is not whole there.

    The index of the whole set, which reads every image once, is made if need be, unless `say` is None.
    """
    from PIL import __version__, features

    place = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:12]
    found = _index(cache / "index" / f"{reader}-{half}-{place}-{VERSION}.npz".lower(), reader, half, root, say)
    which, classes = _part(found["ids"], name, root), found["classes"].tolist()
    ids, labels, digests = (found[key][which] for key in ("ids", "labels", "digests"))
    content = b"\0".join(ids.tolist()) + labels.astype("<i8").tobytes() + digests.tobytes()
    facts = {"fingerprint": hashlib.sha256(content).hexdigest(), "images": len(ids), "classes": len(classes)}
    if "mean" in found:
        facts["mean"] = np.broadcast_to(found["mean"], 3).tolist()
    else:
        facts["decoder"] = f"pillow {__version__}, jpeg {features.version('libjpeg_turbo') or features.version('jpg')}"
    if reader == "imagenet":  # of its training images, as torchvision and timm state it
        facts["mean"] = [123.675, 116.28, 103.53]

    def opened() -> ImageSet:
        if "places" in found:
            return Files(found["places"][which], labels, classes, name)
        images, _ = listed(reader, half, root)  # what a library holds is read again
        if isinstance(images, Files):
            return Files(images.places[which], labels, classes, name, images.reader)
        return Images(images.images[which], labels, None, name, classes, ids.astype(str).tolist())

    return facts, opened


def _index(path: Path, reader: str, half: str, root: Path, say: Say | None) -> dict[str, Any]:
    """Arrays that tell of a set: `ids`, `labels`, `classes`, `digests` (N, 32), and `places` of files or a `mean`."""
    if found := _true(path):
        return found
    if say is None:
        raise JobError(f"{root} has not been read yet")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if found := _true(path):  # another process was first
            return found
        images, files = listed(reader, half, root)
        watched = np.array(sorted(map(os.fsencode, files)))
        try:
            # The stamps come before the reading, so that a change during it is noticed at the next use.
            found = {"watched": watched, "stamps": _stamps(watched), "digests": _digests(images, f"{root}: ", say)}
        except OSError as error:  # no fingerprint would be true of a file that cannot be read
            raise JobError(f"{os.fsdecode(error.filename or root)}: {error.strerror or error}") from None
        found |= {"labels": images.labels, "classes": np.array(images.classes)}
        if isinstance(images, Images):
            found["ids"] = np.array(images.ids, "S")
            found["mean"] = images.images.mean((0, 1, 2) if images.images.ndim == 4 else None, dtype=np.float64)
        else:
            found |= {"ids": images.places["id"]} | ({} if images.reader else {"places": images.places})
        write_whole(path, lambda file: np.savez(file, **found))
    return found


def _true(path: Path) -> dict[str, Any] | None:
    """An index that is there, with every file and folder of the set as it was: the same size, the same time."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
        return found if np.array_equal(_stamps(found["watched"]), found["stamps"]) else None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _stamps(paths: np.ndarray) -> np.ndarray:
    """Size and time of change (ns) of each file; a folder's change when one in it comes or goes. (N, 2) int64."""
    return np.array([(s.st_size, s.st_mtime_ns) for s in map(os.stat, paths.tolist())], np.int64)


def _digests(images: ImageSet, name: str, say: Say) -> np.ndarray:
    """SHA-256 of each image's bytes, (N, 32) uint8, read by threads. Raises OSError."""
    found, some = b"", 1 << 14
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        for start in range(0, len(images), some):
            if start:
                say(f"{name}{start:,} of {len(images):,} images read")
            part = range(start, min(start + some, len(images)))
            found += b"".join(pool.map(lambda i: hashlib.sha256(images.content(i)).digest(), part))
    return np.frombuffer(found, np.uint8).reshape(-1, 32)


def _part(ids: np.ndarray, name: str, root: Path) -> np.ndarray:
    """The places of the images that a name means: without the blacklisted for `-48238`, those of `@LIST` alone."""
    base, _, keep = name.partition("@")
    here = np.ones(len(ids), bool)
    if base.endswith("-48238"):
        path = next((p for f in (root, root / "val", root.parent) if (p := f / BLACKLIST).is_file()), None)
        if path is None:
            raise JobError(f"{base}: the list of the images to leave out is not there; put {BLACKLIST} into {root}")
        here &= ~np.isin(ids, [f"ILSVRC2012_val_{words[0]:0>8}.JPEG".encode() for _, words in lines(path)])
        if here.all():
            raise JobError(f"{path}: none of the images that it leaves out is in {root}")
    if keep:
        wanted = {words[0].encode(): n for n, words in lines(Path(keep))}
        here &= np.isin(ids, list(wanted))
        if lacking := wanted.keys() - set(ids[here].tolist()):
            odd = min(lacking, key=wanted.__getitem__)
            raise JobError(f"{keep}:{wanted[odd]}: {base} has no image {odd.decode()!r}")
        if not wanted:
            raise JobError(f"{keep}: names no image")
    return np.flatnonzero(here)
