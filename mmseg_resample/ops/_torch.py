"""Kernels in plain PyTorch: every device, every dtype."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import _check
from .grid import CUBIC_A, SNAP

Table = tuple[np.ndarray, np.ndarray]
"""Indices and weights, (taps, length) each: ``out[x] = sum_k weight[k, x] * input[index[k, x]]``."""

_BAND = 32  # rows of a band on CPUs, the fastest that was measured; on GPUs each launch costs more than it spares


def _cubic(t: np.ndarray) -> np.ndarray:
    """Evaluate Keys' cubic convolution kernel at distance ``t`` in [0, 2]."""
    a = CUBIC_A
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, far)


def _table(kernel: str, scale: float, offset: float, source_size: int, size: int) -> Table:
    """Tabulate the samples that each of ``size`` outputs reads; outside taps read the edge sample."""
    u = scale * np.arange(size, dtype=np.float64) + offset
    if kernel == "nearest-exact":
        u = u + 0.5  # before snapping: a tie is a whole number here
    u = np.where(np.abs(u - np.rint(u)) < SNAP, np.rint(u), u)
    base = np.floor(u)
    if kernel in ("nearest", "nearest-exact"):
        taps, weight = [0], np.ones((1, size))
    elif kernel == "linear":
        taps, weight = [0, 1], np.stack([1 - (u - base), u - base])
    else:
        taps = [-1, 0, 1, 2]
        weight = np.stack([_cubic(np.abs(u - base - tap)) for tap in taps])
    index = np.clip(base[None] + np.array(taps)[:, None], 0, source_size - 1).astype(np.int64)
    return index, weight


def _transpose(table: Table, source_size: int) -> Table:
    """Return the adjoint's table: what each source sample receives, padded with zero weights to the longest list."""
    index, weight = table
    destination = np.broadcast_to(np.arange(index.shape[1]), index.shape).ravel()
    order = np.argsort(index.ravel(), kind="stable")
    source = index.ravel()[order]
    count = np.bincount(source, minlength=source_size)
    position = np.arange(source.size) - np.repeat(np.cumsum(count) - count, count)
    shape = (max(1, int(count.max())), source_size)
    adjoint_index, adjoint_weight = np.zeros(shape, np.int64), np.zeros(shape)
    adjoint_index[position, source] = destination[order]
    adjoint_weight[position, source] = weight.ravel()[order]
    return adjoint_index, adjoint_weight


@lru_cache(maxsize=512)
def _samples(kernel: str, scale: float, offset: float, source_size: int, size: int, device: torch.device) -> Tensor:
    """Return which sample each output of a nearest kernel is."""
    index, _ = _table(kernel, scale, offset, source_size, size)
    with torch.inference_mode(False):
        return torch.from_numpy(index[0]).to(device)


def _gather(x: Tensor, dim: int, index: Tensor, weight: Tensor) -> Tensor:
    """Apply a table along an axis."""
    shape = [1] * x.ndim
    shape[dim] = -1
    out = x.index_select(dim, index[0]).mul_(weight[0].view(shape))
    for taps, factors in zip(index[1:], weight[1:], strict=True):
        out.addcmul_(x.index_select(dim, taps), factors.view(shape))
    return out


class _Band(NamedTuple):
    """Outputs ``start`` to ``stop`` are ``weight``, (stop - start, high - low), times inputs ``low`` to ``high``."""

    start: int
    stop: int
    low: int
    high: int
    weight: Tensor


