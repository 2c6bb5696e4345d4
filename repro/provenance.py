"""Which code, versions and hardware a number came from."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from .architectures import LIBRARIES, own_source
from .schema import Build

_HERE = Path(__file__).resolve().parent

# Raised by hand when the values that a room computes change; part of the identity of its records.
NUMERICS = {"measure": 2, "settings": 2, "train": 1, "evaluate": 2}


def digest(data: Any) -> str:
    """SHA-256 of plain data as canonical JSON, as 32 hex digits."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def source_of(build: Build) -> str:
    """What a net's source counts as: a library by its version, else the digest of the module that makes it."""
    if build.family in LIBRARIES:
        return f"{build.family} {version(build.family)}"
    if build.family == "py":
        return source_digest(own_source(build))
    return source_digest(_HERE / "architectures" / f"{build.family}.py")


@cache
def source_digest(file: Path) -> str:
    """Digest of a module and of what it imports from beside it, without comments and docstrings."""
    seen, waiting = dict[str, str](), [file.stem]
    while waiting:
        path = file.with_name(f"{(name := waiting.pop())}.py")
        if name in seen or not path.is_file():
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                waiting += [node.module.rpartition(".")[2]] if node.module else [a.name for a in node.names]
            elif isinstance(node, ast.Import):
                waiting += [alias.name.rpartition(".")[2] for alias in node.names]
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        seen[name] = ast.dump(tree)
    return digest(seen)


def version(package: str) -> str:
    """The installed version of a package, without importing it; empty where it is absent."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


@cache
def revision() -> str:
    """The git revision of a clone, `-dirty` where files differ from it; empty where the package lies elsewhere."""
    if not (_HERE.parent / ".git").exists():  # installed, perhaps below a repository of the user's
        return ""
    command = ["git", "-C", str(_HERE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ""


@cache
def processor() -> str:
    """The processor's name as the system tells it."""
    with suppress(OSError):
        if found := re.search(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """What a record says of the place where it was made; shown where two differ, never identity."""
    from . import __version__

    return {
        "repro": __version__, "revision": revision(), "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}", "processor": processor(), "cores": os.cpu_count(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy", "mlflow", "fvcore")},
    }  # fmt: skip
