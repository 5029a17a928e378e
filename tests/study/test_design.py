"""Power and plans against published figures and simulation."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from mmseg_resample.study.design import (
    MOST_SEEDS,
    minimal_detectable_effect,
    outlook,
    sd_limit,
    seeds_needed,
    study_power,
    t_power,
)
from mmseg_resample.study.significance import seeds_for_significance, sign_flip_test, t_test


def power_by_definition(shift, df, alpha):
    """P(|Z + shift| > critical * sqrt(chi2 / df)), integrated over the standard deviation that a study observes."""
    critical = stats.t.isf(alpha / 2, df)

    def density(s):
        both_tails = stats.norm.cdf(shift - critical * s) + stats.norm.cdf(-shift - critical * s)
        return both_tails * 2 * df * s * stats.chi2.pdf(df * s**2, df)

    return integrate.quad(density, 0, np.inf)[0]


@pytest.mark.parametrize("n", [2, 3, 6, 10, 40])
@pytest.mark.parametrize("effect", [0.0, 0.4, 1.0, 3.0])
def test_power_is_the_integral(effect, n):
    assert t_power(effect, 1, n) == pytest.approx(power_by_definition(effect * math.sqrt(n), n - 1, 0.05), abs=1e-6)


def test_power_of_a_published_example():
    """G*Power: 25 observations, d = 1 / 3, two tails, alpha 0.05 have power 0.360 (Wuensch, G*Power: t Tests)."""
    assert t_power(1, 3, 25) == pytest.approx(0.360, abs=0.0005)


def test_power_by_simulation():
    rng = np.random.default_rng(0)
    found = np.mean([t_test(rng.normal(1.5, 1, 5)).p <= 0.05 for _ in range(2000)])
    assert found == pytest.approx(t_power(1.5, 1, 5), abs=4 * math.sqrt(0.25 / 2000))


def test_power_without_effect_is_the_level():
    for n in (2, 3, 10, 200):
        assert t_power(0, 1, n, alpha=0.03) == pytest.approx(0.03)


def test_power_does_not_know_signs_or_units():
    assert t_power(-0.3, 0.4, 7) == t_power(0.3, 0.4, 7) == pytest.approx(t_power(3, 4, 7))
    assert t_power(1, 1, 1) == 0


@pytest.mark.parametrize("n", [2, 3, 6, 50, 9999])
def test_power_grows_up_to_one(n):
    """scipy's noncentral t has NaN at some shifts."""
    powers = [t_power(effect, 1, n) for effect in np.linspace(0, 60, 241)]
    assert (np.diff(powers) > -1e-9).all()
    assert powers[-1] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("n", "family"), [(6, 1), (8, 4)])
@pytest.mark.parametrize("effect", [0.5, -1.0, 1.8])
def test_the_fewest_seeds_need_all_signs_to_agree(effect, n, family):
    """Only the smallest p is significant, so sign flips find an effect exactly when no seed contradicts it."""
    assert seeds_for_significance(family=family) == n
    assert study_power(effect, 1, n - 1, family=family) == 0
    rng = np.random.default_rng(0)
    found = np.mean([family * sign_flip_test(rng.normal(effect, 1, n)).p <= 0.05 for _ in range(2000)])
    by_t = t_power(effect, 1, n, 0.05 / family)
    assert study_power(effect, 1, n, family=family) == pytest.approx(min(found, by_t), abs=0.045)
    assert study_power(effect, 1, n + 1, family=family) == t_power(effect, 1, n + 1, 0.05 / family)


@pytest.mark.parametrize(("n", "family"), [(6, 1), (7, 1), (10, 1), (40, 1), (7, 2), (12, 10)])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_detectable_effect_has_the_power(n, family, power):
    effect = minimal_detectable_effect(0.7, n, power=power, family=family)
    assert study_power(effect, 0.7, n, family=family) == pytest.approx(power, abs=1e-6)


