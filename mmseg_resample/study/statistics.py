"""Paired comparisons over seeds. The unit is a training run; images are nested in it and are not counted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

SEEDS_FOR_SIGNIFICANCE = 6
"""Below this number of pairs no sign-flip test can give p < 0.05: its smallest two-sided p is 2 / 2**n."""


@dataclass(frozen=True)
class PairedDifference:
    """Mean of ``value - reference`` over the seeds that both have.

    Attributes:
        seeds: the seeds, ascending.
        values: the difference of each.
        mean: NaN without a common seed.
        sd: sample standard deviation (n - 1); NaN below two seeds.
        low: lower end of the interval; NaN below two seeds.
        high: upper end of the interval; NaN below two seeds.
        confidence: of the interval.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float
    confidence: float

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.seeds)

    @property
    def smallest_p(self) -> float:
        """The smallest two-sided p that a sign-flip permutation test of n pairs can give."""
        return min(1.0, 2.0 ** (1 - self.n))


def paired_difference(
    value: Mapping[int, float], reference: Mapping[int, float], confidence: float = 0.95
) -> PairedDifference:
    """Compare two variants seed by seed.

    The interval is Student's t interval of the differences: mean +- t(n - 1) * sd / sqrt(n). It assumes roughly
    normal differences, which a handful of seeds cannot show.

    Args:
        value: seed -> metric of the variant.
        reference: seed -> metric of what it is compared with. Seeds that only one side has are left out.
        confidence: of the interval, in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"paired_difference: expected confidence in (0, 1), got {confidence}.")
    seeds = tuple(sorted(value.keys() & reference.keys()))
    values = tuple(value[seed] - reference[seed] for seed in seeds)
    mean, sd = mean_and_sd(values)
    margin = math.nan
    if len(values) > 1:
        margin = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return PairedDifference(seeds, values, mean, sd, mean - margin, mean + margin, confidence)


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean, NaN of nothing, and sample standard deviation (n - 1), NaN below two values."""
    if not values:
        return math.nan, math.nan
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def caveat(n: int) -> str | None:
    """What a reader must know before believing a comparison of ``n`` seeds; None if it needs no warning."""
    if n == 0:
        return "No seed is finished for both sides of a comparison: nothing is compared yet."
    if n == 1:
        return (
            "A comparison of 1 seed has no interval, and the difference of two single trainings is mostly noise: "
            "read nothing into it below several points."
        )
    if n < SEEDS_FOR_SIGNIFICANCE:
        return (
            f"A comparison of {n} seeds cannot be significant, whatever the numbers: the smallest p that a sign-flip "
            f"test of {n} pairs can give is {2.0 ** (1 - n):.3g}, and {SEEDS_FOR_SIGNIFICANCE} pairs are needed for "
            f"p < 0.05. The intervals assume that the differences are normally distributed."
        )
    return None
