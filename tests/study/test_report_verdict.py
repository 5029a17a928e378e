"""The words: nothing without evidence may read like a finding."""

import math

import numpy as np
import pytest

from mmseg_resample.study.design import outlook
from mmseg_resample.study.image_bootstrap import NestedBootstrap
from mmseg_resample.study.intervals import Interval
from mmseg_resample.study.paired import paired_difference
from mmseg_resample.study.report import cells, verdict
from mmseg_resample.study.significance import equivalence_test, sign_flip_test

POINTS = cells.unit("mIoU")


def judged(values, family=1, declared=True, margin=0.5, images=None):
    """The verdict on differences by seed, as the only test of a family that has a small p."""
    difference = paired_difference(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))
    p = sign_flip_test(values, rng=0).p
    small = equivalence_test(values, margin).p
    evidence = verdict.Evidence(
        difference=difference,
        declared=declared,
        family=family,
        margin=margin,
        p=p,
        p_holm=min(1, family * p) if declared else math.nan,
        p_equivalence=small,
        p_equivalence_holm=min(1, family * small) if declared else math.nan,
        images=images,
        outlook=outlook(values, margin, family=family),
    )
    return verdict.judge(evidence, "true", "false", POINTS)


def around(mean, n, spread=0.1):
    """n differences with this mean."""
    values = np.random.default_rng(n).normal(size=n)
    values = spread * (values - values.mean()) / (values.std(ddof=1) if n > 1 else 1)
    return (mean + values).tolist()


def with_other_images(low, high):
    interval = Interval(low, high, 0.95)
    return NestedBootstrap(1.0, (1.0,), interval, interval, 0.1, 0.1, 0.0)


def test_no_seed():
    found = judged([])
    assert (found.status, found.label) == ("missing", "not compared yet")


def test_one_seed_is_noise_however_large():
    found = judged([-12.3])
    assert found.status == "single"
    assert found.text == (
        "One seed cannot be significant and has no interval. The -12.30 points between two single trainings are mostly "
        "noise: read nothing into them."
    )


def test_three_seeds_are_never_a_finding():
    found = judged([-4.32, -4.33, -4.63])
    assert (found.status, found.is_finding) == ("too_few", False)
    assert found.text == (
        "3 seeds cannot be significant, whatever the numbers: a sign-flip test of a single comparison needs 6. The "
        "seeds show -4.43 points, 95 % interval [-4.86, -3.99] if differences are normally distributed. That is an "
        "observation, no finding."
    )
    assert "lower" not in found.text


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("mean", [0.0, 0.01, 5.0, -50.0])
def test_below_six_seeds_nothing_is_a_finding(n, mean):
    found = judged(around(mean, n, 0.01))
    assert found.status == "too_few"
    assert not found.is_finding
    assert found.label.endswith("no finding")


def test_six_seeds_are_too_few_for_a_family_of_four():
    found = judged(around(3.0, 6), family=4)
    assert found.status == "too_few"
    assert "needs 6, 4 declared comparisons need 8." in found.text


def test_significant():
    found = judged(around(-4.0, 6), images=with_other_images(-4.5, -3.5))
    assert (found.status, found.is_finding) == ("significant", True)
    assert found.text == (
        "true is 4.00 points lower than false: 95 % interval [-4.10, -3.90], 6 of 6 seeds agree in sign, sign flips "
        "p = 0.031. With other test images of the kind: [-4.50, -3.50]."
    )


def test_significant_in_a_family_says_so():
    found = judged(around(4.0, 8), family=4)
    assert "true is 4.00 points higher than false" in found.text
    assert "p = 0.031 after Holm's correction for 4 comparisons" in found.text
    assert "what others would change was not computed" in found.text


def test_significant_on_these_images_only():
    found = judged(around(1.0, 6), images=with_other_images(-0.2, 2.2))
    assert found.status == "significant"
    assert "Only on these test images" in found.text
    assert "[-0.20, +2.20], which includes 0" in found.text


def test_significant_but_perhaps_too_small_to_matter():
    found = judged(around(0.6, 6, 0.2))
    assert found.status == "significant"
    assert "The interval reaches below 0.50 points" in found.text


def test_equivalent():
    found = judged(around(0.0, 6, 0.2))
    assert (found.status, found.is_finding) == ("equivalent", True)
    assert found.text.startswith("The difference is smaller than 0.50 points, either way: 0.00 points, 95 % interval")
    assert "It is not shown to be zero." in found.text


def test_equivalent_with_too_few_seeds_for_a_difference():
    found = judged(around(0.0, 6, 0.2), family=4)
    assert found.status == "equivalent"
    assert found.text.startswith("6 seeds cannot be significant in a family of 4, which needs 8. The difference is")


