"""How far features reach: outputs of a resize that lie beyond the samples it reads, and so repeat the outermost.

At 512 pixels a map of stride 32 whose feature 0 is centred on pixel 0 ends at pixel 480. Whatever is resized from it
has to repeat its last feature over the last 31 pixels, or to read what padding put there. Outputs that no pixel of the
image depends on, as there are around a padded one, do not count.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..ops import PixelGrid
from .sites import Size
from .track import Resize

_SNAP = 1e-6  # of a sample: a coordinate this close to the last sample is on it


@dataclass(frozen=True)
class Sides:
    """Outputs beyond the features along one axis: before the first sample and behind the last.

    Args:
        before: outputs above, or left of, the first sample.
        after: outputs below, or right of, the last one.
        pixels_before: distance from the outermost of those outputs to that sample, in input pixels.
        pixels_after: the same at the other end.
    """

    before: int = 0
    after: int = 0
    pixels_before: float = 0.0
    pixels_after: float = 0.0

    def __bool__(self) -> bool:
        return self.before + self.after > 0


@dataclass(frozen=True)
class Uncovered:
    """Outputs of a resize that read beyond the samples of its source, and repeat the outermost.

    Args:
        path: module that calls the resize.
        call: its number among the calls of that module.
        y: above and below.
        x: left and right.
        pooled: its source are pooled bins (pyramid pooling), which never reach the border.
    """

    path: str
    call: int
    y: Sides
    x: Sides
    pooled: bool = False

    @property
    def pixels(self) -> float:
        """The largest distance, in input pixels, from an output to the sample that it repeats."""
        return max(self.y.pixels_before, self.y.pixels_after, self.x.pixels_before, self.x.pixels_after)


def uncovered(resize: Resize, image: Size) -> Uncovered | None:
    """Find what ``resize`` reads beyond its source for pixels of the image; None if that is nothing, or cannot be told.

    Not judged are resizes of anything but images, of tensors without a position, and those whose coordinates are data.

    Args:
        resize: what was called.
        image: size (h, w) of the network's input.
    """
    if len(resize.maps) != 2 or resize.source is None:
        return None
    y, x = (_along(resize, axis, image[axis]) for axis in (0, 1))
    return Uncovered(resize.path, resize.call, y, x, resize.pooled) if y or x else None


def _along(resize: Resize, axis: int, pixels: int) -> Sides:
    m, n, out = resize.maps[axis], resize.source_size[axis], resize.size[axis]
    assert resize.source is not None
    stride = abs(resize.source.stride[axis])
    needed = range(out) if resize.result is None else _needed(resize.result, axis, pixels)
    if not needed:
        return Sides()
    reads = sorted((m(needed[0]), m(needed[-1])))
    before, after = resize.padding[axis] if resize.padding else (0, 0)
    distances = before - reads[0], reads[1] - (n - 1 - after)
    beyond = [distance if distance > _SNAP else 0.0 for distance in distances]
    counts = [_outputs(distance, abs(m.scale), len(needed)) for distance in beyond]
    if m.scale < 0:
        beyond, counts = beyond[::-1], counts[::-1]
    return Sides(counts[0], counts[1], beyond[0] * stride, beyond[1] * stride)


def _needed(grid: PixelGrid, axis: int, pixels: int) -> range:
    """Return the samples of ``grid`` that pixels of the image are interpolated from: less than a step away from one."""
    offset, stride, size = grid.offset[axis], grid.stride[axis], grid.size[axis]
    if stride == 0:
        return range(size)
    ends = sorted(((-offset) / stride, (pixels - 1 - offset) / stride))
    first, last = math.floor(ends[0] - 1 + _SNAP) + 1, math.ceil(ends[1] + 1 - _SNAP) - 1
    return range(max(first, 0), min(last, size - 1) + 1)


def _outputs(beyond: float, step: float, out: int) -> int:
    """Return how many outputs lie in the last ``beyond`` source samples, ``step`` apart."""
    if not beyond:
        return 0
    return out if step == 0 else min(out, math.floor((beyond - _SNAP) / step) + 1)


def next_covered_size(size: Size, levels: Sequence[PixelGrid | None]) -> Size | None:
    """Return the smallest size at or above ``size`` at which levels that begin on pixel 0 also end on the last one.

    None where a level begins elsewhere: what is centred on patches never reaches the border.
    """
    grids = [level for level in levels if level is not None]
    if not grids or any(abs(offset) > _SNAP for level in grids for offset in level.offset):
        return None
    strides = [max(level.stride[axis] for level in grids) for axis in (0, 1)]
    height, width = (math.ceil((n - 1) / s) * s + 1 for n, s in zip(size, strides, strict=True))
    return round(height), round(width)
