"""The harness of the benchmarks: what is void, what is printed, what falls below the baseline."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import HERE

sys.path.insert(0, str(HERE.parent))

from benchmarks import evaluation, gpu, machinery, records, timing
from benchmarks.__main__ import main
from benchmarks.timing import FIELDS, FP32, Found, Line, NotRun, agreement, everywhere, fallen, in_turn, measured
from repro.cli.bench import bench
from repro.errors import ReproError


def probabilities(images: int = 8) -> np.ndarray:
    """Scores of distinct images, one class each."""
    logits = np.random.default_rng(0).normal(size=(images, 10)) + 3 * np.eye(10)[np.arange(images) % 10]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def made_up(ours: np.ndarray, theirs: np.ndarray, **more: object) -> dict:
    """The result of a line whose two sides give these scores."""

    def run(quick: bool) -> Found:
        times, a, b = in_turn(lambda i: ours[i], lambda i: theirs[i], [slice(0, 4), slice(4, 8)])
        return timing.compared(times, a, b, "made up")

    return measured(Line("made up", run, everywhere(1), bound=FP32, **more), quick=False)  # type: ignore[arg-type]


def row(ratio: float | None, **more: object) -> dict:
    return {"name": "a", "ratio": ratio, "spread": 0.1, "better": "higher", "class": "bf16", "void": False, **more}


def test_a_line_has_the_fields_and_they_are_data():
    """Every field of the issue, in order, and a note; nothing that JSON cannot hold."""
    found = made_up(probabilities(), probabilities())

    assert list(found) == [*FIELDS, "note"]
    assert json.loads(json.dumps(found))["agreement"] == 0
    assert found["void"] is False
    assert found["ratio"] > 0


@pytest.mark.parametrize("wrong", [1.01, float("nan")])
def test_a_line_with_a_wrong_answer_is_void(wrong):
    """One score of one image that is 1 % off, or no number, is enough."""
    other = probabilities()
    other[5, 3] *= wrong

    assert made_up(other, probabilities())["void"] is True


def test_a_line_with_one_class_is_void():
    """A reference that gives all images one class shows nothing."""
    same = np.sort(probabilities(), axis=1)
    found = made_up(same, same)

    assert found["void"] is True
    assert "1 classes only" in found["note"]


def test_agreement_is_in_units_of_the_spread_across_images():
    """A difference of half a spread of the log-scores is 0.5."""
    logs = np.array([[0.0, 2.0], [2.0, 0.0]])  # each class has spread 1
    assert agreement(np.exp(logs + np.array([[0.5, 0.0], [0.0, 0.0]])), np.exp(logs)) == pytest.approx(0.5)


def test_a_line_that_cannot_run_says_why():
    """No ratio, not void, and the reason in the note; a compiled line is left out of a quick run."""

    def never(quick: bool) -> Found:
        raise NotRun("no GPU")

    assert measured(Line("a", never), False)["note"] == "not run: no GPU"
    assert measured(Line("a", never, compiled=True), True)["note"].startswith("not run: compiled")
    assert measured(Line("a", never), False)["ratio"] is None


def test_no_input_is_timed_twice_and_the_sides_take_turns():
    """The first input warms up; both sides see every input once, each first in turn."""
    seen = []
    times, _, _ = in_turn(lambda i: seen.append(("ours", i)), lambda i: seen.append(("theirs", i)), range(3))

    assert len(times) == 2
    assert seen == [("theirs", 0), ("ours", 0), ("ours", 1), ("theirs", 1), ("theirs", 2), ("ours", 2)]


def test_a_ratio_below_the_baseline_fails():
    """By more than the spread, in the better direction of the line, in its own class; and whatever is void."""
    baseline = {"bf16": {"lines": {"a": {"ratio": 2.0, "spread": 0.1}}}}

    assert fallen([row(1.85)], baseline)
    assert not fallen([row(1.95)], baseline)
    assert fallen([row(2.15, better="lower")], baseline)
    assert not fallen([row(1.85, better="lower")], baseline)
    assert not fallen([row(1.0, **{"class": "amx"})], baseline)
    assert not fallen([row(None)], baseline)
    assert fallen([row(3.0, void=True)], baseline)


def test_the_committed_baseline_names_lines_that_there_are():
    """Each class has its hardware, each line a ratio, a spread and the command that measured it."""
    names = {line.name for line in (*evaluation.LINES, *records.LINES, *machinery.LINES, *gpu.LINES)}
    for known in json.loads((HERE.parent / "benchmarks" / "baseline.json").read_text()).values():
        assert known["hardware"]
        assert set(known["lines"]) <= names
        assert all(set(line) == {"ratio", "spread", "command"} for line in known["lines"].values())


def test_the_command_prints_one_line_as_data():
    """`repro bench --line NAME --json` runs that line alone."""
    done = CliRunner().invoke(bench, ["--quick", "--json", "--line", "repro --help"])

    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    assert found["name"] == "repro --help"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_lines_say_why_they_are_not_run():
    """One line and exit 2 where they alone are asked for; among the others each says so and the rest runs."""
    done = subprocess.run(
        [sys.executable, "-m", "repro", "bench", "--gpu"], capture_output=True, text=True, cwd=HERE.parent
    )
    found = measured(gpu.LINES[0], quick=True)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--gpu: no GPU here" in done.stderr
    assert found["note"] == "not run: no GPU here (torch sees no CUDA device)"


def test_every_line_of_the_suite_is_there():
    """The CPU lines of the issue and those of a GPU, with their goals for processors with and without AMX."""
    lines = {line.name: line.goals for line in (*evaluation.LINES, *records.LINES, *machinery.LINES, *gpu.LINES)}
    for net, amx, bf16 in (("VGG-16", 7, 2), ("ResNet-50", 6, 1.5)):
        assert lines[f"single crop, {net}, timm defaults"] == {"amx": amx, "bf16": bf16}
        assert lines[f"single crop, {net}, timm best flags"] == everywhere(1)
        assert lines[f"single crop, {net}, JPEG files, timm defaults"] == {}
    assert lines["dense, three scales with flips, VGG-16, naive loop"] == {"amx": 5, "bf16": 1.8}
    assert lines["150 crops, VGG-16, exact, timm defaults"] == {"amx": 7, "bf16": 2}
    assert lines["150 crops, VGG-16, exact, timm best flags"] == {"amx": 1.15, "bf16": 1.1}
    assert lines["net D in Tables 3 to 5, each protocol alone"] == everywhere(1.8)
    assert lines["net D in Tables 3 to 5, the dearest alone"] == everywhere(1.25)
    assert lines["store and tracking in one repro run table3"] == everywhere(0.02)
    assert lines["planning and judging 100,000 claims, against 10,000"] == everywhere(1.2)
    assert lines["counting three nets together, fvcore"] == everywhere(2.5)
    assert sum(name.startswith("GPU: ") for name in lines) == 6


def test_mistakes_are_told_in_one_line(monkeypatch, tmp_path):
    """A name that is not there, and a place without the benchmarks."""
    with pytest.raises(ReproError, match="there is no such line"):
        CliRunner().invoke(bench, ["--line", "nothing"], catch_exceptions=False)
    monkeypatch.setattr("repro.cli.bench.ROOT", tmp_path)
    with pytest.raises(ReproError, match="a wheel does not have it"):
        CliRunner().invoke(bench, [], catch_exceptions=False)


@pytest.mark.parametrize(("known", "code"), [(0.001, 1), (100.0, 0)])
def test_the_session_of_nox_fails_on_a_fall(monkeypatch, tmp_path, known, code):
    """`python -m benchmarks` exits 1 where a ratio is worse than the baseline of its class by more than its spread."""
    lines = {"repro --help": {"ratio": known, "spread": 0.0, "command": "made up"}}
    (tmp_path / "baseline.json").write_text(json.dumps({timing.processor(): {"hardware": "here", "lines": lines}}))
    monkeypatch.setattr("benchmarks.__main__.BASELINE", tmp_path / "baseline.json")
    done = CliRunner().invoke(main, ["--quick", "--line", "repro --help"])

    assert done.exit_code == code
    assert ("the baseline is 0.001" in done.output) == bool(code)
