"""Tests against scipy, enumeration and published examples."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mmseg_resample.study.significance import (
    EXACT_UP_TO,
    equivalence_test,
    holm,
    seeds_for_significance,
    sign_flip_test,
    smallest_p,
    t_test,
)

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Heights of crossed minus self-fertilised maize in eighths of an inch, the data Fisher introduced the test with."""


def test_fishers_own_example():
    """The Design of Experiments, section 21: 1726 of the 2**15 sums are as large, so p is 5.267 %."""
    result = sign_flip_test(DARWIN)
    assert result.p == 1726 / 2**15
    assert (result.flips, result.exact) == (2**15, True)


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([1.5], 2),
        ([0.69, -0.02], 4),
        ([2.54, -2.06, 0.92], 6),
        ([-0.15, 0.33, 2.16, 1.16], 4),
        ([-0.3, -0.82, 0.25, 0.92, 1.64], 16),
        ([1.55, 2.28, -2.05, 0.36, 1.51, 1.85], 16),
        ([0.5, 0.8, 0.23, -0.39, 0.05, -0.49, 0.56], 46),
        ([-1.24, -0.84, -0.86, 0.15, -1.81, 0.31, -0.46, 1.39], 76),
        ([-0.6, -0.23, -0.28, 0.77, 0.25, 0.63, 1.34, 1.36, 0.98, 0.05], 90),
        ([0.49, 1.55, 1.24, 1.22, 2.12, -0.71, -0.13, -0.82, 0.39, 1.5, 0.48, 1.0], 106),
        ([0.06, -0.05, -0.02, 0.07, -0.01, 0.05, -0.05, -0.05], 256),  # they cancel, up to their rounding
    ],
)
def test_sign_flip_enumerates(values, count):
    """So many of the 2**n flips have a sum as large: from an enumeration in Python, of exact hundredths."""
    hundredths = [round(100 * value) for value in values]
    flips = itertools.product((1, -1), repeat=len(values))
    sums = [abs(sum(sign * value for sign, value in zip(signs, hundredths, strict=True))) for signs in flips]
    assert sum(each >= abs(sum(hundredths)) for each in sums) == count
    assert sign_flip_test(values).p == count / 2 ** len(values)


def test_sign_flip_counts_ties_whatever_their_rounding():
    values = [0.1, 0.2, 0.3, -0.3, 0.7, 0.1]
    tenths = [1, 2, 3, -3, 7, 1]
    sums = [
        abs(sum(s * v for s, v in zip(signs, tenths, strict=True))) for signs in itertools.product((1, -1), repeat=6)
    ]
    assert sign_flip_test(values).p == np.mean([s >= abs(sum(tenths)) for s in sums])


@pytest.mark.parametrize("n", range(1, 11))
def test_smallest_p_is_attained_when_all_agree(n):
    assert sign_flip_test(np.arange(1.0, n + 1)).p == smallest_p(n)
    assert sign_flip_test(-np.arange(1.0, n + 1)).p == smallest_p(n)


def test_sign_flip_of_nothing():
    assert math.isnan(sign_flip_test([]).p)
    assert sign_flip_test([0.0, 0.0, 0.0]).p == 1


def test_many_seeds_are_drawn():
    values = np.random.default_rng(0).normal(0.3, 1, EXACT_UP_TO + 1)
    with pytest.raises(ValueError, match="17 seeds are more than 16, so flips are drawn: give rng"):
        sign_flip_test(values)
    drawn = sign_flip_test(values, rng=0, flips=20_000)
    assert (drawn.flips, drawn.exact) == (20_000, False)
    every = sign_flip_test(values, flips=2**17)
    assert (every.flips, every.exact) == (2**17, True)
    exact = every.p
    assert drawn.p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))


def test_a_seed_fixes_the_drawn_flips():
    values = np.random.default_rng(0).normal(0.3, 1, 20)
    assert sign_flip_test(values, rng=5, flips=5000) == sign_flip_test(values, rng=5, flips=5000)
    assert sign_flip_test(values, rng=5, flips=5000).p != sign_flip_test(values, rng=6, flips=5000).p


def test_drawn_p_is_never_zero():
    assert sign_flip_test(np.full(40, 9.0), rng=0, flips=99).p == 1 / 100


def test_t_test_is_scipys():
    rng = np.random.default_rng(0)
    value, reference = rng.normal(1, 1, (2, 6))
    expected = stats.ttest_rel(value, reference)
    result = t_test(value - reference)
    assert (result.t, result.p) == pytest.approx((expected.statistic, expected.pvalue))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0], [0.0, 0.0]])
