"""Resize to labels, to a loss, or channels-last features, on CPUs: compiled by Numba when first called.

A task is a *band* of output rows of one image. Bands, and with them the order of every sum, depend on the sizes alone:
equal inputs give equal bits for every number of threads. The operations and their rounding are those of ``_fused``, and
so are the labels. The rare case, labels of one channel, is left to ``_fused``.

The threads are Python's, since the kernels run without the interpreter's lock: they clash neither with PyTorch's own
pool, nor with a fork, nor with several callers at once.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _fused, _numba_kernels, _torch
from ._fused import Axis, Range, Sums
from ._numba_kernels import LANES, Stage
from .grid import AxisMap

_BANDS = 32  # of an image, at most: enough to occupy many cores
_ROWS = 8  # of a band, at least: it reads one source row more than it shares out
_COUNTABLE = 1024  # up to so many classes each thread counts a confusion matrix of its own

AxisFields = tuple[int, int, bool | AxisMap]


def resize_argmax(
    logits: Tensor,
    axes: Sequence[Sequence[AxisFields]],
    keeps: Sequence[Sequence[Range]],
    dtype: torch.dtype,
    threshold: float,
    with_confidence: bool,
    target: Tensor | None,
    ignore_index: int,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute ``_fused.resize_argmax`` on CPUs."""
    batch, channels = logits.shape[:2]
    if channels == 1:
        return _fused.resize_argmax(logits, axes, keeps, dtype, threshold, with_confidence, target, ignore_index)
    compute = torch.promote_types(logits.dtype, torch.float32)
    real = np.float64 if compute == torch.float64 else np.float32
    stages = [_stage(rows, columns, *keep, real) for rows, columns, keep in _fused.steps_needed(axes, keeps)]
    x = _array(logits.to(compute))
    starts = _starts(stages[-1].neighbours)
    narrowest = next(kind for kind in (np.uint8, np.int16, np.int32) if channels - 1 <= np.iinfo(kind).max)
    labels = np.empty((batch, stages[-1].neighbours.shape[1], stages[-1].width), narrowest)
    confidence = np.empty(labels.shape if with_confidence else (0, 0, 0), real)
    classes = channels if target is not None and channels <= _COUNTABLE else 0
    truth = np.empty((0, 0, 0), np.int64) if target is None else _labels(target)
    counted = []

    def work(*bands: int) -> None:
        counts = np.zeros((classes, classes), np.int64)
        wrong = _numba_kernels.label(
            x, stages[0], stages[-1], len(stages) == 2, starts, labels, confidence, truth, ignore_index, counts, *bands
        )
        counted.append((counts, wrong))

    _in_threads(work, batch * (len(starts) - 1), apart=False)
    result = torch.from_numpy(labels).to(dtype)
    confusion = None
    if target is not None:
        if classes and not any(wrong for _, wrong in counted):
            confusion = torch.from_numpy(sum((counts for counts, _ in counted), np.zeros((classes, classes), np.int64)))
        else:
            confusion = _fused._confusion(result, target, channels, ignore_index)  # and refuses wrong labels
    return result, torch.from_numpy(confidence) if with_confidence else None, confusion


