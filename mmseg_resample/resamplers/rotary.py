"""Rotary position encoding of maps: channels in pairs, turned by an angle that is linear in the position."""

import math

import torch
from torch import Tensor


def frequencies(count: int, base: float, *, end: bool) -> Tensor:
    """Return angular frequencies from ``2 pi`` falling geometrically towards ``2 pi / base``.

    Args:
        count: how many.
        base: ratio of the first to the last.
        end: the last of them is ``2 pi / base``; otherwise that would be the next.

    Returns:
        (count,) float32, radians per unit of a coordinate.
    """
    exponent = torch.linspace(0, 1, count) if end else torch.arange(count) / count
    return 2 * math.pi * base**-exponent


def rotate(x: Tensor, frequency: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Turn channel ``i`` of ``x`` against channel ``i + C / 2`` by its angle at each position.

    The angle of a channel is ``frequency[0] * row + frequency[1] * column``. Where the two of a pair have different
    angles, as published for JAFAR, each takes its own and the pair is not rotated as a plane is.

    Args:
        x: (..., C, H, W) with even C.
        frequency: (2, C), radians per unit of the coordinates of rows and of columns.
        rows: (H,) coordinates.
        columns: (W,) coordinates.

    Returns:
        ``x``'s shape and dtype; angles and sums are float32 or better.

    Source: Su et al., "RoFormer", arXiv:2104.09864; on two axes: Heo et al., "Rotary Position Embedding for Vision
        Transformer", arXiv:2403.13298.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    by_row, by_column = frequency.to(dtype)[:, :, None, None]
    angle = by_row * rows.to(dtype)[:, None] + by_column * columns.to(dtype)
    sin, cos = angle.sin(), angle.cos()
    first, second = x.to(dtype).chunk(2, dim=-3)
    (sin_first, sin_second), (cos_first, cos_second) = sin.chunk(2), cos.chunk(2)
    turned = (first * cos_first - second * sin_first, second * cos_second + first * sin_second)
    return torch.cat(turned, dim=-3).to(x.dtype)
