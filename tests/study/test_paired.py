"""Paired differences against scipy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from mmseg_resample.study.paired import (
    SEEDS_FOR_SIGNIFICANCE,
    caveat,
    contrast,
    interaction,
    interaction_weights,
    paired_difference,
    summarize,
)


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


@pytest.mark.parametrize(
    ("n", "family", "words"),
    [
        (3, 4, "8 pairs are needed for p < 0.05 in a family of 4 tests"),
        (
            6,
            2,
            "test of 6 pairs is 0.0312, Holm's correction multiplies it by 2, and 7 pairs are needed",
        ),
        (7, 4, "No comparison of 7 seeds can be significant in a family of 4 tests"),
    ],
)
def test_a_family_needs_more_seeds(n, family, words):
    assert words in caveat(n, family)
    assert caveat(9, family) is None


def test_identical_differences_are_noticed():
    """Rounds as the scores do: 50.2 - 50.1 and 70.2 - 70.1 are not equal floats."""
    value, reference = {0: 50.2, 1: 70.2, 2: 33.3}, {0: 50.1, 1: 70.1, 2: 33.2}
    assert len(set(paired_difference(value, reference).values)) > 1
    assert paired_difference(value, reference).identical
    assert paired_difference(reference, reference).identical
    assert not paired_difference(value, {**reference, 1: 70.100001}).identical
    assert not paired_difference({0: 1.0}, {0: 0.5}).identical


FLIP = {  # true - false is 1, 2, 4 on even inputs and -1, -1, -2 on odd ones
    ("false", "even"): {0: 50.0, 1: 51.0, 2: 49.0},
    ("true", "even"): {0: 51.0, 1: 53.0, 2: 53.0},
    ("false", "odd"): {0: 60.0, 1: 61.0, 2: 62.0, 3: 9.0},
    ("true", "odd"): {0: 59.0, 1: 60.0, 2: 60.0},
}


def test_interaction_is_the_difference_of_paired_differences():
    result = interaction(FLIP, ("false", "true"), ("even", "odd"))
    assert (result.seeds, result.values) == ((0, 1, 2), (-2, -3, -6))
    expected = paired_difference({0: -1.0, 1: -1.0, 2: -2.0}, {0: 1.0, 1: 2.0, 2: 4.0})
    assert (result.low, result.high) == (expected.low, expected.high)
    assert interaction(FLIP, ("true", "false"), ("even", "odd")).mean == -result.mean
    assert interaction(FLIP, ("true", "false"), ("odd", "even")).mean == result.mean


def test_interaction_of_three_axes_compares_interactions():
    """flag x parity x family: the interaction on patches minus that on odd kernels, which is none of the lower ones."""
    scores = {(*key, "odd kernels"): of_seed for key, of_seed in FLIP.items()}
    scores |= {(flag, parity, "patches"): {0: 1.0, 1: 1.0, 2: 1.0} for flag, parity in FLIP}
    scores["true", "odd", "patches"] = {0: 1.5, 1: 2.0, 2: 2.5}
    result = interaction(scores, ("false", "true"), ("even", "odd"), ("odd kernels", "patches"))
    assert result.values == (0.5 + 2, 1 + 3, 1.5 + 6)


def test_interaction_removes_main_effects():
    """Take what flag and parity do by themselves, and what seeds share: it is no interaction."""
    rng = np.random.default_rng(0)
    of_seed, of_flag, of_parity = rng.normal(size=(3, 5))
    scores = {
        (str(flag), str(parity)): {s: of_seed[s] + flag * of_flag[s] + parity * of_parity[s] for s in range(5)}
        for flag in (0, 1)
        for parity in (0, 1)
    }
    assert interaction(scores, ("0", "1"), ("0", "1")).values == pytest.approx([0] * 5)


def test_interaction_weights():
    assert interaction_weights(("a", "b")) == {("b",): 1, ("a",): -1}
    assert interaction_weights(("a", "b"), ("c", "d")) == {
        ("b", "d"): 1,
        ("b", "c"): -1,
        ("a", "d"): -1,
        ("a", "c"): 1,
    }


def test_contrast_weighs_variants():
    """The main effect of the flag: averaged over both parities."""
    weights = {key: (0.5 if key[0] == "true" else -0.5) for key in FLIP}
    assert contrast(FLIP, weights).values == (0, 0.5, 1)


def test_contrasts_need_scores():
    with pytest.raises(ValueError, match=r"contrast: expected weights of variants in \['a'\], got \{'b': 1\}"):
        contrast({"a": {0: 1.0}}, {"b": 1})
    with pytest.raises(ValueError, match=r"interaction: expected \(reference, value\) of one axis or more, got none"):
        interaction(FLIP)


def test_a_summary_by_hand():
    """Mean 2, sd 1, and the interval of ``test_by_hand``."""
    summary = summarize([1.0, 2.0, 3.0])
    assert (summary.mean, summary.sd) == (2, 1)
    assert (summary.low, summary.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert math.isnan(summarize([]).mean)
    assert summarize([1.0]).mean == 1
    assert all(math.isnan(value) for value in (summarize([1.0]).sd, summarize([1.0]).low, summarize([1.0]).high))


def test_confidence_must_be_a_probability():
    with pytest.raises(ValueError, match=r"confidence in \(0, 1\), got 95"):
        paired_difference({}, {}, confidence=95)
