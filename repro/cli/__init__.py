"""Words to rooms and exit codes. Every heavy import stands inside the command that needs it."""

from __future__ import annotations

from .main import cli, main

__all__ = ["cli", "main"]
