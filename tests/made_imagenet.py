"""A small ImageNet in the true layout and encoding, drawn here: real wnids, JPEGs of many sizes, its oddities."""

from __future__ import annotations

import colorsys
import importlib.resources
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

# Width and height in pixels, in turn: landscape, portrait, square, odd, long, and small as a few of the real ones are.
SIZES = ((160, 120), (120, 160), (128, 128), (101, 75), (200, 90), (96, 143), (64, 48), (150, 113))
KINDS = ("plain", "cmyk", "grey", "rotated", "png")  # of the images 0 to 4 of each half; the rest are plain


def wnids() -> list[str]:
    """All 1000 of ImageNet, in the order of the labels."""
    return (importlib.resources.files("timm.data") / "_info" / "imagenet_synsets.txt").read_text().split()


def chosen(classes: int) -> list[str]:
    """`classes` of the wnids, spread over the thousand: 20 give the labels 7, 57, 107 and so on."""
    return wnids()[7 :: 1000 // classes][:classes]


def picture(place: int, classes: int, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """A picture of a class, told by its hue and the slope of its stripes, `size` = (width, height), with noise."""
    width, height = size
    colour = np.array(colorsys.hsv_to_rgb(place / classes, 0.8, 0.8)) * 255
    y, x = np.mgrid[:height, :width]
    angle, period = np.pi * place / classes, random.uniform(8, 16)
    stripes = 0.75 + 0.25 * np.sign(np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period))
    pixels = colour * stripes[..., None] + random.normal(0, 12, (height, width, 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    top, left = random.uniform(0.1, 0.6, 2) * (height, width)
    ImageDraw.Draw(image).ellipse((left, top, left + width // 4, top + height // 4), fill=tuple(int(v) for v in colour))
    return image


def encode(image: Image.Image, kind: str, quality: int = 90) -> bytes:
    """The bytes of a file: a JPEG in RGB, in CMYK, in grey, or with the EXIF mark `rotated`; or a PNG."""
    file, exif = io.BytesIO(), Image.Exif()
    if kind == "rotated":
        exif[0x0112] = 6  # Orientation: turn by 90 degrees to show
    mode = {"cmyk": "CMYK", "grey": "L"}.get(kind, "RGB")
    image.convert(mode).save(file, "PNG" if kind == "png" else "JPEG", quality=quality, exif=exif)
    return file.getvalue()


def make(
    root: Path,
    classes: int = 20,
    train_per_class: int = 4,
    val_per_class: int = 2,
    flat_val: bool = False,
    seed: int = 0,
) -> list[str]:
    """Write `root`/train/WNID/*.JPEG and `root`/val/WNID/*.JPEG; the wnids, in label order.

    With `flat_val` the images of val lie in one folder, as the archive has them, beside `val.txt` (`file wnid`).
    The same arguments write the same pictures. The same picture is in no two files.
    """
    names, random = chosen(classes), np.random.default_rng(seed)
    for half, count in (("train", train_per_class), ("val", val_per_class)):
        # The archive numbers the images of val in a random order of their classes.
        order = (
            random.permutation(np.repeat(np.arange(classes), count)) if half == "val" else np.arange(classes * count)
        )
        lines = []
        for i, place in enumerate(order):
            place = int(place) if half == "val" else i % classes
            wnid, kind = names[place], KINDS[i] if i < len(KINDS) else "plain"
            file = f"ILSVRC2012_val_{i + 1:08d}.JPEG" if half == "val" else f"{wnid}_{i * 37 + 11}.JPEG"
            folder = root / half if flat_val and half == "val" else root / half / wnid
            folder.mkdir(parents=True, exist_ok=True)
            image = picture(place, classes, SIZES[i % len(SIZES)], random)
            (folder / file).write_bytes(encode(image, kind, quality=75 + i % 20))
            lines.append(f"{file} {wnid}\n")
        if flat_val and half == "val":
            (root / half / "val.txt").write_text("".join(lines), encoding="utf-8")
    return names
