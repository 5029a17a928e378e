"""What an evaluation measures beside the confusion matrix, and what the audit predicts for it."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmseg.registry import METRICS

from mmseg_resample.evaluation.per_image import PerImageMetric
from mmseg_resample.grids import fake_tensors, follow
from mmseg_resample.launch.auditing import build_fake

CONFUSION = "confusion"
"""Name of the evaluator that every evaluation has."""

DEFAULT_EVALUATORS: Mapping[str, Mapping[str, Any]] = {
    "displacement": {"type": "DisplacementMetric"},
    "boundary": {"type": "BoundaryIoUMetric", "widths": [1, 2, 3, 5], "frame": False},
    "trimap": {"type": "TrimapIoUMetric"},
}
"""Name -> config of the evaluators of a study that does not say which."""

_audits: dict[tuple[str, tuple[int, int]], dict[str, Any]] = {}


def scalar_names(config: Mapping[str, Any]) -> list[str] | None:
    """Names of the scalars that an evaluator returns; None if only an evaluation can tell.

    A ``PerImageMetric`` is tried on one small image, so its options are checked as well.

    Raises:
        Exception: whatever the evaluator raises for its options.
    """
    with _without_log():
        if not is_per_image(config):
            METRICS.build(dict(config))
            return None
        metric = METRICS.build({**config, "ignore_index": 255})
        metric.dataset_meta = {"classes": ("left", "right")}
        label = torch.zeros(1, 64, 64, dtype=torch.int64)
        label[..., 32:] = 1
        metric.process({}, [{"pred_sem_seg": {"data": label}, "gt_sem_seg": {"data": label}}])
        return list(metric.evaluate(1))


def test_evaluators(
    evaluators: Mapping[str, Mapping[str, Any]], ignore_index: int, directory: Path
) -> list[dict[str, Any]]:
    """The confusion matrix and ``evaluators``, as a ``test_evaluator`` that leaves ``<name>.npz`` in ``directory``."""
    named = {CONFUSION: {"type": "ConfusionMatrixMetric"}, **evaluators}
    return [
        {"ignore_index": ignore_index, **config, "out_file": str(directory / f"{name}.npz")}
        if is_per_image(config)
        else dict(config)
        for name, config in named.items()
    ]


def is_per_image(config: Mapping[str, Any]) -> bool:
    """Whether an evaluator counts every image by itself and can store the counts."""
    kind = METRICS.get(config["type"])
    return isinstance(kind, type) and issubclass(kind, PerImageMetric)


def predicted_shift(config: Config, size: tuple[int, int]) -> dict[str, Any]:
    """Misregistration of the prediction with the labels, as ``alignment.audit`` has it for an input of ``size``.

    Args:
        config: its ``model`` is audited, once per process for the same model and size.
        size: (h, w) of the input of the network.

    Returns:
        ``size``, and along ``x`` and ``y`` the shift in pixels at the first, middle and last position: a network whose
        logits read evidence e px to the right has e, and without training predicts e px to the left. Or ``error``,
        where the audit cannot follow the network.
    """
    key = json.dumps([config.get("default_scope"), config.model.to_dict()], default=repr), size
    if key not in _audits:
        _audits[key] = _audit(config, size)
    return _audits[key]


def _audit(config: Config, size: tuple[int, int]) -> dict[str, Any]:
    try:
        with fake_tensors():
            final = follow(build_fake(config), size).final
    except Exception as error:  # an aid to read the scores: whatever it cannot do must not cost them
        return {"error": f"{type(error).__name__}: {error}"}
    if final is None or final.x is None or final.y is None:
        return {"error": "The positions of the prediction could not be followed."}
    x, y = ([float(value) for value in asdict(offset).values()] for offset in (final.x, final.y))
    return {"size": list(size), "x": x, "y": y}


@contextmanager
def _without_log() -> Iterator[None]:
    """Metrics log when they are built, and tables."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