@lru_cache(maxsize=512)
def _bands(
    kernel: str,
    scale: float,
    offset: float,
    source_size: int,
    size: int,
    adjoint: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> list[_Band]:
    """Cut the matrix of a kernel along its diagonal into dense pieces."""
    index, weight = _table(kernel, scale, offset, source_size, size)
    matrix = np.zeros((size, source_size))
    np.add.at(matrix, (np.broadcast_to(np.arange(size), index.shape), index), weight)
    if adjoint:
        matrix = matrix.T
    height = _BAND if device.type == "cpu" else len(matrix)
    bands = []
    with torch.inference_mode(False):
        for start in range(0, len(matrix), height):
            rows = matrix[start : start + height]
            read = np.flatnonzero(rows.any(0))
            low, high = (int(read[0]), int(read[-1]) + 1) if len(read) else (0, 1)
            part = torch.from_numpy(rows[:, low:high].copy()).to(device, dtype)
            bands.append(_Band(start, start + len(rows), low, high, part))
    return bands


def _multiply(x: Tensor, dim: int, bands: Sequence[_Band]) -> Tensor:
    """Multiply an axis by a matrix in bands."""
    before, after = math.prod(x.shape[:dim]), math.prod(x.shape[dim + 1 :])
    source = x.reshape(before, x.shape[dim], after)
    if _check.is_transformed(x):  # `torch.func` knows no outputs that are given
        out = torch.cat([band.weight @ source[:, band.low : band.high] for band in bands], 1)
    else:
        out = x.new_empty(before, bands[-1].stop, after)
        for start, stop, low, high, weight in bands:
            if after == 1:
                torch.mm(source[:, low:high, 0], weight.T, out=out[:, start:stop, 0])
            else:
                torch.bmm(weight.expand(before, -1, -1), source[:, low:high], out=out[:, start:stop])
    return out.view(*x.shape[:dim], bands[-1].stop, *x.shape[dim + 1 :])


def _apply(
    input: Tensor,
    source_size: Sequence[int],
    size: Sequence[int],
    scale: Sequence[float],
    offset: Sequence[float],
    kernel: str,
    adjoint: bool,
) -> Tensor:
    """Apply a kernel per axis, forward or adjoint: no atomics, equal inputs give equal bits everywhere.

    Samples are mixed by products of matrices; nearest ones are moved.
    """
    moves_only = kernel.startswith("nearest") and not adjoint
    compute = input.dtype if moves_only else torch.promote_types(input.dtype, torch.float32)
    channels_last = is_channels_last(input)
    x = input.permute(0, 2, 3, 1) if channels_last else input
    first = 1 if channels_last else 2
    x = x.to(compute)
    # The axis that shrinks most goes first, and what is strided (the last axis) sees the smaller tensor.
    growth = [n / out if adjoint else out / n for n, out in zip(source_size, size, strict=True)]
    moved = [a for a in range(len(size)) if (scale[a], offset[a], source_size[a]) != (1, 0, size[a])]
    if not moved:
        x = x.clone()
    for axis in sorted(moved, key=lambda a: (growth[a], -a if growth[a] > 1 else a)):
        line = kernel, scale[axis], offset[axis], source_size[axis], size[axis]
        if moves_only:
            x = x.index_select(first + axis, _samples(*line, x.device))
        else:
            x = _multiply(x, first + axis, _bands(*line, adjoint, compute, x.device))
    x = x.to(input.dtype)
    return x.permute(0, 3, 1, 2) if channels_last else x


def _linear_op(
    name: str, forward: Callable[..., Tensor], transpose: Callable[[], Callable[..., Tensor]]
) -> Callable[..., Tensor]:
    """Register ``forward`` as an op, opaque to compilers and dispatch modes, whose backward is ``transpose()``."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.source_size, ctx.map = inputs[0].shape[2:], inputs[2:]

    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return transpose()(grad, list(ctx.source_size), *ctx.map), None, None, None, None

    def fake(input: Tensor, size: Sequence[int], *_map: Any) -> Tensor:
        out = input.new_empty([*input.shape[:2], *size])
        return out.to(memory_format=torch.channels_last) if is_channels_last(input) else out

    schema = "(Tensor input, SymInt[] size, float[] scale, float[] offset, str kernel) -> Tensor"
    if not hasattr(torch.library, "custom_op"):
        return _op_before_custom_op(name, schema, forward, fake, setup_context, backward)
    op = torch.library.custom_op(f"mmseg_resample::{name}", forward, mutates_args=(), schema=schema)
    op.register_autograd(backward, setup_context=setup_context)
    op.register_fake(fake)
    return op


_library = torch.library.Library("mmseg_resample", "FRAGMENT")  # its registrations live as long as it does


def _op_before_custom_op(
    name: str,
    schema: str,
    forward: Callable[..., Tensor],
    fake: Callable[..., Tensor],
    setup_context: Callable[..., None],
    backward: Callable[..., tuple[Any, ...]],
) -> Callable[..., Tensor]:
    """Do what ``torch.library.custom_op`` does, for torch < 2.4."""
    _library.define(name + schema)
    op = getattr(torch.ops.mmseg_resample, name).default

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Tensor:
            setup_context(ctx, inputs, inputs[0])
            with torch._C._AutoDispatchBelowAutograd():
                return op(*inputs)

    Function.backward = staticmethod(backward)  # type: ignore[assignment]
    _library.impl(name, forward, "CompositeExplicitAutograd")
    _library.impl(name, fake, "Meta")
    _library.impl(name, lambda *inputs: Function.apply(*inputs), "Autograd")
    return op


def is_channels_last(input: Tensor) -> bool:
    if _check.is_transformed(input):
        return False  # `vmap` cannot tell
    return input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()


def linear_ops(name: str, apply: Callable[..., Tensor]) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Register ``apply``, which is called as ``_apply`` is, as an op and its transpose: each the other's backward."""

    def forward(
        input: Tensor, size: Sequence[int], scale: Sequence[float], offset: Sequence[float], kernel: str
    ) -> Tensor:
        return apply(input, input.shape[2:], size, scale, offset, kernel, adjoint=False)

    def transpose(
        grad: Tensor, size: Sequence[int], scale: Sequence[float], offset: Sequence[float], kernel: str
    ) -> Tensor:
        return apply(grad, size, grad.shape[2:], scale, offset, kernel, adjoint=True)

    op = _linear_op(name, forward, lambda: adjoint)
    adjoint = _linear_op(f"{name}_adjoint", transpose, lambda: op)
    return op, adjoint


resample, resample_adjoint = linear_ops("resample", _apply)


def resample_transformed(
    input: Tensor, size: Sequence[int], scale: Sequence[float], offset: Sequence[float], kernel: str
) -> Tensor:
    """Resample by operations that the transforms of ``torch.func`` can follow, where ``resample`` is opaque to them."""
    return _apply(input, input.shape[2:], size, scale, offset, kernel, adjoint=False)


def flow_warp(
    input: Tensor,
    flow: Tensor,
    steps: tuple[float, float],
    align_corners: bool,
    padding_mode: str,
    sample: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Sample ``input`` at the resize grid of ``flow``'s size plus ``flow * steps``; ``steps`` (x, y) on [-1, 1]."""
    dtype = torch.promote_types(torch.promote_types(input.dtype, flow.dtype), torch.float32)
    height, width = flow.shape[-2:]
    base = _kept_centres if _check.is_plain(input, flow) else _centres
    displacement = flow.to(dtype)
    x = base(width, align_corners, dtype, flow.device) + displacement[:, 0] * steps[0]
    y = base(height, align_corners, dtype, flow.device)[:, None] + displacement[:, 1] * steps[1]
    # Autocast would send grid and input through half precision on some devices; tensors without data have none.
    with nullcontext() if input.is_meta else torch.autocast(input.device.type, enabled=False):
        return (sample or _grid_sample)(input.to(dtype), x, y, align_corners, padding_mode).to(input.dtype)


def _centres(length: int, align_corners: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return where the samples of an axis are on [-1, 1]."""
    index = torch.arange(length, device=device, dtype=dtype)
    return 2 * index / max(length - 1, 1) - 1 if align_corners else (2 * index + 1) / length - 1


@lru_cache(maxsize=128)
def _kept_centres(length: int, align_corners: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return _centres(length, align_corners, dtype, device)


def _grid_sample(input: Tensor, x: Tensor, y: Tensor, align_corners: bool, padding_mode: str) -> Tensor:
    grid = torch.stack((x, y), dim=-1)
    return F.grid_sample(input, grid, mode="bilinear", padding_mode=padding_mode, align_corners=align_corners)
