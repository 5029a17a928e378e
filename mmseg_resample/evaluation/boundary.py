"""IoU at boundaries: Boundary IoU of Cheng et al., and IoU in a trimap around the boundaries of the labels."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import METRICS
from torch import Tensor

from .areas import AreasMetric, binned_areas, encode, histogram

Width = int | float


def boundary_areas(
    pred: Tensor,
    label: Tensor,
    num_classes: int,
    widths: Sequence[Width],
    ignore_index: int = 255,
    frame: bool = True,
) -> Tensor:
    """Count the areas whose ``area_iou`` is the Boundary IoU of every class and band width.

    The band of a class is what an erosion of its mask removes: its pixels that have a pixel of another class within
    ``width`` rows and columns. Boundary IoU is the IoU of the band in the prediction and the band in the label.

    Ignored pixels are in no band, and neither they nor what is predicted there makes a boundary: a pixel next to them
    is in a band only if there is another class within reach that is not ignored.

    Args:
        pred: (h, w) integer, in [0, num_classes); anything where the label is ignored.
        label: (h, w) integer on the device of ``pred``, in [0, num_classes) or ``ignore_index``.
        num_classes: C.
        widths: W of them; an integer >= 1 in pixels, a float in (0, 1) as a fraction of the image diagonal.
        ignore_index: label of the pixels that do not count.
        frame: whether what lies outside the image is of another class, as in the published definition. The bands then
            hold all pixels near the frame, whether there is a boundary or not, and measure the interior there.

    Returns:
        (W, 3, C) int64 on the device of ``pred``; counts of pixels: intersection, prediction, label.

    Raises:
        ValueError: a width is neither, or the maps are wrong in shape or values.
        TypeError: a dtype is not integer.

    Source: Cheng et al., Boundary IoU, CVPR 2021, arXiv:2103.16562.
    """
    pred, label = encode("boundary_areas", pred, label, num_classes, ignore_index)
    radii = [band_radius(width, pred.shape) for width in widths]
    levels = sorted(set(radii))
    pred_level, label_level = (_band_level(x, num_classes, levels, frame) for x in (pred, label))
    hit = torch.where(pred == label, label, num_classes)
    parts = ((hit, torch.maximum(pred_level, label_level)), (pred, pred_level), (label, label_level))
    counts = torch.stack([histogram(bins, x, len(levels) + 1, num_classes) for x, bins in parts], dim=1)
    return _at_most(counts, levels, radii)


def trimap_areas(
    pred: Tensor, label: Tensor, num_classes: int, widths: Sequence[Width], ignore_index: int = 255
) -> Tensor:
    """Count the areas whose ``area_iou`` is the IoU in trimaps: only pixels near a boundary of the label count.

    The trimap of a width has the pixels with a pixel of another class, in the label, within ``width`` rows and columns;
    1 leaves the two rows of pixels along a boundary. Ignored pixels are in no trimap and make no boundary, and neither
    does the frame of the image.

    Args:
        pred: (h, w) integer, in [0, num_classes); anything where the label is ignored.
        label: (h, w) integer on the device of ``pred``, in [0, num_classes) or ``ignore_index``.
        num_classes: C.
        widths: W of them; an integer >= 1 in pixels, a float in (0, 1) as a fraction of the image diagonal.
        ignore_index: label of the pixels that do not count.

    Returns:
        (W, 3, C) int64 on the device of ``pred``; counts of pixels: intersection, prediction, label.

    Raises:
        ValueError: a width is neither, or the maps are wrong in shape or values.
        TypeError: a dtype is not integer.

    Source: Kohli et al., Robust higher order potentials, IJCV 2009; Kraehenbuehl and Koltun, NIPS 2011.
    """
    pred, label = encode("trimap_areas", pred, label, num_classes, ignore_index)
    radii = [band_radius(width, pred.shape) for width in widths]
    levels = sorted(set(radii))
    level = _band_level(label, num_classes, levels, frame=False)
    return _at_most(binned_areas(pred, label, level, len(levels) + 1, num_classes), levels, radii)


def band_radius(width: Width, size: Sequence[int], rounding: Callable[[float], int] = round) -> int:
    """Return a band width, or a tolerance, in pixels.

    Args:
        width: an integer >= 1 in pixels, or a float in (0, 1) as a fraction of the diagonal.
        size: (h, w) of the image.
        rounding: of the fraction, which is at least one pixel.

    Raises:
        ValueError: ``width`` is neither.
    """
    if width >= 1 and width == int(width):
        return int(width)
    if 0 < width < 1:
        return max(1, rounding(width * math.hypot(*size)))
    raise ValueError(
        f"band_radius: expected an integer >= 1 (pixels) or a number in (0, 1) (fraction of the diagonal), got {width}."
    )


def width_name(width: Width) -> str:
    """Name a width ``3px``, or ``2pct`` of the diagonal for 0.02, as every experiment tracker accepts it."""
    band_radius(width, (1, 1))
    return f"{width:g}px" if width >= 1 else f"{100 * width:g}pct"


@METRICS.register_module()
class BoundaryIoUMetric(AreasMetric):
    """Boundary IoU of semantic segmentation: ``mBIoU_3px``, ``mBIoU_2pct``, ..., means over the classes, in percent.

    Counts are summed over the data set before they are divided, as for mIoU. See ``boundary_areas``.

    Args:
        widths: of the bands; an integer >= 1 in pixels, a float in (0, 1) as a fraction of the image diagonal. The
            paper has 0.02 for COCO and 0.005 for Cityscapes, at 1024x2048 that is 46 px, blind to a shift of 3, and 11.
        frame: whether the frame of the image is a boundary, as in the paper. At 1 px of 1024x2048 it adds 6140 pixels
            to the bands, which mostly agree: it raises the value and hides part of the boundaries.
        ignore_index, out_file, collect_device, prefix, collect_dir: as for ``AreasMetric``.
    """

    name = "mBIoU"

    def __init__(self, widths: Sequence[Width] = (1, 2, 3, 5, 0.005, 0.02), frame: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widths = tuple(widths)
        self.bins = [width_name(width) for width in self.widths]
        self.frame = frame

    def count(self, pred: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Count the areas of the bands."""
        areas = boundary_areas(pred, label, len(self.classes), self.widths, self.ignore_index, self.frame)
        return {"areas": areas}


