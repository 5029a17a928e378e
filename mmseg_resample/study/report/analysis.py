"""The statistics of a study: every number of its report, from its records."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..design import outlook
from ..image_bootstrap import NestedBootstrap, nested_bootstrap
from ..intervals import EffectSize, Interval, bca_interval, effect_size, t_interval
from ..plan import METRICS, Variants
from ..significance import equivalence_test, holm, sign_flip_test
from ..statistics import PairedDifference, caveat, interaction, interaction_weights, paired_difference
from . import gather, verdict
from .gather import Declared, Directory, Scores
from .verdict import Evidence, Unit, Verdict

SEED = 0
"""Of everything that draws random numbers: the same runs give the same report."""

FEWEST_EDGES = 20
"""Percent of the labelled edges that predictions must have for their displacement to mean something."""

THIRDS = {"x": ("left", "middle", "right"), "y": ("top", "middle", "bottom")}
"""Names of the thirds of an image along each axis."""


@dataclass(frozen=True)
class Tested:
    """A paired difference and what it is worth.

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
    """The variants of the compared axis within one combination of the other axes, under one evaluation.

    Attributes:
        combination: variants of the other axes, as trained.
        evaluation: name.
        scores: variant -> seed -> metric, in the order of the axis; the first variant is the reference.
        differences: every other variant minus the reference.
        tested: the same, with tests and verdict.
    """

    combination: Variants
    evaluation: str
    scores: Mapping[str, Scores]
    differences: Mapping[str, PairedDifference]
    tested: Mapping[str, Tested]

    @property
    def reference(self) -> str:
        """The first variant."""
        return next(iter(self.scores))


@dataclass(frozen=True)
class Transfer:
    """One trained variant tested in another way: same weights, so the difference is what the test costs.

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
    """How much a paired difference changes along other axes.

    Attributes:
        variant: of the compared axis.
        reference: of the compared axis.
        along: axis -> (reference, value).
        combination: variants of the axes that are held.
        evaluation: name.
        difference: difference of the differences, by seed.
        p: of the sign flips, not corrected.
    """

    variant: str
    reference: str
    along: Mapping[str, tuple[str, str]]
    combination: Variants
    evaluation: str
    difference: PairedDifference
    p: float


@dataclass(frozen=True)
class Shift:
    """Displacement of the predictions of one trained variant along one axis of the image, in pixels.

    Attributes:
        thirds: for each third, the values by seed, NaN left out.
        drift: by seed.
        profile: (seeds, bins), NaN where nothing can be measured.
        audited: (first, middle, last) misregistration of the network as tested; None if unknown.
        absorbed: predicted displacement at the thirds, if training learned to undo all that it met.
        shift_absorbed: the same, if training learned to undo the constant part alone.
    """

    thirds: Sequence[Sequence[float]]
    drift: Sequence[float]
    profile: np.ndarray
    audited: tuple[float, float, float] | None
    absorbed: tuple[float, float, float] | None
    shift_absorbed: tuple[float, float, float] | None


@dataclass(frozen=True)
class Displaced:
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
    """A metric by the width of a band, or by class, for the variants of a comparison.

    Attributes:
        combination: variants of the other axes, as trained.
        evaluation: name.
        scores: width, as ``3px``, or class -> variant -> seed -> metric.
        differences: width or class -> variant -> that minus the reference.
    """

    combination: Variants
    evaluation: str
    scores: Mapping[str, Mapping[str, Scores]]
    differences: Mapping[str, Mapping[str, PairedDifference]]


@dataclass(frozen=True)
class Report:
    """Everything a reader of a study is told.

    Attributes:
        study: content of ``study.json``.
        unit: of the metric.
        margin: of equivalence, in that unit.
        family: the declared comparisons.
        headline: the verdict in a sentence or two.
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
    family: Sequence[Declared]
    headline: str
    comparisons: Sequence[Comparison]
    transfers: Sequence[Transfer]
    interactions: Sequence[Interaction]
    displaced: Sequence[Displaced]
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
    def declared(self) -> list[tuple[Comparison, str]]:
        """The declared comparisons that have a run, with their variant."""
        return [
            (comparison, variant)
            for comparison in self.comparisons
            for variant, tested in comparison.tested.items()
            if tested.evidence.declared
        ]


