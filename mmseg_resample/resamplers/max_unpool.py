"""``MaxUnpool``: resampling to where a maximum was, and the pooling that it undoes."""

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from ._arguments import need_channels, need_whole
from .base import Resampler
from .reassemble import subpositions


def max_pool(
    x: Tensor, size: tuple[int, int], align_corners: bool = False, *, stride: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the maximum of ``x`` in each of ``size`` cells, and where it is.

    Every sample of ``x`` belongs to one cell: the nearest, under the pixel model, when ``x`` is the target that reads
    the pooled map (ties to the right). From ``s * n`` to ``n`` samples without aligned corners it is ``F.max_pool2d``
    with kernel and stride ``s``. At other sizes it is not, unless ``stride`` asks for its windows.

    Args:
        x: (N, C, H, W).
        size: (h, w) of the result, at most (H, W).
        align_corners: pixel model, see docs/conventions.md. Not read where ``stride`` is given.
        stride: cells are the windows of ``F.max_pool2d`` with this kernel and stride. They begin at the first sample; a
            size of ``ceil(H / stride)`` is ``ceil_mode=True``, whose last window is cut, and ``floor(H / stride)``
            leaves the samples behind the last whole window out.

    Returns:
        The maxima and, int64, their positions ``row * W + column`` in ``x``, both (N, C, h, w). The first of equal
        maxima counts.

    Raises:
        ValueError: ``size`` is larger than ``x``, or than its windows of ``stride``; a ``stride`` below 1.
    """
    most = tuple(x.shape[2:]) if stride is None else _windows(x, need_whole("max_pool", "stride", stride))
    if size[0] > most[0] or size[1] > most[1]:
        of = "the size of x" if stride is None else f"the windows of stride {stride} in {tuple(x.shape[2:])}"
        raise ValueError(f"max_pool: expected a size of at most {most}, {of}, got {size}.")
    window = _window(x, size, align_corners, stride)
    if window is not None:
        return F.max_pool2d(x, window[0], window[0], ceil_mode=window[1], return_indices=True)
    indices = _switches(x, size, align_corners, stride)
    return x.flatten(2).gather(2, indices.flatten(2)).view(indices.shape), indices


def max_unpool(x: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Put every value of ``x`` where ``indices`` say, in a map of zeros.

    Args:
        x: (N, C, h, w).
        indices: (N, C, h, w), positions ``row * W + column``, no two alike within a channel. Where ``x`` is larger than
            ``size``, values at -1 are dropped.
        size: (H, W) of the result.
    """
    batch, channels, height, width = x.shape
    spare = int(height > size[0] or width > size[1])  # a place for dropped values: only then cells can be empty
    out = x.new_zeros(batch, channels, size[0] * size[1] + spare)
    if spare:
        indices = torch.where(indices < 0, size[0] * size[1], indices)
    out = out.scatter(2, indices.flatten(2), x.flatten(2))[..., : size[0] * size[1]]
    return out.reshape(batch, channels, *size).contiguous()


@torch.no_grad()
def _switches(x: Tensor, size: tuple[int, int], align_corners: bool, stride: int | None) -> Tensor:
    """Return the positions of the maxima of ``x`` in ``size`` cells; -1 for cells without a sample."""
    window = _window(x, size, align_corners, stride)
    if window is not None:
        return F.max_pool2d(x, window[0], window[0], ceil_mode=window[1], return_indices=True)[1]
    height, width = x.shape[2:]
    (top, bottom, rows), (left, right, columns) = (
        _cells(n, cells, align_corners, stride, x.device) for n, cells in zip((height, width), size, strict=True)
    )
    best = x.new_full((*x.shape[:2], *size), float("-inf"))
    indices = torch.full_like(best, -1, dtype=torch.int64)
    for dy in range(rows):
        line = x.index_select(2, (top + dy).clamp(max=height - 1))
        for dx in range(columns):
            value = line.index_select(3, (left + dx).clamp(max=width - 1))
            inside = (top + dy < bottom)[:, None] & (left + dx < right)
            better = inside & ((indices < 0) | (value > best) | value.isnan())
            best = torch.where(better, value, best)
            indices = torch.where(better, (top + dy)[:, None] * width + left + dx, indices)
    return indices


def _windows(x: Tensor, stride: int) -> tuple[int, int]:
    """Return how many windows of ``stride`` there are along both axes, the last ones cut."""
    return -(-x.shape[2] // stride), -(-x.shape[3] // stride)


def _window(
    x: Tensor, size: tuple[int, int], align_corners: bool, stride: int | None
) -> tuple[tuple[int, int], bool] | None:
    """Return (h, w) of the cells, and whether the last ones may be cut, if PyTorch's own pooling has such cells."""
    height, width = x.shape[2:]
    if stride is not None:
        cut = size == _windows(x, stride)
        return ((stride, stride), cut) if cut or size == (height // stride, width // stride) else None
    if align_corners or height % size[0] or width % size[1]:
        return None
    return (height // size[0], width // size[1]), False


def _cells(
    n: int, cells: int, align_corners: bool, stride: int | None, device: torch.device
) -> tuple[Tensor, Tensor, int]:
    """Return the first sample of each cell, the one behind its last, and how many samples the largest can have."""
    index = torch.arange(cells, device=device)
    if stride is not None:
        return index * stride, ((index + 1) * stride).clamp(max=n), stride
    cell = subpositions(cells, n, align_corners, 1, device)
    most = -(-n // cells)
    if align_corners and cells > 1:
        most = (n - 1) // (cells - 1) + 1
    return torch.searchsorted(cell, index), torch.searchsorted(cell, index, right=True), most


@MODELS.register_module()
class MaxUnpool(Resampler):
    """Unpooling by switches: every value of ``x`` goes to where ``like`` is largest in its cell, zeros elsewhere.

    ``like`` is the feature that ``x`` was pooled from, or one like it with as many channels, and the switches are those
    of ``max_pool(like, size of x)``: for integer ratios without aligned corners those of ``F.max_pool2d``, so that a
    network which pools with ``max_pool`` is undone by this module without passing anything but its features on.

    Any sizes: each position of ``like`` belongs to the sample of ``x`` that is nearest under the pixel model. Where
    ``x`` is the larger map, samples that no position is nearest to are dropped. No gradient reaches ``like``.

    Where the sizes have no whole ratio those cells are not the windows of ``F.max_pool2d``, neither with nor without
    ``ceil_mode``: from 9 to 5 samples they have 2, 2, 1, 2 and 2 samples. For a network that pools with it, or that was
    trained with SegNet's original code (from 45 to 23), give its ``stride``.

    Args:
        in_channels: channels of ``x``.
        guide_channels: channels of ``like``, as many.
        align_corners: pixel model; ``None`` is ``False``, which is the published one. Not read with a ``stride``.
        stride: switches are those of ``F.max_pool2d`` with this kernel and stride, whichever ``ceil_mode`` made the
            size of ``x``: positions behind the last window stay zero, values of windows beyond ``like`` are dropped.

    Raises:
        ValueError: channels missing or different, a ``stride`` below 1.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, arXiv:1311.2901;
    Badrinarayanan et al., "SegNet", TPAMI 2017, arXiv:1511.00561.
    """

    guided = True

    def __init__(
        self,
        in_channels: int | None = None,
        guide_channels: int | None = None,
        align_corners: bool | None = None,
        stride: int | None = None,
    ) -> None:
        super().__init__(in_channels, guide_channels, bool(align_corners))
        self.stride = None if stride is None else need_whole("MaxUnpool", "stride", stride)
        if need_channels("MaxUnpool", "in_channels", in_channels) != guide_channels:
            raise ValueError(
                f"MaxUnpool: expected in_channels == guide_channels, one map of switches per channel, "
                f"got {in_channels} and {guide_channels}."
            )

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        if self.stride is not None:
            rows, columns = _windows(like, self.stride)
            x = x[:, :, :rows, :columns]  # the windows beyond have no sample
        return max_unpool(x, self._switches(x, like), (like.shape[2], like.shape[3]))

    def explain(self, x: Tensor, like: Tensor) -> dict[str, Tensor]:
        """Return ``indices`` (N, C, h, w): where in ``like`` each value goes, ``row * W + column``; -1 for nowhere."""
        return {"indices": self._switches(x, like)}

    def _switches(self, x: Tensor, like: Tensor) -> Tensor:
        return _switches(like, (x.shape[2], x.shape[3]), bool(self.align_corners), self.stride)

    def extra_repr(self) -> str:
        return f"align_corners={self.align_corners}" + ("" if self.stride is None else f", stride={self.stride}")
