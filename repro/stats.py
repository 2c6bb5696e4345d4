"""Tests and intervals as pure arithmetic: numbers in, numbers out, each with its source.

Differences between two sides come as an array of shape (seeds, images) of -1, 0 and 1: the first
side's hit less the second's, so that a positive mean says that the first side errs less.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORTH = 4.0  # degrees of freedom that a stated spread over seeds counts for


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error in two parts: by the normal law of many images, by Student's of few runs.

    An interval reaches sqrt((z image_error)^2 + (t run_error)^2), t with `freedom` degrees, to either side, after
    Howe (JASA 69, 1974): exact where one part is all, and cautious in between.
    """

    mean: float
    image_error: float = 0.0
    run_error: float = 0.0
    freedom: float = math.inf

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided interval that holds the true mean in `level` of all repetitions."""
        reach = self._reach((1 - level) / 2)
        return self.mean - reach, self.mean + reach

    def detectable(self, level: float, bound: float = 0.0, spread: float = 0.0) -> float:
        """The true mean that exceeds `bound` and a test at `level` in 80 % of repetitions (Bloom 1995)."""
        own = replace(self, run_error=math.hypot(self.run_error, spread))
        return max(self._reach(level / 2), bound) + own._reach(0.2)

    def below(self, bound: float) -> float:
        """One-sided p-value of the null hypothesis that the true mean is at or above `bound`."""
        tail = self._tail(abs(self.mean - bound))
        return tail if self.mean < bound else 1 - tail

    def differs(self, value: float = 0.0) -> float:
        """Two-sided p-value of the null hypothesis that the true mean is `value`."""
        return min(1.0, 2 * self._tail(abs(self.mean - value)))

    def _reach(self, tail: float) -> float:
        z, t = t_quantile(1 - tail, math.inf), t_quantile(1 - tail, self.freedom)
        return math.hypot(z * self.image_error, t * self.run_error)

    def _tail(self, gap: float) -> float:
        """The tail whose reach is `gap`: at most one half."""
        from scipy import special  # late, as numpy: commands that judge nothing start without them

        if gap == 0:
            return 0.5
        if self.run_error == 0:
            return float(special.ndtr(-gap / self.image_error)) if self.image_error else 0.0
        low, high = 1e-15, 0.5
        while high / low > 1 + 1e-9:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self._reach(middle) > gap else (low, middle)
        return high


def t_quantile(probability: float, freedom: float) -> float:
    """Student's t quantile; the normal one for infinite `freedom`."""
    from scipy import special

    return float(special.ndtri(probability) if math.isinf(freedom) else special.stdtrit(freedom, probability))


def sign_flip(totals: Sequence[int] | NDArray[Any]) -> float:
    """Two-sided exact p-value of a sum of whole numbers, one an image, under random signs.

    An image's total is its difference summed over the seeds: images are the unit, seeds are never pooled. With one
    seed it is the exact test of McNemar (Psychometrika 12, 1947; Fagerland, Lydersen, Laake, BMC Medical Research
    Methodology 13:91, 2013). Source: Fisher, The Design of Experiments (1935), section 21.
    """
    import numpy as np

    totals = np.asarray(totals, dtype=int)
    law = np.ones(1)  # the chance of each sum of sizes that got a plus, in steps of one
    for size, count in Counter(np.abs(totals[totals != 0]).tolist()).items():
        ways, choices = 2**count, 1  # whole numbers, so that the chances are exact
        part = np.zeros(size * count + 1)  # each size of total adds a binomial to the sum
        for k in range(count + 1):
            part[size * k] = choices / ways
            choices = choices * (count - k) // (k + 1)
        law = np.convolve(law, part)
    plus, minus = int(totals[totals > 0].sum()), int(-totals[totals < 0].sum())
    return min(1.0, 2 * float(law[: min(plus, minus) + 1].sum()))


def over_images(differences: NDArray[Any]) -> Estimate:
    """The mean difference of these very weights, with the images alone drawn at random.

    An image's value is its mean over the seeds. Two made-up images are added, one for each side, as Bonett and Price
    do with one seed (J. Educational and Behavioral Statistics 37, 2012; advised in Statistics in Medicine 33, 2014).
    """
    values = differences.mean(axis=0)
    n = values.size + 2
    mean = float(values.sum()) / n
    variance = (float((values**2).sum()) + 2) / n - mean**2
    return Estimate(mean, math.sqrt(variance / n))


def over_seeds_and_images(differences: NDArray[Any], spread: float | None = None) -> Estimate:
    """The mean difference between two ways of training, two seeds or more, with seeds and images both at random.

    Seeds read images as readers read cases (Obuchowski and Rockette, Communications in Statistics 24, 1995): the
    variance is s^2 / seeds, of the seeds' differences with seeds - 1 degrees of freedom, + max(covariance, 0) of two
    seeds' differences through their common images, as good as known. A known `spread` over seeds of one net's error
    (a share, not points) moderates s^2: it counts as WORTH more degrees of freedom at 2 spread^2, as in Smyth's
    moderated t (Statistical Applications in Genetics and Molecular Biology 3, 2004).
    """
    seeds, images = differences.shape
    by_seed = differences.mean(axis=1)
    worth = 0.0 if spread is None else WORTH
    freedom = seeds - 1 + worth
    variance = (float(by_seed.var(ddof=1)) * (seeds - 1) + worth * 2 * (spread or 0.0) ** 2) / freedom / seeds
    if variance == 0:  # equal to the last image by chance: nothing is known of the seeds
        return over_images(differences)
    centred = differences - by_seed[:, None]
    products = float((centred.sum(axis=0) ** 2 - (centred**2).sum(axis=0)).sum()) / (images - 1)
    covariance = products / (seeds * (seeds - 1)) / images
    return Estimate(float(by_seed.mean()), math.sqrt(max(covariance, 0.0)), math.sqrt(variance), freedom)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of `n` images drawn at random (Wilson, JASA 22, 1927); of a balanced part, wide."""
    z = t_quantile(0.975, math.inf)
    centre, reach = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + (z / n) ** 2 / 4)
    return (centre - reach) / (1 + z * z / n), (centre + reach) / (1 + z * z / n)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted to hold the level over all tests (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def of_runs(values: Sequence[float], level: float, one_more: bool = False) -> tuple[float, float]:
    """Student's interval of the mean of two or more runs, or with `one_more` of where the next run would fall.

    The latter is mean ± t s sqrt(1 + 1/n) (CORE-Bench, Siegel et al., arXiv 2409.11363).
    """
    n = len(values)
    return Estimate(fmean(values), 0.0, stdev(values) * math.sqrt(1 / n + one_more), n - 1).interval(level)