def build(root: Path) -> Report:
    """Read and analyse the directory of a study.

    Raises:
        StudyError: ``root`` holds no study, or files of another version.
    """
    directory = gather.read(root)
    study, missing = directory.study, list[str]()
    family = gather.family(study)
    comparisons = list(_comparisons(directory, family, missing))
    displaced = _displaced(directory, missing)
    trimap = _curves(directory, "TrimapIoUMetric", "mIoU_trimap", "Trimap curves", missing)
    boundary = _curves(directory, "BoundaryIoUMetric", "mBIoU", "Boundary IoU", missing)
    verdicts = _verdicts(comparisons, family)
    n = max((c.differences[v].n for c in comparisons for v, t in c.tested.items() if t.evidence.declared), default=0)
    return Report(
        study=study,
        unit=verdict.unit(study["metric"]),
        margin=study["margin"],
        family=family,
        headline=verdict.headline(verdicts, n),
        comparisons=comparisons,
        transfers=list(_transfers(directory)),
        interactions=list(_interactions(directory)),
        displaced=displaced,
        trimap=trimap,
        boundary=boundary,
        classes=list(_classes(directory)),
        caveats=_caveats(directory, comparisons, family, displaced),
        missing=missing,
        runs=directory.runs,
        configs=directory.configs,
        environments=directory.environments,
        restarts=directory.restarts,
        failures=directory.failures,
        unfinished=directory.unfinished,
    )


