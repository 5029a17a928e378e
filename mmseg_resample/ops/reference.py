"""Slow, obvious, float64: the oracle that tests and benchmarks compare the ops against.

Every separable resize is one dense matrix per axis, filled entry by entry from its definition.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .grid import AxisMap


def kernel_matrix(kernel: str, axis_map: AxisMap, source_size: int, size: int) -> Tensor:
    """Return (size, source_size) whose row ``x`` holds the weights with which output ``x`` reads the source.

    Args:
        kernel: ``"nearest"``, ``"nearest-exact"``, ``"linear"`` or ``"cubic"`` (a = -0.75).
    """
    matrix = torch.zeros(size, source_size, dtype=torch.float64)
    for x in range(size):
        u = axis_map(x) + (0.5 if kernel == "nearest-exact" else 0.0)
        if abs(u - round(u)) < 1e-9:
            u = float(round(u))
        for index, weight in _taps(kernel, u):
            matrix[x, min(max(index, 0), source_size - 1)] += weight
    return matrix


def _taps(kernel: str, u: float) -> list[tuple[int, float]]:
    i = math.floor(u)
    if kernel in ("nearest", "nearest-exact"):
        return [(i, 1.0)]
    if kernel == "linear":
        return [(i, 1 - (u - i)), (i + 1, u - i)]
    return [(k, _keys_cubic(abs(u - k))) for k in range(i - 1, i + 3)]


def _keys_cubic(t: float, a: float = -0.75) -> float:
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a


def area_matrix(source_size: int, size: int) -> Tensor:
    """Return (size, source_size) of adaptive average pooling: bins from floor(x n / N) to ceil((x + 1) n / N)."""
    matrix = torch.zeros(size, source_size, dtype=torch.float64)
    for x in range(size):
        start, stop = x * source_size // size, -(-(x + 1) * source_size // size)
        matrix[x, start:stop] = 1 / (stop - start)
    return matrix


def resample(input: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Apply one (size, source_size) matrix per spatial axis to (N, C, ...)."""
    out = input.double()
    for axis, matrix in enumerate(matrices):
        out = torch.tensordot(out, matrix, dims=([2 + axis], [1])).movedim(-1, 2 + axis)
    return out


def flow_warp(
    input: Tensor, flow: Tensor, align_corners: bool, unit: str = "pixel", padding_mode: str = "border"
) -> Tensor:
    """Compute ``ops.flow_warp`` pixel by pixel, in source coordinates: no normalised grid, no ``grid_sample``."""
    batch, channels, height, width = input.shape
    size_out = flow.shape[-2:]
    x, f = input.double(), flow.double()
    out = torch.zeros(batch, channels, *size_out, dtype=torch.float64)

    def source(index: int, displacement: float, n: int, size: int) -> float:
        pixels = displacement if unit == "pixel" else 0.0
        if align_corners:
            u, extent = (index + pixels) * (n - 1) / max(size - 1, 1), n - 1
        else:
            u, extent = (index + pixels + 0.5) * n / size - 0.5, n
        # The source spans 2 on the [-1, 1] grid, from the outermost centres or from the outermost borders.
        return u if unit == "pixel" else u + displacement / size * extent / 2

    def read(b: int, row: int, column: int) -> Tensor:
        if padding_mode == "zeros" and not (0 <= row < height and 0 <= column < width):
            return torch.zeros(channels, dtype=torch.float64)
        return x[b, :, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]

    for b in range(batch):
        for i in range(size_out[0]):
            for j in range(size_out[1]):
                v = source(i, float(f[b, 1, i, j]), height, size_out[0])
                u = source(j, float(f[b, 0, i, j]), width, size_out[1])
                row, column = math.floor(v), math.floor(u)
                for dy, wy in ((0, 1 - (v - row)), (1, v - row)):
                    for dx, wx in ((0, 1 - (u - column)), (1, u - column)):
                        out[b, :, i, j] += wy * wx * read(b, row + dy, column + dx)
    return out
