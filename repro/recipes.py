"""A recipe of a paper by name, resolved: `like`, then the proxy's changes, then the command line's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ReproError
from .fields import Recipe, Start
from .reader import check, line_of, near
from .tables import Paper


def resolve(
    paper: Paper, name: str, scale: str, overrides: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Start | None]:
    """The recipe typed, as plain data, and what its weights start from.

    The recipe that another is `like` lies below it, and the `proxy:` of either above both.
    `overrides` are `recipe.KEY` to text. Raises ReproError with the place of a mistake.
    """
    chain: list[str] = []
    word = name
    while word:
        if word not in paper.recipes or word in chain:
            say = f"recipe {word!r} is unknown or like itself{near(word, paper.recipes)}"
            raise ReproError(say, paper.file, line_of(paper.lines, ("recipes", *chain[-1:])))
        chain.append(word)
        word = paper.recipes[word].get("like", "")
    own = [paper.recipes[w] for w in reversed(chain)]
    layers = [{k: v for k, v in r.items() if k not in ("like", "proxy", "where", "note")} for r in own]
    if scale == "proxy":
        layers += [r.get("proxy", {}) for r in own]
    layers += [_nested(k.split(".")[1:], v) for k, v in (overrides or {}).items() if k.startswith("recipe.")]
    data: dict[str, Any] = {}
    for layer in layers:
        data = _deep(data, layer)
    start = data.pop("start", None)
    if scale == "proxy" and paper.proxy:
        data |= {k: paper.proxy.dataset.get(data[k], data[k]) for k in ("dataset", "val") if k in data}
    bases = [("recipes", w, "proxy") for w in chain] + [("recipes", w) for w in chain]
    recipe = check(Recipe, data, paper.file, paper.lines, bases).model_dump()
    starts = [(*base, "start") for base in bases]
    return recipe, check(Start, start, paper.file, paper.lines, starts) if start else None


def _nested(path: Sequence[str], value: str) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if path[1:] else value}


def _deep(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = _deep(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out