def test_different_but_negligible():
    found = judged(around(0.2, 6, 0.02))
    assert found.status == "negligible"
    assert found.text.startswith("true is 0.20 points higher than false")
    assert "shown to be smaller than 0.50 points" in found.text


def test_undecided_says_what_was_not_looked_for():
    found = judged(around(0.3, 6, 1.0))
    assert (found.status, found.is_finding) == ("undecided", False)
    assert found.text.startswith("Neither a difference nor its absence is shown: +0.30 points, 95 % interval")
    assert "6 seeds find 1.79 points with probability 0.8" in found.text
    assert "a difference of 0.50 points needs 34 seeds, " in found.text


def test_identical():
    found = judged([0.0, 0.0, 0.0])
    assert (found.status, found.is_finding) == ("identical", False)
    assert "true and false have the same score in each of 3 seeds" in found.text


@pytest.mark.parametrize("n", [2, 6, 12])
def test_equal_differences_are_suspicious(n):
    found = judged([1.5] * n)
    assert (found.status, found.is_finding) == ("suspicious", False)
    assert f"All {n} seeds differ by exactly +1.50 points." in found.text


@pytest.mark.parametrize("values", [[5.0], around(5.0, 3), around(5.0, 12), [1.0] * 6])
def test_what_was_not_declared_is_exploratory_whatever_its_numbers(values):
    found = judged(values, declared=False)
    assert (found.status, found.is_finding) == ("exploratory", False)
    assert found.text.startswith("Not declared")


def headline(*statuses, seeds=6):
    return verdict.headline([verdict.Verdict(each, verdict.LABELS[each], "") for each in statuses], seeds)


def test_headlines():
    assert headline() == headline("missing", seeds=0) == "No finding: nothing is compared yet."
    assert headline("too_few", seeds=3) == (
        "No finding: 3 seeds are too few for the declared comparison to be significant, whatever the numbers: that "
        "takes 6."
    )
    assert headline(*["too_few"] * 4, seeds=6) == (
        "No finding: 6 seeds are too few for any of 4 declared comparisons to be significant, whatever the numbers: "
        "that takes 8."
    )
    assert headline("single", seeds=1).startswith("No finding: 1 seed is too few for the declared comparison")
    assert headline("undecided", "missing", seeds=8) == (
        "No finding: of 2 declared comparisons, 1 undecided, 1 not compared yet."
    )
    assert headline("identical", "identical") == (
        "No finding: all 2 declared comparisons are identical in every seed. The setting changes nothing here, the "
        "runs are copies of each other, or neither side learned anything."
    )
    assert headline("undecided", seeds=6) == "No finding: the declared comparison is undecided."
    assert headline("significant") == "The declared comparison is significant."
    assert headline("equivalent") == "The declared comparison is equivalent within the margin."
    assert headline("significant", "equivalent", "undecided", "significant", seeds=8) == (
        "Of 4 declared comparisons, 2 significant, 1 equivalent within the margin, 1 undecided."
    )
    assert headline("significant", "significant", seeds=8) == "All 2 declared comparisons are significant."


@pytest.mark.parametrize(
    ("statuses", "seeds", "nothing"),
    [
        (["too_few"] * 4, 6, True),
        (["single"], 1, True),
        (["too_few", "missing"], 3, True),
        (["too_few", "suspicious"], 3, True),
        (["identical"], 3, False),
        (["missing"], 0, False),
        ([], 0, False),
        (["too_few", "equivalent"], 6, False),
        (["undecided"], 6, False),
    ],
)
def test_when_seeds_decide_nothing(statuses, seeds, nothing):
    verdicts = [verdict.Verdict(each, verdict.LABELS[each], "") for each in statuses]
    assert verdict.seeds_decide_nothing(verdicts, seeds) is nothing
    assert ("too few for" in verdict.headline(verdicts, seeds)) is nothing


@pytest.mark.parametrize("status", sorted(verdict.LABELS.keys() - {"exploratory"}))
@pytest.mark.parametrize("seeds", [1, 3, 6, 12])
def test_a_headline_has_no_finding_without_one(status, seeds):
    said = headline(status, seeds=seeds)
    quoted = status in verdict.FINDINGS
    assert said.startswith("No finding: ") is not quoted


def test_units():
    assert cells.unit("mIoU").amount(-1.0) == "1.00 point"
    assert cells.unit("mBIoU_3px").amount(0.5) == "0.50 points"
    assert cells.unit("dx_drift").amount(0.5) == cells.unit("rear/dy").amount(-0.5) == "0.50 px"


def test_numbers():
    assert [cells.signed(value) for value in (0.004, -0.004, -0.006, 1)] == ["0.00", "0.00", "-0.01", "+1.00"]
    assert [cells.p_value(p) for p in (0.03125, 0.00001, 1.0)] == ["p = 0.031", "p < 0.001", "p = 1"]
