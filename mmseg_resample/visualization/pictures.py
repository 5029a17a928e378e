"""Figures for people: flows with their legend, gates, boundary errors, as arrays that any backend takes."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from .boundary import boundary_errors
from .explain import Explanations
from .flow import flow_to_rgb, flow_wheel

_WIDTH = 5.0  # inches of a panel


def segmentation_picture(
    maps: Mapping[str, np.ndarray],
    image: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]] | None,
    name: str,
) -> np.ndarray:
    """Draw the image beside maps of classes painted over it, with the names of the classes that occur.

    Args:
        maps: title -> (H, W) classes; other numbers are left unpainted.
        image: (H, W, 3) uint8 RGB.
        classes: their names.
        palette: colour of each class, RGB up to 255; None takes one of matplotlib's.
        name: of the image.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    if palette is None:
        palette = [[round(255 * value) for value in colormaps["tab20"](i % 20)[:3]] for i in range(len(classes))]
    colours = np.array(palette, np.uint8)
    figure = _figure(len(maps) + 1, image.shape)
    first, *axes = figure.axes
    _show(first, image, _sized("image", image.shape))
    for axis, (title, labels) in zip(axes, maps.items(), strict=True):
        known = (labels >= 0) & (labels < len(classes))
        painted = image.copy()
        painted[known] = np.rint(0.4 * image[known] + 0.6 * colours[labels[known]])
        _show(axis, painted, title)
    present = sorted(
        {int(number) for labels in maps.values() for number in np.unique(labels) if number in range(len(classes))}
    )
    handles = [Patch(color=colours[number] / 255, label=classes[number]) for number in present]
    figure.legend(handles=handles, loc="outside lower center", ncols=8, fontsize=8, frameon=False)
    figure.suptitle(f"{name}: {' and '.join(maps)}")
    return _to_rgb(figure)


def explanation_pictures(found: Explanations, image: np.ndarray, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Draw a picture for every resampler: the image beside its flows, offsets and gates.

    Args:
        found: of one forward pass; the first image of the batch is shown.
        image: (H, W, 3) uint8 RGB, as the network saw it.
        name: of the image.

    Yields:
        Path of the resampler and a picture, (h, w, 3) uint8 RGB.
    """
    for module, parts in found.items():
        # An offset beside a flow is the same in another unit.
        parts = {key: value for key, value in parts.items() if key != "offset" or "flow" not in parts}
        panels = [key for key, value in parts.items() if _is_field(key, value) or _is_share(value)]
        if not panels:
            continue
        figure = _figure(len(panels) + 1, image.shape)
        first, *axes = figure.axes
        _show(first, image, _sized("image", image.shape))
        for axis, key in zip(axes, panels, strict=True):
            value = parts[key][:1].float().cpu()
            if _is_field(key, value):
                _show_flow(axis, _mean_field(value), key, image.shape)
            else:
                shown = axis.imshow(value[0, 0].numpy(), vmin=0, vmax=1, cmap="viridis")
                figure.colorbar(shown, ax=axis, shrink=0.8)
                axis.set_title(_sized(key.replace("_", " "), value.shape[2:]))
        figure.suptitle(f"{name}: {module}")
        yield module, _to_rgb(figure)


def boundary_picture(
    pred: np.ndarray, label: np.ndarray, image: np.ndarray, ignore_index: int = 255, *, name: str
) -> np.ndarray:
    """Draw errors at boundaries by the direction in which the boundary moved, and along x and y by their sign.

    Args:
        pred: (H, W) predicted classes.
        label: (H, W) labelled classes.
        image: (H, W, 3) uint8 RGB.
        ignore_index: label of the pixels that do not count.
        name: of the image.

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
    for axis, component, way, ends in zip(signs, moved, "xy", (("left", "right"), ("up", "down")), strict=True):
        axis.imshow(grey)
        shown = axis.imshow(
            np.where(np.nan_to_num(component) == 0, np.nan, component), cmap="coolwarm", vmin=-longest, vmax=longest
        )
        figure.colorbar(shown, ax=axis, shrink=0.8)
        mean = float(component[at_boundary].mean()) if len(lengths) else 0.0
        axis.set_title(f"along {way}, px: - {ends[0]}, + {ends[1]}; mean {mean:+.2f}")
    share = at_boundary.sum() / max(near.sum(), 1)
    figure.suptitle(f"{name}: errors at boundaries, {100 * share:.1f} % of the pixels")
    return _to_rgb(figure)


def _is_field(key: str, value: Tensor) -> bool:
    """Tell whether a value is vectors (N, 2, H, W), or (N, groups, 2, H, W)."""
    return (key.startswith("flow") or key == "offset") and value.ndim in (4, 5) and value.shape[-3] == 2


def _is_share(value: Tensor) -> bool:
    return value.ndim == 4 and value.shape[1] == 1


def _mean_field(value: Tensor) -> np.ndarray:
    """Return the mean over groups, if there are several, (2, H, W)."""
    return (value[0] if value.ndim == 4 else value[0].mean(0)).numpy()


def _show_flow(axis: Axes, flow: np.ndarray, name: str, shape: Sequence[int]) -> None:
    length = np.hypot(*flow)
    longest = max(float(np.quantile(length, 0.99)), 1e-6)
    _show(axis, flow_to_rgb(flow, longest), flow_title(flow, name, shape))
    _legend(axis, longest)


def flow_title(flow: np.ndarray, name: str, shape: Sequence[int]) -> str:
    """Write what a flow is, the grid whose pixels it counts, and how long it is.

    Args:
        flow: (2, h, w), in pixels of its own grid.
        name: of the flow.
        shape: (H, W, ...) of the image that its grid spans.
    """
    (h, w), (dx, dy) = flow.shape[1:], flow.mean((1, 2))
    steps = dict.fromkeys(f"{step:.3g}" for step in (shape[1] / w, shape[0] / h))  # one number where both are equal
    length = np.median(np.hypot(*flow))
    return (
        f"{_sized(name.replace('_', ' '), (h, w))}: 1 px here is {' x '.join(steps)} px of the image\n"
        f"mean ({dx:+.2f}, {dy:+.2f}) px, median length {length:.2f} px"
    )


def _legend(axis: Axes, longest: float) -> None:
    left, right = axis.get_xlim()
    bottom, top = axis.get_ylim()
    inset = axis.inset_axes((0.8, 0.02, 0.18, 0.18 * (right - left) / (bottom - top)))  # a circle
    inset.imshow(flow_wheel(101))
    inset.set_axis_off()
    inset.set_title(f"{longest:.2g} px", fontsize=7, pad=1)


def _sized(name: str, shape: Sequence[int]) -> str:
    return f"{name}, {shape[0]}x{shape[1]}"


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