def test_without_spread_there_is_nothing_to_test(values):
    assert math.isnan(t_test(values).p)
    result = equivalence_test(values, 5)
    assert math.isnan(result.p)
    assert not result.equivalent


def test_equivalence_by_hand():
    """Differences 1, 2, 3, margin 4, 2 degrees of freedom: t = (4 - 2) / (1 / sqrt(3)) = 3.4641 on the near side, and
    the distribution function of t(2) is 1 / 2 + t / (2 sqrt(2 + t**2))."""
    t = 2 * math.sqrt(3)
    result = equivalence_test([1, 2, 3], 4)
    assert result.p == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t**2)))
    assert result.p == pytest.approx(0.03708, abs=1e-5)
    assert result.equivalent


@pytest.mark.parametrize("mean", [-1.5, -0.3, 0.0, 0.4, 1.5])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_equivalent_exactly_when_the_interval_is_within_the_margin(mean, alpha):
    values = np.random.default_rng(0).normal(mean, 0.5, 8)
    for margin in (0.2, 0.5, 1.0, 3.0):
        result = equivalence_test(values, margin, alpha)
        assert result.interval.confidence == pytest.approx(1 - 2 * alpha)
        assert result.equivalent == (-margin < result.interval.low and result.interval.high < margin)


def test_equivalence_is_two_sided():
    values = np.array([0.1, 0.2, 0.15, 0.12])
    assert equivalence_test(values, 0.3).p == pytest.approx(equivalence_test(-values, 0.3).p)


def test_holm_by_hand():
    """0.01 * 4, 0.02 * 3, then max(0.06, 0.03 * 2), then 0.2 * 1."""
    adjusted = holm({"a": 0.2, "b": 0.01, "c": 0.03, "d": 0.02})
    assert adjusted == pytest.approx({"a": 0.2, "b": 0.04, "c": 0.06, "d": 0.06})
    assert list(adjusted) == ["a", "b", "c", "d"]


def test_holm_by_its_definition():
    """The k-th smallest is rejected at level alpha if each p(i), i <= k, is at most alpha / (m - i + 1)."""
    p = np.random.default_rng(0).uniform(0, 0.1, 7)
    adjusted = holm(dict(enumerate(p)))
    for alpha in np.linspace(0.001, 0.3, 50):
        rejected = set()
        for i, k in enumerate(np.argsort(p)):
            if p[k] > alpha / (7 - i):
                break
            rejected.add(int(k))
        assert rejected == {k for k, value in adjusted.items() if value <= alpha}


def test_a_family_counts_what_was_declared():
    p = {"a": 0.01, "b": math.nan, "explored": 0.0001}
    adjusted = holm(p, ["a", "b", "never run"])
    assert adjusted.keys() == {"a", "b", "never run"}
    assert adjusted["a"] == pytest.approx(0.03)
    assert math.isnan(adjusted["b"])
    assert math.isnan(adjusted["never run"])


def test_holm_of_nothing_and_of_much():
    assert holm({}) == {}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("family", [1, 2, 3, 4, 12, 100])
def test_seeds_for_significance_is_the_first_that_can(family):
    n = seeds_for_significance(family=family)
    best = {k: sign_flip_test(np.arange(1.0, n + 1)).p for k in range(family)}
    assert min(holm(best).values()) <= 0.05
    worse = {k: sign_flip_test(np.arange(1.0, n)).p for k in range(family)}
    assert min(holm(worse).values()) > 0.05


def test_seeds_for_significance():
    assert [seeds_for_significance(family=k) for k in (1, 2, 3, 4, 12)] == [6, 7, 7, 8, 9]
    assert seeds_for_significance(alpha=0.01) == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: equivalence_test([1, 2], 0), "expected a positive, finite margin, got 0"),
        (lambda: equivalence_test([1, 2], 1, 0.5), r"expected alpha in \(0, 0.5\), got 0.5"),
        (lambda: holm({"a": 1.2}), r"holm: expected p values in \[0, 1\] or NaN, got \{'a': 1.2\}"),
        (lambda: sign_flip_test([math.nan]), "Leave out the seeds that have no score"),
        (lambda: seeds_for_significance(1.5), r"expected alpha in \(0, 1\), got 1.5"),
        (lambda: seeds_for_significance(family=0), "expected a family of 1 test or more, got 0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
