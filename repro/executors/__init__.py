"""Where jobs run. One contract: call `work`, bring its folder home; the caller locks and commits."""

from __future__ import annotations

from pathlib import Path

from ..errors import ReproError
from .local import Local

__all__ = ["Local", "device_named"]


def device_named(word: str) -> str:
    """`cpu`, `cuda` or `cuda:N` as torch knows it; `auto` is a GPU where there is one.

    Raises ReproError where the device is not there. torch is imported only where a driver is.
    """
    if word == "cpu" or (word == "auto" and not Path("/dev/nvidiactl").exists()):
        return "cpu"
    import torch

    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if word == "auto":
        return "cuda" if gpus else "cpu"
    if gpus and word in ("cuda", *gpus):
        return word
    raise ReproError(f"--device {word}: there is no such device here; use --device {', '.join(['auto', 'cpu', *gpus])}")
