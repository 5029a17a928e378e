"""The statistics of a study: every number of its report, from its records."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..design import outlook
from ..image_bootstrap import NestedBootstrap, nested_bootstrap
from ..intervals import bca_interval, effect_size
from ..paired import PairedDifference, Summary, caveat, interaction, interaction_weights, paired_difference, summarize
from ..plan import METRICS, DeclaredComparison, Variants, in_words
from ..significance import equivalence_test, holm, sign_flip_test
from . import cells, displacement, gather, verdict
from .gather import Directory, Scores
from .results import Breakdown, Comparison, Interaction, Report, TestedDifference, Transfer, VariantDisplacement
from .verdict import Evidence, Verdict

SEED = 0
"""Seed of all random numbers: the same runs give the same report."""

_Arms = Mapping[tuple[str, ...], Variants]
"""Variant of the compared axis, and of those along which it changes, -> variants of all axes."""

_Change = tuple[DeclaredComparison, str, PairedDifference]
"""Interaction before it is tested: what changes along which axes, the reference, and by how much."""

FEWEST_EDGES = 20
"""Percent of the labelled edges below which the displacement of predictions means little."""


def build(root: Path) -> Report:
    """Read and analyse the directory of a study.

    Raises:
        StudyError: ``root`` holds no study, or files of another version.
    """
    directory = gather.read(root)
    study, missing = directory.study, list(directory.unreadable)
    for twin in study.get("twins", ()):
        words, same = in_words(twin["variants"]), in_words(twin["same_as"])
        missing.append(f"{words} is the same network as {same}, trained once and shown as the latter.")
    family = gather.family(study)
    comparisons, interactions, tested = _tested(directory, family, missing)
    displaced = displacement.measure_displacement(directory, missing)
    trimap = _curves(directory, "TrimapIoUMetric", "mIoU_trimap", "Trimap curves", missing)
    boundary = _curves(directory, "BoundaryIoUMetric", "mBIoU", "Boundary IoU", missing)
    nothing = Verdict("missing", verdict.LABELS["missing"], "No run is finished.")
    verdicts = [tested[key].verdict if key in tested else nothing for key in family]
    n = max((tested[key].evidence.difference.n for key in family if key in tested), default=0)
    return Report(
        study=study,
        unit=cells.unit(study["metric"]),
        margin=study["margin"],
        family=family,
        uncompared=[key for key in family if key not in tested],
        headline=verdict.headline(verdicts, n),
        seeds_decide_nothing=verdict.seeds_decide_nothing(verdicts, n),
        comparisons=comparisons,
        transfers=list(_transfers(directory)),
        interactions=interactions,
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


def _tested(
    directory: Directory, family: Sequence[DeclaredComparison], missing: list[str]
) -> tuple[list[Comparison], list[Interaction], dict[DeclaredComparison, TestedDifference]]:
    """Compute every difference, and test all of them, the declared ones corrected together."""
    compared, changed = list(_comparisons(directory)), list(_interactions(directory))
    differences = {_key(c, name): d for c in compared for name, d in c.differences.items()}
    names = {_key(c, name): (name, c.reference) for c in compared for name in c.differences}
    for key, reference, difference in changed:
        start, to = (", ".join(f"{axis} {ends[i]}" for axis, ends in key.along) for i in (0, 1))
        differences[key] = difference
        names[key] = (f"{key.variant} - {reference} at {to}", f"at {start}")
    images = _images(directory, compared, [change for change in changed if change[0] in family], missing)
    limit, measure = directory.study["margin"], cells.unit(directory.study["metric"])
    p = {key: sign_flip_test(d.values, rng=SEED).p for key, d in differences.items()}
    small = {key: equivalence_test(d.values, limit).p for key, d in differences.items()}
    adjusted, adjusted_small = holm(p, family), holm(small, family)
    tested = {}
    for key, difference in differences.items():
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
        tested[key] = TestedDifference(
            evidence,
            verdict.judge(evidence, *names[key], measure),
            bca_interval(difference.values, rng=SEED),
            effect_size(difference.values),
        )
    return (
        [replace(c, tested={name: tested[_key(c, name)] for name in c.differences}) for c in compared],
        [
            Interaction(key.variant, reference, dict(key.along), dict(key.combination), key.evaluation, tested[key])
            for key, reference, _ in changed
        ],
        tested,
    )


def _key(comparison: Comparison, variant: str) -> DeclaredComparison:
    return DeclaredComparison(tuple(comparison.combination.items()), comparison.evaluation, variant)


def _comparisons(directory: Directory) -> Iterator[Comparison]:
    """Yield what is compared, not tested yet."""
    metric = directory.study["metric"]
    for combination, evaluation, names in directory.grid():
        scores = {name: directory.scalars(directory.all_axes(combination, name), evaluation, metric) for name in names}
        if any(scores.values()):
            reference, *rest = scores
            differences = {name: paired_difference(scores[name], scores[reference]) for name in rest}
            yield Comparison(combination, evaluation, scores, _means(scores), differences, {})


def _images(
    directory: Directory,
    compared: Sequence[Comparison],
    declared: Sequence[_Change],
    missing: list[str],
) -> dict[DeclaredComparison, NestedBootstrap]:
    """Redraw the images of all comparisons and of the declared interactions; ``missing`` gets what is impossible."""
    metric = directory.study["metric"]
    if metric not in METRICS:
        if compared:
            missing.append(
                f"Intervals with other test images: they are computed for {', '.join(METRICS)}, not for {metric}."
            )
        return {}
    found, unknown = dict[DeclaredComparison, NestedBootstrap](), dict[str, list[str]]()
    for comparison in compared:
        arms: _Arms = {(name,): directory.all_axes(comparison.combination, name) for name in comparison.scores}
        contrasts = {
            _key(comparison, name): (interaction_weights((comparison.reference, name)), difference)
            for name, difference in comparison.differences.items()
        }
        place = ", ".join([*comparison.combination.values(), comparison.evaluation])
        found |= _bootstraps(directory, comparison.evaluation, arms, contrasts, place, unknown)
    for key, reference, difference in declared:
        weights = interaction_weights((reference, key.variant), *(ends for _, ends in key.along))
        axes = [axis for axis, _ in key.along]
        arms = {
            arm: directory.all_axes({**dict(key.combination), **dict(zip(axes, arm[1:], strict=True))}, arm[0])
            for arm in weights
        }
        place = ", ".join([*dict(key.combination).values(), *axes, key.evaluation])
        found |= _bootstraps(directory, key.evaluation, arms, {key: (weights, difference)}, place, unknown)
    missing += [f"Intervals with other test images: {why}, in {'; '.join(where)}." for why, where in unknown.items()]
    return found


def _bootstraps(
    directory: Directory,
    evaluation: str,
    arms: _Arms,
    contrasts: Mapping[DeclaredComparison, tuple[Mapping[tuple[str, ...], int], PairedDifference]],
    place: str,
    unknown: dict[str, list[str]],
) -> dict[DeclaredComparison, NestedBootstrap]:
    """Redraw the images of contrasts of ``arms``; ``unknown`` gets why that is impossible, and ``place``."""
    metric = directory.study["metric"]
    seeds = {seed for _, difference in contrasts.values() for seed in difference.seeds}
    runs = {
        (arm, run["seed"]): run
        for arm, variants in arms.items()
        for run in directory.runs_of(variants)
        if run["seed"] in seeds and gather.scalar(run["evaluations"].get(evaluation), metric) is not None
    }
    counts = directory.image_counts(list(runs.values()), evaluation)
    if isinstance(counts, str):
        unknown.setdefault(counts, []).append(place)
        return {}
    by_run = dict(zip(runs, counts, strict=True))
    found = {}
    for key, (weights, difference) in contrasts.items():
        if difference.n:
            stacked = [np.stack([by_run[arm, seed] for seed in difference.seeds]) for arm in weights]
            found[key] = nested_bootstrap(stacked, list(weights.values()), rng=SEED, metric=metric)
    return found


def _transfers(directory: Directory) -> Iterator[Transfer]:
    reference, *others = directory.study["evaluations"]
    metric = directory.study["metric"]
    for variants, evaluation in itertools.product(directory.combinations, others):
        value = directory.scalars(variants, evaluation, metric)
        if value:
            difference = paired_difference(value, directory.scalars(variants, reference, metric))
            yield Transfer(
                variants, gather.tested_as(directory.study, variants, evaluation), evaluation, reference, difference
            )


def _interactions(directory: Directory) -> Iterator[_Change]:
    """Compute the interactions of the compared axis with one other axis, and with two."""
    study, others = directory.study, directory.other_axes
    groups = [combination for combination, _ in directory.groups()]
    levels = {axis: [name for name in names if any(c[axis] == name for c in groups)] for axis, names in others.items()}
    for evaluation, size in itertools.product(study["evaluations"], (1, 2)):
        for along in itertools.combinations(others, size):
            held = {axis: names for axis, names in levels.items() if axis not in along}
            for combination in gather.in_order(held, groups):
                beside = [group for group in groups if combination.items() <= group.items()]
                ends = [[(levels[a][0], to) for to in levels[a][1:] if any(g[a] == to for g in beside)] for a in along]
                for each in itertools.product(*ends):
                    yield from _interaction(directory, dict(zip(along, each, strict=True)), combination, evaluation)


def _interaction(
    directory: Directory, along: Mapping[str, tuple[str, str]], combination: Variants, evaluation: str
) -> Iterator[_Change]:
    compare, metric = directory.study["compare"], directory.study["metric"]
    corners = list(gather.product({axis: list(ends) for axis, ends in along.items()}))
    scores = {
        (name, *corner.values()): directory.scalars(
            directory.all_axes({**combination, **corner}, name), evaluation, metric
        )
        for name in directory.study["axes"][compare]
        for corner in corners
    }
    lacking = {key[0] for key, of_key in scores.items() if not of_key}
    present = [name for name in directory.study["axes"][compare] if name not in lacking]
    for name in present[1:]:
        ends = ((present[0], name), *along.values())
        difference = interaction({key: scores[key] for key in interaction_weights(*ends)}, *ends)
        if difference.n:
            key = DeclaredComparison(tuple(combination.items()), evaluation, name, tuple(along.items()))
            yield key, present[0], difference


def _curves(directory: Directory, kind: str, metric: str, title: str, missing: list[str]) -> list[Breakdown]:
    if not directory.evaluators(kind):
        missing.append(f"{title}: the study has no evaluator of type {kind}.")
        return []
    curves = []
    for combination, evaluation, names in directory.grid():
        runs = [run for name in names for run in directory.runs_of(directory.all_axes(combination, name))]
        keys = dict[str, str]()
        for run in runs:
            keys |= gather.widths(run["evaluations"].get(evaluation, {}), metric)
        scores = {
            width: {name: directory.scalars(directory.all_axes(combination, name), evaluation, key) for name in names}
            for width, key in keys.items()
        }
        scores = {width: values for width, values in scores.items() if any(values.values())}
        if scores:
            curves.append(_breakdown(combination, evaluation, scores))
    if directory.runs and not curves:
        missing.append(f"{title}: no finished evaluation has its scores.")
    return curves


def _breakdown(combination: Variants, evaluation: str, scores: Mapping[str, Mapping[str, Scores]]) -> Breakdown:
    """Summarize every row, and subtract the first variant from each of the others."""
    means, differences = {}, dict[str, dict[str, PairedDifference]]()
    for row, of_variant in scores.items():
        reference, *rest = of_variant
        means[row] = _means(of_variant)
        differences[row] = {name: paired_difference(of_variant[name], of_variant[reference]) for name in rest}
    return Breakdown(combination, evaluation, scores, means, differences)


def _means(scores: Mapping[str, Scores]) -> dict[str, Summary]:
    return {name: summarize(list(by_seed.values())) for name, by_seed in scores.items()}


def _classes(directory: Directory) -> Iterator[Breakdown]:
    first = next(iter(directory.study["evaluations"]))
    for combination, names in directory.groups():
        runs = {name: directory.runs_of(directory.all_axes(combination, name)) for name in names}
        by_class: dict[str, dict[str, dict[int, float]]] = {}
        for name, run in ((name, run) for name, of_variant in runs.items() for run in of_variant):
            for each, value in (run["evaluations"].get(first, {}).get("IoU") or {}).items():
                scores = by_class.setdefault(each, {variant: {} for variant in names})
                if value is not None:
                    scores[name][run["seed"]] = value
        if by_class:
            yield _breakdown(combination, first, by_class)


def _caveats(
    directory: Directory,
    comparisons: Sequence[Comparison],
    family: Sequence[DeclaredComparison],
    displaced: Sequence[VariantDisplacement],
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
