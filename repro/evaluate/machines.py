"""What the engine does by default on each class of machine: nothing here changes a score but by rounding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """A class of machine; `offers` says what dtype may be asked for, for it changes scores, and what that brings."""

    name: str
    offers: str
    batch: int  # images of one size rescaled together
    held: int  # and how many of their pixels at most
    small: int  # input pixels through the net together, as stay in a core's cache
    views: int  # views of 224 x 224 that go together, where those are more

    def pixels(self, height: int, width: int) -> int:
        """How many input pixels of views of that size go through the net together."""
        return max(self.small, self.views * min(height * width, 224 * 224))


_CPU = 64, 1 << 20, 1 << 17, 16
MACHINES = {
    "amx": Machine("CPU with AMX", "bfloat16, 5 to 9 times as fast", *_CPU),
    "bf16": Machine("CPU with AVX512-BF16", "bfloat16, twice as fast", *_CPU),
    "other": Machine("CPU without bf16", "bfloat16, slower", *_CPU),
    "ampere": Machine("GPU since Ampere", "bfloat16, tf32", 256, 1 << 25, 1 << 23, 256),
    "older": Machine("GPU before Ampere", "nothing", 256, 1 << 24, 1 << 22, 128),
}


def processor(cpuinfo: str) -> str:
    """The class of a processor by its flags as Linux lists them: `amx`, `bf16` (AVX512, no AMX) or `other`."""
    flags = set(next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "").split())
    return "amx" if "amx_bf16" in flags else "bf16" if "avx512_bf16" in flags else "other"


@cache
def machine(device: str = "cpu") -> Machine:
    """The class of a device: `cpu`, `cuda`, `cuda:1`."""
    if device.startswith("cuda"):
        import torch

        return MACHINES["ampere" if torch.cuda.get_device_capability(device)[0] >= 8 else "older"]
    file = Path("/proc/cpuinfo")
    return MACHINES[processor(file.read_text(encoding="utf-8") if file.exists() else "")]
