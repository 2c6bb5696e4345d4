"""A recipe of a paper by name, resolved: `like`, then the proxy's changes, then the command line's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from .errors import ReproError
from .fields import Recipe, Start
from .reader import Where, check, line_of, near
from .tables import Paper

# Images and classes of sets that may not be here, for what follows from their size alone.
SIZES = {
    "imagenet-1k-train": (1_281_167, 1000),
    "imagenet-1k-val": (50_000, 1000),
    "imagenet-1k-val-48238": (48_238, 1000),
    "imagenet-21k": (14_197_122, 21_843),
    "jft-300m": (303_000_000, 18_291),
    **{f"digits-{part}": (n, 10) for part, n in (("train", 2_000), ("val", 1_000), ("test", 3_000))},
    **{f"cifar{n}{part}": (size, n) for n in (10, 100) for part, size in (("-train", 50_000), ("", 10_000))},
    **{f"svhn{part}": (n, 10) for part, n in (("-train", 73_257), ("-train+extra", 604_388), ("", 26_032))},
    **{f"{kind}mnist{part}": (n, 10) for kind in ("", "fashion-") for part, n in (("-train", 60_000), ("", 10_000))},
    **{f"places365-{part}": (n, 365) for part, n in (("train", 1_803_460), ("val", 36_500))},
}


def resolve(
    paper: Paper, name: str, scale: str, overrides: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Start | None]:
    """The recipe typed, as plain data, and what its weights start from.

    The recipe that another is `like` lies below it, and the `proxy:` of either above both. `overrides` are
    `recipe.KEY` to text. Raises ReproError with the place of a mistake.
    """
    chain, word = list[str](), name
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
    bases = [("recipes", w, "proxy") for w in chain] + [("recipes", w) for w in chain]
    given = [_nested(k.split(".")[1:], v) for k, v in (overrides or {}).items() if k.startswith("recipe.")]
    typed = _typed(paper, layers, scale, paper.file, paper.lines, bases)  # a mistake in the file is told as such
    return _typed(paper, [*layers, *given], scale, "-o recipe", {}, bases) if given else typed


def _typed(
    paper: Paper, layers: Sequence[Mapping[str, Any]], scale: str, file: str, lines: Any, bases: Sequence[Where]
) -> tuple[dict[str, Any], Start | None]:
    data: dict[str, Any] = reduce(_deep, layers, {})
    start = data.pop("start", None)
    if scale == "proxy" and paper.proxy:
        data |= {k: paper.proxy.dataset.get(data[k], data[k]) for k in ("dataset", "val") if k in data}
    recipe = check(Recipe, data, file, lines, bases).model_dump()
    starts = [(*base, "start") for base in bases]
    return recipe, check(Start, start, file, lines, starts) if start else None


def _nested(path: Sequence[str], value: str) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if path[1:] else value}


def _deep(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = _deep(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out
