"""Where jobs run. One contract: call `work`, bring its folder home; the caller locks and commits."""

from __future__ import annotations

from pathlib import Path

from ..errors import ReproError
from .local import Local

__all__ = ["Local", "device_named"]


def device_named(word: str) -> str:
    """`cpu` or `cuda...` as torch knows it; `auto` is a GPU where there is one.

    Raises ReproError where the device is not there. torch is imported only where a driver is.
    """
    driver = Path("/dev/nvidiactl").exists()
    if word == "cpu" or (word == "auto" and not driver):
        return "cpu"
    import torch

    if torch.cuda.is_available() and (word == "auto" or word.startswith("cuda")):
        return "cuda" if word == "auto" else word
    if word == "auto":
        return "cpu"
    raise ReproError(f"--device {word}: there is no such device here; use --device cpu or auto")
