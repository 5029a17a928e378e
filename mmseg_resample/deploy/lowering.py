"""Operators that exporters lack or get wrong, in terms of operators that every runtime computes alike.

Each function here computes what the operator does, on tensors of any size, also of one that is open in the graph; so
they are tested in PyTorch, beside the operator itself.

============================  ==========================================================================================
operator                      why not as it is
============================  ==========================================================================================
``mmseg_resample::resample``  no exporter knows it; ONNX has "asymmetric" maps, which ncnn computes as half-pixel
adaptive average pooling      torch's exporter fixes the bins of the size that it traces, silently wrong at others
nearest, nearest-exact        runtimes round ties otherwise: of 26 -> 64 samples ONNX Runtime reads 3 % elsewhere
searchsorted                  no translation
============================  ==========================================================================================
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import _check
from ..ops.grid import CUBIC_A, SNAP

Form = Literal["portable", "fast"]
"""How a linear resize of any map is written: ``"portable"`` as a part of one that every runtime has, ``"fast"`` as
matrix products, which ONNX Runtime computes in a third of the time and ncnn in twenty times."""

FORMS: tuple[str, ...] = get_args(Form)

_SPARE = 2  # samples that an open size may need behind the last: what halves and rounds down is doubled to less


def table(form: Form) -> dict[Any, Callable[..., Any]]:
    """Return the decompositions by operator, as ``ExportedProgram.run_decompositions`` takes them."""
    aten = torch.ops.aten
    found: dict[Any, Callable[..., Any]] = {
        torch.ops.mmseg_resample.resample.default: partial(resample, form=form),
        aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
        aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
        aten.searchsorted.Tensor: searchsorted,
    }
    for name, shift in (("upsample_nearest", 0.0), ("_upsample_nearest_exact", 0.5)):
        for axes in (1, 2, 3):
            packet = getattr(aten, f"{name}{axes}d")
            found[packet.default] = _nearest_of_size(shift)
            found[packet.vec] = _nearest_of_factors(shift)
    return found


# --- resizes ----------------------------------------------------------------------------------------------------------


def resample(
    input: Tensor, size: Sequence[int], scale: Sequence[float], offset: Sequence[float], kernel: str, form: Form
) -> Tensor:
    """Resize by an affine map per axis, ``source = scale * destination + offset``, from operators of every runtime.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W).
        size: spatial size of the output.
        scale: per axis.
        offset: per axis.
        kernel: ``"nearest"``, ``"nearest-exact"``, ``"linear"`` or ``"cubic"``.
        form: of linear resizes.
    """
    if kernel == "linear" and form == "portable":
        ratios = [_ratio(s, o) for s, o in zip(scale, offset, strict=True)]
        if input.ndim == 4 and all(ratios):
            return _as_part_of_align_corners(input, size, offset, [r for r in ratios if r is not None])
    dtype = input.dtype
    x = input if kernel.startswith("nearest") or dtype == torch.float64 else input.float()
    for axis, out in enumerate(size, 2):
        s, o, n = scale[axis - 2], offset[axis - 2], x.shape[axis]
        if (s, o) == (1.0, 0.0) and _is_same(n, out):
            continue
        reads = torch.arange(out, dtype=torch.float64, device=x.device) * s + o
        if kernel.startswith("nearest"):
            reads = _snapped(reads + 0.5 * (kernel == "nearest-exact"))
            x = x.index_select(axis, reads.floor().clamp(0, n - 1).long())
        else:
            x = _product(x, axis, _weights(_snapped(reads), n, kernel).to(x.dtype))
    return x.to(dtype)


def _is_same(n: Any, out: Any) -> bool:
    return not _check.are_symbolic((n, out)) and n == out


def _ratio(scale: float, offset: float) -> int | None:
    """Return how many outputs fall on each sample, if it is a whole number of them and each sample is one output."""
    if not 0 < scale <= 1 + SNAP:
        return None
    ratio = round(1 / scale)
    whole = abs(scale * ratio - 1) < SNAP and abs(offset * ratio - round(offset * ratio)) < SNAP
    return ratio if whole else None


def _as_part_of_align_corners(
    input: Tensor, size: Sequence[int], offset: Sequence[float], ratios: Sequence[int]
) -> Tensor:
    """Compute a linear resize as a part of one with aligned corners, of a source with its edge samples repeated.

    From ``n`` to ``ratio * (n - 1) + 1`` samples that reads every ``1 / ratio`` of a sample.
    """
    pads: list[tuple[int, int]] = []
    for n, out, o, ratio in zip(input.shape[2:], size, offset, ratios, strict=True):
        before = max(0, math.ceil(-o - SNAP))
        if _check.are_symbolic((n, out)):
            after = _SPARE + max(0, math.ceil(o - SNAP))
        else:
            after = max(0, math.ceil((out - 1) / ratio + o - SNAP) - (n - 1))
        pads.append((before, after))
    (top, bottom), (left, right) = pads
    x = F.pad(input, (left, right, top, bottom), mode="replicate") if any(map(any, pads)) else input
    whole = [ratio * (n - 1) + 1 for n, ratio in zip(x.shape[2:], ratios, strict=True)]
    x = torch.ops.aten.upsample_bilinear2d.vec(x, whole, True, None)
    for axis, (out, o, ratio, (before, _)) in enumerate(zip(size, offset, ratios, pads, strict=True), 2):
        start = round((o + before) * ratio)
        if start or not _is_same(x.shape[axis], out):
            x = torch.ops.aten.slice.Tensor(x, axis, start, start + out)
    return x


def _snapped(reads: Tensor) -> Tensor:
    """Round what is a whole number but for the rounding of a ratio."""
    whole = reads.round()
    return torch.where((reads - whole).abs() < SNAP, whole, reads)


def _weights(reads: Tensor, n: Any, kernel: str) -> Tensor:
    """Return the matrix (outputs, n) of a kernel at ``reads``; taps outside read the edge sample."""
    samples = torch.arange(n, dtype=reads.dtype, device=reads.device)
    if kernel == "linear":
        distance = reads.clamp(0, n - 1)[:, None] - samples
        return (1 - distance.abs()).clamp(min=0)
    base = reads.floor()
    weights = torch.zeros_like(reads[:, None] - samples)
    for tap in (-1, 0, 1, 2):
        at = (base + tap).clamp(0, n - 1)[:, None]
        weights = weights + torch.where(at == samples, _cubic((reads - base - tap).abs())[:, None], 0.0)
    return weights


def _cubic(t: Tensor) -> Tensor:
    """Evaluate Keys' cubic convolution kernel at distances in [0, 2]."""
    a = CUBIC_A
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return torch.where(t <= 1, near, far)


