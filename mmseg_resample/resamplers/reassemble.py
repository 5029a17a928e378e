"""Reassembly: every target position is a weighted sum over a window of source samples, its weights given per position.

The windows are walked tap by tap and gathered again for the gradients, so nothing of the size of an unfolded map ever
exists: beside the result, memory is a few maps of the target's size whatever the window.
"""

from collections.abc import Iterator
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Centres = tuple[Tensor, Tensor]
"""The source row of every target row, and the source column of every target column."""


def subpositions(source: int, target: int, align_corners: bool, factor: int, device: torch.device) -> Tensor:
    """Return the cell of each target position along one axis when every source sample has ``factor`` cells.

    A target position that reads source coordinate ``u`` (``ops.grid.axis_maps``) lies in cell
    ``floor(factor * (u + 1/2))``, cell ``i`` belonging to source sample ``i // factor``. So ``factor=1`` is the nearest
    source sample, ties to the right. From ``n`` to ``factor * n`` samples without aligned corners it is the identity.

    Args:
        source: samples of the source.
        target: samples of the target.
        align_corners: pixel model, see docs/conventions.md.
        factor: cells per source sample.
        device: of the result.

    Returns:
        (target,) int64, in [0, factor * source).
    """
    index = torch.arange(target, device=device)
    # In whole numbers, because ties are common here and a rounded ratio would decide them by chance.
    if align_corners:
        last = max(target - 1, 1)
        return factor * (2 * index * (source - 1) + last) // (2 * last)
    return factor * (2 * index + 1) * source // (2 * target)


def centres(x: Tensor, size: tuple[int, int], align_corners: bool, factor: int = 1) -> Centres:
    """Return the ``subpositions`` of both axes for a target of ``size`` (h, w) that reads ``x``."""
    return (
        subpositions(x.shape[2], size[0], align_corners, factor, x.device),
        subpositions(x.shape[3], size[1], align_corners, factor, x.device),
    )


def read(x: Tensor, at: Centres) -> Tensor:
    """Return ``x`` (N, C, h, w) at these rows and columns."""
    return x.index_select(2, at[0]).index_select(3, at[1])


def reassemble(x: Tensor, kernel: Tensor, at: Centres) -> Tensor:
    """Sum square windows of ``x`` with weights. Taps outside ``x`` are left out: they add nothing.

    Args:
        x: (N, C, h, w).
        kernel: (N, groups, k * k, H, W) with odd ``k``: the weights of each target position, row by row of the window.
            Channels are divided into ``groups`` runs of equal length, each with weights of its own.
        at: the centre of every window, rows (H,) and columns (W,) of ``x``.

    Returns:
        (N, C, H, W) in the dtype and memory format of ``x``; sums are float32 or better.

    Source: Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", ICCV 2019, arXiv:1905.02188.
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, kernel.dtype), torch.float32)
    padded = _pad(x.to(dtype), kernel.shape[2], kernel.shape[1])
    out = _Reassemble.apply(padded, kernel.to(dtype), *at).flatten(3).permute(0, 3, 1, 2).to(x.dtype)
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return out if channels_last else out.contiguous()


def correlate(x: Tensor, query: Tensor, window: int, at: Centres) -> Tensor:
    """Return the inner products of every query with the samples in its window of ``x``; 0 for samples outside.

    Args:
        x: (N, C, h, w).
        query: (N, C, H, W).
        window: ``k``, odd.
        at: the centre of every window, rows (H,) and columns (W,) of ``x``.

    Returns:
        (N, 1, k * k, H, W), row by row of the window; float32 or better.
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, query.dtype), torch.float32)
    y = query.to(dtype).permute(0, 2, 3, 1).unsqueeze(3).contiguous()
    return _Correlate.apply(_pad(x.to(dtype), window * window, 1), y, *at, window)


def _pad(x: Tensor, taps: int, groups: int) -> Tensor:
    """Pad to (N, h + k - 1, w + k - 1, groups, C / groups): gathers of whole pixels are the fast ones."""
    reach = isqrt(taps) // 2
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, reach, reach, reach, reach)).unflatten(3, (groups, x.shape[1] // groups))


# The three partial derivatives of  sum over taps of  padded[at + tap] * kernel[tap] * y.  Each is the gradient of the
# others, and `padded` is (N, h, w, g, c), `y` (N, H, W, g, c), `kernel` (N, g, k * k, H, W).


def _windows(padded: Tensor, rows: Tensor, columns: Tensor, window: int) -> Iterator[Tensor]:
    for dy in range(window):
        line = padded.index_select(1, rows + dy)
        for dx in range(window):
            yield line.index_select(2, columns + dx)


def _weight(kernel: Tensor, tap: int) -> Tensor:
    return kernel[:, :, tap].permute(0, 2, 3, 1).unsqueeze(4)


def _by_y(padded: Tensor, kernel: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    out = padded.new_zeros(padded.shape[0], kernel.shape[3], kernel.shape[4], *padded.shape[3:])
    for tap, values in enumerate(_windows(padded, rows, columns, isqrt(kernel.shape[2]))):
        out = out.addcmul_(values, _weight(kernel, tap))
    return out


def _by_kernel(padded: Tensor, y: Tensor, rows: Tensor, columns: Tensor, window: int) -> Tensor:
    products = [(values * y).sum(4) for values in _windows(padded, rows, columns, window)]
    return torch.stack(products, 1).permute(0, 4, 1, 2, 3)


def _by_padded(kernel: Tensor, y: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    window = isqrt(kernel.shape[2])
    out = y.new_zeros(y.shape[0], height, width, *y.shape[3:])
    for dy in range(window):
        line = y.new_zeros(y.shape[0], y.shape[1], width, *y.shape[3:])
        for dx in range(window):
            line = line.index_add_(2, columns + dx, y * _weight(kernel, dy * window + dx))
        out = out.index_add_(1, rows + dy, line)
    return out


class _Reassemble(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(padded, kernel, rows, columns)
        return _by_y(padded, kernel, rows, columns)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        padded, kernel, rows, columns = ctx.saved_tensors
        grad = grad.contiguous()
        of_padded = of_kernel = None
        if ctx.needs_input_grad[0]:
            of_padded = _by_padded(kernel, grad, rows, columns, padded.shape[1], padded.shape[2])
        if ctx.needs_input_grad[1]:
            of_kernel = _by_kernel(padded, grad, rows, columns, isqrt(kernel.shape[2]))
        return of_padded, of_kernel, None, None


class _Correlate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, y: Tensor, rows: Tensor, columns: Tensor, window: int) -> Tensor:
        ctx.save_for_backward(padded, y, rows, columns)
        return _by_kernel(padded, y, rows, columns, window)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        padded, y, rows, columns = ctx.saved_tensors
        of_padded = of_y = None
        if ctx.needs_input_grad[0]:
            of_padded = _by_padded(grad, y, rows, columns, padded.shape[1], padded.shape[2])
        if ctx.needs_input_grad[1]:
            of_y = _by_y(padded, grad, rows, columns)
        return of_padded, of_y, None, None, None
