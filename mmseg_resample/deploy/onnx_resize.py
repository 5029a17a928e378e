"""ONNX's ``Resize`` and ``Upsample``, of every version, computed by ``ops.resize``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..grids.fake import has_values
from ..ops import AxisMap, Coordinates, resize
from ..ops.grid import CUBIC_A
from .recognise import nearest_map

_SIMPLE = "simple"  # nearest before opset 11: down to the next sample, or up to it where the axis shrinks
_ANTIALIASED_A = -0.5  # of F.interpolate with antialias

_ROUNDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda at: np.ceil(at - np.float32(0.5)),
    "round_prefer_ceil": lambda at: np.floor(at + np.float32(0.5)),
}


@dataclass(frozen=True)
class ResizeOptions:
    """Attributes of a ``Resize`` node, with those that its version has not set to what it does.

    Args:
        mode: ``"nearest"``, ``"linear"`` or ``"cubic"``.
        coordinates: ``coordinate_transformation_mode``.
        nearest_mode: which sample a nearest resize takes.
        cubic_coeff_a: parameter of the cubic kernel.
        exclude_outside: give samples outside no weight, instead of the edge's value.
        extrapolation_value: what ``tf_crop_and_resize`` reads outside.
        antialias: low-pass before shrinking.
        policy: ``keep_aspect_ratio_policy``.
        axes: those that sizes, scales and the region are given for; None for all.
    """

    mode: str
    coordinates: Coordinates
    nearest_mode: str
    cubic_coeff_a: float = CUBIC_A
    exclude_outside: bool = False
    extrapolation_value: float = 0.0
    antialias: bool = False
    policy: str = "stretch"
    axes: tuple[int, ...] | None = None

    @classmethod
    def of(cls, attributes: dict[str, Any], version: int) -> "ResizeOptions":
        """Read them off a node of the given opset."""
        mode = attributes.get("mode", "nearest")
        mode = {"bilinear": "linear", "trilinear": "linear"}.get(mode, mode)
        if mode not in ("nearest", "linear", "cubic"):
            raise NotImplementedError(f"mode {mode!r}")
        if version < 11:
            return cls(mode, "asymmetric", _SIMPLE)
        coordinates = attributes.get("coordinate_transformation_mode", "half_pixel")
        axes = attributes.get("axes")
        return cls(
            mode,
            coordinates,
            attributes.get("nearest_mode", "round_prefer_floor"),
            float(attributes.get("cubic_coeff_a", CUBIC_A)),
            bool(attributes.get("exclude_outside", 0)),
            float(attributes.get("extrapolation_value", 0.0)),
            bool(attributes.get("antialias", 0)),
            attributes.get("keep_aspect_ratio_policy", "stretch"),
            None if axes is None else tuple(axes),
        )


@dataclass(frozen=True)
class _Axis:
    """One axis of a resize: its sizes, the scale as runtimes have it, and the region that is read."""

    n: int
    size: int
    scale: np.float32
    roi: tuple[float, float]

    def map(self, coordinates: Coordinates, by_sizes: bool) -> AxisMap:
        rounded = abs(float(self.scale) * self.n - self.size) < 1e-6 * self.size
        factor = None if by_sizes or rounded else float(self.scale)
        return AxisMap.from_convention(coordinates, self.n, self.size, factor, self.roi)

    @property
    def copies(self) -> bool:
        """Tell whether the axis stays as it is, whatever region is to be read: ONNX Runtime has it so."""
        return self.n == self.size and self.scale == 1

    def outside(self, axis_map: AxisMap) -> np.ndarray:
        """Tell which outputs read beyond the first or last sample."""
        at = axis_map.scale * np.arange(self.size) + axis_map.offset
        return (at < -1e-6) | (at > self.n - 1 + 1e-6)

    def nearest(self, options: ResizeOptions) -> np.ndarray:
        """Return the samples that runtimes read, whose coordinates are single precision."""
        if self.copies:
            return np.arange(self.n)
        one, half, n, scale = np.float32(1), np.float32(0.5), np.float32(self.n), self.scale
        x = np.arange(self.size, dtype=np.float32)
        name = options.coordinates
        start, end = (np.float32(edge) for edge in self.roi)
        if name == "align_corners":
            at = x * (n - one) / np.float32(self.size - 1) if self.size > 1 else x * 0
        elif name == "tf_crop_and_resize" and self.size > 1:
            at = start * (n - one) + x * (end - start) * (n - one) / np.float32(self.size - 1)
        elif name == "tf_crop_and_resize":
            at = np.float32(0.5 * float(start + end) * (self.n - 1)) + x
        elif name == "asymmetric":
            at = x / scale
        elif name == "pytorch_half_pixel" and self.size == 1:
            at = x * 0
        elif name == "tf_half_pixel_for_nn":
            at = (x + half) / scale
        else:
            at = (x + half) / scale - half
            if name == "half_pixel_symmetric":
                at = n / 2 * (one - np.float32(self.size) / (scale * n)) + at
        rounded = _ROUNDED.get(options.nearest_mode)
        if rounded is None:
            rounded = np.ceil if scale < 1 else np.floor
        return np.clip(rounded(at.astype(np.float32)), 0, self.n - 1).astype(np.int64)


def onnx_resize(
    x: Tensor,
    options: ResizeOptions,
    roi: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
) -> Tensor:
    """Compute ``Resize`` of ``x``: one call of ``ops.resize``, whatever the layout of its channels.

    Args:
        x: any tensor; where all axes or those of images are resized, (N, C, ...) or (N, H, W, C).
        options: attributes of the node.
        roi: region that ``tf_crop_and_resize`` reads, starts then ends.
        scales: output over input, per axis.
        sizes: output size, per axis; instead of ``scales``.

    Raises:
        NotImplementedError: a combination of attributes that nothing here computes.
    """
    axes = _axes(x, options, roi, scales, sizes)
    if all(axis.n == axis.size for axis in axes):
        axes = [_Axis(axis.n, axis.n, np.float32(1), (0.0, 1.0)) for axis in axes]  # copied, whatever the scales
    resized = [i for i, axis in enumerate(axes) if not axis.copies]
    if not resized and all(axis.n == axis.size for axis in axes):
        spatial = range(2, x.ndim)  # a resize to the same size is a site too
        return _images(x, options, [axes[i] for i in spatial], sizes is not None) if x.ndim in (3, 4, 5) else x
    if x.ndim > 2 and min(resized) >= 2:
        return _images(x, options, axes[2:], sizes is not None)
    rest = [i for i in range(x.ndim) if i not in resized]
    if len(resized) > 3:
        raise NotImplementedError(f"a resize along {len(resized)} axes")
    order = [*rest[:1], *rest[1:], *resized]
    moved = x.permute(order) if order != list(range(x.ndim)) else x
    front = moved.shape[: len(rest)]
    if len(rest) != 2:
        moved = moved.reshape(1, -1, *moved.shape[len(rest) :])
    out = _images(moved, options, [axes[i] for i in resized], sizes is not None)
    out = out.reshape(*front, *out.shape[2:]) if len(rest) != 2 else out
    return out.permute([order.index(i) for i in range(x.ndim)])


def _axes(x: Tensor, options: ResizeOptions, roi: Any, scales: Any, sizes: Any) -> list[_Axis]:
    which = range(x.ndim) if options.axes is None else [axis % x.ndim for axis in options.axes]
    found = [_Axis(n, n, np.float32(1), (0.0, 1.0)) for n in x.shape]
    wanted = None if sizes is None else [int(n) for n in sizes]
    if wanted is not None and options.policy != "stretch":
        pick = min if options.policy == "not_larger" else max
        scale = pick(np.float32(out) / np.float32(x.shape[axis]) for axis, out in zip(which, wanted, strict=True))
        wanted, scales = [int(float(scale) * x.shape[axis] + 0.5) for axis in which], [scale] * len(wanted)
    for j, axis in enumerate(which):
        n = x.shape[axis]
        if wanted is not None:
            size = wanted[j]
            scale = np.float32(size) / np.float32(n) if options.policy == "stretch" else np.float32(scales[j])
        else:
            scale = np.float32(scales[j])
            size = int(np.floor(np.float32(scale * np.float32(n))))
        region = (0.0, 1.0)
        if options.coordinates == "tf_crop_and_resize" and roi is not None:
            region = (float(roi[j]), float(roi[j + len(which)]))
        found[axis] = _Axis(n, size, scale, region)
    return found


def _images(x: Tensor, options: ResizeOptions, axes: Sequence[_Axis], by_sizes: bool) -> Tensor:
    """Resize (N, C, ...) along the axes behind the second."""
    size = [axis.size for axis in axes]
    if min(size) < 1:
        raise NotImplementedError(f"a resize to {size}")
    exact = by_sizes and options.policy == "stretch"
    maps = [AxisMap(1.0, 0.0) if axis.copies else axis.map(options.coordinates, exact) for axis in axes]
    if options.mode == "nearest":
        out = _nearest(x, [axis.nearest(options) for axis in axes], maps)
    elif options.antialias:
        out = _antialiased(x, options, axes, maps)
    else:
        mode = "bicubic" if options.mode == "cubic" else ("linear", "bilinear", "trilinear")[len(axes) - 1]
        floating = x if x.is_floating_point() else x.float()
        own = mode == "bicubic" and (options.exclude_outside or options.cubic_coeff_a != CUBIC_A)
        if own and has_values(x):
            for i, (axis, axis_map) in enumerate(zip(axes, maps, strict=True), 2):
                floating = _multiplied(floating, i, _cubic_matrix(axis, axis_map, options))
            out = floating
        else:  # an audit asks for positions, which are those of every cubic kernel
            out = resize(floating, size, mode=mode, coordinates=maps, warning=False)  # type: ignore[arg-type]
        out = out.to(x.dtype)
    if options.coordinates == "tf_crop_and_resize":
        out = _extrapolated(out, axes, maps, options)
    return out


def nearest_by_index(x: Tensor, indices: Sequence[np.ndarray], maps: Sequence[AxisMap]) -> Tensor:
    """Read the samples ``indices`` along each axis of (N, C, ...): one nearest resize, at ``maps`` or close to them.

    Where coordinates in single precision fall to either side of a tie, no map reads quite these samples. Values are
    gathered then; an audit, which knows none, is told the map.
    """
    return _nearest(x, indices, maps)


def _nearest(x: Tensor, indices: Sequence[np.ndarray], maps: Sequence[AxisMap]) -> Tensor:
    if not x.is_floating_point():
        return _nearest(x.double(), indices, maps).to(x.dtype)
    size = [len(index) for index in indices]
    native = _native_nearest(x, indices)
    if native is not None:
        return F.interpolate(x, size=size, mode=native)
    found = [nearest_map(index, n) for index, n in zip(indices, x.shape[2:], strict=True)]
    if has_values(x) and None in found:
        for axis, index in enumerate(indices, 2):
            x = x.index_select(axis, torch.from_numpy(index))
        return x
    chosen = [own or _mean_map(index, other) for own, index, other in zip(found, indices, maps, strict=True)]
    return resize(x, size, mode="nearest", coordinates=chosen, warning=False)


def _mean_map(index: np.ndarray, axis_map: AxisMap) -> AxisMap:
    """Return the map, as steep as ``axis_map``, whose floors are ``index`` on average."""
    reads = axis_map.scale * np.arange(len(index))
    return AxisMap(axis_map.scale, float(np.mean(index - np.floor(reads))))


def _native_nearest(x: Tensor, indices: Sequence[np.ndarray]) -> Any:
    """Return the mode in which ``F.interpolate`` reads the samples ``indices``, if it does."""
    for mode, half in (("nearest", np.float32(0)), ("nearest-exact", np.float32(0.5))):
        same = True
        for index, n in zip(indices, x.shape[2:], strict=True):
            at = (np.arange(len(index), dtype=np.float32) + half) * (np.float32(n) / np.float32(len(index)))
            same &= bool((np.minimum(np.floor(at), n - 1) == index).all())
        if same:
            return mode
    return None


def _antialiased(x: Tensor, options: ResizeOptions, axes: Sequence[_Axis], maps: Sequence[AxisMap]) -> Tensor:
    half_pixel = all(
        axis.copies or m.is_close(AxisMap.from_convention("half_pixel", axis.n, axis.size))
        for axis, m in zip(axes, maps, strict=True)
    )
    kernel = options.mode == "linear" or options.cubic_coeff_a == _ANTIALIASED_A
    if not half_pixel or not kernel or not options.exclude_outside or len(axes) != 2 or x.dtype != torch.float32:
        raise NotImplementedError(
            f"antialias with {options.coordinates}, exclude_outside={options.exclude_outside:d} and, for cubic, "
            f"cubic_coeff_a={options.cubic_coeff_a:g}; half_pixel, 1 and {_ANTIALIASED_A} can be computed"
        )
    mode = "bicubic" if options.mode == "cubic" else "bilinear"
    return F.interpolate(x, size=[axis.size for axis in axes], mode=mode, align_corners=False, antialias=True)


def _cubic_matrix(axis: _Axis, axis_map: AxisMap, options: ResizeOptions) -> np.ndarray:
    """Return the weights (size, n) of the cubic kernel with any parameter, and with none outside if so wanted."""
    a = options.cubic_coeff_a
    at = axis_map.scale * np.arange(axis.size) + axis_map.offset
    base = np.floor(at).astype(np.int64)
    matrix = np.zeros((axis.size, axis.n))
    for tap in range(-1, 3):
        t = abs(at - base - tap)
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        weight = np.where(t <= 1, near, far)
        index = base + tap
        if options.exclude_outside:
            weight = np.where((index < 0) | (index >= axis.n), 0, weight)
        np.add.at(matrix, (np.arange(axis.size), np.clip(index, 0, axis.n - 1)), weight)
    return matrix / matrix.sum(1, keepdims=True) if options.exclude_outside else matrix


def _multiplied(x: Tensor, axis: int, matrix: np.ndarray) -> Tensor:
    weights = torch.from_numpy(matrix).to(x.dtype)
    return (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)


def _extrapolated(x: Tensor, axes: Sequence[_Axis], maps: Sequence[AxisMap], options: ResizeOptions) -> Tensor:
    """Write the value of ``options`` where a resize reads outside."""
    for i, (axis, axis_map) in enumerate(zip(axes, maps, strict=True), 2):
        outside = axis.outside(axis_map)
        if outside.any() and not axis.copies:
            mask = torch.from_numpy(outside).view([-1 if d == i else 1 for d in range(x.ndim)])
            x = x.masked_fill(mask, options.extrapolation_value)
    return x
