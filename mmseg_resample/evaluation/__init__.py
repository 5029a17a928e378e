"""What a prediction is worth: metrics that any mmseg config can name."""

from .confusion import ConfusionMatrixMetric, confusion_matrix, iou, scores

__all__ = ["ConfusionMatrixMetric", "confusion_matrix", "iou", "scores"]
