"""No count is verified against a constant: another width, depth or input of the net moves every claim that matches."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from repro import architectures, judge, tables
from repro.claims import Claims
from repro.measure.stages import _Paths, _stages, count
from repro.results import counted
from repro.schema import Build, Cell, Result

PAPERS = sorted({name.split("/")[0] for name in tables.names()})
Numbers = dict[str, Any]
# Global pooling gives one pixel whatever the net: read from the net, but no evidence, so not to be counted as such.
FIXED = {"resnet/table1 | average pool | output size", "seeds/001_resnet_table | average pool and fc | output size"}


def numbers(build: Build, pixels: int, change: Any = None) -> Numbers:
    """The counts of a build; of a changed net whose later layers do not fit any more, those up to there."""
    with torch.device("meta"):
        net = architectures.make(build).eval()
        if not change:
            return {"stages": count(net, pixels)[0]}
        net = change(net) or net
        paths = _Paths(net)
        with paths, torch.no_grad(), contextlib.suppress(RuntimeError, AssertionError, ValueError):
            net(architectures.example(net, pixels))
        return {"stages": _stages(net, {}, paths.seen)}


def others(build: Build, pixels: int) -> Iterator[Numbers]:
    """One of our nets with other values of its arguments, or at another input; what does not fit is left out."""
    tries = []
    path = Path(__file__).with_name(f"test_net_{build.family}.py")
    if path.is_file():
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        given = dict(build.args)
        for key, value in getattr(module, "OTHER", {}).items():
            if given.get(key) != value:
                changed = Build(build.family, build.net, tuple(sorted({**given, key: value}.items())))
                tries.append((changed, pixels))
    elif build.family == "vgg":
        tries = [(build.with_args({"width": "1/2"}), pixels), (build, pixels + 32), (build, pixels * 2)]
    for other, side in tries:
        try:
            yield numbers(other, side)
        except Exception:
            continue


def find(net: nn.Module, stage: str) -> tuple[nn.Module, str]:
    """The module that holds a stage, and the stage's name in it."""
    names = [n for n, _ in net.named_modules() if n == stage or n.endswith(f".{stage}")]
    above, _, name = (stage if stage in names else names[0]).rpartition(".")
    return net.get_submodule(above), name


