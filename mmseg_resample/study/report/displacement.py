"""Displacement of the predictions by seed, and the displacement that the audit predicts."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..paired import summarize
from .gather import Directory, tested_as
from .results import Shift, VariantDisplacement


def measure_displacement(directory: Directory, missing: list[str]) -> list[VariantDisplacement]:
    """Collect the displacement of every trained variant by evaluation; ``missing`` gets what is absent, and why."""
    evaluators = directory.evaluators("DisplacementMetric")
    if not evaluators:
        missing.append("Displacement profiles, audit: the study has no evaluator of type DisplacementMetric.")
        return []
    found, reasons = [], Counter[str]()
    for combination, evaluation, names in directory.grid():
        for name in names:
            runs = [
                run
                for run in directory.runs_of(directory.all_axes(combination, name))
                if evaluation in run["evaluations"]
            ]
            results = [(run, directory.displacement(run, evaluation, evaluators[0])) for run in runs]
            reasons.update(result for _, result in results if isinstance(result, str))
            kept = [(run, result) for run, result in results if not isinstance(result, str)]
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
                found.append(VariantDisplacement(combination, name, evaluation, seeds, axes["x"], axes["y"], share))
    for reason, count in reasons.items():
        missing.append(f"Displacement profiles: {reason}{f', in {count} evaluations' * (count > 1)}.")
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
    """Read (first, middle, last) of the audit of an evaluation; None means the one that tests the run as trained."""
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
    return Shift(
        thirds,
        [summarize(values) for values in thirds],
        drift,
        summarize(drift),
        np.stack([m.profile for m in measured]),
        tested,
        absorbed,
        shift_absorbed,
    )


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    first, middle, last = (float(value) + 0.0 for value in values)
    return first, middle, last
