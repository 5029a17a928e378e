"""The confusion matrix of every image, from which accuracy, IoU and their intervals follow exactly."""

from typing import Any

import numpy as np
import torch
from mmseg.registry import METRICS
from torch import Tensor

from .per_image import PerImageMetric, log_table, nanmean, ratio


def confusion_matrix(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Count the pixels of every (ground truth, prediction) pair of classes.

    Args:
        pred: predicted classes, any shape, integer, in [0, num_classes); anything where the label is ignored.
        label: true classes, same shape and device as ``pred``, integer, in [0, num_classes) or ``ignore_index``.
        num_classes: C.
        ignore_index: label of the pixels that do not count, any integer. If it is a class, its row is zero and its
            column has what is predicted of it elsewhere, as ``IoUMetric`` counts.

    Returns:
        (C, C) int64 on the device of ``pred``; row = ground truth, column = prediction. Exact at any count.

    Raises:
        ValueError: shapes differ, or a label or a prediction is out of range.
        TypeError: a dtype is not integer.
    """
    counts = _count(pred, label, num_classes, ignore_index)
    if counts[-1]:
        raise ValueError(
            f"confusion_matrix: expected predictions in [0, {num_classes}) and labels in [0, {num_classes}) or "
            f"{ignore_index} (ignored), got {_span(pred)} and {_span(label)}."
        )
    return counts[:-1].view(num_classes, num_classes)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every class.

    Args:
        confusion: (..., C, C) counts, row = ground truth, column = prediction.

    Returns:
        (..., C) float64 in [0, 1]; NaN for a class that neither the labels nor the predictions contain.
    """
    confusion = np.asarray(confusion)
    hit = confusion.diagonal(axis1=-2, axis2=-1)
    return ratio(hit, confusion.sum(-1) + confusion.sum(-2) - hit)


def scores(confusion: np.ndarray) -> dict[str, Any]:
    """Compute accuracy and IoU of one confusion matrix, by the definitions of mmseg's ``IoUMetric``.

    Args:
        confusion: (C, C) counts summed over the images, row = ground truth, column = prediction.

    Returns:
        In percent, not rounded: ``aAcc`` (all pixels), ``mIoU`` and ``mAcc`` (means over the classes that are not
        NaN), and ``IoU`` and ``Acc``, (C,) float64 with NaN for a class that does not occur.
    """
    confusion = np.asarray(confusion)
    hit = confusion.diagonal()
    per_class = {"IoU": 100 * iou(confusion), "Acc": 100 * ratio(hit, confusion.sum(-1))}
    overall = 100 * ratio(hit.sum(), confusion.sum())
    return {"aAcc": float(overall), **{f"m{name}": nanmean(values) for name, values in per_class.items()}, **per_class}


@METRICS.register_module()
class ConfusionMatrixMetric(PerImageMetric):
    """aAcc, mIoU and mAcc from exact per-image confusion matrices.

    Gives what ``IoUMetric`` gives, under the same names and rounding, except where that is wrong: counts are integers
    (``IoUMetric`` counts in float32, which stops at 2**24 pixels per class), and an out-of-range label or prediction
    raises instead of being dropped.

    Args:
        ignore_index: label of the pixels that do not count.
        out_file: ``.npz`` to write, as for ``PerImageMetric``: ``confusion`` (num_images, C, C) int64, row = ground
            truth, column = prediction; ``images`` (num_images,) file names, or positions where a sample has
            none; ``classes`` (C,).
        collect_device, prefix, collect_dir: as in every mmengine metric.
    """

    def count(self, pred: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the flattened matrix, then the number of out-of-range pixels."""
        return {"counts": _count(pred, label, len(self.classes), self.ignore_index)}

    def arrays(self, counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the matrices as matrices."""
        num_classes = len(self.classes)
        return {"confusion": counts["counts"][:, :-1].reshape(-1, num_classes, num_classes)}

    def summarize(self, arrays: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the scores of the summed matrix; log the per-class table."""
        values = scores(arrays["confusion"].sum(0))
        columns = {name: values[name].round(2).tolist() for name in ("IoU", "Acc")}
        log_table("per class results", {"Class": self.classes, **columns})
        return {name: round(values[name], 2) for name in ("aAcc", "mIoU", "mAcc")}

    def _check(self, result: dict) -> None:
        invalid, classes = int(result["counts"][-1]), len(self.classes)
        if invalid:
            raise ValueError(
                f"ConfusionMatrixMetric: expected predictions in [0, {classes}) and labels in [0, {classes}) or "
                f"{self.ignore_index} (ignored), but {invalid} pixels of image {result['image']!r} have neither. Check "
                f"num_classes of the decode head, ignore_index and reduce_zero_label."
            )


def _count(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return the flattened matrix, then the number of out-of-range pixels, (C * C + 1,) int64."""
    if pred.shape != label.shape:
        raise ValueError(
            f"confusion_matrix: expected pred and label of one shape, got {tuple(pred.shape)} and {tuple(label.shape)}."
        )
    if any(x.is_floating_point() or x.is_complex() or x.dtype == torch.bool for x in (pred, label)):
        raise TypeError(f"confusion_matrix: expected integer classes, got pred {pred.dtype} and label {label.dtype}.")
    count = _count_by_bincount if pred.device.type == "cpu" else _count_by_scatter
    return count(pred.flatten(), label.flatten(), num_classes, ignore_index)


def _count_by_bincount(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    if not 0 <= ignore_index <= 255:  # labels are rows of the histogram: keep their range small
        label = label.long()  # a narrow dtype would wrap ignore_index around
        ignored = label == ignore_index
        label = torch.where(ignored, num_classes, torch.where(label == num_classes, -1, label))
        ignore_index = num_classes
    rows = max(num_classes, ignore_index + 1)
    if label.numel() and not (_within(pred, num_classes) and _within(label, rows)):
        # Rare and about to be reported: the other implementation sorts the pixels out one by one.
        return _count_by_scatter(pred, label, num_classes, ignore_index)
    # Ignored pixels land in a row of their own: cheaper than masking them away. 32 bits halve the memory traffic.
    key = label.to(torch.int32).mul_(num_classes).add_(pred.to(torch.int32))
    histogram = torch.bincount(key, minlength=rows * num_classes).view(rows, num_classes)
    histogram[ignore_index] = 0
    matrix, invalid = histogram[:num_classes], histogram[num_classes:].sum()
    return torch.cat([matrix.flatten(), invalid[None]])


def _count_by_scatter(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    # `torch.bincount` reads the maximum back to the host; this never waits for the device.
    pred, label = pred.long(), label.long()
    ignored = label == ignore_index
    valid = (pred >= 0) & (pred < num_classes) & (label >= 0) & (label < num_classes) & ~ignored
    bins = num_classes * num_classes
    key = torch.where(valid, label * num_classes + pred, torch.where(ignored, bins + 1, bins))
    counts = key.new_zeros(bins + 2).scatter_add_(0, key, key.new_ones(()).expand_as(key))
    return counts[:-1]


def _within(x: Tensor, stop: int) -> bool:
    low, high = torch.aminmax(x)
    return int(low) >= 0 and int(high) < stop


def _span(x: Tensor) -> str:
    low, high = torch.aminmax(x)
    return f"[{int(low)}, {int(high)}]"