def deeper(stage: str, output: list[int]) -> Any:
    """One more weight layer behind a stage, made for what comes out of it."""

    class More(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            side = output[0] if len(output) == 3 else output[-1]
            self.inner, self.more = inner, nn.Conv2d(side, side, 1) if len(output) == 3 else nn.Linear(side, side)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = self.inner(*args, **kwargs)
            return self.more(out[0] if isinstance(out, tuple) else out)

    def change(net: nn.Module) -> nn.Module | None:
        if not stage:
            more = More(net)
            more.example = getattr(net, "example", None)
            return more
        holder, name = find(net, stage)
        setattr(holder, name, More(getattr(holder, name)))
        return None

    return change


def larger(stage: str) -> Any:
    """The first convolution or pooling of a stage with a kernel two pixels wider, padded to the same output."""

    def change(net: nn.Module) -> None:
        holder, name = find(net, stage)
        for module in getattr(holder, name).modules():
            if hasattr(module, "kernel_size"):
                old = module.kernel_size
                module.kernel_size = tuple(k + 2 for k in old) if isinstance(old, tuple) else old + 2
                old = module.padding
                module.padding = tuple(p + 1 for p in old) if isinstance(old, tuple) else old + 1
                if isinstance(module, nn.Conv2d):
                    inside = module.in_channels // module.groups
                    module.weight = nn.Parameter(torch.empty(module.out_channels, inside, *module.kernel_size))
                return

    return change


def coarser(stage: str) -> Any:
    """A pooling by two behind a stage."""

    def change(net: nn.Module) -> None:
        holder, name = find(net, stage)
        setattr(holder, name, nn.Sequential(getattr(holder, name), nn.MaxPool2d(2, 2)))

    return change


@pytest.mark.parametrize("paper", PAPERS)
def test_every_matched_count_moves_with_the_net(paper):
    """Input, width and the paper's own options first; what they leave is moved by a layer more or a larger kernel."""
    claims = Claims("full")
    waiting: dict[tuple[Build, int], list[Cell]] = {}
    for path in tables.find([paper]):
        for cell in claims.cells(claims.table(path)):
            if cell.kind == "static" and cell.claim and cell.systems:
                system = cell.systems[0][0]
                waiting.setdefault((system.build, system.input), []).append(cell)
    fixed = []
    for (build, pixels), cells in waiting.items():
        base = numbers(build, pixels)
        values = {cell.key: counted(cell, base) for cell in cells}
        left = [c for c in cells if judge.cell(c, Result(values[c.key]), "full").verdict == "match"]

        def still(cells: list[Cell], other: Numbers, values: dict[Any, Any] = values) -> list[Cell]:
            return [c for c in cells if (new := counted(c, other)) is None or new == values[c.key]]

        for other in others(build, pixels) if left else ():
            left = still(left, other)
            if not left:
                break
        for stage in {(c.extra.get("stage", "").split() or [""])[-1] for c in left}:
            mine = [c for c in left if (c.extra.get("stage", "").split() or [""])[-1] == stage]
            output = next(s.get("output", []) for n, s in base["stages"].items() if f".{n}".endswith(f".{stage}"))
            for change in (deeper(stage, output), *([larger(stage), coarser(stage)] if stage else [])):
                mine = still(mine, numbers(build, pixels, change)) if mine else mine
            fixed += [f"{c.table} | {c.row} | {c.column}" for c in mine]
    fixed = [name for name in fixed if name not in FIXED]
    assert not fixed, f"{len(fixed)} claims that nothing moves: {fixed[:20]}"


def test_every_net_of_a_library_runs_forward_and_backward():
    """Each at its own input on the meta device: shapes and gradients, no values. Ours run for real in test_net_*."""
    claims, found = Claims("full"), set()
    for path in tables.find([]):
        for cell in claims.cells(claims.table(path)):
            systems = (s for ensemble in cell.systems for s in ensemble) if cell.kind == "static" else ()
            found |= {(s.build, s.input) for s in systems if s.build.family in architectures.LIBRARIES}
    assert len(found) > 30
    for build, pixels in found:
        with torch.device("meta"):
            net = architectures.make(build)
            net(architectures.example(net, pixels, 2)).sum().backward()
        assert all(p.grad is not None for p in net.parameters() if p.requires_grad), build


# Numbers that do not follow from the paper's own description, and whether the table states the equation of the cause.
CONFLICTS = {
    ("googlenet/table1", "conv1", "params"): True,
    ("googlenet/table1", "conv1", "ops"): True,
    ("googlenet/table1", "4a", "params"): False,
    ("googlenet/table1", "5a", "ops"): False,
    ("googlenet/table1", "linear", "params"): True,
    ("alexnet/figure2", "conv1", "neurons"): True,
    ("alexnet/text", "neurons", "value"): True,
    ("alexnet/text", "share of a conv layer", "value"): False,
    ("bn/text", "parameters", "value"): False,
    ("inception-v3/text", "cost", "value"): False,
    ("resnet/text", "VGG-16 FLOPs", "value"): True,
    ("densenet/table2", "Stochastic Depth 1202", "Params"): False,
    ("densenet/table1", "depth in the name", "DenseNet-264"): False,
    ("senet/table10", "r = 4", "params"): True,
    ("senet/table10", "r = 8", "params"): False,
    ("vit/table1", "ViT-Large", "Params"): True,
}


@pytest.mark.parametrize(("address", "has_cause"), CONFLICTS.items(), ids=map(" | ".join, CONFLICTS))
def test_what_a_paper_gets_wrong_differs(address, has_cause):
    """A run in which one of these matches is wrong."""
    claims = Claims("full")
    [path] = tables.find([address[0]])
    cell = claims.cell(claims.table(path), *address[1:])
    system = cell.systems[0][0]
    verdict = judge.cell(cell, Result(counted(cell, numbers(system.build, system.input))), "full")

    assert (verdict.verdict, bool(verdict.known)) == ("differs", has_cause)
