"""Where the samples of a tensor sit: the pixel grid, and the affine maps between two of them.

Indices are per spatial axis, in the order of the tensor's axes: (h, w) for images. A position is measured in input
pixels; pixel ``i`` of the image has its centre at position ``i``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from . import _check

Coordinates = Literal[
    "half_pixel",
    "align_corners",
    "asymmetric",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
]
_COORDINATES = get_args(Coordinates)

# A coordinate this close to a whole number is that number: floor() must not depend on how a ratio was rounded.
SNAP = 1e-9
CUBIC_A = -0.75  # of Keys' kernel, in F.interpolate without antialias and in ONNX by default


@dataclass(frozen=True)
class AxisMap:
    """An affine map to the source index that a destination index reads: ``source = scale * destination + offset``.

    Args:
        scale: source samples per destination sample.
        offset: source index that destination index 0 reads.
    """

    scale: float
    offset: float

    def __call__(self, destination: float) -> float:
        return self.scale * destination + self.offset

    def is_close(self, other: "AxisMap", tolerance: float = 1e-6) -> bool:
        """Tell whether scale and offset differ from those of ``other`` by less than ``tolerance`` in sum."""
        return abs(self.scale - other.scale) + abs(self.offset - other.offset) < tolerance

    def after(self, inner: "AxisMap") -> "AxisMap":
        """Return the map that reads, for a destination of ``inner``, what this one reads where ``inner`` does."""
        return AxisMap(self.scale * inner.scale, self(inner.offset))

    def inverse(self) -> "AxisMap":
        """Return the map from source to destination. The scale must not be 0."""
        return AxisMap(1 / self.scale, -self.offset / self.scale)

    @classmethod
    def from_normalised(cls, source_size: int, align_corners: bool) -> "AxisMap":
        """Return the map from coordinates in [-1, 1], as ``F.grid_sample`` takes them, to source indices."""
        half = (source_size - 1 if align_corners else source_size) / 2
        return cls(half, half if align_corners else half - 0.5)

    @classmethod
    def from_convention(
        cls,
        name: Coordinates,
        source_size: int,
        destination_size: int,
        scale_factor: float | None = None,
        roi: tuple[float, float] = (0.0, 1.0),
    ) -> "AxisMap":
        """Return the map of a named convention, by the formulas of ONNX ``Resize``.

        Args:
            name: a convention, in ONNX's words.
            source_size: samples of the source along the axis.
            destination_size: samples of the destination along the axis.
            scale_factor: destination over source, where the caller fixed it; the ratio of the sizes otherwise. The
                two differ when ``source_size * scale_factor`` is no whole number.
            roi: start and end of the region that ``tf_crop_and_resize`` reads, in [0, 1] of the source.

        Raises:
            ValueError: unknown name.

        Source: ONNX operators, ``Resize``, ``coordinate_transformation_mode``.
        """
        _check.one_of("AxisMap.from_convention", "name", name, _COORDINATES)
        n, out = source_size, destination_size
        step = n / out if scale_factor is None else 1 / scale_factor
        if name == "align_corners":
            return cls((n - 1) / (out - 1) if out > 1 else step, 0.0)
        if name == "tf_crop_and_resize":
            start, end = roi
            if out > 1:
                return cls((end - start) * (n - 1) / (out - 1), start * (n - 1))
            return cls(step, (start + end) * (n - 1) / 2)
        if name == "asymmetric" or (name == "pytorch_half_pixel" and out == 1):
            return cls(step, 0.0)
        if name == "tf_half_pixel_for_nn":
            return cls(step, step / 2)
        offset = step / 2 - 0.5
        if name == "half_pixel_symmetric":
            offset += n / 2 * (1 - out * step / n)
        return cls(step, offset)


PixelModel = Coordinates | tuple[AxisMap, ...]
"""What ``ops.resize`` takes as ``coordinates``: a convention's name, or one map per axis."""


