"""Networks by name: `check` says whether a build is known, `make` builds it.

One module a paper, named as the family in the build string, for the nets that no library holds as
the paper describes them; `timm:` and `torchvision:` for those they hold; `py:` for anybody's own.
Importing this package imports neither torch nor any of the modules.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ReproError
from ..schema import Build, number

if TYPE_CHECKING:
    from torch import Tensor, nn

_HERE = Path(__file__).parent
FAMILIES = sorted(p.stem for p in _HERE.glob("*.py") if not p.stem.startswith("_"))
# How each library marks a function as a model that its `create_model` or `get_model` knows.
LIBRARIES = {"timm": r"@register_model\s+def (\w+)\(", "torchvision": r"@register_model\(\)(?:\s+@.*)*\s+def (\w+)\("}


@cache
def _declared(family: str, name: str) -> tuple[str, ...]:
    """The literal tuple `name` of a family's module, read without importing it (and torch)."""
    tree = ast.parse((_HERE / f"{family}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return tuple(ast.literal_eval(node.value))
    return ()


@cache
def _registered(library: str) -> frozenset[str]:
    """The models of a library, read from its source, for importing it takes seconds."""
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise ReproError(f"{library} is not installed; pip install {library}")
    files = (Path(spec.submodule_search_locations[0]) / "models").rglob("*.py")
    return frozenset(name for f in files for name in re.findall(LIBRARIES[library], f.read_text(encoding="utf-8")))


def own_source(build: Build) -> Path:
    """The file that a `py:` build's function lies in. Raises ReproError where there is none."""
    module, _, function = build.net.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` finds modules
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin or not function:
        raise ReproError(f"'{build}': no module {module!r} is found from here; expected py:package.module:function")
    return Path(spec.origin)


@cache
def check(build: Build) -> None:
    """Raise ReproError, with the nearest names, where no such net or argument is known."""

    def unknown(what: str, word: str, known: Iterable[str]) -> ReproError:
        known = sorted(known)
        near = difflib.get_close_matches(word, known, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        some = f" Known: {', '.join(known)}" if len(known) < 60 else f" It has {len(known)} others."
        return ReproError(f"unknown {what} {word!r} in build '{build}'{hint}{some}")

    if build.family == "py":
        own_source(build)
    elif build.family in LIBRARIES:
        if build.net not in (known := _registered(build.family)):
            raise unknown("net", build.net, known)
    elif build.family not in FAMILIES:
        raise unknown("family", build.family, [*FAMILIES, *LIBRARIES, "py"])
    else:
        if build.net not in (nets := _declared(build.family, "NETS")):
            raise unknown("net", build.net, nets)
        for key, _ in build.args:
            if key not in (args := _declared(build.family, "ARGS")):
                raise unknown("argument", key, args)


def make(build: Build) -> nn.Module:
    """The network of a build string, freshly initialised.

    Raises ReproError for an unknown build or argument. Under `torch.device("meta")` it holds no data.
    """
    check(build)
    args: dict[str, Any] = {k: number(v) for k, v in build.args}
    net: nn.Module
    try:
        if build.family == "timm":
            import timm

            net = timm.create_model(build.net, pretrained=False, **args)
        elif build.family == "torchvision":
            import torchvision

            net = torchvision.models.get_model(build.net, weights=None, **args)
        elif build.family == "py":
            own_source(build)
            module, _, function = build.net.partition(":")
            net = getattr(importlib.import_module(module), function)(**args)
        else:
            net = importlib.import_module(f".{build.family}", __name__).build(build.net, **args)
    except (TypeError, AttributeError, ValueError) as error:
        raise ReproError(f"'{build}' cannot be built: {error}") from error
    return net


def example(net: nn.Module, input: int, batch: int = 1) -> Tensor:
    """An input of the net's: `net.example(batch, input)` where it has one, else RGB images (batch, 3, input, input)."""
    import torch

    own = getattr(net, "example", None)
    image: Tensor = own(batch, input) if own else torch.zeros(batch, 3, input, input)
    return image
