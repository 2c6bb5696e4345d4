"""Networks by name: `check` says whether a build is known, `make` builds it.

One module a paper, named as the family in the build string. Importing this package imports
neither torch nor any of the modules.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ReproError
from ..schema import Build, number

if TYPE_CHECKING:
    from torch import nn

_HERE = Path(__file__).parent
FAMILIES = sorted(p.stem for p in _HERE.glob("*.py") if not p.stem.startswith("_"))


def _declared(family: str, name: str) -> tuple[str, ...]:
    """The literal tuple `name` of a family's module, read without importing it (and torch)."""
    tree = ast.parse((_HERE / f"{family}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return tuple(ast.literal_eval(node.value))
    return ()


def check(build: Build) -> None:
    """Raise ReproError, with the nearest names, where no such net or argument is known."""

    def unknown(what: str, word: str, known: tuple[str, ...] | list[str]) -> ReproError:
        near = difflib.get_close_matches(word, known, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        return ReproError(f"unknown {what} {word!r} in build '{build}'{hint} Known: {', '.join(known)}")

    if build.family not in FAMILIES:
        raise unknown("family", build.family, FAMILIES)
    if build.net not in (nets := _declared(build.family, "NETS")):
        raise unknown("net", build.net, nets)
    for key, _ in build.args:
        if key not in (args := _declared(build.family, "ARGS")):
            raise unknown("argument", key, args)


def make(build: Build) -> nn.Module:
    """The network of a build string, freshly initialised by torch's defaults.

    Raises ReproError for an unknown build. Under `torch.device("meta")` it holds no data.
    """
    check(build)
    module = importlib.import_module(f".{build.family}", __name__)
    net: nn.Module = module.build(build.net, **{k: number(v) for k, v in build.args})
    return net
