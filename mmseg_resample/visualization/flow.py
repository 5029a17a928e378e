"""Flow fields as colours: hue is the direction, saturation the length."""

import numpy as np

# Where the hues of the wheel change, in fifteenths of the step from red to yellow, and the colours there: small
# differences of direction are told apart better in some hues than in others.
_KNOTS = (0, 15, 21, 25, 36, 49, 55)
_COLORS = np.array([(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0)])


def flow_to_rgb(flow: np.ndarray, longest: float) -> np.ndarray:
    """Paint a flow field in the colour wheel of the Middlebury benchmark: white is no flow, red points right.

    Args:
        flow: (2, H, W): dx to the right and dy downwards. NaN is painted grey.
        longest: the length of full saturation; longer flows are darker.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: another shape, or ``longest`` is not positive.

    Source: Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011.
    """
    if flow.ndim != 3 or flow.shape[0] != 2 or not longest > 0:
        raise ValueError(f"flow_to_rgb: expected flow (2, H, W) and longest > 0, got {flow.shape} and {longest}.")
    dx, dy = np.nan_to_num(flow.astype(np.float64)) / longest
    length = np.hypot(dx, dy)[..., None]
    turn = (np.arctan2(-dy, -dx) / np.pi + 1) / 2  # 0 at pointing right, clockwise as the image axes turn
    hue = np.stack([np.interp(turn * _KNOTS[-1], _KNOTS, channel) for channel in _COLORS.T], axis=-1)
    color = np.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    color[np.isnan(flow).any(0)] = 0.5
    return np.rint(255 * color).astype(np.uint8)


def flow_wheel(size: int) -> np.ndarray:
    """Draw the legend of ``flow_to_rgb``: (size, size, 4) uint8, every flow at its own tip, transparent outside."""
    axis = np.linspace(-1, 1, size)
    flow = np.stack(np.meshgrid(axis, axis))
    inside = np.hypot(*flow) <= 1
    return np.dstack([flow_to_rgb(flow, 1 + 1e-6), (255 * inside).astype(np.uint8)])
