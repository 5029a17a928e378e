"""A report as JSON data: every number that it shows, not rounded."""

import math
from collections.abc import Sequence
from typing import Any

from ..image_bootstrap import NestedBootstrap
from ..intervals import Interval
from ..paired import PairedDifference, Summary
from .gather import Scores
from .results import Breakdown, Comparison, Report, Shift, TestedDifference, VariantDisplacement


def to_json(report: Report) -> dict[str, Any]:
    """Convert to JSON data. What is not a number, such as the interval of one seed, is None."""
    return {
        "study": report.study,
        "unit": {"score": report.unit.score, "difference": report.unit.difference},
        "margin": report.margin,
        "family": [each.describe() for each in report.family],
        "headline": report.headline,
        "comparisons": [_comparison(each) for each in report.comparisons],
        "transfers": [
            {
                "variants": each.variants,
                "tested": each.tested,
                "evaluation": each.evaluation,
                "reference": each.reference,
                **_paired(each.difference),
            }
            for each in report.transfers
        ],
        "interactions": [
            {
                "variant": each.variant,
                "reference": each.reference,
                "along": {axis: list(ends) for axis, ends in each.along.items()},
                "combination": each.combination,
                "evaluation": each.evaluation,
                **_tested(each.tested),
            }
            for each in report.interactions
        ],
        "displacement": [_displaced(each) for each in report.displaced],
        "trimap": [_breakdown(each) for each in report.trimap],
        "boundary": [_breakdown(each) for each in report.boundary],
        "classes": [_breakdown(each) for each in report.classes],
        "caveats": report.caveats,
        "missing": report.missing,
        "runs": report.runs,
        "configs": report.configs,
        "environments": report.environments,
        "restarts": report.restarts,
        "failures": report.failures,
        "unfinished": report.unfinished,
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "combination": comparison.combination,
        "evaluation": comparison.evaluation,
        "variants": {name: _scores(scores, comparison.means[name]) for name, scores in comparison.scores.items()},
        "differences": [
            {"variant": name, "reference": comparison.reference, **_tested(tested)}
            for name, tested in comparison.tested.items()
        ],
    }


def _tested(tested: TestedDifference) -> dict[str, Any]:
    evidence = tested.evidence
    outlook = evidence.outlook
    return {
        **_paired(evidence.difference),
        "declared": evidence.declared,
        "status": tested.verdict.status,
        "verdict": tested.verdict.text,
        "p": _number(evidence.p),
        "p_holm": _number(evidence.p_holm),
        "p_equivalence": _number(evidence.p_equivalence),
        "p_equivalence_holm": _number(evidence.p_equivalence_holm),
        "bca": _interval(tested.bca),
        "d_z": _number(tested.effect.d_z),
        "hedges": _number(tested.effect.hedges),
        "images": None if evidence.images is None else _images(evidence.images),
        "outlook": {
            "effect": _number(outlook.effect),
            "detectable": _number(outlook.detectable),
            "seeds": outlook.seeds,
            "cautious_seeds": outlook.cautious_seeds,
        },
    }


def _images(images: NestedBootstrap) -> dict[str, Any]:
    return {
        "student": _interval(images.student),
        "percentile": _interval(images.percentile),
        "seed_error": _number(images.seed_error),
        "image_error": _number(images.image_error),
        "incomplete": images.incomplete,
    }


def _displaced(each: VariantDisplacement) -> dict[str, Any]:
    return {
        "combination": each.combination,
        "variant": each.variant,
        "evaluation": each.evaluation,
        "seeds": each.seeds,
        "x": _shift(each.x),
        "y": _shift(each.y),
        "edges_found": _number(each.found),
    }


def _shift(shift: Shift) -> dict[str, Any]:
    return {
        "thirds": [_mean(values, mean) for values, mean in zip(shift.thirds, shift.third_means, strict=True)],
        "drift": _mean(shift.drift, shift.drift_mean),
        "profile": [[_number(value) for value in row] for row in shift.profile.tolist()],
        "audited": shift.audited,
        "predicted_if_all_is_absorbed": shift.absorbed,
        "predicted_if_the_shift_is_absorbed": shift.shift_absorbed,
    }


def _breakdown(each: Breakdown) -> dict[str, Any]:
    return {
        "combination": each.combination,
        "evaluation": each.evaluation,
        "rows": {
            row: {
                "variants": {name: _scores(by_seed, each.means[row][name]) for name, by_seed in of_variant.items()},
                "differences": {name: _paired(difference) for name, difference in each.differences[row].items()},
            }
            for row, of_variant in each.scores.items()
        },
    }


def _scores(scores: Scores, summary: Summary) -> dict[str, Any]:
    by_seed = {str(seed): scores[seed] for seed in sorted(scores)}
    return {"seeds": by_seed, "mean": _number(summary.mean), "sd": _number(summary.sd)}


def _paired(difference: PairedDifference) -> dict[str, Any]:
    numbers = {name: _number(getattr(difference, name)) for name in ("mean", "sd", "low", "high", "confidence")}
    by_seed = {str(seed): value for seed, value in zip(difference.seeds, difference.values, strict=True)}
    return {"n": difference.n, "seeds": by_seed, **numbers, "smallest_p": difference.smallest_p}


def _mean(values: Sequence[float], summary: Summary) -> dict[str, Any]:
    ends = {name: _number(getattr(summary, name)) for name in ("mean", "low", "high")}
    return {"values": list(values), **ends}


def _interval(interval: Interval) -> list[float | None]:
    return [_number(interval.low), _number(interval.high)]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