def _groups(directory: Directory) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Combinations of the other axes, and the variants of the compared axis that were trained or planned in each."""
    compare = directory.study["compare"]
    trained = [run["variants"] for run in directory.runs] + directory.study["combinations"]
    for combination in gather.product(directory.other_axes):
        names = [name for name in directory.study["axes"][compare] if directory.full(combination, name) in trained]
        if names:
            yield combination, names


def _grid(directory: Directory) -> Iterator[tuple[dict[str, str], str, list[str]]]:
    """The same for every evaluation."""
    for combination, names in _groups(directory):
        for evaluation in directory.study["evaluations"]:
            yield combination, evaluation, names


def _comparisons(directory: Directory, family: Sequence[Declared], missing: list[str]) -> Iterator[Comparison]:
    metric = directory.study["metric"]
    found, images, unknown = list[Comparison](), dict[Declared, NestedBootstrap](), dict[str, list[str]]()
    for combination, evaluation, names in _grid(directory):
        scores = {name: directory.scalars(directory.full(combination, name), evaluation, metric) for name in names}
        if any(scores.values()):
            reference, *rest = scores
            differences = {name: paired_difference(scores[name], scores[reference]) for name in rest}
            found.append(Comparison(combination, evaluation, scores, differences, {}))
            if metric in METRICS:
                images |= _bootstraps(directory, found[-1], unknown)
    missing += [f"Intervals with other test images: {why}, in {'; '.join(where)}." for why, where in unknown.items()]
    if found and metric not in METRICS:
        missing.append(
            f"Intervals with other test images: they are computed for {', '.join(METRICS)}, not for {metric}."
        )
    p, small, limit = dict[Declared, float](), dict[Declared, float](), directory.study["margin"]
    for comparison in found:
        for name, difference in comparison.differences.items():
            key = _key(comparison, name)
            p[key] = sign_flip_test(difference.values, rng=SEED).p
            small[key] = equivalence_test(difference.values, limit).p
    adjusted, adjusted_small = holm(p, family), holm(small, family)
    measure = verdict.unit(metric)
    for comparison in found:
        tested = {}
        for name, difference in comparison.differences.items():
            key = _key(comparison, name)
            evidence = Evidence(
                difference=difference,
                declared=key in family,
                family=len(family),
                margin=limit,
                p=p[key],
                p_holm=adjusted.get(key, math.nan),
                p_equivalence=small[key],
                p_equivalence_holm=adjusted_small.get(key, math.nan),
                images=images.get(key),
                outlook=outlook(difference.values, limit, family=max(1, len(family))),
            )
            tested[name] = Tested(
                evidence,
                verdict.judge(evidence, name, comparison.reference, measure),
                bca_interval(difference.values, rng=SEED),
                effect_size(difference.values),
            )
        yield replace(comparison, tested=tested)


def _key(comparison: Comparison, variant: str) -> Declared:
    return Declared(tuple(comparison.combination.items()), comparison.evaluation, variant)


def _bootstraps(
    directory: Directory, comparison: Comparison, unknown: dict[str, list[str]]
) -> dict[Declared, NestedBootstrap]:
    """For every variant with common seeds, its difference with redrawn images; ``unknown`` gets where there is none."""
    runs = {
        (name, run["seed"]): run
        for name, of_variant in comparison.scores.items()
        for run in directory.of(directory.full(comparison.combination, name))
        if run["seed"] in of_variant
    }
    counts = directory.image_counts(list(runs.values()), comparison.evaluation)
    if isinstance(counts, str):
        unknown.setdefault(counts, []).append(", ".join([*comparison.combination.values(), comparison.evaluation]))
        return {}
    by_run = dict(zip(runs, counts, strict=True))
    found = {}
    for name, difference in comparison.differences.items():
        if difference.n:
            arms = [np.stack([by_run[arm, seed] for seed in difference.seeds]) for arm in (name, comparison.reference)]
            found[_key(comparison, name)] = nested_bootstrap(arms, rng=SEED, metric=directory.study["metric"])
    return found


def _verdicts(comparisons: Sequence[Comparison], family: Sequence[Declared]) -> list[Verdict]:
    """Of every declared comparison, also where no run is finished yet."""
    found = {_key(c, name): tested.verdict for c in comparisons for name, tested in c.tested.items()}
    nothing = Verdict("missing", verdict.LABELS["missing"], "No run is finished.")
    return [found.get(declared, nothing) for declared in family]


def _transfers(directory: Directory) -> Iterator[Transfer]:
    reference, *others = directory.study["evaluations"]
    metric = directory.study["metric"]
    for variants, evaluation in itertools.product(gather.product(directory.study["axes"]), others):
        value = directory.scalars(variants, evaluation, metric)
        if value:
            difference = paired_difference(value, directory.scalars(variants, reference, metric))
            yield Transfer(
                variants, tested_as(directory.study, variants, evaluation), evaluation, reference, difference
            )


def tested_as(study: Mapping[str, Any], variants: Variants, evaluation: str) -> dict[str, str]:
    """What trained variants are tested as in an evaluation."""
    mapping = study["evaluations"][evaluation]
    return {axis: mapping.get(axis, {}).get(name, name) for axis, name in variants.items()}


def _interactions(directory: Directory) -> Iterator[Interaction]:
    """Of the compared axis with one other axis, and with two."""
    study, others = directory.study, directory.other_axes
    groups = [(combination, names) for combination, names in _groups(directory)]
    levels = {
        axis: [name for name in names if any(c[axis] == name for c, _ in groups)] for axis, names in others.items()
    }
    for evaluation, size in itertools.product(study["evaluations"], (1, 2)):
        for along in itertools.combinations(others, size):
            held = {axis: names for axis, names in levels.items() if axis not in along}
            for combination in gather.product(held):
                for ends in itertools.product(*([(levels[a][0], to) for to in levels[a][1:]] for a in along)):
                    yield from _interaction(directory, dict(zip(along, ends, strict=True)), combination, evaluation)


def _interaction(
    directory: Directory, along: Mapping[str, tuple[str, str]], combination: Variants, evaluation: str
) -> Iterator[Interaction]:
    compare, metric = directory.study["compare"], directory.study["metric"]
    corners = list(gather.product({axis: list(ends) for axis, ends in along.items()}))
    scores = {
        (name, *corner.values()): directory.scalars(directory.full({**combination, **corner}, name), evaluation, metric)
        for name in directory.study["axes"][compare]
        for corner in corners
    }
    lacking = {key[0] for key, of_key in scores.items() if not of_key}
    present = [name for name in directory.study["axes"][compare] if name not in lacking]
    for name in present[1:]:
        ends = ((present[0], name), *along.values())
        difference = interaction({key: scores[key] for key in interaction_weights(*ends)}, *ends)
        if difference.n:
            p = sign_flip_test(difference.values, rng=SEED).p
            yield Interaction(name, present[0], along, combination, evaluation, difference, p)


def _displaced(directory: Directory, missing: list[str]) -> list[Displaced]:
    evaluators = directory.evaluators("DisplacementMetric")
    if not evaluators:
        missing.append("Displacement profiles, audit: the study has no evaluator of type DisplacementMetric.")
        return []
    found, absent = [], 0
    for combination, evaluation, names in _grid(directory):
        for name in names:
            runs = [run for run in directory.of(directory.full(combination, name)) if evaluation in run["evaluations"]]
            measured = [(run, directory.displacement(run, evaluation, evaluators[0])) for run in runs]
            absent += sum(result is None for _, result in measured)
            kept = [(run, result) for run, result in measured if result is not None]
            if kept:
                axes = {
                    axis: _shift(
                        [getattr(result, axis) for _, result in kept],
                        *(_audited(directory.study, kept[0][0], each, axis) for each in (evaluation, None)),
                    )
                    for axis in ("x", "y")
                }
                edges = [100 * result.found for _, result in kept if not math.isnan(result.found)]
                share = float(np.mean(edges)) if edges else math.nan
                seeds = [run["seed"] for run, _ in kept]
                found.append(Displaced(combination, name, evaluation, seeds, axes["x"], axes["y"], share))
    if absent:
        missing.append(f"Displacement profiles: the per-image counts of {absent} evaluations are absent.")
    audits = [run["evaluations"][e].get("audit") or {} for run in directory.runs for e in run["evaluations"]]
    failed = sorted({audit["error"] for audit in audits if "error" in audit})
    if failed:
        missing.append(f"Prediction of the audit: it could not follow some networks ({'; '.join(failed)}).")
    elif found and not any(audits):
        missing.append("Prediction of the audit: no evaluation has one.")
    return found


def _audited(
    study: Mapping[str, Any], run: Mapping[str, Any], evaluation: str | None, axis: str
) -> tuple[float, float, float] | None:
    """(first, middle, last) of the audit of an evaluation; None = of the one that tests the run as it was trained."""
    if evaluation is None:
        own = [e for e in study["evaluations"] if tested_as(study, run["variants"], e) == run["variants"]]
        evaluation = next((name for name in own if name in run["evaluations"]), None)
    record = run["evaluations"].get(evaluation) if evaluation is not None else None
    values = ((record or {}).get("audit") or {}).get(axis)
    return None if values is None else (values[0], values[1], values[2])


def _shift(
    measured: Sequence[Any],
    tested: tuple[float, float, float] | None,
    trained: tuple[float, float, float] | None,
) -> Shift:
    absorbed = shift_absorbed = None
    if tested is not None and trained is not None:
        at = [1 / 6, 1 / 2, 5 / 6]
        e_tested, e_trained = (np.interp(at, [0, 0.5, 1], e) for e in (tested, trained))
        constant = (trained[0] + trained[2]) / 2
        # A network whose logits read evidence e px to the right predicts e px to the left.
        absorbed, shift_absorbed = (_triple(-(e_tested - learned)) for learned in (e_trained, constant))
    thirds = [[float(m.thirds[i]) for m in measured if not math.isnan(m.thirds[i])] for i in range(3)]
    drift = [float(m.drift) for m in measured if not math.isnan(m.drift)]
    return Shift(thirds, drift, np.stack([m.profile for m in measured]), tested, absorbed, shift_absorbed)


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    first, middle, last = (float(value) + 0.0 for value in values)
    return first, middle, last


def _curves(directory: Directory, kind: str, metric: str, title: str, missing: list[str]) -> list[Breakdown]:
    if not directory.evaluators(kind):
        missing.append(f"{title}: the study has no evaluator of type {kind}.")
        return []
    curves = []
    for combination, evaluation, names in _grid(directory):
        runs = [run for name in names for run in directory.of(directory.full(combination, name))]
        keys = dict[str, str]()
        for run in runs:
            keys |= gather.widths(run["evaluations"].get(evaluation, {}), metric)
        scores = {
            width: {name: directory.scalars(directory.full(combination, name), evaluation, key) for name in names}
            for width, key in keys.items()
        }
        scores = {width: values for width, values in scores.items() if any(values.values())}
        if scores:
            curves.append(Breakdown(combination, evaluation, scores, _differences(scores)))
    if directory.runs and not curves:
        missing.append(f"{title}: no finished evaluation has its scores.")
    return curves


def _differences(scores: Mapping[str, Mapping[str, Scores]]) -> dict[str, dict[str, PairedDifference]]:
    """Of every row, each variant minus the first."""
    found = {}
    for row, of_variant in scores.items():
        reference, *rest = of_variant
        found[row] = {name: paired_difference(of_variant[name], of_variant[reference]) for name in rest}
    return found


def _classes(directory: Directory) -> Iterator[Breakdown]:
    first = next(iter(directory.study["evaluations"]))
    for combination, names in _groups(directory):
        runs = {name: directory.of(directory.full(combination, name)) for name in names}
        by_class: dict[str, dict[str, dict[int, float]]] = {}
        for name, run in ((name, run) for name, of_variant in runs.items() for run in of_variant):
            for each, value in (run["evaluations"].get(first, {}).get("IoU") or {}).items():
                scores = by_class.setdefault(each, {variant: {} for variant in names})
                if value is not None:
                    scores[name][run["seed"]] = value
        if by_class:
            yield Breakdown(combination, first, by_class, _differences(by_class))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval; NaN where there is none."""
    ends = t_interval(values)
    return (float(np.mean(values)) if len(values) else math.nan), ends.low, ends.high