def test_detectable_effects():
    """Holds in standard deviations. Every plan starts from these. With 6 seeds, all must agree: 0.8**(1 / 6) each."""
    assert [round(minimal_detectable_effect(1, n), 2) for n in (6, 7, 10)] == [1.79, 1.27, 1.0]
    assert minimal_detectable_effect(1, 6) == pytest.approx(stats.norm.ppf(0.8 ** (1 / 6)))
    assert math.isnan(minimal_detectable_effect(1, 5))
    assert math.isnan(minimal_detectable_effect(1, 6, family=2))


def test_seeds_needed_is_the_first_number_with_the_power():
    for effect in (0.2, 0.5, 0.8):
        n = seeds_needed(effect, 1)
        assert study_power(effect, 1, n) >= 0.8 > study_power(effect, 1, n - 1)
    assert [seeds_needed(d, 1) for d in (0.2, 0.5, 1.0)] == [199, 34, 10]


def test_seeds_needed_can_be_significant():
    assert t_power(9, 1, 3) > 0.99
    assert t_power(1.5, 1, 6) > 0.8
    assert seeds_needed(1.5, 1) == 7
    assert seeds_needed(9, 1) == seeds_for_significance() == 6
    assert seeds_needed(9, 1, family=4) == seeds_for_significance(family=4) == 8
    assert t_power(1, 1, seeds_needed(1, 1, family=4), alpha=0.05 / 4) >= 0.8


@pytest.mark.parametrize("effect", [0.0, 0.001])
def test_no_number_of_seeds_finds_nothing(effect):
    assert t_power(effect, 1, MOST_SEEDS) < 0.8
    assert seeds_needed(effect, 1) is None


def test_limit_of_the_standard_deviation_covers():
    rng = np.random.default_rng(0)
    for n in (3, 6):
        limits = np.array([sd_limit(rng.normal(0, 2, n).std(ddof=1), n) for _ in range(4000)])
        assert (limits >= 2).mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 4000))
    assert sd_limit(1, 3) == pytest.approx(math.sqrt(2 / -2 / math.log(0.8)))  # chi2(2) is exponential
    assert math.isnan(sd_limit(1, 1))


def test_outlook():
    differences = [0.1, 0.5, 0.9, -0.1, 0.3, 0.7]
    result = outlook(differences, effect=0.2)
    sd = np.std(differences, ddof=1)
    assert (result.n, result.effect) == (6, 0.2)
    assert result.detectable == pytest.approx(minimal_detectable_effect(sd, 6))
    assert result.seeds == seeds_needed(0.2, sd)
    assert result.cautious_seeds == seeds_needed(0.2, sd_limit(sd, 6)) > result.seeds
    assert result.missing == result.seeds - 6
    assert outlook(differences).effect == pytest.approx(0.4)
    assert outlook(differences, effect=5).missing == 0


def test_outlook_of_too_few_seeds_detects_nothing_but_plans():
    result = outlook([1.0, 2.0, 3.0])
    assert math.isnan(result.detectable)
    assert result.seeds == 6
    assert result.missing == 3
    six = [1.0, 2.0, 3.0, 1.5, 2.5, 2.0]
    assert not math.isnan(outlook(six).detectable)
    assert math.isnan(outlook(six, family=2).detectable)


@pytest.mark.parametrize("differences", [[], [1.0], [2.0, 2.0, 2.0]])
def test_outlook_without_spread(differences):
    result = outlook(differences, effect=1)
    assert math.isnan(result.detectable)
    assert result.seeds is result.cautious_seeds is result.missing is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: t_power(1, 0, 5), "t_power: expected a positive, finite sd, got 0"),
        (lambda: seeds_needed(1, -1), "seeds_needed: expected a positive, finite sd, got -1"),
        (lambda: seeds_needed(1, 1, power=0.05), r"expected power in \(alpha = 0.05, 1\), got 0.05"),
        (lambda: minimal_detectable_effect(1, 5, power=80), r"expected power in \(alpha = 0.05, 1\), got 80"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
