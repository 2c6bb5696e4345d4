"""The harness of the benchmarks: what is void, what is printed, what falls below the baseline."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import HERE

sys.path.insert(0, str(HERE.parent))

from benchmarks import timing
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
    from benchmarks import evaluation, gpu, machinery, records

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


def test_mistakes_are_told_in_one_line(monkeypatch, tmp_path):
    """A name that is not there, and a place without the benchmarks."""
    with pytest.raises(ReproError, match="there is no such line"):
        CliRunner().invoke(bench, ["--line", "nothing"], catch_exceptions=False)
    monkeypatch.setattr("repro.cli.bench.ROOT", tmp_path)
    with pytest.raises(ReproError, match="a wheel does not have it"):
        CliRunner().invoke(bench, [], catch_exceptions=False)