def _caveats(
    directory: Directory,
    comparisons: Sequence[Comparison],
    family: Sequence[Declared],
    displaced: Sequence[Displaced],
) -> list[str]:
    evidence = [tested.evidence for comparison in comparisons for tested in comparison.tested.values()]
    fewest = min((each.difference.n for each in evidence if each.difference.n), default=0)
    found = [caveat(fewest, max(1, len(family)))]
    exploratory = sum(not each.declared and each.difference.n > 1 for each in evidence)
    if exploratory:
        found.append(
            f"{exploratory} further {'difference is' if exploratory == 1 else 'differences are'} shown that "
            f"{'was' if exploratory == 1 else 'were'} not declared. About one in twenty of their 95 % intervals misses "
            f"the truth, and the most striking one is the likeliest to."
        )
    missing = len(directory.failures) + len(directory.unfinished)
    if missing:
        found.append(
            f"{missing} planned {'run is' if missing == 1 else 'runs are'} missing ({len(directory.failures)} failed, "
            f"{len(directory.unfinished)} not finished). Differences use only the seeds that both sides have; if runs "
            f"fail more under one variant, what is left is biased."
        )
    if len(directory.environments) > 1:
        found.append(
            f"The runs were made in {len(directory.environments)} different environments, listed below; "
            f"differences between those are differences between variants too, unless each seed was run in one."
        )
    if any((environment.get("git") or {}).get("dirty") for environment in directory.environments):
        found.append("The working tree had uncommitted changes, so the commit alone does not reproduce these numbers.")
    if any(each.images is not None and each.images.incomplete > 0.05 for each in evidence):
        found.append(
            "Some class is in so few test images that more than 5 % of the redrawn test sets lack it: the intervals "
            "with other images are rough."
        )
    blurred = [each for each in displaced if not each.found >= FEWEST_EDGES]  # NaN: none at all
    if blurred:
        found.append(
            f"In {len(blurred)} of {len(displaced)} trained and tested variants the predictions have less than "
            f"{FEWEST_EDGES} % of the labelled edges: their displacement means little."
        )
    if comparisons:
        found.append(
            f"All of this holds for {directory.study['base']} as configured here: this network, data set and length of "
            f"training. A study of one of them says nothing about others."
        )
    return [sentence for sentence in found if sentence]
