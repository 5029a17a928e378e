"""IoU by the place of pixels: their distance from the frame of the image, and the size of the object they belong to."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy
import torch
from mmseg.registry import METRICS
from torch import Tensor

from .areas import AreasMetric, binned_areas, encode, positions


def frame_areas(
    pred: Tensor, label: Tensor, num_classes: int, distances: Sequence[float], ignore_index: int = 255
) -> Tensor:
    """Count areas by the distance of a pixel from the frame of the image.

    The outermost pixels have distance 0; bin i holds ``distances[i - 1] <= distance < distances[i]``.

    Args:
        pred: (h, w) integer, in [0, num_classes); anything where the label is ignored.
        label: (h, w) integer on the device of ``pred``, in [0, num_classes) or ``ignore_index``.
        num_classes: C.
        distances: B ascending bin edges in pixels, > 0.
        ignore_index: label of the pixels that do not count.

    Returns:
        (B + 1, 3, C) int64 on the device of ``pred``; counts of pixels: intersection, prediction, label. The bins
        partition the image: their sum is what the whole image has.

    Raises:
        ValueError: ``distances`` is empty, not ascending or not positive, or the maps are wrong in shape or values.
        TypeError: a dtype is not integer.
    """
    _check_edges("frame_areas", "distances", distances)
    pred, label = encode("frame_areas", pred, label, num_classes, ignore_index)
    edges = torch.tensor(distances, device=pred.device)
    rows, columns = (_distance_from_ends(n, pred.device) for n in pred.shape)
    # The bin of the smaller distance is the smaller bin.
    y, x = (torch.bucketize(distance, edges, right=True, out_int32=True) for distance in (rows, columns))
    bins = torch.minimum(y[:, None], x[None, :])
    return binned_areas(pred, label, bins, len(distances) + 1, num_classes)


def object_areas(
    pred: Tensor, label: Tensor, num_classes: int, radii: Sequence[float], ignore_index: int = 255
) -> Tensor:
    """Count areas by the size of objects: the connected components of every class of the label, 8 neighbours.

    An object is measured by the radius of the disc of its area, sqrt(area / pi); bin i holds
    ``radii[i - 1] <= radius < radii[i]``. A labelled pixel is in the bin of its object. A pixel that is wrongly
    predicted to be of a class is in the bin of the nearest object of that class (Euclidean, in the same image); where
    several are as near, in that of any of them.

    Ignored pixels belong to no object, and cut objects that they cross.

    Args:
        pred: (h, w) integer, in [0, num_classes); anything where the label is ignored.
        label: (h, w) integer on the device of ``pred``, in [0, num_classes) or ``ignore_index``.
        num_classes: C.
        radii: B ascending bin edges in pixels, > 0.
        ignore_index: label of the pixels that do not count.

    Returns:
        (B + 2, 3, C) int64 on the CPU; counts of pixels: intersection, prediction, label. The last bin has what is
        predicted of a class that the label does not contain. The bins partition the image: their sum is what the whole
        image has.

    Raises:
        ValueError: ``radii`` is empty, not ascending or not positive, or the maps are wrong in shape or values.
        TypeError: a dtype is not integer.
    """
    _check_edges("object_areas", "radii", radii)
    maps = encode("object_areas", pred, label, num_classes, ignore_index)
    seen, truth = (x.cpu().numpy() for x in maps)
    num_bins, absent = len(radii) + 2, len(radii) + 1
    areas = np.zeros((num_bins, 3, num_classes), np.int64)
    errors = positions(np.where(seen == truth, num_classes, seen), num_classes)
    edges = positions(np.where(_on_edge(truth), truth, num_classes), num_classes)
    boxes = scipy.ndimage.find_objects(truth.astype(np.int32) + 1, max_label=num_classes)
    for c, box in enumerate(boxes):
        if box is None:
            areas[absent, 1, c] = len(errors[c])
            continue
        mask = truth[box] == c
        objects, _ = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
        labelled = np.bincount(objects[mask])
        hit = np.bincount(objects[mask & (seen[box] == c)], minlength=len(labelled))
        missed = np.zeros_like(hit)
        if len(errors[c]):
            _, nearest = scipy.spatial.KDTree(edges[c]).query(
                errors[c]
            )  # the nearest pixel of an object is on its edge
            row, column = (edges[c][nearest] - [side.start for side in box]).T
            missed = np.bincount(objects[row, column], minlength=len(labelled))
        bins = np.searchsorted(radii, np.sqrt(labelled / math.pi), side="right")
        np.add.at(areas[:, :, c], bins, np.stack([hit, hit + missed, labelled], axis=1))
    return torch.from_numpy(areas)


@METRICS.register_module()
class FrameDistanceIoUMetric(AreasMetric):
    """mIoU by the distance from the frame of the image: ``mIoU_frame_0-8px``, ..., in percent.

    See ``frame_areas``.

    Args:
        distances: ascending bin edges in pixels.
        ignore_index, out_file, collect_device, prefix, collect_dir: as for ``AreasMetric``.
    """

    name = "mIoU_frame"

    def __init__(self, distances: Sequence[float] = (8, 16, 32, 64, 128), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_edges(type(self).__name__, "distances", distances)
        self.distances = tuple(distances)
        self.bins = _interval_names(self.distances)

    def count(self, pred: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Count areas by distance."""
        return {"areas": frame_areas(pred, label, len(self.classes), self.distances, self.ignore_index)}


@METRICS.register_module()
class ObjectSizeIoUMetric(AreasMetric):
    """mIoU by the size of labelled objects: ``mIoU_size_0-8px``, ..., in percent.

    See ``object_areas``. The last bin, ``absent``, has no labels and so no score; it is in ``out_file``.

    Args:
        radii: ascending bin edges in pixels, of the radius of the disc of the same area.
        ignore_index, out_file, collect_device, prefix, collect_dir: as for ``AreasMetric``.
    """

    name = "mIoU_size"

    def __init__(self, radii: Sequence[float] = (4, 8, 16, 32, 64), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_edges(type(self).__name__, "radii", radii)
        self.radii = tuple(radii)
        self.bins = [*_interval_names(self.radii), "absent"]

    def count(self, pred: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Count areas by size."""
        return {"areas": object_areas(pred, label, len(self.classes), self.radii, self.ignore_index)}

    def summarize(self, arrays: dict[str, np.ndarray]) -> dict[str, float]:
        """Leave out the bin of absent classes."""
        values = super().summarize(arrays)
        del values[f"{self.name}_absent"]
        return values


def _check_edges(function: str, name: str, edges: Sequence[float]) -> None:
    if not (len(edges) and edges[0] > 0 and all(a < b for a, b in itertools.pairwise(edges))):
        raise ValueError(f"{function}: expected {name} to ascend from above 0, got {tuple(edges)}.")


def _interval_names(edges: Sequence[float]) -> list[str]:
    inner = [f"{low:g}-{high:g}px" for low, high in zip((0, *edges[:-1]), edges, strict=True)]
    return [*inner, f"{edges[-1]:g}px_up"]


def _distance_from_ends(n: int, device: torch.device) -> Tensor:
    i = torch.arange(n, device=device)
    return torch.minimum(i, n - 1 - i)


def _on_edge(x: np.ndarray) -> np.ndarray:
    """Tell whether a pixel differs from one of its four neighbours."""
    edge = np.zeros(x.shape, bool)
    rows, columns = x[1:] != x[:-1], x[:, 1:] != x[:, :-1]
    for part, differs in ((edge[1:], rows), (edge[:-1], rows), (edge[:, 1:], columns), (edge[:, :-1], columns)):
        part |= differs
    return edge