@dataclass(frozen=True)
class PixelGrid:
    """The positions of a tensor's samples in input pixels, per spatial axis.

    Sample ``i`` along an axis is centred on position ``offset + stride * i``.

    Args:
        stride: input pixels from one sample to the next.
        offset: position of sample 0.
        size: number of samples.

    Raises:
        ValueError: the three differ in length, a stride is zero or a size is below 1.
    """

    stride: tuple[float, ...]
    offset: tuple[float, ...]
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.stride) == len(self.offset) == len(self.size):
            raise ValueError(
                f"PixelGrid: expected stride, offset and size of equal length, one entry per spatial axis, "
                f"got {self.stride}, {self.offset} and {self.size}."
            )
        if 0 in self.stride or any(size < 1 for size in self.size):
            raise ValueError(f"PixelGrid: expected strides != 0 and sizes >= 1, got {self.stride} and {self.size}.")

    @classmethod
    def image(cls, size: Sequence[int]) -> "PixelGrid":
        """Return the grid of the network's input: stride 1, offset 0."""
        return cls((1.0,) * len(size), (0.0,) * len(size), tuple(size))

    def window(
        self,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
    ) -> "PixelGrid":
        """Return the grid after a convolution or pooling with this window, symmetric padding and floor rounding.

        Raises:
            ValueError: the window is larger than the padded input.
        """
        kernels, strides, paddings, dilations = (
            _check.per_axis("PixelGrid.window", name, value, len(self.size))
            for name, value in (("kernel", kernel), ("stride", stride), ("padding", padding), ("dilation", dilation))
        )
        extent = [d * (k - 1) for k, d in zip(kernels, dilations, strict=True)]
        size = tuple(
            (n + 2 * p - e - 1) // s + 1 for n, p, e, s in zip(self.size, paddings, extent, strides, strict=True)
        )
        if min(size) < 1:
            raise ValueError(
                f"PixelGrid.window: a window spanning {tuple(e + 1 for e in extent)} does not fit into "
                f"size {self.size} with padding {paddings}."
            )
        return PixelGrid(
            tuple(s * w for s, w in zip(self.stride, strides, strict=True)),
            tuple(o + s * (e / 2 - p) for o, s, e, p in zip(self.offset, self.stride, extent, paddings, strict=True)),
            size,
        )

    def resized(self, size: Sequence[int], coordinates: Coordinates | Sequence[AxisMap]) -> "PixelGrid":
        """Return the grid of ``resize(x, size, coordinates=coordinates)`` for an ``x`` on this grid."""
        maps = axis_maps(coordinates, self.size, tuple(size))
        return PixelGrid(
            tuple(s * m.scale for s, m in zip(self.stride, maps, strict=True)),
            tuple(o + s * m.offset for o, s, m in zip(self.offset, self.stride, maps, strict=True)),
            tuple(size),
        )

    def map_to(self, destination: "PixelGrid") -> tuple[AxisMap, ...]:
        """Return the maps that resample a tensor on this grid onto ``destination``, as ``resize`` takes them.

        Raises:
            ValueError: the grids differ in their number of axes.
        """
        if len(self.size) != len(destination.size):
            raise ValueError(
                f"PixelGrid.map_to: expected {len(self.size)} axes like the source, got {len(destination.size)}."
            )
        return tuple(
            AxisMap(to_stride / stride, (to_offset - offset) / stride)
            for stride, offset, to_stride, to_offset in zip(
                self.stride, self.offset, destination.stride, destination.offset, strict=True
            )
        )

    def positions(self, axis: int) -> list[float]:
        """List the centres of all samples along ``axis``, in input pixels."""
        return [self.offset[axis] + self.stride[axis] * i for i in range(self.size[axis])]


def axis_maps(
    coordinates: Coordinates | AxisMap | Sequence[AxisMap],
    source_size: Sequence[int],
    destination_size: Sequence[int],
    scale_factors: Sequence[float | None] | None = None,
) -> tuple[AxisMap, ...]:
    """Return ``coordinates``, a name or explicit maps, as one ``AxisMap`` per spatial axis.

    Raises:
        ValueError: unknown name, not one map per axis, or a map that is not finite.
        TypeError: neither a name nor maps.
    """
    axes = len(source_size)
    if isinstance(coordinates, str):
        factors = scale_factors or (None,) * axes
        return tuple(
            AxisMap.from_convention(coordinates, n, out, factor)
            for n, out, factor in zip(source_size, destination_size, factors, strict=True)
        )
    maps = _check.per_axis("resize", "coordinates", coordinates, axes)
    if not all(isinstance(entry, AxisMap) for entry in maps):
        raise TypeError(
            f"resize: expected coordinates to be a convention's name or one AxisMap per spatial axis, "
            f"got {coordinates!r}."
        )
    if not all(abs(number) < float("inf") for entry in maps for number in (entry.scale, entry.offset)):
        raise ValueError(
            f"resize: expected coordinates of finite scale and offset, got {coordinates!r}. "
            f"A map is source = scale * destination + offset."
        )
    return maps