def _product(x: Tensor, axis: int, weights: Tensor) -> Tensor:
    """Multiply an axis of ``x`` by a matrix (outputs, samples)."""
    if axis == x.ndim - 1:
        return x @ weights.T
    if axis == x.ndim - 2:
        return weights @ x
    return (x.transpose(axis, -1) @ weights.T).transpose(axis, -1)


# --- nearest ----------------------------------------------------------------------------------------------------------


def _nearest_of_size(shift: float) -> Callable[..., Tensor]:
    def nearest(input: Tensor, output_size: Sequence[int], *factors: float | None) -> Tensor:
        return _nearest(input, output_size, factors or (None,) * len(output_size), shift)

    return nearest


def _nearest_of_factors(shift: float) -> Callable[..., Tensor]:
    def nearest(input: Tensor, output_size: Sequence[int] | None, scale_factors: Sequence[float] | None) -> Tensor:
        if output_size is None:
            assert scale_factors is not None
            output_size = [int(n * f) for n, f in zip(input.shape[2:], scale_factors, strict=True)]
        return _nearest(input, output_size, scale_factors or (None,) * len(output_size), shift)

    return nearest


def _nearest(input: Tensor, size: Sequence[Any], factors: Sequence[float | None], shift: float) -> Tensor:
    """Read the samples that PyTorch's kernels for CPUs read: they compute coordinates in float32."""
    x = input
    for axis, (out, factor) in enumerate(zip(size, factors, strict=True), 2):
        n = x.shape[axis]
        if _is_same(n, out) and factor in (None, 1.0):
            continue
        index = torch.arange(out, device=x.device).float()
        if factor is not None and factor > 0:
            step = torch.full((), 1.0 / factor, dtype=torch.float32)
        else:
            step = torch.scalar_tensor(n, dtype=torch.float32) / torch.scalar_tensor(out, dtype=torch.float32)
        reads = (index + shift) * step
        x = x.index_select(axis, reads.floor().clamp(max=n - 1).long())
    return x


# --- others -----------------------------------------------------------------------------------------------------------


def adaptive_avg_pool2d(input: Tensor, output_size: Sequence[int]) -> Tensor:
    """Average bins from ``floor(k n / bins)`` to ``ceil((k + 1) n / bins)`` by two matrix products."""
    if tuple(output_size) == (1, 1):
        return input.mean((2, 3), keepdim=True)
    x = input
    for axis, bins in enumerate(output_size, input.ndim - 2):
        n = x.shape[axis]
        if _is_same(n, bins):
            continue
        length = torch.scalar_tensor(n, dtype=torch.float32, device=x.device)
        k = torch.arange(bins, dtype=torch.float32, device=x.device)[:, None]
        sample = torch.arange(n, dtype=torch.float32, device=x.device)
        start, stop = (k * length / bins).floor(), ((k + 1) * length / bins).ceil()
        inside = (torch.minimum(sample + 1, stop) - torch.maximum(sample, start)).clamp(0, 1)
        x = _product(x, axis, (inside / (stop - start)).to(x.dtype))
    return x


def searchsorted(
    sorted_sequence: Tensor,
    self: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Count the elements of a sorted sequence that lie before each value."""
    if sorter is not None:
        raise NotImplementedError("searchsorted: expected no sorter. Sort the sequence itself before it is exported.")
    sequence, value = sorted_sequence.unsqueeze(-2), self.unsqueeze(-1)
    before = sequence <= value if right or side == "right" else sequence < value
    return before.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)
