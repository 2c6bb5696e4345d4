"""A recipe to weights: `fit` trains a net, `settings` reads back what it would train with."""

from __future__ import annotations

from .fit import colours_of, fit
from .parallel import Group, reading_workers
from .settings import settings

__all__ = ["Group", "colours_of", "fit", "reading_workers", "settings"]
