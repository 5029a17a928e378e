"""``Padding``: the fewest rows and columns around an image with which the features of a network reach all of it.

What is missing comes from audits. Features of odd-kernel networks begin on pixel 0, and want rows below and columns at
the right until they end on a pixel; those of patches begin and end half a patch inside the image; those behind SAME
padding (TensorFlow's) begin ``stride - 1`` pixels inside at even sizes, and want whole strides above and at the left.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..grids import ForwardPass
from ..grids.network import replace_tensors
from ..grids.sites import Size
from ..grids.track import Output
from ..ops import PixelGrid

MODES = ("replicate", "reflect", "constant")
"""What stands in the rows and columns: the outermost pixels, the image mirrored in them, or zeros. Zeros behind a
normalisation are the mean colour."""

_TOLERANCE = 1e-6  # input pixels


@dataclass(frozen=True)
class Padding:
    """Rows and columns around an image.

    Args:
        y: rows (above, below).
        x: columns (left, right).
        outputs: the network's outputs without padding, by name, which ``crop`` cuts them back to; empty where
            something else does.
    """

    y: tuple[int, int] = (0, 0)
    x: tuple[int, int] = (0, 0)
    outputs: Mapping[str, Output] = field(default_factory=dict, compare=False, repr=False)

    def __bool__(self) -> bool:
        return any((*self.y, *self.x))

    @property
    def before(self) -> tuple[int, int]:
        """Rows above and columns at the left."""
        return self.y[0], self.x[0]

    def size(self, image: Sequence[int]) -> Size:
        """Return the size (h, w) of an image with the padding."""
        height, width = image
        return height + sum(self.y), width + sum(self.x)

    def apply(self, image: Tensor, mode: str) -> Tensor:
        """Pad ``image``, (N, C, H, W), by one of ``MODES``.

        Raises:
            ValueError: the image is too small to be mirrored that far.
        """
        if not self:
            return image
        if mode == "reflect" and any(max(p) >= n for p, n in zip((self.y, self.x), image.shape[2:], strict=True)):
            raise ValueError(
                f"ResizePolicy: pad='reflect' cannot mirror {max(*self.y, *self.x)} pixels of an image of "
                f"{tuple(image.shape[2:])}. Use pad='replicate', or larger images."
            )
        return F.pad(image, (*self.x, *self.y), mode)

    def crop(self, output: Any) -> Any:
        """Cut a network's output, one or more tensors, back to what it is without padding; others than these stay.

        Raises:
            ValueError: an output that no audit saw, or that holds positions in an order that cannot be cut.
        """

        def cut(name: str, tensor: Tensor) -> Tensor:
            plain = self.outputs.get(name)
            if plain is None or plain.grid is None:
                if tensor.ndim < 3 or (plain is not None and tensor.shape[1:] == plain.shape[1:]):
                    return tensor
                why = "no audit saw it" if plain is None else "its rows and columns are not known to be two of its axes"
                raise ValueError(
                    f"ResizePolicy: pad: output {name!r} of {tuple(tensor.shape)} cannot be cut back to the image: "
                    f"{why}. Leave pad out."
                )
            for axis, before in enumerate(self.before):
                start, length = round(before / plain.grid.stride[axis]), plain.grid.size[axis]
                tensor = tensor.narrow(plain.rows + axis, start, length)
            return tensor

        return replace_tensors(output, cut) if self and self.outputs else output


def cover(follow: Callable[[Padding], ForwardPass], crops: bool, margin: int = 0) -> tuple[Padding, ForwardPass]:
    """Find the smallest padding with which exact resizes read nothing beyond the features for pixels of the image.

    It leaves the geometry of the network as it is: every level of features begins as far inside the padded image as
    without. Behind TensorFlow's SAME padding an odd size would do with less, at other offsets than the weights know.

    Args:
        follow: makes a forward pass with exact resizes on a padded image; raises where the network takes none such.
        crops: the network's outputs are to be cropped to what they are without padding.
        margin: pixels on every side that features shall reach beyond the image.

    Returns:
        The padding, and the forward pass with it.

    Raises:
        ValueError: there is none.
    """
    plain = follow(Padding())
    if not plain.repeats and not margin:
        return Padding(), plain
    resized = {r.site: r.source for r in plain.trace.resizes if r.source is not None}
    short = [resized[entry.path, entry.call] for entry in plain.repeats]
    levels = short + [level for level in plain.levels if level is not None]
    outputs = plain.outputs if crops else {}
    whole = [output.grid for output in outputs.values() if output.grid is not None]
    # Resizes of resizes, as in Semantic FPN, may read beyond at both ends: then a stride more on every side.
    more = [max(margin, math.ceil(max(level.stride[axis] for level in levels))) for axis in (0, 1)]
    options = [
        [option for least in (margin, more[axis]) for option in _options(plain.size[axis], axis, levels, whole, least)]
        for axis in (0, 1)
    ]
    for axis in (0, 1):
        if not margin and not any((entry.y, entry.x)[axis] for entry in plain.repeats):
            options[axis].insert(0, (0, 0))
    reasons = []
    while all(options):  # both axes together, each until its own is covered
        padding = Padding(options[0][0], options[1][0], outputs)
        height, width = padding.size(plain.size)
        try:
            padded = follow(padding)
        except Exception as error:  # whatever a network raises at a size that it cannot take
            reasons.append(f"{height}x{width}: {type(error).__name__}: {error}")
            failing = [0, 1]
        else:
            failing = [axis for axis in (0, 1) if not _covers(padded, plain, padding, axis)]
            if not failing:
                return padding, padded
            reasons.append(f"{height}x{width}: features do not reach the border, or lie elsewhere than without padding")
        others = [axis for axis in failing if len(options[axis]) > 1]
        if not others:
            break
        for axis in others:
            options[axis].pop(0)
    raise ValueError(f"no padding makes its features reach the border ({'; '.join(reasons)})")


def _options(
    pixels: int, axis: int, levels: Sequence[PixelGrid], whole: Sequence[PixelGrid], margin: int
) -> Iterator[tuple[int, int]]:
    """Yield paddings (before, after) along one axis that could be enough, the smallest first.

    The coarsest features decide. Their last one has to lie on the last pixel of the margin or beyond. How much of the
    image that takes depends on the windows: up to its centre (odd kernels), as far as its patch reaches, or whole
    strides.
    """
    coarsest = max(levels, key=lambda level: level.stride[axis])
    stride, offset = coarsest.stride[axis], max(level.offset[axis] for level in levels)
    steps = [max(1, round(grid.stride[axis])) for grid in whole]
    missing = max(margin, math.ceil(offset - _TOLERANCE))
    found = set()
    for before in {missing, math.ceil(missing / stride) * round(stride)}:
        if any(before % step for step in steps):
            continue
        own = coarsest.offset[axis]
        last = own + max(0, math.ceil((pixels - 1 + margin + before - own - _TOLERANCE) / stride)) * stride
        strides = math.ceil((last + 1) / stride) * stride
        for total in (last + 1, last + max(own, 0) + 1, strides, strides + stride):
            found.add((before, math.ceil(total - _TOLERANCE) - pixels - before))
    # Whole strides, of two that are equally small, keep the phase of patches.
    yield from sorted((p for p in found if p[1] >= 0), key=lambda p: (sum(p), p[0] % stride != 0))


def cover_by_strides(
    follow: Callable[[Padding], ForwardPass], crops: bool, margin: int = 0
) -> tuple[Padding, ForwardPass]:
    """Find the fewest whole strides with which features reach the border: sizes that ``align_corners=False`` fits.

    Arguments and errors are those of ``cover``; nothing is registered.
    """
    plain = follow(Padding())
    levels = [level for level in plain.levels if level is not None]
    if not levels:
        raise ValueError("its features have no position, so that nothing is known of where they end")
    sides = []
    for axis in (0, 1):
        stride, offset = (max(getattr(level, name)[axis] for level in levels) for name in ("stride", "offset"))
        before = math.ceil(max(offset, margin) / stride - _TOLERANCE) * round(stride)
        pixels = plain.size[axis]
        total = math.ceil((pixels - 1 + margin + before - offset) / stride - _TOLERANCE) * round(stride) + round(stride)
        sides.append((before, max(0, total - before - pixels)))
    padding = Padding(sides[0], sides[1], plain.outputs if crops else {})
    return padding, follow(padding) if padding else plain


def _covers(padded: ForwardPass, plain: ForwardPass, padding: Padding, axis: int) -> bool:
    """Tell whether nothing is missing along ``axis``, and every level lies in the padded image as in the plain one."""
    before = padding.before[axis]
    same = all(
        a is None
        or b is None
        or max(abs(a.stride[axis] - b.stride[axis]), abs(a.offset[axis] - before - b.offset[axis])) < _TOLERANCE
        for a, b in zip(plain.levels, padded.levels, strict=True)
    )
    return same and not any((entry.y, entry.x)[axis] for entry in padded.repeats)
