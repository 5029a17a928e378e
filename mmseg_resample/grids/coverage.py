"""How far features reach: outputs of a resize that lie beyond the samples it reads, and so repeat the outermost."""

import math
from dataclasses import dataclass

from .track import Resize

Sides = tuple[int, int]
_SNAP = 1e-6  # of a sample: a coordinate this close to the last sample is on it


@dataclass(frozen=True)
class Uncovered:
    """Outputs of a resize that read beyond the samples of its source.

    Args:
        path: module that calls the resize.
        call: its number among the calls of that module.
        y: outputs (above the first sample, below the last).
        x: outputs (left of the first sample, right of the last).
        pixels: the largest distance, in input pixels, from an output to the sample that it repeats.
    """

    path: str
    call: int
    y: Sides
    x: Sides
    pixels: float


def uncovered(resize: Resize) -> Uncovered | None:
    """Count what ``resize`` reads beyond its source; None if that is nothing, or cannot be told.

    Images have two axes; other resizes, those of tensors without a position and those whose coordinates are data are
    not judged.
    """
    if len(resize.maps) != 2 or resize.source is None:
        return None
    sides: list[Sides] = []
    farthest = 0.0
    for m, n, out, stride in zip(resize.maps, resize.source_size, resize.size, resize.source.stride, strict=True):
        reads = sorted((m(0), m(out - 1)))
        before, after = -reads[0], reads[1] - (n - 1)
        step = abs(m.scale)
        counts = tuple(0 if beyond <= _SNAP else _outputs(beyond, step, out) for beyond in (before, after))
        sides.append((counts[0], counts[1]) if m.scale >= 0 else (counts[1], counts[0]))
        farthest = max(farthest, max(before, after) * abs(stride))
    if not any(sum(pair) for pair in sides):
        return None
    return Uncovered(resize.path, resize.call, sides[0], sides[1], farthest)


def _outputs(beyond: float, step: float, out: int) -> int:
    """Return how many outputs lie in the last ``beyond`` source samples, ``step`` apart."""
    if step == 0:
        return out
    return min(out, math.floor((beyond - _SNAP) / step) + 1)
