"""Windows around every sample of a map: weighted sums of them, and inner products with them.

They are what ``reassemble`` and ``correlate`` compute where source and target have the same samples. Taps are then
slices of the padded map: no gathers, which take ten times as long.
"""

from collections.abc import Iterator
from math import isqrt
from typing import Any

import torch
from torch import Tensor


def reflect(x: Tensor, reach: int) -> Tensor:
    """Pad by reflection at the samples of the edge, (N, C, H, W) to (N, C, H + 2 reach, W + 2 reach).

    It is ``F.pad(mode="reflect")`` for any size: a map narrower than ``reach`` is reflected again and again.
    """
    for dim in (2, 3):
        n = x.shape[dim]
        period = max(2 * (n - 1), 1)
        index = torch.arange(-reach, n + reach, device=x.device) % period
        x = x.index_select(dim, torch.minimum(index, period - index) if n > 1 else index)
    return x


def weigh(padded: Tensor, kernel: Tensor) -> Tensor:
    """Sum the windows of a padded map with weights given per position.

    Args:
        padded: (N, C, H + k - 1, W + k - 1).
        kernel: (N, k * k, H, W), row by row of the window.

    Returns:
        (N, C, H, W) in the dtype of ``padded``; sums are float32 or better.
    """
    dtype = torch.promote_types(torch.promote_types(padded.dtype, kernel.dtype), torch.float32)
    return _Weigh.apply(padded.to(dtype), kernel.to(dtype)).to(padded.dtype)


def compare(padded: Tensor, query: Tensor) -> Tensor:
    """Return the inner products of every sample of ``query`` with those in its window of a padded map.

    Args:
        padded: (N, C, H + k - 1, W + k - 1).
        query: (N, C, H, W).

    Returns:
        (N, k * k, H, W), row by row of the window; float32 or better.
    """
    dtype = torch.promote_types(torch.promote_types(padded.dtype, query.dtype), torch.float32)
    return _Compare.apply(padded.to(dtype), query.to(dtype))


# The three partial derivatives of  sum over taps of  padded[tap] * kernel[tap] * y.  Each is a gradient of the others.


def _taps(padded: Tensor, height: int, width: int) -> Iterator[Tensor]:
    for dy in range(padded.shape[2] - height + 1):
        for dx in range(padded.shape[3] - width + 1):
            yield padded[:, :, dy : dy + height, dx : dx + width]


def _by_y(padded: Tensor, kernel: Tensor) -> Tensor:
    out = padded.new_zeros(*padded.shape[:2], *kernel.shape[2:])
    for tap, values in enumerate(_taps(padded, *kernel.shape[2:])):
        out = out.addcmul_(values, kernel[:, tap, None])
    return out


def _by_kernel(padded: Tensor, y: Tensor) -> Tensor:
    return torch.stack([(values * y).sum(1) for values in _taps(padded, *y.shape[2:])], 1)


def _by_padded(kernel: Tensor, y: Tensor) -> Tensor:
    reach = isqrt(kernel.shape[1]) - 1
    out = y.new_zeros(*y.shape[:2], y.shape[2] + reach, y.shape[3] + reach)
    for tap, values in enumerate(_taps(out, *y.shape[2:])):
        values.addcmul_(y, kernel[:, tap, None])
    return out


class _Weigh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(padded, kernel)
        return _by_y(padded, kernel)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        padded, kernel = ctx.saved_tensors
        of_padded = _by_padded(kernel, grad) if ctx.needs_input_grad[0] else None
        return of_padded, _by_kernel(padded, grad) if ctx.needs_input_grad[1] else None


class _Compare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(padded, y)
        return _by_kernel(padded, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        padded, y = ctx.saved_tensors
        of_padded = _by_padded(grad, y) if ctx.needs_input_grad[0] else None
        return of_padded, _by_y(padded, grad) if ctx.needs_input_grad[1] else None
