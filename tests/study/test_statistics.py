"""Paired differences against scipy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from mmseg_resample.study.statistics import SEEDS_FOR_SIGNIFICANCE, caveat, mean_and_sd, paired_difference


def test_by_hand():
    """Differences 1, 2, 3: mean 2, sd 1, t(0.975, 2) = 4.302653, margin 4.302653 / sqrt(3) = 2.484138."""
    difference = paired_difference({0: 11, 1: 22, 2: 33}, {0: 10, 1: 20, 2: 30})
    assert difference.values == (1, 2, 3)
    assert (difference.n, difference.mean, difference.sd) == (3, 2, 1)
    assert difference.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert difference.high == pytest.approx(2 + 2.484138, abs=1e-6)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_interval_is_that_of_the_paired_t_test(confidence):
    rng = np.random.default_rng(0)
    value, reference = rng.normal(80, 1, 7), rng.normal(79, 1, 7)
    actual = paired_difference(dict(enumerate(value)), dict(enumerate(reference)), confidence)
    expected = stats.ttest_rel(value, reference).confidence_interval(confidence)
    assert (actual.low, actual.high) == pytest.approx((expected.low, expected.high))


def test_pairs_by_seed_not_by_position():
    difference = paired_difference({5: 3.0, 1: 1.0, 9: 7.0}, {1: 0.5, 5: 1.0, 2: 100.0})
    assert difference.seeds == (1, 5)
    assert difference.values == (0.5, 2.0)


def test_pairing_removes_what_seeds_share():
    """The reason for paired seeds: a spread of 10 between seeds leaves an interval of 0.2."""
    seeds = range(8)
    reference = {seed: 10.0 * seed for seed in seeds}
    value = {seed: reference[seed] + 1 + 0.1 * (-1) ** seed for seed in seeds}
    difference = paired_difference(value, reference)
    assert 0.9 < difference.low < difference.high < 1.1


@pytest.mark.parametrize("seeds", [[], [3]])
def test_too_few_seeds_have_no_interval(seeds):
    difference = paired_difference(dict.fromkeys(seeds, 2.0), dict.fromkeys(seeds, 1.5))
    assert math.isnan(difference.sd)
    assert math.isnan(difference.low)
    assert math.isnan(difference.high)
    assert difference.mean == 0.5 if seeds else math.isnan(difference.mean)


@pytest.mark.parametrize(("n", "p"), [(1, 1), (2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125)])
def test_smallest_p_of_a_sign_flip_test(n, p):
    seeds = dict.fromkeys(range(n), 1.0)
    assert paired_difference(seeds, dict.fromkeys(range(n), 0.0)).smallest_p == p


def test_smallest_p_is_what_the_test_gives():
    """All differences of one sign is the most extreme outcome; scipy enumerates the 2**5 sign flips of it."""
    result = stats.permutation_test((np.arange(1.0, 6.0),), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert result.pvalue == paired_difference(dict.fromkeys(range(5), 1.0), dict.fromkeys(range(5), 0.0)).smallest_p


@pytest.mark.parametrize(
    ("n", "words"), [(0, "nothing is compared yet"), (1, "no interval"), (3, "is 0.25"), (5, "is 0.0625")]
)
def test_caveat(n, words):
    assert words in caveat(n)


def test_enough_seeds_need_no_caveat():
    assert caveat(SEEDS_FOR_SIGNIFICANCE) is None
    assert 2.0 ** (1 - SEEDS_FOR_SIGNIFICANCE) < 0.05 < 2.0 ** (2 - SEEDS_FOR_SIGNIFICANCE)


def test_mean_and_sd():
    assert mean_and_sd([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, np.std([1, 2, 4], ddof=1)))
    assert math.isnan(mean_and_sd([])[0])
    assert math.isnan(mean_and_sd([1.0])[1])


def test_confidence_must_be_a_probability():
    with pytest.raises(ValueError, match=r"confidence in \(0, 1\), got 95"):
        paired_difference({}, {}, confidence=95)
