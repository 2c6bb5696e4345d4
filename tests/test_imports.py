"""The rules of the house about who may import whom, and how soon a command starts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "repro"
HEAVY = ("torch", "torchvision", "timm", "mlflow", "pandas", "fvcore", "sklearn", "matplotlib")

# Rooms in the order of DESIGN: a module imports of ours only what stands above it.
ORDER = [
    "errors", "files", "processes", "schema", "printed", "stats", "protocols", "architectures", "provenance",
    "reader", "fields", "tables", "recipes", "claims", "plan", "relations", "ledger", "judge",
    "data", "train", "evaluate", "measure", "weights", "cost", "work", "store", "results",
    "tracking", "executors", "execution", "pipeline", "compare", "explain", "gate", "doctor", "report", "cli",
    "pytest_plugin",
]  # fmt: skip
# What a room may not import, ours or another's, at any place in it.
FORBIDDEN = {
    "errors": HEAVY, "schema": HEAVY, "printed": HEAVY, "stats": HEAVY,
    "reader": HEAVY, "fields": HEAVY, "tables": HEAVY, "recipes": HEAVY, "claims": HEAVY, "protocols": HEAVY,
    "plan": (*HEAVY, "data"),
    "judge": (*HEAVY, "store"), "ledger": HEAVY,
    "architectures": ("data", "train", "store"),
    "data": ("tables", "store"),
    "train": ("tables", "store", "evaluate"),
    "evaluate": ("tables", "store", "train"),
    "measure": ("tables", "store", "data"),
    "weights": ("tables", "store", "data", "train", "evaluate"),
    "work": ("tables", "store", "judge"),
    "store": ("torch", "mlflow"),
    "tracking": ("torch",),
    "executors": ("tables", "judge"),
    "gate": ("torch", "store"), "report": ("torch",), "pytest_plugin": HEAVY,
}  # fmt: skip
ONLY_IMPORTERS = {"mlflow": {"tracking"}, "rich": {"report"}, "matplotlib": {"report"}}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> dict[str, bool]:
    """Modules that a file imports, ours by the name of their room; whether at import time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined]
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name.split(".")[0] for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = path.parent
                for _ in range(node.level - 1):
                    base = base.parent
                inside = base.relative_to(PACKAGE).parts
                module = (*inside, *(node.module or "").split(".")) if node.module else inside
                names = [module[0]] if module and module[0] else [a.name for a in node.names]
            else:
                names = [(node.module or "").split(".")[0]]
        above, late, typing = getattr(node, "parent", None), False, False
        while above is not None:
            late |= isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typing |= isinstance(above, ast.If) and "TYPE_CHECKING" in ast.dump(above.test)
            above = getattr(above, "parent", None)
        for name in [] if typing else names:
            found[name] = found.get(name, False) or not late
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or not p.name.startswith("__"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_rooms_above_its_own(path):
    """Ours in the order of the rooms; heavy libraries only where a room may have them."""
    mine = room(path)
    for name, at_import in imports(path).items():
        if name in ORDER and name != mine:
            assert ORDER.index(name) < ORDER.index(mine), f"{path.name} ({mine}) imports {name}, which stands below it"
        assert name not in FORBIDDEN.get(mine, ()), f"{path.name} ({mine}) must not import {name}"
        allowed = ONLY_IMPORTERS.get(name)
        assert allowed is None or mine in allowed, f"{path.name} ({mine}) imports {name}; only {allowed} may"
        if mine in ("data", "provenance", "pipeline", "doctor", "cli", "tracking"):
            assert not (at_import and name in HEAVY), f"{path.name} ({mine}) imports {name} at import time"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("repro.cli", (*HEAVY, "pydantic", "yaml", "numpy", "rich", "scipy")),
        ("repro.pipeline", (*HEAVY, "scipy.stats")),
        ("repro.tracking", ("torch", "mlflow", "pandas")),
        ("repro.judge", ("torch", "mlflow", "pandas", "scipy.stats")),
        ("repro.executors", HEAVY),
        ("repro.report.terminal", HEAVY),
    ],
)
def test_importing_a_room_does_not_load_what_it_need_not(module, heavy):
    """Start-up is kept short by importing torch, mlflow and pandas only where they work."""
    code = f"import {module}, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_every_module_opens_with_a_sentence_and_stays_short():
    """A module that grows past 250 lines holds two rooms; the longest are listed here by name."""
    longer = {"schema.py", "tables.py", "pipeline.py", "claims.py", "judge.py"}
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
        assert len(text.splitlines()) <= (400 if path.name in longer else 260), f"{path} is too long"
