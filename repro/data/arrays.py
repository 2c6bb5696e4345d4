"""The small sets that come as a few files of pixels: CIFAR, SVHN, MNIST and Fashion-MNIST, read into memory."""

from __future__ import annotations

import gzip
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import JobError
from .sets import Images


class _Plain(pickle.Unpickler):
    """Lists, texts and arrays alone: torchvision unpickles freely, which is safe for the original's checksum only."""

    def find_class(self, module: str, name: str) -> Any:
        wanted = {"numpy": ("_reconstruct", "ndarray", "dtype"), "_codecs": ("encode",)}
        if name in wanted.get(module.split(".")[0], ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of images")


def _batch(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return dict(_Plain(file, encoding="latin1").load())


def cifar(root: Path, half: str, library: Any) -> tuple[Images, list[Path]]:
    """The python batches, named as in torchvision's CIFAR10 or CIFAR100."""
    place = root / library.base_folder if (root / library.base_folder).is_dir() else root
    paths = [place / name for name, _ in (library.train_list if half == "train" else library.test_list)]
    batches = [_batch(path) for path in paths]
    pixels = np.concatenate([b["data"] for b in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.concatenate([b.get("labels", b.get("fine_labels")) for b in batches])
    names = _batch(place / library.meta["filename"])[library.meta["key"]]
    return Images(np.ascontiguousarray(pixels), labels.astype(np.int64), classes=names), paths


def svhn(root: Path, half: str, library: Any) -> tuple[Images, list[Path]]:
    """`train_32x32.mat`, `test_32x32.mat`, `extra_32x32.mat` by torchvision; `train+extra` is one after the other."""
    bare = {"split_list": {k: (url, name, None) for k, (url, name, _) in library.split_list.items()}}  # no checksums
    halves = [type("SVHN", (library,), bare)(str(root), part) for part in half.split("+")]
    pixels, labels = (np.concatenate([getattr(s, key) for s in halves]) for key in ("data", "labels"))
    pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    return Images(pixels, labels, classes=list("0123456789")), [root / s.filename for s in halves]


def mnist(root: Path, half: str, library: Any) -> tuple[Images, list[Path]]:
    """The idx files, packed or not, in the root or in torchvision's `MNIST/raw`, read by torchvision."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    place, read, paths = raw if (raw := root / library.__name__ / "raw").is_dir() else root, [], []
    for kind, reader in (("images-idx3", read_image_file), ("labels-idx1", read_label_file)):
        name = f"{'train' if half == 'train' else 't10k'}-{kind}-ubyte"
        paths.append(place / name if (place / name).is_file() else place / f"{name}.gz")
        with tempfile.NamedTemporaryFile() as file:
            with (gzip.open if paths[-1].suffix == ".gz" else open)(paths[-1], "rb") as packed:
                shutil.copyfileobj(packed, file)
            file.flush()
            read.append(reader(file.name).numpy())
    return Images(read[0], read[1], classes=list(library.classes)), paths


def load(reader: str, root: Path, half: str) -> tuple[Images, list[Path]]:
    """A set of torchvision's by the name of its class, and the files it came from. Raises JobError."""
    import torchvision.datasets

    read = {"CIFAR10": cifar, "CIFAR100": cifar, "SVHN": svhn}.get(reader, mnist)
    try:
        images, paths = read(root, half, getattr(torchvision.datasets, reader))
    except Exception as error:  # of the many that the readers raise for a file that is damaged or not there
        if isinstance(error, OSError) and error.filename:
            raise JobError(f"{error.filename}: {error.strerror}") from None
        raise JobError(f"{root}: {error!r}") from None
    if len(images.images) != len(images.labels):
        raise JobError(f"{paths[0]}: {len(images.images)} images, but {len(images.labels)} labels")
    return images, paths
