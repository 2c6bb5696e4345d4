"""Which code, versions and hardware a number came from."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent

# Raised by hand when the values that a room computes change; part of the identity of its records.
NUMERICS = {"measure": 1, "settings": 1, "train": 1, "evaluate": 1}


def digest(data: Any) -> str:
    """SHA-256 of plain data as canonical JSON, as 32 hex digits."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def source_digest(family: str) -> str:
    """Digest of a family's module and of what it imports beside it, without comments and docstrings."""
    seen: dict[str, str] = {}
    waiting = [family]
    while waiting:
        name = waiting.pop()
        path = _HERE / "architectures" / f"{name}.py"
        if name in seen or not path.is_file():
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                waiting += [node.module] if node.module else [alias.name for alias in node.names]
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        seen[name] = ast.dump(tree)
    return digest(seen)


def version(package: str) -> str:
    """The installed version of a package, without importing it; empty where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@cache
def revision() -> str:
    """The git revision of the project, `-dirty` where files differ from it; empty outside git."""
    try:
        command = ["git", "-C", str(_HERE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


@cache
def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """What a record says of the place where it was made; shown where two differ, never identity."""
    from . import __version__

    return {
        "repro": __version__,
        "revision": revision(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy", "mlflow", "fvcore")},
    }
