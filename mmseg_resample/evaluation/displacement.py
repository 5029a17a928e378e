"""Displacement of predictions from the labels, to a fraction of a pixel: the trace of a registration error.

Where the label has an edge between two classes, look at the prediction at every shift (dy, dx) from there: does it have
the edge? Two neighbouring pixels of classes (a, b) in the label and (c, d) in the shifted prediction agree
by ``[c = a] + [d = b] - [c = b] - [d = a]``: 2 for the same edge, -2 for the opposite one, 0 on average for
anything that is not related. Summed over edges and images, this is a correlogram with a peak at the displacement.

Errors that have nothing to do with the shift (noise, missing or invented objects) add zero on average, where a search
for the nearest matching edge takes them for displacement. And both axes are searched at once, because an edge
that is not vertical also seems to move along x when it moves along y. docs/metrics.md has the comparison.
"""

from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import torch
from mmseg.registry import METRICS
from torch import Tensor

from .areas import encode
from .per_image import DamagedCounts, PerImageMetric, log_table, ratio, read_counts

# Pixels around the peak that decide its position; shifts are examined this far beyond the greatest displacement.
_WINDOW = 4
# A shift agrees as well as the best one if it lacks no more than this share of its agreement: a fit climbs from there.
_AS_WELL = 0.02


class EdgeCounts(NamedTuple):
    """Counts from which the displacement of an image, or by their sums of a data set, is estimated.

    The image is divided into B x B cells; an edge is in the cell of its position in the label. K = 2 (D + 4) + 1 shifts
    per axis reach from -(D + 4) to D + 4.

    Attributes:
        pred: (B, B, K, K) int32, cells (y, x) and shifts (dy, dx): agreement of the displaced prediction with the edges
            of the label.
        label: (B, B, K, K) int32: the same of the label with itself, which is what a prediction without error would
            have.
        edges: (B, B, 3) float64: number of edges, and sums of their y and x as fractions of the image, -0.5 to 0.5.
    """

    pred: Any  # Tensor, or np.ndarray for sums of a data set
    label: Any
    edges: Any


@dataclass(frozen=True)
class AxisDisplacement:
    """Displacement of the prediction along one axis, in pixels; positive = right of, or below, the label.

    Everything but ``drift`` is at the middle of its region. NaN where there is nothing to measure.

    Attributes:
        overall: of the whole image.
        drift: change across the image, of a line fitted to all edges: its slope times the size of the image.
        thirds: (3,) of the left, middle and right (top, middle and bottom) third.
        profile: (B,) of equal bins along the axis.
    """

    overall: float
    drift: float
    thirds: np.ndarray
    profile: np.ndarray


@dataclass(frozen=True)
class Displacement:
    """Displacement of the prediction.

    Attributes:
        x: along x; ``thirds`` and ``profile`` from left to right.
        y: along y; ``thirds`` and ``profile`` from top to bottom.
        found: agreement of the prediction with the edges of the label at the displacement, as a share of that of the
            label with itself: 1 for a displaced copy, 0 for noise.
    """

    x: AxisDisplacement
    y: AxisDisplacement
    found: float


def edge_counts(
    pred: Tensor, label: Tensor, num_classes: int, max_displacement: int = 8, bins: int = 6, ignore_index: int = 255
) -> EdgeCounts:
    """Correlate the edges of a label with those of a prediction.

    Edges lie between two neighbouring pixels of a row or of a column. Those closer to the frame than any shift are left
    out: part of what they could match is outside the image, and that would pull the result inwards. Ignored pixels
    have no edges, in either map.

    Args:
        pred: (h, w) integer, in [0, num_classes); anything where the label is ignored.
        label: (h, w) integer on the device of ``pred``, in [0, num_classes) or ``ignore_index``.
        num_classes: C.
        max_displacement: D, the greatest displacement that can be measured along each axis, in pixels.
        bins: B, a multiple of 3.
        ignore_index: label of the pixels that do not count.

    Returns:
        Counts on the device of ``pred``; all zero if the image has no more than 2 (D + 4) rows or columns.

    Raises:
        ValueError: ``max_displacement`` or ``bins`` is out of range, or the maps are wrong in shape or values.
        TypeError: a dtype is not integer.
    """
    _check_options("edge_counts", max_displacement, bins)
    pred, label = encode("edge_counts", pred, label, num_classes, ignore_index)
    reach = max_displacement + _WINDOW
    along_x = _count_along_rows(pred, label, num_classes, reach, bins)
    # Columns are rows of the transposed maps; y and x change places in their counts, too.
    along_y = _count_along_rows(pred.T.contiguous(), label.T.contiguous(), num_classes, reach, bins)
    return EdgeCounts(
        along_x.pred + along_y.pred.permute(1, 0, 3, 2),
        along_x.label + along_y.label.permute(1, 0, 3, 2),
        along_x.edges + along_y.edges.transpose(0, 1)[..., [0, 2, 1]],
    )


