"""Kernels in Triton, for GPUs: ``resample`` and the two fused ops, with the signatures of ``_torch`` and ``_fused``.

Three things differ from those. A label that is neither a class nor ignored makes the loss NaN instead of raising, which
would have to wait for the GPU. Half precision is read and written as it is, and float32 inside. Confusion matrices are
counted by PyTorch, once the labels are there.

``TRITON_INTERPRET=1``, set before Triton is imported, runs the kernels on CPU tensors, slowly: for tests.
"""

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
from torch import Tensor

from . import _fused, _torch, _triton_kernels
from ._fused import Axis, Range, Sums, _confusion, steps_needed
from .grid import AxisMap

_BLOCK = 128  # pixels of a program: not tuned
_WIDE = 2**31 - _BLOCK  # from here on 32 bits do not number the elements of a plane
_CHUNK = 2**24  # values of a gradient's intermediate that exist at once


def check(device: torch.device) -> None:
    """Raise if the kernels do not run on ``device``, or do not give there what the PyTorch backend gives."""
    x = torch.arange(120.0, device="cpu").mul(0.7).sin().view(2, 3, 4, 5)
    target = torch.arange(126, device="cpu").view(2, 7, 9) % 4  # 3 is ignored
    line = [0.5, 0.6], [-0.25, 0.1], "linear"
    axes = [(4, 7, False), (5, 9, False)]
    keeps = [((0, 7, 1), (0, 9, 1))]
    want = ("losses", "gradient", "correct")

    def results(module: Any, resampling: Any, x: Tensor, target: Tensor) -> list[Tensor]:
        sums = module.resize_cross_entropy(x, target, axes, None, 3, 0.1, None, want)
        labels, confidence, _ = module.resize_argmax(x, [axes], keeps, torch.uint8, 0.0, True, None, 255)
        own = list(x.shape[2:])
        moved = resampling._apply(x, own, [7, 9], *line, False), resampling._apply(x, [3, 4], own, *line, True)
        return [tensor.cpu() for tensor in (*moved, labels, confidence, *sums)]

    with torch.inference_mode(False), torch.no_grad():
        here = sys.modules[__name__]
        ours = results(here, here, x.to(device), target.to(device))
        for expected, actual in zip(results(_fused, _torch, x, target), ours, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def _launch(kernel: Any, programs: int, device: torch.device, *args: Any, **constants: Any) -> None:
    if programs >= 2**31:
        raise ValueError(f"{kernel.fn.__name__}: {programs} blocks are more than a GPU's grid has. Split the batch.")
    if programs:
        with torch.cuda.device(device if device.type == "cuda" else -1):  # Triton launches on the current device
            kernel[(programs,)](*args, **constants, BLOCK=_BLOCK)


def _blocks(pixels: int) -> int:
    return -(-pixels // _BLOCK)


# --- tables -----------------------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    """Indices and weights on the device, (taps, length) each."""

    indices: Tensor
    weights: Tensor

    @property
    def taps(self) -> int:
        return self.indices.shape[0]

    @property
    def length(self) -> int:
        return self.indices.shape[1]


def _on_device(table: _torch.Table, dtype: torch.dtype, device: torch.device, wide: bool) -> _Table:
    index, weight = (torch.from_numpy(np.ascontiguousarray(array)) for array in table)
    with torch.inference_mode(False):  # cached: must serve training as well
        return _Table(index.to(device, torch.int64 if wide else torch.int32), weight.to(device, dtype))


@lru_cache(maxsize=512)
def _linear_table(axis: Axis, kept: Range, dtype: torch.dtype, device: torch.device, wide: bool) -> _Table:
    index, weight = (array[:, np.arange(*kept)] for array in axis.table(dtype, on_cpu=device.type == "cpu"))
    return _on_device((index, weight), dtype, device, wide)


@lru_cache(maxsize=512)
def _received_table(axis: Axis, dtype: torch.dtype, device: torch.device, wide: bool) -> _Table:
    """Tabulate what each sample of ``axis`` receives in the backward pass."""
    table = axis.table(dtype, on_cpu=device.type == "cpu")
    return _on_device(_padded(_torch._transpose(table, axis.source_size)), dtype, device, wide)


@lru_cache(maxsize=512)
def _kernel_table(
    kernel: str,
    scale: float,
    offset: float,
    source_size: int,
    size: int,
    adjoint: bool,
    dtype: torch.dtype,
    device: torch.device,
    wide: bool,
) -> _Table:
    table = _torch._table(kernel, scale, offset, source_size, size)
    if adjoint:
        table = _padded(_torch._transpose(table, source_size))
    return _on_device(table, dtype, device, wide)


def _padded(table: _torch.Table) -> _torch.Table:
    """Pad to a power of two of taps: ``resample`` is compiled for each number."""
    index, weight = table
    missing = triton.next_power_of_2(len(index)) - len(index)
    return np.pad(index, ((0, missing), (0, 0))), np.pad(weight, ((0, missing), (0, 0)))


# --- resample ---------------------------------------------------------------------------------------------------------

_DTYPES = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)


def _apply(
    input: Tensor,
    source_size: Sequence[int],
    size: Sequence[int],
    scale: Sequence[float],
    offset: Sequence[float],
    kernel: str,
    adjoint: bool,
) -> Tensor:
    """Gather over all axes at once, or over the depth, then over the image; ``size`` is what ``scale`` maps from."""
    if input.dtype == torch.bool:
        moved = _apply(input.view(torch.uint8), source_size, size, scale, offset, kernel, adjoint)
        return moved.view(torch.bool)
    if input.dtype not in _DTYPES:
        return _torch._apply(input, source_size, size, scale, offset, kernel, adjoint)
    weighted = adjoint or not kernel.startswith("nearest")
    compute = torch.promote_types(input.dtype, torch.float32) if weighted else input.dtype
    result_size = list(source_size if adjoint else size)
    channels_last = _torch.is_channels_last(input)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty([*input.shape[:2], *result_size], dtype=input.dtype, device=input.device, memory_format=layout)
    wide = max(input[:1, : None if channels_last else 1].numel(), out[:1, : None if channels_last else 1].numel())
    table_dtype = compute if weighted else torch.float32
    tables = [
        _kernel_table(kernel, s, o, n, to, adjoint, table_dtype, input.device, wide >= _WIDE)
        for s, o, n, to in zip(scale, offset, source_size, size, strict=True)
    ]
    one = _kernel_table("nearest", 1.0, 0.0, 1, 1, False, table_dtype, input.device, wide >= _WIDE)
    source = input if channels_last else input.contiguous()
    batch, channels = input.shape[:2]
    planes, inner = (batch, channels) if channels_last else (batch * channels, 1)
    if len(tables) == 3:
        depth, height, width = source.shape[2:]
        deep = torch.empty(planes, result_size[0], height, width, dtype=compute, device=input.device)
        _gather(source, deep, planes, depth, 1, height * width, tables.pop(0), one, weighted)
        source, planes = deep, planes * result_size[0]
    rows, columns = tables if len(tables) == 2 else (one, *tables)
    height, width = source.shape[-2:] if source.ndim > 3 else (1, source.shape[-1])
    _gather(source, out, planes, height, width, inner, rows, columns, weighted)
    return out


def _gather(
    source: Tensor,
    out: Tensor,
    planes: int,
    height: int,
    width: int,
    inner: int,
    rows: _Table,
    columns: _Table,
    weighted: bool,
) -> None:
    """Gather from (planes, height, width, inner) to (planes, rows, columns, inner)."""
    out_height, out_width = rows.length, columns.length
    pixels = out_height * out_width * inner
    source_plane = height * width * inner
    _launch(
        _triton_kernels.resample,
        planes * _blocks(pixels),
        source.device,
        source,
        out,
        *rows,
        *columns,
        source_plane,
        width,
        out_height,
        out_width,
        inner,
        pixels,
        _blocks(pixels),
        ROW_TAPS=rows.taps,
        COLUMN_TAPS=columns.taps,
        WEIGHTED=weighted,
        WIDE=max(pixels, source_plane) >= _WIDE,
    )


resample, resample_adjoint = _torch.linear_ops("triton_resample", _apply)


# --- labels -----------------------------------------------------------------------------------------------------------


class _Resize(NamedTuple):
    """One bilinear resize: its tables, and what the kernels ask about them."""

    rows: _Table
    columns: _Table
    rows_change: bool
    columns_change: bool

    @property
    def size(self) -> tuple[int, int]:
        return self.rows.length, self.columns.length


def _resize(rows: Axis, columns: Axis, keep: Sequence[Range], like: Tensor, wide: bool) -> _Resize:
    dtype = torch.promote_types(like.dtype, torch.float32)
    row_table = _linear_table(rows, keep[0], dtype, like.device, wide)
    column_table = _linear_table(columns, keep[1], dtype, like.device, wide)
    return _Resize(row_table, column_table, not rows.is_identity, not columns.is_identity)


def resize_argmax(
    logits: Tensor,
    axes: Sequence[Sequence[tuple[int, int, bool | AxisMap]]],
    keeps: Sequence[Sequence[Range]],
    dtype: torch.dtype,
    threshold: float,
    with_confidence: bool,
    target: Tensor | None,
    ignore_index: int,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute ``_fused.resize_argmax`` on GPUs."""
    logits = logits.contiguous()
    batch, channels, height, width = logits.shape
    steps = steps_needed(axes, keeps)
    wide = max(height * width, *(h.size * w.size for h, w, _ in steps)) >= _WIDE
    first, last = (_resize(*step, logits, wide) for step in (steps[0], steps[-1]))
    pixels = last.size[0] * last.size[1]
    labels = torch.empty(batch, *last.size, dtype=dtype, device=logits.device)
    confidence = None
    if with_confidence:
        confidence = torch.empty(labels.shape, dtype=last.rows.weights.dtype, device=logits.device)
    _launch(
        _triton_kernels.argmax,
        batch * _blocks(pixels),
        logits.device,
        logits,
        labels,
        labels if confidence is None else confidence,
        *last.rows,
        *last.columns,
        *first.rows,
        *first.columns,
        height * width,
        width,
        *first.size,
        *last.size,
        pixels,
        _blocks(pixels),
        CHANNELS=channels,
        ROWS=last.rows_change,
        COLUMNS=last.columns_change,
        FIRST_ROWS=first.rows_change,
        FIRST_COLUMNS=first.columns_change,
        TWO=len(steps) == 2,
        SIGMOID=channels == 1,
        THRESHOLD=threshold if channels == 1 else 0.0,
        CONFIDENCE=with_confidence,
        WIDE=wide,
    )
    confusion = None if target is None else _confusion(labels, target, max(2, channels), ignore_index)
    return labels, confidence, confusion


# --- loss -------------------------------------------------------------------------------------------------------------


def resize_cross_entropy(
    logits: Tensor,
    target: Tensor,
    axes: Sequence[tuple[int, int, bool | AxisMap]],
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    pixel_weight: Tensor | None,
    want: Sequence[str],
) -> Sums:
    """Compute ``_fused.resize_cross_entropy`` on GPUs."""
    logits, target = logits.contiguous(), target.contiguous()
    compute, device = torch.promote_types(logits.dtype, torch.float32), logits.device
    batch, channels, height, width = logits.shape
    rows, columns = Axis(*axes[0]), Axis(*axes[1])
    pixels = rows.size * columns.size
    wide = max(pixels, height * width) >= _WIDE
    resize = _resize(rows, columns, ((0, rows.size, 1), (0, columns.size, 1)), logits, wide)
    unused = logits.new_empty(1, dtype=compute)
    if weight is None:
        class_weight, class_sum = unused, torch.full((), channels, dtype=compute, device=device)
    else:
        class_weight = weight.to(device, compute).contiguous()
        class_sum = class_weight.sum()
    given = (class_weight, class_sum, unused if pixel_weight is None else pixel_weight.contiguous())
    options = dict(
        CHANNELS=channels,
        KEPT=1 - label_smoothing,
        SHARE=label_smoothing / channels,
        ROWS=resize.rows_change,
        COLUMNS=resize.columns_change,
        WEIGHTED=weight is not None,
        SAMPLED=pixel_weight is not None,
    )
    losses = torch.empty(target.shape, dtype=compute, device=device) if "losses" in want else None
    normalizers = torch.empty(target.shape, dtype=compute, device=device) if "gradient" in want else None
    programs = batch * _blocks(pixels)
    float_sums = torch.empty(2, programs, dtype=torch.float64, device=device)
    counts = torch.empty(2, programs, dtype=torch.int32, device=device)
    _launch(
        _triton_kernels.cross_entropy,
        programs,
        device,
        logits,
        target,
        *given,
        *resize.rows,
        *resize.columns,
        unused if losses is None else losses,
        unused if normalizers is None else normalizers,
        float_sums,
        counts,
        height * width,
        width,
        *resize.size,
        pixels,
        _blocks(pixels),
        ignore_index,
        **options,
        LOSSES=losses is not None,
        NORMALIZERS=normalizers is not None,
        WIDE=wide,
    )
    gradient = None
    if normalizers is not None:
        gradient = torch.empty(logits.shape, dtype=compute, device=device)
        _cross_entropy_gradient(
            logits, target, given, normalizers, (rows, columns), resize, ignore_index, options, gradient
        )
    loss_sum, weight_sum = float_sums.sum(1)
    counted, correct = counts.sum(1)
    return Sums(loss_sum, weight_sum, counted, correct if "correct" in want else None, losses, gradient)


def _cross_entropy_gradient(
    logits: Tensor,
    target: Tensor,
    given: tuple[Tensor, Tensor, Tensor],
    normalizers: Tensor,
    axes: tuple[Axis, Axis],
    resize: _Resize,
    ignore_index: int,
    options: dict[str, Any],
    out: Tensor,
) -> None:
    """Sum along rows, recomputing the softmax where a row is read, then along columns; as many planes as fit."""
    batch, channels, height, width = logits.shape
    planes, out_width = batch * channels, resize.size[1]
    wide = resize.rows.indices.dtype == torch.int64
    receiving_rows, receiving_columns = (_received_table(axis, out.dtype, out.device, wide) for axis in axes)
    same_rows = _kernel_table("nearest", 1.0, 0.0, height, height, False, out.dtype, out.device, wide)
    step = max(1, min(planes, _CHUNK // (height * out_width)))
    partial = torch.empty(step, height, out_width, dtype=out.dtype, device=out.device)
    flat = out.view(planes, height, width)
    for start in range(0, planes, step):
        part = flat[start : start + step]
        _launch(
            _triton_kernels.cross_entropy_gradient,
            len(part) * height * _blocks(out_width),
            out.device,
            logits,
            target,
            *given,
            normalizers,
            *resize.rows,
            *resize.columns,
            *receiving_rows,
            partial,
            start,
            height * width,
            height,
            width,
            *resize.size,
            resize.size[0] * out_width,
            _blocks(out_width),
            ignore_index,
            **options,
            TAPS=receiving_rows.taps,
        )
        _gather(partial, part, len(part), height, out_width, 1, same_rows, receiving_columns, True)
