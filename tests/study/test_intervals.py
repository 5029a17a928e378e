"""Intervals and effect sizes against scipy, published constants and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from mmseg_resample.study.intervals import bca_interval, effect_size, hedges_correction, t_interval
from mmseg_resample.study.significance import smallest_p


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_t_is_that_of_the_t_test(confidence):
    values = np.random.default_rng(0).normal(1, 2, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    actual = t_interval(values, confidence)
    assert (actual.low, actual.high) == pytest.approx((expected.low, expected.high))
    assert actual.confidence == confidence


def bca_by_definition(values, confidence, replicates, seed):
    """Efron's formula, written out: quantiles of the bootstrap at levels moved by bias z0 and acceleration a."""
    rng = np.random.default_rng(seed)
    means = np.array([rng.choice(values, len(values)).mean() for _ in range(replicates)])
    below = (means < values.mean()).mean() + (means == values.mean()).mean() / 2
    z0 = stats.norm.ppf(below)
    jackknife = np.array([np.delete(values, i).mean() for i in range(len(values))])
    moved = jackknife.mean() - jackknife
    a = (moved**3).sum() / (6 * (moved**2).sum() ** 1.5)
    z = z0 + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    return np.quantile(means, stats.norm.cdf(z0 + z / (1 - a * z)))


def test_bca_is_efrons_formula():
    values = np.random.default_rng(1).exponential(size=12)
    actual = bca_interval(values, rng=0, confidence=0.9, replicates=20_000)
    assert (actual.low, actual.high) == pytest.approx(bca_by_definition(values, 0.9, 20_000, 1), abs=0.02)
    assert actual.high - values.mean() > 1.1 * (values.mean() - actual.low)  # it follows the skewness


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_bca_stays_within_the_differences(n):
    """So it misses 0 whenever all differences have one sign, which they have with probability ``smallest_p``."""
    values = np.random.default_rng(n).normal(size=n)
    interval = bca_interval(values, rng=0, confidence=0.999999)
    assert values.min() <= interval.low < interval.high <= values.max()
    one_sided = np.mean([np.ptp(np.sign(row)) == 0 for row in np.random.default_rng(0).normal(size=(4000, n))])
    assert one_sided == pytest.approx(smallest_p(n), abs=4 * math.sqrt(0.25 / 4000))


def test_a_seed_fixes_bca():
    values = np.random.default_rng(0).normal(size=6)
    assert (
        bca_interval(values, rng=3) == bca_interval(values, rng=3) == bca_interval(values, rng=np.random.default_rng(3))
    )
    assert bca_interval(values, rng=3, replicates=99) != bca_interval(values, rng=4, replicates=99)
    generator = np.random.default_rng(3)
    assert bca_interval(values, rng=generator, replicates=99) != bca_interval(values, rng=generator, replicates=99)


def test_bca_leaves_the_global_generator_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    bca_interval([1.0, 2.0, 4.0], rng=0)
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize("values", [[1.5, 1.5, 1.5], [0.0, 0.0], [0.3, 0.1 + 0.2, 0.3]])
@pytest.mark.filterwarnings("error")
def test_identical_differences_have_no_width_and_no_size(values):
    for interval in (t_interval(values), bca_interval(values, rng=0)):
        assert (interval.low, interval.high) == pytest.approx((values[0], values[0]))
    size = effect_size(values)
    assert math.isnan(size.d_z)
    assert math.isnan(size.hedges)


@pytest.mark.parametrize("values", [[], [2.0]])
def test_too_few_seeds(values):
    for interval in (t_interval(values), bca_interval(values, rng=0)):
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
    assert math.isnan(effect_size(values).d_z)


def test_effect_size_by_hand():
    """Differences 1, 2, 3: mean 2, sd 1. J(2) = gamma(1) / (1 * gamma(1 / 2)) = 1 / sqrt(pi)."""
    size = effect_size([1, 2, 3])
    assert size.d_z == 2
    assert size.hedges == pytest.approx(2 / math.sqrt(math.pi))


@pytest.mark.parametrize(("df", "j"), [(2, 0.5642), (3, 0.7236), (5, 0.8408), (9, 0.9139), (50, 0.9849)])
def test_correction_is_the_tabulated_one(df, j):
    """Hedges 1981, table 1."""
    assert hedges_correction(df) == pytest.approx(j, abs=1e-4)
    assert hedges_correction(df) == pytest.approx(1 - 3 / (4 * df - 1), abs=0.01)  # his approximation


def test_correction_removes_the_bias():
    rng = np.random.default_rng(0)
    sizes = [effect_size(rng.normal(1, 1, 6)) for _ in range(4000)]
    assert np.mean([size.hedges for size in sizes]) == pytest.approx(1, abs=0.05)
    assert np.mean([size.d_z for size in sizes]) == pytest.approx(1 / hedges_correction(5), abs=0.05)


def test_two_seeds_have_no_corrected_size():
    assert effect_size([1.0, 2.0]).d_z == pytest.approx(1.5 / math.sqrt(0.5))
    assert math.isnan(effect_size([1.0, 2.0]).hedges)


@pytest.mark.parametrize("values", [[1.0, math.nan], [[1.0, 2.0]], [math.inf, 1.0], 3.0])
def test_only_finite_vectors(values):
    with pytest.raises(ValueError, match=r"t_interval: expected finite differences of shape \(seeds,\)"):
        t_interval(values)


def test_confidence_is_a_probability():
    with pytest.raises(ValueError, match=r"bca_interval: expected confidence in \(0, 1\), got 95"):
        bca_interval([1.0, 2.0], rng=0, confidence=95)
