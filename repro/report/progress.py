"""Progress of long work: a live block on a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rich.live import Live
from rich.text import Text

from .terminal import console


class Lines:
    """A line for each job that ends; on a terminal also what runs now and the expected end."""

    def __init__(self, watch: Callable[[Sequence[tuple[str, Path]]], None] = lambda jobs: None) -> None:
        self.watch = watch  # told of the jobs at work, with their folders
        self.out = console(sys.stderr)
        self.live: Live | None = None
        self.total = self.ended = 0
        self.spoken = time.monotonic()

    def say(self, text: str) -> None:
        self.out.print(Text(text), soft_wrap=True)

    def begin(self, jobs: int, seconds: float) -> None:
        self.total, self.ended = jobs, 0
        self.say(f"{jobs} jobs to do, about {_minutes(seconds)}")
        if self.out.is_terminal:
            self.live = Live(console=self.out, refresh_per_second=4, transient=True)
            self.live.start()

    def running(self, names: Sequence[tuple[str, Path]], seconds_left: float) -> None:
        self.watch(names)
        lines = [f"  {name}{_epoch(folder)}" for name, folder in names]
        head = f"{self.ended} of {self.total} jobs done, about {_minutes(seconds_left)} left"
        if self.live:
            self.live.update(Text("\n".join([head, *lines]), "dim"))
        elif lines and time.monotonic() - self.spoken > 60:
            self.say(f"{head}; at work: {'; '.join(line.strip() for line in lines)}")
            self.spoken = time.monotonic()

    def done(self, name: str, seconds: float, note: str) -> None:
        self.ended += 1
        self.spoken = time.monotonic()
        self.say(f"[{self.ended}/{self.total}] {name}: {seconds:.1f} s{', ' + note if note else ''}")

    def failed(self, name: str, reason: str) -> None:
        self.ended += 1
        self.say(f"[{self.ended}/{self.total}] {name}: FAILED: {reason}")

    def end(self) -> None:
        if self.live:
            self.live.stop()
            self.live = None


def _epoch(folder: Path) -> str:
    """How far a training has come, from the last whole line of its log; of an evaluation, from its own words."""
    with suppress(OSError, LookupError, ValueError, TypeError):
        entry = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        speed = f", {entry['images_per_second']:.0f} images/s" if "images_per_second" in entry else ""
        return f", epoch {entry['epoch']}, validation error {entry['val_error']:.1f} %{speed}"
    with suppress(OSError):
        return ", " + (folder / "progress.txt").read_text(encoding="utf-8")
    return ""


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
