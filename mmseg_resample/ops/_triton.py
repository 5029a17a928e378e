"""Kernels in Triton, for GPUs: the two fused ops, with the signatures of ``_fused``.

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
    axes = [(4, 7, False), (5, 9, False)]
    keeps = [((0, 7, 1), (0, 9, 1))]
    want = ("losses", "gradient", "correct")

    def results(module: Any, x: Tensor, target: Tensor) -> list[Tensor]:
        sums = module.resize_cross_entropy(x, target, axes, None, 3, 0.1, None, want)
        labels, confidence, _ = module.resize_argmax(x, [axes], keeps, torch.uint8, 0.0, True, None, 255)
        return [tensor.cpu() for tensor in (labels, confidence, *sums)]

    with torch.inference_mode(False), torch.no_grad():
        ours = results(sys.modules[__name__], x.to(device), target.to(device))
        for expected, actual in zip(results(_fused, x, target), ours, strict=True):
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
    """Tabulate what each sample of ``axis`` receives in the backward pass.

    The taps are a power of two, since a kernel is compiled for each number of them.
    """
    table = axis.table(dtype, on_cpu=device.type == "cpu")
    index, weight = (
        np.pad(array, ((0, triton.next_power_of_2(len(array)) - len(array)), (0, 0)))
        for array in _torch._transpose(table, axis.source_size)
    )
    return _on_device((index, weight), dtype, device, wide)


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
        part.copy_(_torch._gather(partial[: len(part)], -1, *receiving_columns))