def displacement(counts: EdgeCounts) -> Displacement:
    """Estimate the displacement of the prediction from the label.

    A line along each axis, x displacements against x and y against y, is fitted to the peaks of the correlograms of all
    cells; a region then gets the mean deviation of its cells from the line. A peak is the mean of the shifts around it,
    with weights that fall to nothing at four pixels: a displacement by a fraction shows as a mixture of whole shifts,
    whose mean is right where a parabola is biased by up to 0.09 px. The result for the label against itself is
    subtracted, so that a perfect prediction has exactly 0 whatever the scene.

    Args:
        counts: of one image or summed over images (``EdgeCounts(*(array.sum(0) for array in ...))``).

    Returns:
        The estimate; NaN where it would exceed the greatest displacement, or nothing agrees.
    """
    pred, label, edges = (np.asarray(array, dtype=np.float64) for array in counts)
    bins, limit = len(edges), pred.shape[-1] // 2 - _WINDOW
    # Where the edges of a cell are on average, (2, B, B); a cell without edges has nothing to weigh it either.
    position = np.nan_to_num(np.moveaxis(ratio(edges[..., 1:], edges[..., :1]), -1, 0))
    line, own_line = _fit(pred, position, _search(pred, label)), _fit(label, position, np.zeros((2, 2)))
    found = ratio(_around(pred, position, line).sum(), _around(label, position, own_line).sum())
    axes = []
    for axis in (0, 1):
        offset, drift = line[axis] - own_line[axis]
        regions = []
        for number in (3, bins):
            middle = (np.arange(number) + 0.5) / number - 0.5
            deviation = _deviations(pred, position, line, axis, number)
            deviation -= _deviations(label, position, own_line, axis, number)
            regions.append(_within(offset + drift * middle + deviation, limit))
        axes.append(AxisDisplacement(float(_within(offset, limit)), float(drift), *regions))
    return Displacement(x=axes[1], y=axes[0], found=float(found))


def stored_displacement(path: str | PathLike[str]) -> Displacement:
    """Read the displacement over all images from an ``out_file`` of ``DisplacementMetric``.

    Raises:
        DamagedCounts: it was cut or changed.
        FileNotFoundError: it is not there.
    """
    names = EdgeCounts._fields
    try:
        return displacement(EdgeCounts(*read_counts(path, *(f"total_{name}" for name in names))))
    except DamagedCounts:  # or written before there were any
        return displacement(EdgeCounts(*(each.sum(0) for each in read_counts(path, *names))))


