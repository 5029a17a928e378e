"""Metrics of predictions that any mmseg config can name."""

from .areas import area_iou
from .boundary import BoundaryIoUMetric, TrimapIoUMetric, boundary_areas, trimap_areas
from .confusion import ConfusionMatrixMetric, confusion_matrix, iou, scores
from .contour import BoundaryFMetric, contour_matches, contour_scores
from .displacement import (
    AxisDisplacement,
    Displacement,
    DisplacementMetric,
    EdgeCounts,
    displacement,
    edge_counts,
    stored_displacement,
)
from .regions import FrameDistanceIoUMetric, ObjectSizeIoUMetric, frame_areas, object_areas
from .runtime import RuntimeHook

__all__ = [
    "AxisDisplacement",
    "BoundaryFMetric",
    "BoundaryIoUMetric",
    "ConfusionMatrixMetric",
    "Displacement",
    "DisplacementMetric",
    "EdgeCounts",
    "FrameDistanceIoUMetric",
    "ObjectSizeIoUMetric",
    "RuntimeHook",
    "TrimapIoUMetric",
    "area_iou",
    "boundary_areas",
    "confusion_matrix",
    "contour_matches",
    "contour_scores",
    "displacement",
    "edge_counts",
    "frame_areas",
    "iou",
    "object_areas",
    "scores",
    "stored_displacement",
    "trimap_areas",
]
