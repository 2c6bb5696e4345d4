"""Weights and view sets to scores per image (`engine`, `dense`), and scores to errors (`ranks`).

This package itself needs numpy alone; `engine` and `dense` import torch.
"""

from __future__ import annotations

from .ranks import error, rank_of_truth

# Raised by hand when the values that `engine` computes change: part of a score record's identity.
NUMERICS = 1

__all__ = ["NUMERICS", "error", "rank_of_truth"]
