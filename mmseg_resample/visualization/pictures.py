"""Figures for people: flows with their legend, gates, boundary errors, as arrays that any backend takes."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from .boundary import boundary_errors
from .explain import Explanations
from .flow import flow_to_rgb, flow_wheel

_WIDTH = 5.0  # inches of a panel


def explanation_pictures(found: Explanations, image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Draw a picture for every resampler: the image beside its flows, offsets and gates.

    Args:
        found: of one forward pass; the first image of the batch is shown.
        image: (H, W, 3) uint8 RGB.

    Yields:
        Path of the resampler and a picture, (h, w, 3) uint8 RGB.
    """
    for name, parts in found.items():
        panels = [key for key, value in parts.items() if _is_field(key, value) or _is_share(value)]
        if not panels:
            continue
        figure = _figure(len(panels) + 1, image.shape)
        first, *axes = figure.axes
        _show(first, image, f"image, {image.shape[1]}x{image.shape[0]}")
        for axis, key in zip(axes, panels, strict=True):
            value = parts[key][:1].float().cpu()
            if _is_field(key, value):
                _show_flow(axis, _mean_field(value), key)
            else:
                shown = axis.imshow(value[0, 0].numpy(), vmin=0, vmax=1, cmap="viridis")
                figure.colorbar(shown, ax=axis, shrink=0.8)
                axis.set_title(key)
        figure.suptitle(name)
        yield name, _to_rgb(figure)


def boundary_picture(pred: np.ndarray, label: np.ndarray, image: np.ndarray, ignore_index: int = 255) -> np.ndarray:
    """Draw errors at boundaries by the direction in which the boundary moved, and along x and y by their sign.

    Args:
        pred: (H, W) predicted classes.
        label: (H, W) labelled classes.
        image: (H, W, 3) uint8 RGB.
        ignore_index: label of the pixels that do not count.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    moved = boundary_errors(pred, label, ignore_index)
    wrong = (moved != 0).any(0)
    near = np.isfinite(moved).all(0)
    at_boundary = wrong & near
    lengths = np.hypot(*moved)[at_boundary]
    longest = max(float(lengths.max(initial=0)), 1.0)
    grey = np.repeat(np.rint(0.25 * image.mean(-1, keepdims=True) + 180).astype(np.uint8), 3, axis=-1)
    figure = _figure(3, image.shape)
    direction, *signs = figure.axes
    painted = np.where(wrong[..., None], flow_to_rgb(moved, longest), grey)
    _show(direction, painted, f"moved by up to {longest:.0f} px; grey: elsewhere")
    _legend(direction, longest)
    for axis, component, name, ways in zip(signs, moved, "xy", (("left", "right"), ("up", "down")), strict=True):
        axis.imshow(grey)
        shown = axis.imshow(
            np.where(np.nan_to_num(component) == 0, np.nan, component), cmap="coolwarm", vmin=-longest, vmax=longest
        )
        figure.colorbar(shown, ax=axis, shrink=0.8)
        mean = float(component[at_boundary].mean()) if len(lengths) else 0.0
        axis.set_title(f"along {name}, px: - {ways[0]}, + {ways[1]}; mean {mean:+.2f}")
    share = at_boundary.sum() / max(near.sum(), 1)
    figure.suptitle(f"errors at boundaries: {100 * share:.1f} % of the pixels")
    return _to_rgb(figure)


def _is_field(key: str, value: Tensor) -> bool:
    return (key.startswith("flow") or key == "offset") and value.ndim == 4 and value.shape[1] % 2 == 0


def _is_share(value: Tensor) -> bool:
    return value.ndim == 4 and value.shape[1] == 1


def _mean_field(value: Tensor) -> np.ndarray:
    """Return the mean over groups, which come as (dx, dy) pairs, (2, H, W)."""
    groups = value.shape[1] // 2
    return value[0].reshape(groups, 2, *value.shape[2:]).mean(0).numpy()


def _show_flow(axis: Axes, flow: np.ndarray, name: str) -> None:
    length = np.hypot(*flow)
    longest = max(float(np.quantile(length, 0.99)), 1e-6)
    dx, dy = flow.mean((1, 2))
    title = f"{name}, {flow.shape[2]}x{flow.shape[1]}: mean ({dx:+.2f}, {dy:+.2f}) px, median {np.median(length):.2f}"
    _show(axis, flow_to_rgb(flow, longest), title)
    _legend(axis, longest)


def _legend(axis: Axes, longest: float) -> None:
    left, right = axis.get_xlim()
    bottom, top = axis.get_ylim()
    inset = axis.inset_axes((0.8, 0.02, 0.18, 0.18 * (right - left) / (bottom - top)))  # a circle
    inset.imshow(flow_wheel(101))
    inset.set_axis_off()
    inset.set_title(f"{longest:.2g} px", fontsize=7, pad=1)


def _show(axis: Axes, image: np.ndarray, title: str) -> None:
    axis.imshow(image, interpolation="nearest")
    axis.set_title(title)


def _figure(panels: int, shape: tuple[int, ...]) -> Figure:
    height = _WIDTH * shape[0] / shape[1] + 0.8
    figure = Figure(figsize=(_WIDTH * panels, height), dpi=120, layout="constrained")
    for axis in figure.subplots(1, panels, squeeze=False)[0]:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.title.set_fontsize(9)
    return figure


def _to_rgb(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