@METRICS.register_module()
class DisplacementMetric(PerImageMetric):
    """Displacement of the prediction from the label in pixels, positive = right of and below the label.

    Gives ``dx``, ``dx_left``, ``dx_middle``, ``dx_right``, ``dx_drift`` (from the first column to the last), ``dy``,
    ``dy_top``, ``dy_middle``, ``dy_bottom``, ``dy_drift``, and ``edges_found``, the share of the edges that the
    displacement explains, in percent. See ``displacement``.

    ``out_file`` holds the fields of ``EdgeCounts``, first dimension = images:
    ``displacement(EdgeCounts(*(stored[name][drawn].sum(0) for name in EdgeCounts._fields)))`` is the displacement over
    the images drawn. Their sums over all images are in it as ``total_pred`` and so on, for ``stored_displacement``.

    Args:
        max_displacement: the greatest displacement that can be measured along each axis, in pixels.
        bins: of the profile, a multiple of 3.
        ignore_index, out_file, collect_device, prefix, collect_dir: as for ``PerImageMetric``.
    """

    def __init__(self, max_displacement: int = 8, bins: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_options(type(self).__name__, max_displacement, bins)
        self.max_displacement = max_displacement
        self.bins = bins

    def count(self, pred: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Count the correlograms of the edges."""
        return edge_counts(
            pred, label, len(self.classes), self.max_displacement, self.bins, self.ignore_index
        )._asdict()

    def totals(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the counts of all images together."""
        return {f"total_{name}": arrays[name].sum(0) for name in EdgeCounts._fields}

    def summarize(self, arrays: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the displacement over all images; log the profile."""
        result = displacement(EdgeCounts(*self.totals(arrays).values()))
        middle = (np.arange(self.bins) + 0.5) / self.bins
        columns = {"position": middle.round(3), "dx": result.x.profile.round(3), "dy": result.y.profile.round(3)}
        log_table("displacement in px, by position from left and from top", columns)
        values: dict[str, float] = {}
        for name, axis, sides in (("dx", result.x, ("left", "right")), ("dy", result.y, ("top", "bottom"))):
            thirds = zip((sides[0], "middle", sides[1]), axis.thirds, strict=True)
            values |= {name: axis.overall, **{f"{name}_{side}": float(v) for side, v in thirds}}
            values[f"{name}_drift"] = axis.drift
        return {**{name: round(v, 3) for name, v in values.items()}, "edges_found": round(100 * result.found, 2)}


def _check_options(function: str, max_displacement: int, bins: int) -> None:
    if max_displacement < 1 or max_displacement != int(max_displacement):
        raise ValueError(f"{function}: expected max_displacement in whole pixels, >= 1, got {max_displacement}.")
    if bins < 3 or bins % 3:
        raise ValueError(f"{function}: expected bins to be a multiple of 3, so that thirds are bins, got {bins}.")


def _count_along_rows(pred: Tensor, label: Tensor, num_classes: int, reach: int, bins: int) -> EdgeCounts:
    """Count the edges between horizontal neighbours."""
    h, w = label.shape
    row, column = _edges(label, num_classes, reach)
    # Pixel i spans the fractions i / n to (i + 1) / n of an axis of n; an edge is at the right end of its left pixel.
    y, x = (row.double() + 0.5) / h, (column.double() + 1) / w
    cells, cell = bins * bins, (y * bins).long() * bins + (x * bins).long()
    values = torch.stack([torch.ones_like(x), y - 0.5, x - 0.5], dim=1)
    edges = values.new_zeros(cells, 3).index_add_(0, cell, values)
    correlograms = [_correlate(other, label, row, column, cell, cells, num_classes, reach) for other in (pred, label)]
    return EdgeCounts(*(array.unflatten(0, (bins, bins)) for array in (*correlograms, edges)))


def _edges(label: Tensor, num_classes: int, reach: int) -> tuple[Tensor, Tensor]:
    """Return (row, column) of the left pixels of the edges that have all shifts inside the image."""
    inner = label[reach : max(reach, len(label) - reach), reach : max(reach, label.shape[1] - reach)]
    left, right = inner[:, :-1], inner[:, 1:]
    edge = (left != right) & (left != num_classes) & (right != num_classes)
    row, column = edge.nonzero(as_tuple=True)
    return row + reach, column + reach


def _correlate(
    other: Tensor, label: Tensor, row: Tensor, column: Tensor, cell: Tensor, cells: int, num_classes: int, radius: int
) -> Tensor:
    """Count the agreement of ``other`` with the edges of ``label``, (cells, K, K) int32."""
    width, shifts = label.shape[1], 2 * radius + 1
    # In float32, where whole numbers are exact up to 2**24: no cell has as many edges.
    counts = torch.zeros(shifts, cells, shifts, device=label.device)
    if len(row):
        # Row i of this view holds the pixels i to i + K of the map: those that all shifts along x read.
        windows = other.flatten().unfold(0, shifts + 1, 1)
        start = (row - radius) * width + column - radius
        a, b = (x[:, None].repeat(1, shifts + 1) for x in (label[row, column], label[row, column + 1]))
        for dy in range(shifts):
            seen = windows.index_select(0, start + dy * width)
            side = (seen == b).view(torch.int8) - (seen == a).view(torch.int8)
            valid = seen != num_classes
            agreement = (side[:, 1:] - side[:, :-1]) * (valid[:, 1:] & valid[:, :-1])
            counts[dy].index_add_(0, cell, agreement.float())
    return counts.transpose(0, 1).to(torch.int32)


def _weight(shift: np.ndarray) -> np.ndarray:
    """Return the weight of a shift by its distance from the peak."""
    return (1 - np.clip(shift / _WINDOW, -1, 1) ** 2) ** 2


def _search(counts: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Find the shift with the greatest agreement around it, as lines without drift, (2, 2).

    An edge says nothing along itself: of shifts that agree as well, the smallest is taken. Where there are shifts at
    which the prediction has all edges of the label, it is one of those, whatever lies around them.
    """
    total = counts.sum((0, 1))
    radius = len(total) // 2
    limit = radius - _WINDOW
    agreement = total[_WINDOW:-_WINDOW, _WINDOW:-_WINDOW]
    if agreement.max() < (1 - _AS_WELL) * own[..., own.shape[-2] // 2, own.shape[-1] // 2].sum():
        near = _weight(np.arange(-limit, limit + 1)[:, None] - np.arange(-radius, radius + 1))
        agreement = near @ total @ near.T
    candidates = np.argwhere(agreement >= agreement.max() - _AS_WELL * abs(agreement.max())) - limit
    return np.array([[shift, 0.0] for shift in candidates[(candidates**2).sum(1).argmin()]])


def _around(counts: np.ndarray, position: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Weigh the counts of every cell by their distance from its place on the line."""
    radius = counts.shape[-1] // 2
    shift = np.arange(-radius, radius + 1)
    peak = line[:, 0, None, None] + line[:, 1, None, None] * position
    weights = _weight(shift - peak[..., None])
    return counts * weights[0][..., :, None] * weights[1][..., None, :]


def _peaks(counts: np.ndarray, position: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the agreement (B, B) of every cell, around its place on the line, and its mean shift times that.

    Shifts that disagree are left out: of a thin object the opposite edge is near, and would repel the mean.
    """
    radius = counts.shape[-1] // 2
    shift = np.arange(-radius, radius + 1)
    weighted = _around(np.maximum(counts, 0), position, line)
    return weighted.sum((2, 3)), np.stack([weighted.sum(3) @ shift, weighted.sum(2) @ shift])


def _fit(counts: np.ndarray, position: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Fit offset and drift of both axes, (2, 2); NaN where nothing agrees."""
    for _ in range(200):
        total, moment = _peaks(counts, position, line)
        weight = total.sum()
        if not weight > 0:
            return np.full((2, 2), np.nan)
        centre = (total * position).sum((1, 2)) / weight
        away = position - centre[:, None, None]
        spread = (total * away**2).sum((1, 2))
        drift = np.where(spread > 1e-6 * weight, (moment * away).sum((1, 2)) / np.where(spread > 0, spread, 1), 0)
        previous, line = line, np.stack([moment.sum((1, 2)) / weight - drift * centre, drift], axis=1)
        if abs(line - previous).max() < 1e-5:
            break
    return line if _around(counts, position, line).sum() > 0 else np.full((2, 2), np.nan)


def _deviations(counts: np.ndarray, position: np.ndarray, line: np.ndarray, axis: int, regions: int) -> np.ndarray:
    """Return the mean deviation of peaks from the line, for each of some equal regions along an axis."""
    deviations = []
    for cells in np.array_split(np.arange(len(counts)), regions):
        part, at, local = counts.take(cells, axis), position.take(cells, axis + 1), line.copy()
        for _ in range(200):
            total, moment = _peaks(part, at, local)
            expected = total * (line[axis, 0] + line[axis, 1] * at[axis])
            deviation = (moment[axis] - expected).sum() / total.sum() if total.sum() > 0 else np.nan
            previous, local[axis, 0] = local[axis, 0], line[axis, 0] + deviation
            if not abs(local[axis, 0] - previous) >= 1e-5:
                break
        deviations.append(deviation)
    return np.array(deviations)


def _within(values: np.ndarray, limit: int) -> np.ndarray:
    return np.where(abs(values) <= limit + 0.5, values, np.nan)
