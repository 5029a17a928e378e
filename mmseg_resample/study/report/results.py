"""The results of the analysis of a study, for every format of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..intervals import EffectSize, Interval
from ..paired import PairedDifference, Summary
from ..plan import DeclaredComparison, Variants
from .cells import Unit, interaction_label, where
from .gather import Scores
from .verdict import Evidence, Verdict

THIRDS = {"x": ("left", "middle", "right"), "y": ("top", "middle", "bottom")}
"""Names of the thirds of an image along each axis."""


@dataclass(frozen=True)
class TestedDifference:
    """Paired difference with its tests and its verdict.

    Attributes:
        evidence: the difference and its tests.
        verdict: the evidence in words.
        bca: bootstrap interval of the mean.
        effect: size in standard deviations.
    """

    evidence: Evidence
    verdict: Verdict
    bca: Interval
    effect: EffectSize


@dataclass(frozen=True)
class Comparison:
    """Variants of the compared axis within one combination of the other axes, under one evaluation.

    Attributes:
        combination: variants of the other axes, as trained.
        evaluation: name.
        scores: variant -> seed -> metric, in the order of the axis; the first variant is the reference.
        means: variant -> mean of its scores.
        differences: every other variant minus the reference.
        tested: the same, with tests and verdict.
    """

    combination: Variants
    evaluation: str
    scores: Mapping[str, Scores]
    means: Mapping[str, Summary]
    differences: Mapping[str, PairedDifference]
    tested: Mapping[str, TestedDifference]

    @property
    def reference(self) -> str:
        """The first variant."""
        return next(iter(self.scores))


@dataclass(frozen=True)
class Transfer:
    """Test of a trained variant as another one: same weights, so the difference is what the test costs.

    Attributes:
        variants: as trained.
        tested: as tested.
        evaluation: name.
        reference: the first evaluation of the study.
        difference: ``evaluation`` minus ``reference``.
    """

    variants: Variants
    tested: Variants
    evaluation: str
    reference: str
    difference: PairedDifference


@dataclass(frozen=True)
class Interaction:
    """Change of a paired difference along other axes.

    Attributes:
        variant: of the compared axis.
        reference: of the compared axis.
        along: axis -> (reference, value).
        combination: variants of the axes that are held.
        evaluation: name.
        tested: difference of the differences, by seed, with tests and verdict.
    """

    variant: str
    reference: str
    along: Mapping[str, tuple[str, str]]
    combination: Variants
    evaluation: str
    tested: TestedDifference

    @property
    def difference(self) -> PairedDifference:
        return self.tested.evidence.difference

    @property
    def label(self) -> str:
        """Name of the difference, and the ends between which it changes."""
        return interaction_label(self.variant, self.reference, self.along, self.combination)


@dataclass(frozen=True)
class Declared:
    """Result of a declared comparison.

    Attributes:
        subject: what is compared, and how it was tested.
        tested: with tests and verdict.
    """

    subject: str
    tested: TestedDifference


@dataclass(frozen=True)
class Shift:
    """Displacement of the predictions of one trained variant along one axis of the image, in pixels.

    Attributes:
        thirds: for each third, the values by seed, NaN left out.
        third_means: their means.
        drift: by seed, NaN left out.
        drift_mean: its mean.
        profile: (seeds, bins), NaN where nothing can be measured.
        audited: (first, middle, last) misregistration of the network as tested; None if unknown.
        absorbed: predicted displacement at the thirds, if training learned to undo all that it met.
        shift_absorbed: the same, if training learned to undo the constant part alone.
    """

    thirds: Sequence[Sequence[float]]
    third_means: Sequence[Summary]
    drift: Sequence[float]
    drift_mean: Summary
    profile: np.ndarray
    audited: tuple[float, float, float] | None
    absorbed: tuple[float, float, float] | None
    shift_absorbed: tuple[float, float, float] | None


@dataclass(frozen=True)
class VariantDisplacement:
    """Displacement of one trained variant under one evaluation.

    Attributes:
        combination: variants of the other axes, as trained.
        variant: of the compared axis, as trained.
        evaluation: name.
        seeds: measured.
        x: along x, positive = right of the label.
        y: along y, positive = below it.
        found: share of the edges of the labels that the predictions have, in percent, mean over seeds.
    """

    combination: Variants
    variant: str
    evaluation: str
    seeds: Sequence[int]
    x: Shift
    y: Shift
    found: float


@dataclass(frozen=True)
class Breakdown:
    """Metric by the width of a band, or by class, for the variants of a comparison.

    Attributes:
        combination: variants of the other axes, as trained.
        evaluation: name.
        scores: width, as ``3px``, or class -> variant -> seed -> metric.
        means: width or class -> variant -> mean of its scores.
        differences: width or class -> variant -> that minus the reference.
    """

    combination: Variants
    evaluation: str
    scores: Mapping[str, Mapping[str, Scores]]
    means: Mapping[str, Mapping[str, Summary]]
    differences: Mapping[str, Mapping[str, PairedDifference]]


@dataclass(frozen=True)
class Report:
    """Analysis of a study: everything that its reader is told.

    Attributes:
        study: content of ``study.json``.
        unit: of the metric.
        margin: of equivalence, in that unit.
        family: the declared comparisons.
        uncompared: those of them that have no run yet.
        headline: the verdict in a sentence or two.
        seeds_decide_nothing: whether there is no finding, and none could be with so few seeds.
        comparisons: by combination, then evaluation.
        transfers: by trained variants, then evaluation.
        interactions: by evaluation.
        displaced: by combination, variant, evaluation; empty without the evaluator.
        trimap: mIoU near boundaries; empty without the evaluator.
        boundary: Boundary IoU; empty without the evaluator.
        classes: under the first evaluation.
        caveats: sentences.
        missing: what is not in the report, and why: sentences.
        runs: content of ``metrics.json`` of every finished run.
        configs: of every finished run.
        environments: the distinct environments, with the number of attempts made in each.
        restarts: runs that took more than one attempt.
        failures: variants, seed, error and log of every failed run.
        unfinished: variants and seed of the planned runs that neither finished nor failed.
    """

    study: Mapping[str, Any]
    unit: Unit
    margin: float
    family: Sequence[DeclaredComparison]
    uncompared: Sequence[DeclaredComparison]
    headline: str
    seeds_decide_nothing: bool
    comparisons: Sequence[Comparison]
    transfers: Sequence[Transfer]
    interactions: Sequence[Interaction]
    displaced: Sequence[VariantDisplacement]
    trimap: Sequence[Breakdown]
    boundary: Sequence[Breakdown]
    classes: Sequence[Breakdown]
    caveats: Sequence[str]
    missing: Sequence[str]
    runs: Sequence[Mapping[str, Any]]
    configs: Sequence[Mapping[str, Any]]
    environments: Sequence[Mapping[str, Any]]
    restarts: int
    failures: Sequence[Mapping[str, Any]]
    unfinished: Sequence[Mapping[str, Any]]

    @property
    def variants(self) -> list[str]:
        """The variants of the compared axis; the first is the reference."""
        return list(self.study["axes"][self.study["compare"]])

    @property
    def other_axes(self) -> list[str]:
        """The axes that are not compared, in the order of the study."""
        return [axis for axis in self.study["axes"] if axis != self.study["compare"]]

    @property
    def declared(self) -> list[Declared]:
        """The declared comparisons and interactions that have a run."""
        compared = [
            Declared(where(c.combination, f"{name} - {c.reference}, tested as {c.evaluation}"), tested)
            for c in self.comparisons
            for name, tested in c.tested.items()
        ]
        changed = [Declared(f"{each.label}, tested as {each.evaluation}", each.tested) for each in self.interactions]
        return [each for each in (*compared, *changed) if each.tested.evidence.declared]
