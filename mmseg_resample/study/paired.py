"""Paired comparisons over seeds. The unit is a training run; images are nested in it and are not counted.

A comparison is a difference per seed; every statistic of a study is a function of these differences:

- ``paired``: the differences, of two variants or in an interaction of several axes.
- ``intervals``: their size: Student's and BCa intervals, effect size.
- ``significance``: sign flips, t test, equivalence within a margin, Holm's correction of a family.
- ``design``: the effects that n seeds can find, and the seeds that an effect needs.
- ``image_bootstrap``: the uncertainty that the test images add to that of the seeds.

docs/statistics.md says what each figure means, when it misleads, and its measured coverage.
"""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ._sample import all_equal, check_probability
from .intervals import t_interval
from .significance import seeds_for_significance, smallest_p

SEEDS_FOR_SIGNIFICANCE = seeds_for_significance()
"""Below this number of pairs no sign-flip test can give p < 0.05: its smallest two-sided p is 2 / 2**n."""

Variant = TypeVar("Variant", bound=Hashable)


@dataclass(frozen=True)
class Summary:
    """Mean and spread of values by seed.

    Attributes:
        mean: NaN without a value.
        sd: sample standard deviation (n - 1); NaN below two values.
        low: lower end of Student's 95 % interval of the mean; NaN below two values.
        high: upper end.
    """

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean of ``value - reference``, or of another contrast, over the seeds that all sides have.

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
        return smallest_p(self.n)

    @property
    def identical(self) -> bool:
        """Whether two or more seeds differ by the same, to rounding: the interval has no width and means nothing."""
        return self.n > 1 and all_equal(np.array(self.values))


def paired_difference(
    value: Mapping[int, float], reference: Mapping[int, float], confidence: float = 0.95
) -> PairedDifference:
    """Compare two variants seed by seed.

    The interval is ``intervals.t_interval`` of the differences. It assumes roughly normal differences, which a handful
    of seeds cannot show.

    Args:
        value: seed -> metric of the variant.
        reference: seed -> metric of what it is compared with. Seeds that only one side has are left out.
        confidence: of the interval, in (0, 1).
    """
    check_probability("paired_difference", "confidence", confidence)
    return contrast({"value": value, "reference": reference}, {"value": 1, "reference": -1}, confidence)


def contrast(
    scores: Mapping[Variant, Mapping[int, float]], weights: Mapping[Variant, float], confidence: float = 0.95
) -> PairedDifference:
    """Weigh several variants within each seed: sum over the variants of weight times metric.

    Args:
        scores: variant -> seed -> metric. Seeds that any weighted variant lacks are left out.
        weights: variant -> weight; they sum to 0 in a comparison.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: a weighted variant has no scores.
    """
    check_probability("contrast", "confidence", confidence)
    unknown = [variant for variant in weights if variant not in scores]
    if unknown or not weights:
        raise ValueError(f"contrast: expected weights of variants in {list(scores)}, got {dict(weights)}.")
    seeds = tuple(sorted(set.intersection(*(set(scores[variant]) for variant in weights))))
    values = tuple(sum(weight * scores[variant][seed] for variant, weight in weights.items()) for seed in seeds)
    summary, interval = summarize(values), t_interval(values, confidence)
    return PairedDifference(seeds, values, summary.mean, summary.sd, interval.low, interval.high, confidence)


def interaction(
    scores: Mapping[tuple[str, ...], Mapping[int, float]], *axes: tuple[str, str], confidence: float = 0.95
) -> PairedDifference:
    """Compute how much the effect of one axis depends on the others: the difference of paired differences by seed.

    With two axes, ``interaction(scores, ("false", "true"), ("128", "129"))`` is (true - false at 129) minus (true -
    false at 128). With three it is how much that interaction changes along the third, and so on. One axis gives the
    paired difference. Where the effect changes sign, as that of ``align_corners`` does with the parity of the input,
    the interaction is the finding, and the main effect is an average of opposites.

    Valid whether or not a seed gives the variants of an axis anything in common (two backbones share no weights);
    what it does give makes the interval narrower.

    Args:
        scores: one variant per axis -> seed -> metric.
        axes: (reference, value) of every axis, in the order of the keys of ``scores``.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: a combination has no scores.
    """
    if not axes:
        raise ValueError("interaction: expected (reference, value) of one axis or more, got none.")
    return contrast(scores, interaction_weights(*axes), confidence)


def interaction_weights(*axes: tuple[str, str]) -> dict[tuple[str, ...], int]:
    """Compute the weight of every combination in ``interaction``: -1 for each axis at its reference, multiplied."""
    return {
        tuple(axis[level] for axis, level in zip(axes, levels, strict=True)): (-1) ** levels.count(0)
        for levels in itertools.product((1, 0), repeat=len(axes))
    }


def summarize(values: Sequence[float]) -> Summary:
    """Compute mean, sample standard deviation and Student's 95 % interval of values by seed."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    interval = t_interval(values)
    return Summary(float(np.mean(values)) if len(values) else math.nan, sd, interval.low, interval.high)


def caveat(n: int, family: int = 1) -> str | None:
    """Write what a reader must know before believing a comparison of ``n`` seeds; None if it needs no warning.

    Args:
        n: seeds that both sides have.
        family: number of comparisons that are corrected together.
    """
    needed = seeds_for_significance(family=family)
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
            f"test of {n} pairs can give is {smallest_p(n):.3g}, and {needed} pairs are needed for "
            f"p < 0.05{_corrected(family)}. The intervals assume that the differences are normally distributed."
        )
    if n < needed:
        return (
            f"No comparison of {n} seeds can be significant{_corrected(family)}, whatever the numbers: the smallest p "
            f"of a sign-flip test of {n} pairs is {smallest_p(n):.3g}, Holm's correction multiplies it by {family}, "
            f"and {needed} pairs are needed for p < 0.05."
        )
    return None


def _corrected(family: int) -> str:
    return f" in a family of {family} tests" if family > 1 else ""