@METRICS.register_module()
class TrimapIoUMetric(AreasMetric):
    """mIoU near the boundaries of the labels, as a curve over the width: ``mIoU_trimap_1px``, ..., in percent.

    See ``trimap_areas``.

    Args:
        widths: of the trimaps; an integer >= 1 in pixels, a float in (0, 1) as a fraction of the image diagonal.
        ignore_index, out_file, collect_device, prefix, collect_dir: as for ``AreasMetric``.
    """

    name = "mIoU_trimap"

    def __init__(self, widths: Sequence[Width] = (1, 2, 3, 5, 8, 12, 20, 32), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widths = tuple(widths)
        self.bins = [width_name(width) for width in self.widths]

    def count(self, pred: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Count the areas in the trimaps."""
        return {"areas": trimap_areas(pred, label, len(self.classes), self.widths, self.ignore_index)}


def _band_level(x: Tensor, num_classes: int, radii: Sequence[int], frame: bool) -> Tensor:
    """Count how many of the ascending ``radii`` leave a pixel outside the band, uint8.

    A pixel is in the band of a radius if the least and the greatest class in the square around it differ. Squares
    compose: the extremes of one radius are the start for the next.
    """
    # An ignored pixel is C in one and 0 in the other, which changes no least and no greatest class.
    lowest, highest = x, x.masked_fill(x == num_classes, 0)
    level = torch.zeros_like(x, dtype=torch.uint8)
    reached = 0
    for radius in radii:
        lowest = _reduce_square(lowest, radius - reached, torch.minimum, num_classes)
        highest = _reduce_square(highest, radius - reached, torch.maximum, 0)
        reached = radius
        outside = lowest == highest
        if frame:
            inner = torch.zeros_like(outside)
            inner[radius:-radius, radius:-radius] = True
            outside &= inner
        level += outside
    return level


def _reduce_square(x: Tensor, radius: int, reduce: Callable[[Tensor, Tensor], Tensor], neutral: int) -> Tensor:
    """Reduce the (2 radius + 1) square around every pixel; rows, then columns, by windows that double in length."""
    for dim, padding in ((0, (0, 0, radius, radius)), (1, (radius, radius, 0, 0))):
        x = F.pad(x, padding, value=neutral)
        length = 1
        while length < 2 * radius + 1:
            step = min(length, 2 * radius + 1 - length)
            size = x.shape[dim] - step
            x = reduce(x.narrow(dim, 0, size), x.narrow(dim, step, size))
            length += step
    return x


def _at_most(counts: Tensor, levels: Sequence[int], radii: Sequence[int]) -> Tensor:
    """Turn counts of exactly each level into counts of all up to the level of each radius."""
    return counts.cumsum(0)[[levels.index(radius) for radius in radii]]
