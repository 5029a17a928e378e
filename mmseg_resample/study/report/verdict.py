"""The verdict on a comparison, in words that cannot be read as a finding where there is no evidence.

The status of a declared comparison is the first of these that holds:

==============  ====================================================================================================
missing         no seed is finished on both sides
single          one seed: no interval, no test
identical       two or more seeds with the same score on both sides: the setting changes nothing, or runs are copies
suspicious      two or more seeds differ by exactly the same, which trainings do not
too_few         fewer seeds than any test needs; or fewer than the family needs, and not equivalent
negligible      significant, and yet shown to be smaller than the margin
equivalent      shown to be smaller than the margin
significant     the sign-flip p, corrected for the family, is at most 0.05
undecided       none of this
==============  ====================================================================================================

A comparison that was not declared is ``exploratory`` whatever its numbers.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..design import Outlook
from ..image_bootstrap import NestedBootstrap
from ..paired import SEEDS_FOR_SIGNIFICANCE, PairedDifference
from ..significance import seeds_for_significance
from ..words import too_few_seeds
from .cells import Unit, interval, p_value, signed

ALPHA = 0.05

Status = Literal[
    "missing",
    "single",
    "identical",
    "suspicious",
    "too_few",
    "negligible",
    "equivalent",
    "significant",
    "undecided",
    "exploratory",
]

LABELS: dict[Status, str] = {
    "missing": "not compared yet",
    "single": "one seed: no finding",
    "identical": "identical",
    "suspicious": "suspicious: no finding",
    "too_few": "too few seeds: no finding",
    "negligible": "different, but negligible",
    "equivalent": "equivalent",
    "significant": "significant",
    "undecided": "undecided",
    "exploratory": "exploratory",
}
"""Label of each status, which a reader sees beside a comparison."""

FINDINGS: tuple[Status, ...] = ("significant", "negligible", "equivalent")
"""Statuses that may be quoted as a result."""


@dataclass(frozen=True)
class Evidence:
    """Evidence on one comparison.

    Attributes:
        difference: variant minus reference, by seed.
        declared: whether the comparison belongs to the family.
        family: number of declared comparisons.
        margin: of equivalence, in the unit of the metric.
        p: of the sign flips; NaN without a seed.
        p_holm: the same, corrected for the family; NaN where it is not declared.
        p_equivalence: of the two one-sided tests; NaN below two seeds.
        p_equivalence_holm: the same, corrected for the family.
        images: with the uncertainty from the test images; None where they were not stored.
        outlook: what so many seeds can find, and how many find the margin.
    """

    difference: PairedDifference
    declared: bool
    family: int
    margin: float
    p: float
    p_holm: float
    p_equivalence: float
    p_equivalence_holm: float
    images: NestedBootstrap | None
    outlook: Outlook


@dataclass(frozen=True)
class Verdict:
    """Status of a comparison and the sentences that say it.

    Attributes:
        status: see the module.
        label: two or three words.
        text: one sentence or more, complete by itself.
    """

    status: Status
    label: str
    text: str

    @property
    def is_finding(self) -> bool:
        """Tell whether it may be quoted as a result."""
        return self.status in FINDINGS


def judge(evidence: Evidence, variant: str, reference: str, measure: Unit) -> Verdict:
    """Put one comparison into words.

    Args:
        evidence: what is known.
        variant: name.
        reference: name of what it is compared with.
        measure: unit of the metric.
    """
    status = _status(evidence)
    return Verdict(status, LABELS[status], _text(status, evidence, variant, reference, measure))


_COUNTED: dict[Status, str] = {
    "significant": "significant",
    "negligible": "different but smaller than the margin",
    "equivalent": "equivalent within the margin",
    "undecided": "undecided",
    "identical": "identical",
    "suspicious": "suspicious",
    "too_few": "without enough seeds to say",
    "single": "with one seed only",
    "missing": "not compared yet",
}


def headline(verdicts: Sequence[Verdict], seeds: int) -> str:
    """Sum up the declared comparisons of a study in a sentence or two.

    Args:
        verdicts: of the declared comparisons.
        seeds: the most that any of them has on both sides.
    """
    total = len(verdicts)
    number = Counter(verdict.status for verdict in verdicts)
    if not total or number["missing"] == total:
        return "No finding: nothing is compared yet."
    if number["identical"] == total:
        return (
            f"No finding: {_declared(total)} identical in every seed. The setting changes nothing here, "
            f"the runs are copies of each other, or neither side learned anything."
        )
    if seeds_decide_nothing(verdicts, seeds):
        return f"No finding: {too_few_seeds(seeds, total, seeds_for_significance(ALPHA, total))}."
    parts = [f"{number[status]} {words}" for status, words in _COUNTED.items() if number[status]]
    if len(parts) == 1:
        result = f"{_declared(total)} {_COUNTED[verdicts[0].status]}."
    else:
        result = f"of {total} declared comparisons, {', '.join(parts)}."
    return f"No finding: {result}" if not any(verdict.is_finding for verdict in verdicts) else _sentence(result)


def seeds_decide_nothing(verdicts: Sequence[Verdict], seeds: int) -> bool:
    """Tell whether no declared comparison is a finding, and none could be with so few seeds.

    Args:
        verdicts: of the declared comparisons.
        seeds: the most that any of them has on both sides.
    """
    statuses = {verdict.status for verdict in verdicts}
    return (
        0 < seeds < seeds_for_significance(ALPHA, len(verdicts))
        and not statuses & {*FINDINGS}
        and statuses != {"identical"}
    )


def _status(evidence: Evidence) -> Status:
    difference = evidence.difference
    if difference.n == 0:
        return "missing"
    if not evidence.declared:
        return "exploratory"
    if difference.n == 1:
        return "single"
    if difference.identical:
        return "identical" if abs(difference.mean) < 1e-9 else "suspicious"
    if difference.n < SEEDS_FOR_SIGNIFICANCE:
        return "too_few"
    significant, small = evidence.p_holm <= ALPHA, evidence.p_equivalence_holm < ALPHA
    if small:
        return "negligible" if significant else "equivalent"
    if difference.n < seeds_for_significance(ALPHA, evidence.family):
        return "too_few"
    return "significant" if significant else "undecided"


def _text(status: Status, evidence: Evidence, variant: str, reference: str, measure: Unit) -> str:
    difference, family = evidence.difference, evidence.family
    observed = f"{signed(difference.mean)} {measure.difference}"
    ends = interval(difference.low, difference.high)
    if status == "missing":
        return "No seed is finished on both sides."
    if status == "single":
        return (
            f"One seed cannot be significant and has no interval. The {observed} between two single trainings are "
            f"mostly noise: read nothing into them."
        )
    if status == "identical":
        return (
            f"{variant} and {reference} have the same score in each of {difference.n} seeds, to the last digit: the "
            f"setting changes nothing here, the runs are copies of each other, or neither side learned anything."
        )
    if status == "suspicious":
        return (
            f"All {difference.n} seeds differ by exactly {observed}. Trainings do not do that: look for runs that are "
            f"copies of each other. No finding."
        )
    if status == "exploratory":
        if difference.n == 1:
            return f"Not declared, and one seed only: {observed}, no finding."
        if difference.identical:
            return f"Not declared: exactly {observed} in each of {difference.n} seeds."
        return f"Not declared, so described and not tested: {observed}, 95 % interval {ends}."
    if status == "too_few":
        return (
            f"{difference.n} seeds cannot be significant, whatever the numbers: {_needs(family)} The seeds show "
            f"{observed}, 95 % interval {ends} if differences are normally distributed. That is an observation, "
            f"no finding."
        )
    direction = "higher" if difference.mean > 0 else "lower"
    agreeing = sum(value * difference.mean > 0 for value in difference.values)
    corrected = f" after Holm's correction for {family} comparisons" if family > 1 else ""
    if status == "undecided":
        return (
            f"Neither a difference nor its absence is shown: {observed}, 95 % interval {ends}, sign flips "
            f"{p_value(evidence.p_holm)}{corrected}. {_plan(evidence, measure)}"
        )
    sign_flips = f"{agreeing} of {difference.n} seeds agree in sign, sign flips {p_value(evidence.p_holm)}{corrected}"
    within = f"equivalence {p_value(evidence.p_equivalence_holm)}{corrected}"
    limit = measure.amount(evidence.margin)
    if status == "equivalent":
        needed = seeds_for_significance(ALPHA, family)
        few = f"{difference.n} seeds cannot be significant in a family of {family}, which needs {needed}. "
        return (
            f"{few if difference.n < needed else ''}The difference is smaller than {limit}, either way: {observed}, "
            f"95 % interval {ends}, {within}. It is not shown to be zero.{_images(evidence)}"
        )
    sentence = f"{variant} is {measure.amount(difference.mean)} {direction} than {reference}: 95 % interval {ends}, "
    if status == "negligible":
        return f"{sentence}{sign_flips}. It is also shown to be smaller than {limit} ({within}).{_images(evidence)}"
    size = ""
    if min(abs(difference.low), abs(difference.high)) < evidence.margin or difference.low * difference.high <= 0:
        size = f" The interval reaches below {limit}, so the difference may be too small to matter."
    return f"{sentence}{sign_flips}.{size}{_images(evidence)}"


def _images(evidence: Evidence) -> str:
    """Describe whether the finding would survive other test images."""
    images = evidence.images
    if images is None:
        return " On these test images: what others would change was not computed."
    ends = interval(images.student.low, images.student.high)
    if evidence.difference.low * evidence.difference.high > 0 >= images.student.low * images.student.high:
        return f" Only on these test images: with other images of the kind the interval is {ends}, which includes 0."
    return f" With other test images of the kind: {ends}."


def _plan(evidence: Evidence, measure: Unit) -> str:
    outlook, n = evidence.outlook, evidence.difference.n
    sentences = []
    if outlook.detectable == outlook.detectable:
        sentences.append(f"{n} seeds find {measure.amount(outlook.detectable)} with probability 0.8")
    limit = measure.amount(evidence.margin)
    if outlook.seeds is not None:
        sentences.append(
            f"a difference of {limit} needs {outlook.seeds} seeds"
            + (f", {outlook.cautious_seeds} to be cautious" if outlook.cautious_seeds else "")
        )
    return f"{'; '.join(sentences)}.".capitalize() if sentences else ""


def _needs(family: int) -> str:
    single = f"a sign-flip test of a single comparison needs {SEEDS_FOR_SIGNIFICANCE}"
    if family == 1:
        return f"{single}."
    return f"{single}, {family} declared comparisons need {seeds_for_significance(ALPHA, family)}."


def _declared(total: int) -> str:
    return f"all {total} declared comparisons are" if total > 1 else "the declared comparison is"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
