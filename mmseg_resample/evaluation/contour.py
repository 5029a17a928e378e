"""Boundary precision, recall and F-score with a tolerance, as DAVIS has them, for every class."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy
import torch
import torch.nn.functional as F
from mmseg.registry import METRICS
from torch import Tensor

from .areas import encode, positions
from .boundary import Width, band_radius, width_name
from .per_image import PerImageMetric, log_table, nanmean, ratio


def contour_matches(
    pred: Tensor, label: Tensor, num_classes: int, tolerances: Sequence[Width], ignore_index: int = 255
) -> Tensor:
    """Count boundary pixels, and those that the other map has within a tolerance.

    A boundary pixel of a class is one whose right, lower or lower right neighbour is of the class when it is not, or
    the other way around. It is matched if the other map has a boundary pixel of the same class no farther than the
    tolerance (Euclidean, between pixel centres), that is inside the dilation of the other boundary by a disc.

    Ignored pixels are no neighbours, in either map: there is no boundary along or inside an ignored region, and none
    along the frame of the image.

    Args:
        pred: (h, w) integer, in [0, num_classes); anything where the label is ignored.
        label: (h, w) integer on the device of ``pred``, in [0, num_classes) or ``ignore_index``.
        num_classes: C.
        tolerances: T of them; an integer >= 1 in pixels, a float in (0, 1) as a fraction of the image diagonal,
            rounded up.
        ignore_index: label of the pixels that do not count.

    Returns:
        (T, 4, C) int64 on the CPU; counts of boundary pixels: predicted and matched, predicted, labelled and matched,
        labelled.

    Raises:
        ValueError: a tolerance is neither, or the maps are wrong in shape or values.
        TypeError: a dtype is not integer.

    Source: Perazzi et al., DAVIS, CVPR 2016; boundaries as in the Berkeley benchmark, Martin et al., PAMI 2004.
    """
    maps = encode("contour_matches", pred, label, num_classes, ignore_index)
    radii = np.array([band_radius(tolerance, pred.shape, math.ceil) for tolerance in tolerances])
    pred_points, label_points = (_boundary_points(x, num_classes) for x in maps)
    counts = np.zeros((len(radii), 4, num_classes), np.int64)
    for c in range(num_classes):
        pairs = (pred_points[c], label_points[c]), (label_points[c], pred_points[c])
        for first, (points, others) in zip((0, 2), pairs, strict=True):
            counts[:, first, c] = (_distances(points, others, radii.max()) <= radii[:, None]).sum(1)
            counts[:, first + 1, c] = len(points)
    return torch.from_numpy(counts)


def contour_scores(matches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F-score of every class.

    Args:
        matches: (..., 4, C) counts as ``contour_matches`` returns them, of one image or summed over images.

    Returns:
        Three arrays (..., C), float64 in [0, 1]. Precision is NaN for a class without a predicted boundary, recall for
        one without a labelled boundary, F only for one with neither: F is 2 PR / (P + R), and 0 if nothing matches.
    """
    pred_matched, pred, label_matched, label = np.moveaxis(np.asarray(matches), -2, 0)
    precision, recall = ratio(pred_matched, pred), ratio(label_matched, label)
    harmonic = np.nan_to_num(ratio(2 * precision * recall, precision + recall))
    return precision, recall, np.where(pred + label > 0, harmonic, np.nan)


@METRICS.register_module()
class BoundaryFMetric(PerImageMetric):
    """Boundary F-score with a tolerance: ``mBF_3px``, ..., means over the classes, in percent.

    Counts are summed over the data set before they are divided, so an image weighs as much as it has boundary; DAVIS
    and the per-class scores of GSCNN average the F-scores of images, which ``contour_scores`` of the stored counts
    gives too. See ``contour_matches``.

    ``out_file`` holds ``matches`` (num_images, T, 4, C) int64, in the order of ``contour_matches``, and ``tolerances``
    (T,), their names.

    Args:
        tolerances: an integer >= 1 in pixels, a float in (0, 1) as a fraction of the image diagonal; DAVIS has 0.008.
        ignore_index, out_file, collect_device, prefix, collect_dir: as for ``PerImageMetric``.
    """

    def __init__(self, tolerances: Sequence[Width] = (1, 2, 3, 5, 0.008), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tolerances = tuple(tolerances)
        self.names = [width_name(tolerance) for tolerance in self.tolerances]

    def count(self, pred: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Count boundary pixels and matches."""
        matches = contour_matches(pred, label, len(self.classes), self.tolerances, self.ignore_index)
        return {"matches": matches}

    def arrays(self, counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the counts and the names of the tolerances."""
        return {**counts, "tolerances": np.array(self.names)}

    def summarize(self, arrays: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the mean F-score for every tolerance; log the per-class table."""
        values = 100 * contour_scores(arrays["matches"].sum(0))[2]
        columns = {name: per_class.round(2).tolist() for name, per_class in zip(self.names, values, strict=True)}
        log_table("boundary F-score per class", {"Class": self.classes, **columns})
        return {f"mBF_{name}": round(nanmean(v), 2) for name, v in zip(self.names, values, strict=True)}


def _boundary_points(x: Tensor, num_classes: int) -> list[np.ndarray]:
    """List (n, 2) rows and columns of the boundary pixels of every class of an encoded map."""
    padded = F.pad(x, (0, 1, 0, 1), value=num_classes)
    neighbours = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    right, below, diagonal = (y.masked_fill((y == x) | (x == num_classes), num_classes) for y in neighbours)
    own = x.masked_fill((right == num_classes) & (below == num_classes) & (diagonal == num_classes), num_classes)
    # A pixel is of up to four boundaries: of its own class and of those it borders on, each once.
    diagonal = diagonal.masked_fill((diagonal == right) | (diagonal == below), num_classes)
    below = below.masked_fill(below == right, num_classes)
    return positions(torch.stack([own, right, below, diagonal], dim=-1).cpu().numpy(), num_classes)


def _distances(points: np.ndarray, others: np.ndarray, limit: int) -> np.ndarray:
    """Return the distance of every point from the nearest of the others; infinite beyond the limit."""
    if not (len(points) and len(others)):
        return np.full(len(points), np.inf)
    # Squares of distances are whole numbers: half of one tells the limit from what lies beyond.
    return scipy.spatial.KDTree(others).query(points, distance_upper_bound=math.sqrt(limit * limit + 0.5))[0]
