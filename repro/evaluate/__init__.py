"""Weights and view sets to scores per image (`engine` and `dense`, with torch), and scores to ranks (here, numpy)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import JobError


def rank_of_truth(scores: NDArray[np.floating], labels: ArrayLike) -> NDArray[np.int64]:
    """Rank of the true class of each image, 0 the best; scores (N, classes), labels (N,), ranks (N,).

    A tie counts against the net, which is not to be right by the order of its classes. Raises JobError for labels
    that do not fit; final where a score is not finite or where no image tells its classes apart.
    """
    scores, truth = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or not len(scores):
        raise JobError(f"scores of shape {scores.shape} do not go with labels of shape {truth.shape}")
    if truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise JobError(f"labels from {truth.min()} to {truth.max()} do not fit {scores.shape[1]} classes")
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).any(axis=1).sum())
        raise JobError(f"scores of {bad} of {len(scores)} images are not finite: the net has diverged", final=True)
    if (scores == scores[:, :1]).all():
        raise JobError("every image has the same score for all classes: the net is dead", final=True)
    own = scores[np.arange(len(scores)), truth]
    ranks: NDArray[np.int64] = (scores >= own[:, None]).sum(axis=1, dtype=np.int64) - 1
    return ranks
