"""A recipe to weights: `fit` trains a net, `settings` reads back what it would train with."""

from __future__ import annotations

from .fit import fit
from .recipe import settings

__all__ = ["fit", "settings"]