def resize_cross_entropy(
    logits: Tensor,
    target: Tensor,
    axes: Sequence[AxisFields],
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    pixel_weight: Tensor | None,
    want: Sequence[str],
) -> Sums:
    """Compute ``_fused.resize_cross_entropy`` on CPUs."""
    compute = torch.promote_types(logits.dtype, torch.float32)
    real = np.float64 if compute == torch.float64 else np.float32
    batch, channels = logits.shape[:2]
    height, width = target.shape[1:]
    stage = _stage(*axes, (0, height, 1), (0, width, 1), real)
    starts = _starts(stage.neighbours)
    bands = batch * (len(starts) - 1)
    factors = torch.ones(channels, dtype=compute) if weight is None else weight.to(compute)
    gradient = np.zeros(logits.shape if "gradient" in want else (0, 0, 0, 0), real)
    losses = np.empty(target.shape if "losses" in want else (0, 0, 0), real)
    sums, counts = np.zeros((bands, 2)), np.zeros((bands, 3), np.int64)
    arguments = (
        _array(logits.to(compute)),
        stage,
        starts,
        _labels(target),
        ignore_index,
        _array(factors),
        float(factors.sum()),
        float(label_smoothing),
        np.empty((0, 0, 0), real) if pixel_weight is None else _array(pixel_weight.to(compute)),
        gradient,
        losses,
        sums,
        counts,
    )
    # Neighbouring bands share one row of the gradient.
    _in_threads(lambda *some: _numba_kernels.accumulate_loss(*arguments, *some), bands, apart="gradient" in want)
    if counts[:, 2].any():
        labels = target.long()
        _fused._refuse_outside("resize_cross_entropy", labels[labels != ignore_index], channels, ignore_index)
    loss, weights = torch.from_numpy(sums).sum(0)
    pixels, correct, _ = torch.from_numpy(counts).sum(0)
    return Sums(
        loss,
        weights,
        pixels,
        correct if "correct" in want else None,
        torch.from_numpy(losses) if "losses" in want else None,
        torch.from_numpy(gradient) if "gradient" in want else None,
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _labels(target: Tensor) -> np.ndarray:
    """Convert labels to one of few dtypes: each is a kernel to compile."""
    return _array(target if target.dtype == torch.uint8 else target.long())


@lru_cache(maxsize=128)
def _stage(rows: AxisFields, columns: AxisFields, kept_rows: Range, kept_columns: Range, real: type) -> Stage:
    dtype = torch.float64 if real is np.float64 else torch.float32
    kept = np.arange(*kept_rows)
    neighbours, shares = (np.ascontiguousarray(array[:, kept]) for array in Axis(*rows).table(dtype))
    kept = np.arange(*kept_columns)
    (second, first), weights = (array[:, kept] for array in Axis(*columns).table(dtype))
    # Lanes follow the source: the first pixels of consecutive cells, then their second ones. A cell starts one before
    # its sample in a padded row, and cell -1 lies left of the first sample.
    cell = np.where((second > first) | (first == columns[0] - 1), first, -1) + 1
    origin = cell.min()
    order = np.argsort(cell, kind="stable")
    begins = np.searchsorted(cell[order], cell[order])
    turn = np.empty_like(order)
    turn[order] = np.arange(len(order)) - begins
    window, lane = np.divmod(cell - origin, LANES)
    used, strip = np.unique(window * (turn.max() + 1) + turn, return_inverse=True)
    base = origin + LANES * (used // (turn.max() + 1))
    pixels = np.full(len(used) * LANES, -1)
    far: np.ndarray = np.zeros(len(pixels), real)
    near: np.ndarray = np.zeros(len(pixels), real)
    at = strip * LANES + lane
    pixels[at] = np.arange(len(kept))
    far[at], near[at] = weights
    return Stage(
        neighbours,
        shares.astype(real),
        base,
        pixels,
        far,
        near,
        Axis(*rows).is_identity,
        Axis(*columns).is_identity,
        len(kept),
    )


def _starts(neighbours: np.ndarray) -> np.ndarray:
    """Return the rows where bands start, then the number of rows.

    A band shares at most its last source row with the next one, and none with any other, where the order of the rows
    permits; where it does not, there is one band.
    """
    height = neighbours.shape[1]
    behind = np.maximum.accumulate(neighbours.max(0))
    ahead = np.minimum.accumulate(neighbours.min(0)[::-1])[::-1]
    least = max(_ROWS, -(-height // _BANDS))
    starts = [0]
    last = -1  # source row of the band before
    for y in np.flatnonzero(ahead[1:] >= behind[:-1]) + 1:
        if y - starts[-1] >= least and behind[y - 1] > last and height - y >= least // 2:
            starts.append(int(y))
            last = behind[y - 1]
    return np.array([*starts, height])


# --- resizes ----------------------------------------------------------------------------------------------------------


def _blend(
    input: Tensor,
    source_size: Sequence[int],
    size: Sequence[int],
    scale: Sequence[float],
    offset: Sequence[float],
    kernel: str,
    adjoint: bool,
) -> Tensor:
    """Compute ``_torch._apply``: of images in channels-last order, whose channels are vectors, otherwise than there."""
    if not (_torch.is_channels_last(input) and input.numel() and input.device.type == "cpu"):
        return _torch._apply(input, source_size, size, scale, offset, kernel, adjoint)
    compute = torch.promote_types(input.dtype, torch.float32)
    batch, channels, height, width = input.shape
    result = source_size if adjoint else size
    rows, columns = (
        _weights(kernel, s, o, n, to, adjoint, compute)
        for s, o, n, to in zip(scale, offset, source_size, size, strict=True)
    )
    x = input.detach().to(compute).permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    out = x.new_empty(batch, *result, channels)
    source, target = x.numpy(), out.numpy()

    def work(start: int, stop: int, step: int) -> None:
        _numba_kernels.blend(source, target, channels, *rows, *columns, start, stop, step)

    _in_threads(work, batch * result[0], apart=False)
    return out.permute(0, 3, 1, 2).to(input.dtype)


resample, resample_adjoint = _torch.linear_ops("numba_resample", _blend)


@lru_cache(maxsize=512)
def _weights(
    kernel: str, scale: float, offset: float, source_size: int, size: int, adjoint: bool, dtype: torch.dtype
) -> "_torch.Table":
    """Tabulate what each output reads, with as many taps as the kernel takes at once."""
    index, weight = _torch._table(kernel, scale, offset, source_size, size)
    if adjoint:
        index, weight = _torch._transpose((index, weight), source_size)
    if len(index) != 2:
        index, weight = (np.pad(array, ((0, -len(array) % 4), (0, 0))) for array in (index, weight))
    return np.ascontiguousarray(index), weight.astype(np.float64 if dtype == torch.float64 else np.float32)


# --- warps ------------------------------------------------------------------------------------------------------------


def flow_warp(
    input: Tensor, flow: Tensor, steps: tuple[float, float], align_corners: bool, padding_mode: str
) -> Tensor:
    """Compute ``_torch.flow_warp``, of images in channels-last order by a kernel whose vectors are channels."""
    suits = _torch.is_channels_last(input) and input.numel() and input.device.type == "cpu"
    return _torch.flow_warp(input, flow, steps, align_corners, padding_mode, _sample if suits else None)


def _sample(input: Tensor, x: Tensor, y: Tensor, align_corners: bool, padding_mode: str) -> Tensor:
    columns, rows = (
        (u + 1) / 2 * (n - 1) if align_corners else ((u + 1) * n - 1) / 2
        for u, n in zip((x, y), reversed(input.shape[2:]), strict=True)
    )
    sampled: Tensor = _Sample.apply(input, columns, rows, padding_mode == "border")
    return sampled


class _Sample(torch.autograd.Function):
    """Bilinear samples of ``input`` at positions in source samples, (N, H', W')."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, columns: Tensor, rows: Tensor, border: bool) -> Tensor:
        ctx.save_for_backward(input, columns, rows)
        ctx.border = border
        out = torch.empty(*rows.shape, input.shape[1], dtype=input.dtype)
        arguments = _pixels(input), _array(columns), _array(rows), out.numpy(), border
        _in_threads(lambda *some: _numba_kernels.warp(*arguments, *some), rows.shape[0] * rows.shape[1], apart=False)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable  # as that of ``F.grid_sample`` is
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, columns, rows = ctx.saved_tensors
        grads = [torch.zeros_like(input), torch.empty_like(columns), torch.empty_like(rows)]
        places = grads[0].permute(0, 2, 3, 1).numpy(), grads[1].numpy(), grads[2].numpy()
        arguments = _pixels(input), _array(columns), _array(rows), _pixels(grad), *places, ctx.border
        _in_threads(lambda *some: _numba_kernels.warp_gradients(*arguments, *some), len(input), apart=False)
        return *grads, None


def _pixels(images: Tensor) -> np.ndarray:
    """Return ``images``, (N, C, H, W), as (N, H, W, C)."""
    return _array(images.permute(0, 2, 3, 1))


# --- threads ----------------------------------------------------------------------------------------------------------


def _in_threads(work: Callable[[int, int, int], None], bands: int, apart: bool) -> None:
    """Call ``work(start, stop, step)`` for all bands; ``apart``: never on two neighbours at once."""
    threads = min(torch.get_num_threads(), bands)
    if threads <= 1:
        work(0, bands, 1)
        return
    step = 1 + apart
    for first in range(step):
        own = range(first, bands, step)
        grain = -(-len(own) // (4 * threads))
        waiting = deque(own[i : i + grain] for i in range(0, len(own), grain))

        def drain(waiting: deque[range] = waiting) -> None:
            while waiting:
                try:
                    part = waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                work(part.start, part.stop, part.step)

        helpers = [_pool().submit(drain) for _ in range(threads - 1)]
        drain()
        for helper in helpers:
            helper.result()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="mmseg_resample")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
