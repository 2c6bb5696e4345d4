"""Sets of images, in memory or read from files one by one, and how a file becomes pixels."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


class Unreadable(Exception):
    """An image that cannot be decoded: its `path`, and `why` in the words of the library."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(path, why)

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(frozen=True)
class Images:
    """A whole set in memory: `images` (N, H, W, 3) uint8 RGB, or grey (N, H, W); `labels` (N,) int64 from 0.

    `[i]` is RGB, (H, W, 3). `source` (N,): the real digit behind each image of the proxy.
    """

    images: np.ndarray
    labels: np.ndarray
    source: np.ndarray | None = None
    name: str = ""
    classes: Sequence[str] = ()
    keys: Sequence[str] = ()

    @property
    def ids(self) -> Sequence[str]:
        """`keys`, or for a whole set the images' numbers in six digits."""
        return self.keys or [f"{i:06d}" for i in range(len(self.labels))]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> np.ndarray:
        image: np.ndarray = self.images[i]
        return image if image.ndim == 3 else image[..., None].repeat(3, axis=2)

    def content(self, i: int) -> bytes:
        return bytes(self.images[i].tobytes())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the pixels and then the labels, little-endian; of the proxy's sets."""
        digest = hashlib.sha256(self.images.data.cast("B"))
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Files:
    """A set whose images are files or pieces of tar files; `labels` (N,) int64, `classes` the names in label order.

    `places` (N,) has for each image its `id` and `path` as bytes, `offset` and `length` (-1: the whole file): an array
    of numpy, which worker processes share. With `reader` (timm's, of a Hugging Face set) `offset` counts in it.
    `[i]` is (H, W, 3) uint8 as PIL's RGB, whatever the file's name; EXIF's turns are left, as in torchvision and timm.
    """

    places: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    name: str = ""
    reader: Any = None

    @property
    def ids(self) -> Sequence[str]:
        return [os.fsdecode(key) for key in self.places["id"]]

    def __len__(self) -> int:
        return len(self.labels)

    def content(self, i: int) -> bytes:
        """The bytes of the encoded image. Raises OSError."""
        _, path, offset, length = self.places[i]
        with self.reader[int(offset)][0] if self.reader else open(path, "rb") as file:
            file.seek(0 if self.reader else offset)
            return bytes(file.read(length))

    def open(self, i: int) -> Image.Image:
        """The decoded image in its own mode. Raises Unreadable where the file is gone, cut or damaged."""
        from PIL import Image

        try:
            image = Image.open(io.BytesIO(self.content(i)))
            image.load()
            return image
        except Exception as error:  # what PIL raises for a broken file differs by format
            key, path, _, length = self.places[i]
            inside = f" ({os.fsdecode(key)})" if self.reader or length >= 0 else ""
            raise Unreadable(os.fsdecode(path) + inside, str(error).split(" <_io")[0]) from None

    def __getitem__(self, i: int) -> Any:
        import numpy as np

        return np.array(self.open(i).convert("RGB"))


class Looks(Files):
    """The same, where `[i]` is (height, width) and what is unlike an upright RGB image of the kind it is named."""

    def __getitem__(self, i: int) -> Any:
        image, kind = self.open(i), Path(os.fsdecode(self.places["id"][i])).suffix
        odd = [] if image.mode == "RGB" else [{"L": "grey"}.get(image.mode, image.mode)]
        odd += [f"PNG named {kind}"] if image.format == "PNG" and kind.lower() in (".jpg", ".jpeg") else []
        odd += ["EXIF-rotated"] if image.getexif().get(0x0112, 1) != 1 else []
        return (image.height, image.width), odd


ImageSet: TypeAlias = Images | Files


def balanced(labels: np.ndarray, n: int) -> np.ndarray:
    """The places, ascending, of `n` images of a set, the same ones always, as many of each class as can be."""
    import numpy as np

    order = np.random.Generator(np.random.Philox(key=1409_1556)).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)  # how many of its class come before an image in the drawn order
    for label in np.unique(labels):
        mine = labels[order] == label
        turn[mine] = np.arange(mine.sum())
    return np.asarray(np.sort(order[np.argsort(turn, kind="stable")[:n]]))


@dataclass(frozen=True)
class _Decoded:
    """What DataLoader asks for an image: (i, what `images[i]` is, or Unreadable)."""

    images: Any

    def __getitem__(self, i: int) -> tuple[int, Any]:
        import torch

        try:
            found = self.images[i]
        except Unreadable as error:
            return i, error
        return i, found if isinstance(found, tuple) else torch.from_numpy(found)  # tensors cross processes fast


def stream(images: ImageSet, indices: Sequence[int], workers: int) -> Iterator[tuple[int, Any]]:
    """(i, image or Unreadable) of each of `indices`, in order, decoded by `workers` processes (0: in this one)."""
    from torch import Generator, Tensor
    from torch.utils.data import DataLoader

    batches = [[int(i) for i in indices[k : k + 16]] for k in range(0, len(indices), 16)]
    source: Any = _Decoded(images)
    own = Generator()  # takes nothing from the generator that weights and dropout are drawn from
    for batch in DataLoader(source, batch_sampler=batches, num_workers=workers, collate_fn=list, generator=own):
        yield from ((i, image.numpy() if isinstance(image, Tensor) else image) for i, image in batch)
