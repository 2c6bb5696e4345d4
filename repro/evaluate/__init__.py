"""Weights and view sets to scores per image (`engine`, `dense`), and scores to errors (`ranks`).

This package itself needs numpy alone; `engine` and `dense` import torch.
"""

from __future__ import annotations

from .ranks import error, rank_of_truth

__all__ = ["error", "rank_of_truth"]
