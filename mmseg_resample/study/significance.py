"""Tests over seeds, alone and in families: could a difference be chance, or is it too small to matter?"""

import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ._sample import RandomSource, all_equal, check_differences, check_positive, check_probability
from .intervals import Interval, t_interval

EXACT_UP_TO = 16
"""Up to this number of seeds a sign-flip test enumerates every flip."""

_BATCH = 4096  # flips at a time: bounds the memory

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class SignFlipTest:
    """Sign-flip permutation test of mean difference 0.

    Attributes:
        p: two-sided; NaN without a seed.
        flips: enumerated, or drawn.
        exact: whether all 2**n flips were enumerated.
    """

    p: float
    flips: int
    exact: bool


@dataclass(frozen=True)
class StudentTest:
    """Student's paired t test of mean difference 0; NaN below two seeds and without any spread.

    Attributes:
        t: mean / (sd / sqrt(n)).
        p: two-sided.
    """

    t: float
    p: float


@dataclass(frozen=True)
class EquivalenceTest:
    """Pair of one-sided t tests that the mean difference lies within +- margin.

    Attributes:
        margin: in the unit of the differences.
        alpha: level of the test.
        p: the larger of the two one-sided p; NaN below two seeds and without any spread: identical differences need no
            test, but a look at why.
        interval: of confidence 1 - 2 * alpha; inside +- margin exactly when ``equivalent``.
    """

    margin: float
    alpha: float
    p: float
    interval: Interval

    @property
    def equivalent(self) -> bool:
        """Whether a mean difference of ``margin`` or more is refuted. False means undecided, not different."""
        return self.p < self.alpha


def smallest_p(n: int) -> float:
    """Compute the smallest two-sided p that a sign-flip test of ``n`` seeds can give, whatever the numbers."""
    return min(1.0, 2.0 ** (1 - n))


def seeds_for_significance(alpha: float = 0.05, family: int = 1) -> int:
    """Compute the number of seeds from which a sign-flip test can reach ``alpha`` within a family of so many tests.

    One test needs 6 seeds for p < 0.05, a family of 2 needs 7, of 4 needs 8: Holm multiplies the smallest p of the
    family by its size.
    """
    check_probability("seeds_for_significance", "alpha", alpha)
    if family < 1:
        raise ValueError(f"seeds_for_significance: expected a family of 1 test or more, got {family}.")
    return next(n for n in range(2, 1100) if family * smallest_p(n) <= alpha)


def sign_flip_test(differences: ArrayLike, *, rng: RandomSource | None = None, flips: int = 99_999) -> SignFlipTest:
    """Test mean difference 0 by flipping the signs of the differences, which a true 0 would leave as likely.

    Assumes that a difference is as likely positive as negative of the same size if the variants do not differ, and
    nothing else: no normality. Discrete: p is a multiple of 2**(1 - n), so the test of level 0.05 really has level 0 up
    to n = 5, 0.031 at n = 6, 0.047 at n = 7 to 9.

    Args:
        differences: (n,), one per seed.
        rng: generator or seed; needed above ``EXACT_UP_TO`` seeds, unused below.
        flips: drawn above ``EXACT_UP_TO`` seeds. The observed signs count as one more, so that p is never 0 and the
            test is valid for any number.

    Raises:
        ValueError: ``rng`` is missing where it is needed.

    Source: Fisher, The Design of Experiments, 1935; Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010.
    Computed by ``scipy.stats.permutation_test``.
    """
    values = check_differences("sign_flip_test", differences)
    n = values.size
    if not n:
        return SignFlipTest(math.nan, 0, True)
    if n == 1:  # scipy wants two
        return SignFlipTest(1.0, 2, True)
    exact = n <= EXACT_UP_TO or flips >= 2**n
    if not exact and rng is None:
        raise ValueError(f"sign_flip_test: {n} seeds are more than {EXACT_UP_TO}, so flips are drawn: give rng.")
    flips = 2**n if exact else flips
    result = stats.permutation_test(
        (values,),
        _extremeness,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=flips,
        batch=_BATCH,
        random_state=np.random.default_rng(rng),
    )
    return SignFlipTest(float(result.pvalue), flips, exact)


def _extremeness(differences: np.ndarray, axis: int) -> np.ndarray:
    """Compute the absolute sum, plus the sum of the absolute values, which no flip changes.

    scipy takes values as equal within a rounding of the observed one. The second term makes that a rounding of the
    differences, also where these cancel.
    """
    return np.abs(differences.sum(axis)) + np.abs(differences).sum(axis)


def t_test(differences: ArrayLike) -> StudentTest:
    """Test mean difference 0 by Student's paired t, which can be significant with 2 seeds if differences are normal.

    Args:
        differences: (n,), one per seed.
    """
    values = check_differences("t_test", differences)
    if values.size < 2 or all_equal(values):
        return StudentTest(math.nan, math.nan)
    result = stats.ttest_1samp(values, 0.0)
    return StudentTest(float(result.statistic), float(result.pvalue))


def equivalence_test(differences: ArrayLike, margin: float, alpha: float = 0.05) -> EquivalenceTest:
    """Test whether the mean difference is smaller than ``margin``, either way, by two one-sided t tests (TOST).

    Makes "no effect worth having" a result, which "not significant" is not. Declare the margin before looking: the
    smallest difference that would change what you do. Wrong in at most ``alpha`` of the studies whose true difference
    is the margin, and much less often where the interval is wide next to the margin.

    Args:
        differences: (n,), one per seed.
        margin: positive, in the unit of the differences.
        alpha: level of the test.

    Source: Schuirmann 1987; Lakens, Equivalence Tests, Social Psychological and Personality Science 2017.
    """
    values = check_differences("equivalence_test", differences)
    check_positive("equivalence_test", "margin", margin)
    if not 0 < alpha < 0.5:
        raise ValueError(f"equivalence_test: expected alpha in (0, 0.5), got {alpha}.")
    interval = t_interval(values, 1 - 2 * alpha)
    if values.size < 2 or all_equal(values):
        return EquivalenceTest(margin, alpha, math.nan, interval)
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return EquivalenceTest(margin, alpha, float(max(above, below)), interval)


def holm(p_values: Mapping[Key, float], family: Collection[Key] | None = None) -> dict[Key, float]:
    """Adjust the p values of a family of tests so that one false finding among all of them has probability alpha.

    A test is significant where its adjusted p is at most alpha. Valid under any dependence between the tests.

    Args:
        p_values: test -> p. NaN where a test has none yet.
        family: the tests that were declared before the study ran; default: all. A declared test without a p still
            counts, as if its p were 1: a study that is half finished is not corrected for half of it only. Tests
            outside of the family are exploratory and are left out.

    Returns:
        Adjusted p of every test of the family; NaN of those without a p.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    declared = list(dict.fromkeys(p_values if family is None else family))
    p = np.array([p_values.get(test, math.nan) for test in declared], dtype=np.float64)
    known = ~np.isnan(p)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"holm: expected p values in [0, 1] or NaN, got {dict(p_values)}.")
    order = np.argsort(np.where(known, p, 1.0), kind="stable")
    factors = len(declared) - np.arange(len(declared))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * np.where(known, p, 1.0)[order]), 1.0)
    return dict(zip(declared, np.where(known, adjusted, math.nan).tolist(), strict=True))
