"""Errors at boundaries, by the way in which the boundary moved."""

import numpy as np
import scipy


def boundary_errors(pred: np.ndarray, label: np.ndarray, ignore_index: int = 255, limit: float = 16) -> np.ndarray:
    """Return for every wrong pixel the vector by which its predicted class has spread to get there.

    It leads from the nearest pixel that is labelled with the predicted class to the wrong pixel: where a whole
    prediction is displaced to the right, the errors right of objects point right. Those left of them, where the
    background spread over the object, do as well.

    Args:
        pred: (H, W) predicted classes.
        label: (H, W) labelled classes.
        ignore_index: label of the pixels that do not count.
        limit: pixels; an error further than this from its predicted class is no error at a boundary.

    Returns:
        (2, H, W) float32: dx to the right and dy downwards in pixels. 0 where the prediction is right or ignored, NaN
        where it is wrong, but not at a boundary.

    Raises:
        ValueError: the maps have different sizes.
    """
    if pred.shape != label.shape or pred.ndim != 2:
        raise ValueError(f"boundary_errors: expected two maps (H, W) of one size, got {pred.shape} and {label.shape}.")
    wrong = (pred != label) & (label != ignore_index)
    moved = np.zeros((2, *label.shape), np.float32)
    rows, columns = np.indices(label.shape)
    for predicted in np.unique(pred[wrong]):
        here = wrong & (pred == predicted)
        if not (label == predicted).any():
            moved[:, here] = np.nan
            continue
        nearest = scipy.ndimage.distance_transform_edt(label != predicted, return_distances=False, return_indices=True)
        dx, dy = (columns - nearest[1])[here], (rows - nearest[0])[here]
        moved[:, here] = np.where(np.hypot(dx, dy) <= limit, (dx, dy), np.nan)
    return moved
