"""Intersections and areas of every class, by bins of pixels: the counts behind every kind of IoU."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .per_image import PerImageMetric, log_table, nanmean, ratio


def area_iou(areas: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every class.

    Args:
        areas: (..., 3, C) counts of pixels: intersection, prediction, label.

    Returns:
        (..., C) float64 in [0, 1]; NaN for a class that neither the labels nor the predictions contain.
    """
    intersection, pred, label = np.moveaxis(np.asarray(areas), -2, 0)
    return ratio(intersection, pred + label - intersection)


class AreasMetric(PerImageMetric):
    """Base of metrics that are the IoU in bins of pixels: bands around boundaries, distances, sizes of objects.

    ``out_file`` holds ``areas`` (num_images, bins, 3, C) int64, counts of pixels: intersection, prediction, label; and
    ``bins`` (bins,), their names. ``area_iou(areas[drawn].sum(0))`` is the IoU over the images drawn.

    Subclasses define ``count``, which returns ``areas`` (bins, 3, C), ``name`` and ``bins``.
    """

    name: str
    bins: Sequence[str]

    def arrays(self, counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the counts and the names of the bins."""
        return {**counts, "bins": np.array(self.bins)}

    def summarize(self, arrays: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the mean over the classes that occur, for every bin, in percent; log the per-class table."""
        values = 100 * area_iou(arrays["areas"].sum(0))
        columns = {name: per_class.round(2).tolist() for name, per_class in zip(self.bins, values, strict=True)}
        log_table(f"{self.name} per class", {"Class": self.classes, **columns})
        return {f"{self.name}_{name}": round(nanmean(v), 2) for name, v in zip(self.bins, values, strict=True)}


def encode(function: str, pred: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Check two maps, and give them one small dtype and one code for what does not count.

    Args:
        function: name for the errors.
        pred: (h, w) integer, in [0, num_classes); anything where the label is ignored.
        label: (h, w) integer on the device of ``pred``, in [0, num_classes) or ``ignore_index``.
        num_classes: C.
        ignore_index: any integer; if it is a class, that class is not scored where it is labelled, and what is
            predicted of it elsewhere is wrong, as in ``IoUMetric``.

    Returns:
        Prediction and label, both C where the label is ignored.

    Raises:
        ValueError: wrong rank, shapes differ, or a label or a prediction is out of range.
        TypeError: a dtype is not integer.
    """
    if pred.ndim != 2 or pred.shape != label.shape:
        raise ValueError(
            f"{function}: expected pred and label of one shape (h, w), got {tuple(pred.shape)} and "
            f"{tuple(label.shape)}."
        )
    if any(x.is_floating_point() or x.is_complex() or x.dtype == torch.bool for x in (pred, label)):
        raise TypeError(f"{function}: expected integer classes, got pred {pred.dtype} and label {label.dtype}.")
    ignored = label.long() == ignore_index  # uint8 would wrap -1 around to 255
    for x in (pred, label):
        if x.numel():
            low, high = (int(end) for end in torch.aminmax(x.masked_fill(ignored, 0)))  # tensors of uint8 would wrap
            if low < 0 or high >= num_classes:
                raise ValueError(
                    f"{function}: expected predictions in [0, {num_classes}) and labels in [0, {num_classes}) or "
                    f"{ignore_index} (ignored), got a {'prediction' if x is pred else 'label'} of "
                    f"{low if low < 0 else high}. Check num_classes of the decode head, ignore_index and "
                    f"reduce_zero_label."
                )
    dtype = torch.uint8 if num_classes <= 255 else torch.int32
    pred, label = (x.to(dtype).masked_fill(ignored, num_classes) for x in (pred, label))
    return pred, label


def histogram(bins: Tensor, classes: Tensor, num_bins: int, num_classes: int) -> Tensor:
    """Count the elements of every bin and class, (num_bins, num_classes) int64; others in class C are dropped."""
    key = bins.to(torch.int32) * (num_classes + 1) + classes.to(torch.int32)
    counts = torch.bincount(key.flatten(), minlength=num_bins * (num_classes + 1))
    return counts.view(num_bins, num_classes + 1)[:, :num_classes]


def binned_areas(pred: Tensor, label: Tensor, bins: Tensor, num_bins: int, num_classes: int) -> Tensor:
    """Count intersection, prediction, label of encoded maps, (num_bins, 3, C) int64; every pixel has a bin."""
    hit = torch.where(pred == label, label, num_classes)
    return torch.stack([histogram(bins, x, num_bins, num_classes) for x in (hit, pred, label)], dim=1)


def positions(classes: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """List (n, 2) rows and columns of the elements (h, w, ...) of every class; others, in class C, are left out."""
    flat = classes.ravel()
    found = np.flatnonzero(flat != num_classes)
    found = found[np.argsort(flat[found], kind="stable")]
    starts = np.searchsorted(flat[found], np.arange(1, num_classes))
    return np.split(np.stack(np.unravel_index(found, classes.shape)[:2], axis=1), starts)
