"""The evaluators of a study: the confusion matrix that every evaluation has, and the metrics beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmseg.registry import METRICS

from mmseg_resample.evaluation.per_image import PerImageMetric
from mmseg_resample.launch.messages import logs_silenced

CONFUSION = "confusion"
"""Name of the evaluator that every evaluation has."""

DEFAULT_EVALUATORS: Mapping[str, Mapping[str, Any]] = {
    "displacement": {"type": "DisplacementMetric"},
    "boundary": {"type": "BoundaryIoUMetric", "widths": [1, 2, 3, 5], "frame": False},
    "trimap": {"type": "TrimapIoUMetric"},
}
"""Name -> config of the evaluators of a study that does not say which."""


def scalar_names(config: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the scalars that an evaluator returns; None if only an evaluation can tell.

    A ``PerImageMetric`` is tried on one small image, so its options are checked as well.

    Raises:
        Exception: whatever the evaluator raises for its options.
    """
    with logs_silenced():
        if not is_per_image(config):
            METRICS.build(dict(config))
            return None
        metric = METRICS.build({**config, "ignore_index": 255})
        metric.dataset_meta = {"classes": ("left", "right")}
        label = torch.zeros(1, 64, 64, dtype=torch.int64)
        label[..., 32:] = 1
        metric.process({}, [{"pred_sem_seg": {"data": label}, "gt_sem_seg": {"data": label}}])
        return list(metric.evaluate(1))


def evaluator_configs(
    evaluators: Mapping[str, Mapping[str, Any]], ignore_index: int, directory: Path
) -> list[dict[str, Any]]:
    """Build the ``test_evaluator`` that leaves ``<name>.npz`` of the confusion matrix and of ``evaluators``."""
    named = {CONFUSION: {"type": "ConfusionMatrixMetric"}, **evaluators}
    directory = directory.absolute()  # a relative path would begin at the work directory of the run
    return [
        {"ignore_index": ignore_index, **config, "out_file": str(directory / f"{name}.npz")}
        if is_per_image(config)
        else dict(config)
        for name, config in named.items()
    ]


def is_per_image(config: Mapping[str, Any]) -> bool:
    """Tell whether an evaluator counts every image by itself and can store the counts."""
    kind = METRICS.get(config["type"])
    return isinstance(kind, type) and issubclass(kind, PerImageMetric)
