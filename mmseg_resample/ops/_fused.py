"""Resize to labels, or to a loss, a band of rows at a time, in plain PyTorch: every device, memory of a band.

A bilinear resize is two steps. A source row is *widened* to the output's width; an output row is the weighted sum of
two wide rows. Bands are visited in order. On a CPU a band is small enough for its cache, and computed row by row, so
that each source row is widened once and two wide rows exist at a time (``Rows``). Elsewhere the launch of a call costs
more than its arithmetic: bands are large, and all rows of a band are computed at once (``Slabs``).

Both steps repeat the operations of PyTorch's general float32 kernel for CPUs, in its order and rounding: the second
neighbour times its weight, plus the first times its own in one fused multiply-add. So the values, and with them the
labels, are bitwise those of ``F.interpolate`` where it runs that kernel, built with fused multiply-adds.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ._torch import _gather, _table, _transpose
from .grid import AxisMap

BAND = 2**19  # values of a band on a CPU: the band and its intermediate results stay in a core's cache
_LARGE_BAND = 2**24  # elsewhere, where a few such bands are small beside a GPU's memory: not tuned
_CONFUSION_PIXELS = 2**18

_LINE = torch.tensor([[[0.0, 1.0]]], dtype=torch.float32, device="cpu")
_ROUNDS_ONCE = bool(F.interpolate(_LINE, 6, mode="linear")[0, 0, 1])
"""Tells whether PyTorch's kernels for CPUs subtract the half pixel from a coordinate before it is rounded: those of
2.1 to 2.13 were compiled so, those of 2.15 were not. The second of these six pixels is then at 1.5e-8, and not at 0."""


class Axis(NamedTuple):
    """The resize of one axis: by PyTorch's coordinates (``rule`` is its align_corners), or by an ``AxisMap``."""

    source_size: int
    size: int
    rule: bool | AxisMap

    @property
    def is_identity(self) -> bool:
        return self.source_size == self.size and self.rule in (False, True, AxisMap(1.0, 0.0))

    def table(self, dtype: torch.dtype, on_cpu: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return index and weight of the second and of the first neighbour, (2, size) each, as PyTorch rounds them."""
        if isinstance(self.rule, AxisMap):
            index, weight = _table("linear", self.rule.scale, self.rule.offset, self.source_size, self.size)
            return index[::-1].copy(), weight[::-1].copy()
        real = np.float64 if dtype == torch.float64 else np.float32
        n, out, x = self.source_size, self.size, np.arange(self.size)
        if self.rule:
            ratio = real(n - 1) / real(out - 1) if out > 1 else real(0)
            u = (np.float64(ratio) * x).astype(real)
        else:
            # float64 holds the product of two float32 numbers: rounded once, as in a fused multiply-subtract.
            scaled = np.float64(real(n) / real(out)) * (x + 0.5)
            if on_cpu and not _ROUNDS_ONCE:
                scaled = scaled.astype(real)
            u = np.maximum((scaled - 0.5).astype(real), real(0))
        first = np.minimum(u.astype(np.int64), n - 1)
        far = np.clip(u - first.astype(real), real(0), real(1))
        return np.stack([np.minimum(first + 1, n - 1), first]), np.stack([far, real(1) - far])


Range = tuple[int, int, int]
"""Arguments of ``range`` for the kept part of an axis, backwards where it is flipped."""

Step = tuple[Axis, Axis, tuple[Range, Range]]
"""Rows, columns, and the part of both that is kept after the resize."""


def steps_needed(
    axes: Sequence[Sequence[tuple[int, int, bool | AxisMap]]], keeps: Sequence[Sequence[Range]]
) -> list[Step]:
    """Keep the resizes that change something, or the last one where none does; arguments as for ``resize_argmax``."""
    steps: list[Step] = [
        (Axis(*h), Axis(*w), (rows, columns)) for (h, w), (rows, columns) in zip(axes, keeps, strict=True)
    ]
    return [step for step in steps if not _changes_nothing(*step)] or steps[-1:]


def _changes_nothing(rows: Axis, columns: Axis, keep: tuple[Range, Range]) -> bool:
    return rows.is_identity and columns.is_identity and keep == ((0, rows.size, 1), (0, columns.size, 1))


class Stage:
    """One resize: rows by table, columns by PyTorch's one-dimensional kernel where it computes the same.

    Args:
        rows: the vertical axis.
        columns: the horizontal axis.
        keep: the part of the result that is kept, as (start, stop, step) along both axes: a crop, a flip.
    """

    def __init__(
        self, rows: Axis, columns: Axis, keep: Sequence[tuple[int, int, int]], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.rows, self.columns, self.dtype, self.device = rows, columns, dtype, device
        kept = np.arange(*keep[0])
        self.neighbours, self.shares = (array[:, kept] for array in self._table(rows))
        self.weights = torch.from_numpy(self.shares).to(device, dtype)
        self.kept_columns = keep[1]
        self.height, self.width = len(kept), len(range(*keep[1]))

    @cached_property
    def _column_table(self) -> tuple[Tensor, Tensor]:
        return self._on_device(self._table(self.columns))

    @cached_property
    def _column_adjoint(self) -> tuple[Tensor, Tensor]:
        return self._on_device(_transpose(self._table(self.columns), self.columns.source_size))

    def _table(self, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
        return axis.table(self.dtype, on_cpu=self.device.type == "cpu")

    def _on_device(self, table: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
        index, weight = table
        return torch.from_numpy(index).to(self.device), torch.from_numpy(weight).to(self.device, self.dtype)

    def read_by(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of source rows that rows ``start`` to ``stop`` read."""
        return int(self.neighbours[:, start:stop].min()), int(self.neighbours[:, start:stop].max()) + 1

    def row_table(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return index, among the source rows they read, and weight of rows ``start`` to ``stop``."""
        low, _ = self.read_by(start, stop)
        return self._on_device((self.neighbours[:, start:stop] - low, self.shares[:, start:stop]))

    def row_adjoint(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return the transpose of ``row_table``."""
        low, high = self.read_by(start, stop)
        table = self.neighbours[:, start:stop] - low, self.shares[:, start:stop]
        return self._on_device(_transpose(table, high - low))

    @property
    def _gathers(self) -> bool:
        """True where PyTorch lacks a one-dimensional kernel of this map, or has a slow one without a fixed order."""
        return isinstance(self.columns.rule, AxisMap) or _is_by_slabs(self.device)

    def widen(self, rows: Tensor) -> Tensor:
        """Resize (..., w) to (..., W), the columns that are kept."""
        if not self.columns.is_identity:
            if self._gathers:
                rows = _gather(rows, -1, *self._column_table)
            else:
                flat = rows.reshape(1, -1, rows.shape[-1])
                align_corners = bool(self.columns.rule)
                wide = F.interpolate(flat, self.columns.size, mode="linear", align_corners=align_corners)
                rows = wide.view(*rows.shape[:-1], -1)
        start, stop, step = self.kept_columns
        if step < 0:
            return rows[..., stop + 1 : start + 1].flip(-1)
        return rows[..., start:stop]

    def narrow(self, grad: Tensor) -> Tensor:
        """Apply the transpose of ``widen`` for an uncropped, unflipped stage, deterministic on every device."""
        if self.columns.is_identity:
            return grad
        if self._gathers:
            return _gather(grad, -1, *self._column_adjoint)
        flat = grad.reshape(1, -1, grad.shape[-1])
        shape = [1, flat.shape[1], self.columns.source_size]
        narrow = torch.ops.aten.upsample_linear1d_backward(flat, [self.columns.size], shape, self.columns.rule)
        return narrow.view(*grad.shape[:-1], -1)

    def cells(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of consecutive rows with the same two neighbours."""
        inside = self.neighbours[:, start:stop]
        cuts = np.flatnonzero((inside[:, 1:] != inside[:, :-1]).any(0)) + start + 1
        bounds = [start, *cuts.tolist(), stop]
        return pairwise(bounds)


class Rows:
    """The rows of one resized image, computed when asked for; ``source(i)`` is row ``i`` of the image, (C, w).

    Args:
        out: (C, band, W), where ``band`` computes.
    """

    def __init__(self, source: Callable[[int], Tensor], stage: Stage, out: Tensor) -> None:
        self.source, self.stage, self.out = source, stage, out
        self._wide: dict[int, Tensor] = {}

    def _pair(self, r: int) -> tuple[Tensor, Tensor]:
        wanted = [int(i) for i in self.stage.neighbours[:, r]]
        self._wide = {i: row for i, row in self._wide.items() if i in wanted}
        for i in wanted:
            if i not in self._wide:
                self._wide[i] = self.stage.widen(self.source(i))
        return self._wide[wanted[0]], self._wide[wanted[1]]

    def band(self, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop``, (C, stop - start, W), overwritten by the next call."""
        for begin, end in self.stage.cells(start, stop):
            second, first = self._pair(begin)
            part = self.out[:, begin - start : end - start]
            if self.stage.rows.is_identity:
                part.copy_(first[:, None])
                continue
            far, near = self.stage.weights[:, None, begin:end, None]
            torch.mul(second[:, None], far, out=part).addcmul_(first[:, None], near)
        return self.out[:, : stop - start]

    def row(self, r: int) -> Tensor:
        second, first = self._pair(r)
        if self.stage.rows.is_identity:
            return first
        far, near = self.stage.weights[:, r]
        return (second * far).addcmul_(first, near)


class Slabs:
    """The rows of ``Rows`` by few calls; ``source(i, j)`` are rows ``i`` to ``j`` of the image, (C, j - i, w)."""

    def __init__(self, source: Callable[[int, int], Tensor], stage: Stage) -> None:
        self.source, self.stage = source, stage

    def band(self, start: int, stop: int) -> Tensor:
        wide = self.stage.widen(self.source(*self.stage.read_by(start, stop)))
        index, weight = self.stage.row_table(start, stop)
        if self.stage.rows.is_identity:
            return wide.index_select(1, index[1])
        return _gather(wide, 1, index, weight)


def _bands_of(image: Tensor, stages: Sequence[Stage], height: int) -> Rows | Slabs:
    """Resize ``image``, (C, h, w), by all ``stages``, in bands of up to ``height`` rows."""
    dtype = stages[0].dtype
    if _is_by_slabs(image.device):
        slabs = Slabs(lambda i, j: image[:, i:j].to(dtype), stages[0])
        for stage in stages[1:]:
            slabs = Slabs(slabs.band, stage)
        return slabs
    out = torch.empty(len(image), height, stages[-1].width, dtype=dtype, device=image.device)
    rows = Rows(lambda i: image[:, i].to(dtype).contiguous(), stages[0], out)
    for stage in stages[1:]:
        rows = Rows(rows.row, stage, out)
    return rows


def _is_by_slabs(device: torch.device) -> bool:
    return device.type != "cpu"


def _exactly(device: torch.device) -> AbstractContextManager:
    """Switch off autocast: no half precision behind our back."""
    return torch.autocast(device.type, enabled=False)


def _band_height(channels: int, width: int, height: int, device: torch.device) -> int:
    band = _LARGE_BAND if _is_by_slabs(device) else BAND
    return max(1, min(height, band // max(1, channels * width)))


def _largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest logit of all classes and the first class that has it."""
    if _is_by_slabs(values.device):
        largest, best = values.max(0)
        return largest, best
    largest = values.amax(0)
    # By byte-wide operations: several times faster on CPUs.
    classes = values.shape[0]
    dtype = torch.uint8 if classes < 256 else torch.int16 if classes < 2**15 else torch.int32
    rank = torch.arange(classes, 0, -1, dtype=dtype, device="cpu")[:, None, None]
    best = (values >= largest).to(dtype).mul_(rank).amax(0)  # of the classes at the maximum, the first ranks highest
    if best.all():
        return largest, classes - best
    return largest, values.argmax(0)  # NaN equals nothing


def resize_argmax(
    logits: Tensor,
    axes: Sequence[Sequence[tuple[int, int, bool | AxisMap]]],
    keeps: Sequence[Sequence[tuple[int, int, int]]],
    dtype: torch.dtype,
    threshold: float,
    with_confidence: bool,
    target: Tensor | None,
    ignore_index: int,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute ``Segmentation``'s fields in PyTorch, a band of rows at a time.

    ``axes[k]`` are the fields of the ``Axis`` (h, w) of resize ``k``, ``keeps[k]`` the ``keep`` of its ``Stage``.
    Returns labels, confidence and confusion matrix, the last two where they are wanted.
    """
    compute = torch.promote_types(logits.dtype, torch.float32)
    stages = [Stage(*step, compute, logits.device) for step in steps_needed(axes, keeps)]
    batch, channels = logits.shape[:2]
    height, width = stages[-1].height, stages[-1].width
    labels = torch.empty(batch, height, width, dtype=dtype, device=logits.device)
    confidence = torch.empty(labels.shape, dtype=compute, device=logits.device) if with_confidence else None
    step = _band_height(channels, width, height, logits.device)
    with _exactly(logits.device):
        for n in range(batch):
            bands = _bands_of(logits[n], stages, step)
            for start in range(0, height, step):
                stop = min(start + step, height)
                values = bands.band(start, stop)
                if channels == 1:
                    probability = values[0].sigmoid()
                    labels[n, start:stop] = probability > threshold
                    if confidence is not None:
                        confidence[n, start:stop] = torch.where(labels[n, start:stop] > 0, probability, 1 - probability)
                    continue
                largest, labels[n, start:stop] = _largest(values)
                if confidence is not None:
                    confidence[n, start:stop] = values.sub_(largest).exp_().sum(0).reciprocal_()
    confusion = None if target is None else _confusion(labels, target, max(2, channels), ignore_index)
    return labels, confidence, confusion


def _confusion(labels: Tensor, target: Tensor, classes: int, ignore_index: int) -> Tensor:
    counts = torch.zeros(classes**2, dtype=torch.int64, device=labels.device)
    for seen, truth in zip(
        labels.flatten().split(_CONFUSION_PIXELS), target.flatten().split(_CONFUSION_PIXELS), strict=True
    ):
        truth = truth.long()  # a narrow dtype would wrap ignore_index and the number of classes around
        counted = truth != ignore_index
        truth = truth[counted]
        _refuse_outside("resize_argmax", truth, classes, ignore_index)
        counts += torch.bincount(truth.mul_(classes).add_(seen[counted]), minlength=classes**2)
    return counts.view(classes, classes)


def _refuse_outside(op: str, target: Tensor, classes: int, ignore_index: int) -> None:
    if target.numel() and (target.min() < 0 or target.max() >= classes):
        low, high = int(target.min()), int(target.max())
        raise IndexError(
            f"{op}: expected labels in [0, {classes}) or ignore_index={ignore_index}, got values from {low} to {high}. "
            f"Map the other labels to ignore_index, or give the head as many classes as there are labels."
        )


class Sums(NamedTuple):
    """The results of one pass over the pixels.

    Args:
        loss: (), float64 where the device has it, sum of the losses.
        weight: (), the same dtype, sum of the class weights of the pixels that are not ignored.
        pixels: (), int64, how many are not ignored.
        correct: (), int64, how many of those have their class first, or None.
        losses: (N, H, W), or None.
        gradient: of ``loss``, like the logits in float32 or better, or None.
    """

    loss: Tensor
    weight: Tensor
    pixels: Tensor
    correct: Tensor | None
    losses: Tensor | None
    gradient: Tensor | None


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
    """Compute ``Sums`` in PyTorch, a band of rows at a time.

    ``axes`` are the fields of the ``Axis`` (h, w); ``want`` the optional fields of ``Sums`` to compute.
    """
    compute = torch.promote_types(logits.dtype, torch.float32)
    device = logits.device
    batch, channels = logits.shape[:2]
    height, width = target.shape[1:]
    stage = Stage(Axis(*axes[0]), Axis(*axes[1]), ((0, height, 1), (0, width, 1)), compute, device)
    weight = None if weight is None else weight.to(device, compute)
    gradient = torch.zeros(logits.shape, dtype=compute, device=device) if "gradient" in want else None
    losses = torch.empty(target.shape, dtype=compute, device=device) if "losses" in want else None
    # Sums by column, added up at the end: no total depends on how threads share a reduction.
    exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    loss_sum = torch.zeros(width, dtype=exact, device=device)
    weight_sum = torch.zeros_like(loss_sum)
    pixels, correct = torch.zeros(2, width, dtype=torch.int64, device=device)
    step = _band_height(channels, width, height, device)
    received_by = _ReceivedBySlabs if _is_by_slabs(device) else _Received
    with _exactly(device):
        for n in range(batch):
            bands = _bands_of(logits[n], [stage], step)
            received = received_by(stage, gradient[n]) if gradient is not None else None
            for start in range(0, height, step):
                stop = min(start + step, height)
                values = bands.band(start, stop)
                labels = target[n, start:stop].long()
                counted = labels != ignore_index
                labels = labels.masked_fill(~counted, 0)
                if device.type == "cpu":  # elsewhere the gather below asserts, as PyTorch's own loss does
                    _refuse_outside("resize_cross_entropy", labels, channels, ignore_index)
                # A pixel's loss is own * (lse - v[label]) + smooth * (sum(w) * lse - sum(w * v)).
                own = counted.to(compute) if weight is None else weight[labels] * counted
                weight_sum += own.sum(0, dtype=exact)
                pixels += counted.sum(0)
                scale = counted.to(compute)
                if pixel_weight is not None:
                    scale = scale * pixel_weight[n, start:stop].to(compute)
                    own = own * pixel_weight[n, start:stop].to(compute)
                own, scale = own * (1 - label_smoothing), scale * (label_smoothing / channels)

                if "correct" in want:
                    largest, best = _largest(values)
                    correct += ((best == labels) & counted).sum(0)
                else:
                    largest = values.amax(0)
                values.sub_(largest)
                at_label = values.gather(0, labels[None])[0]
                every = None
                if label_smoothing:
                    every = values.sum(0) if weight is None else (values * weight[:, None, None]).sum(0)
                total = values.exp_().sum(0)
                lse = total.log()
                loss = own * (lse - at_label)
                class_sum: Tensor | float = channels if weight is None else weight.sum()
                if every is not None:
                    loss += scale * (class_sum * lse - every)
                loss = loss.masked_fill_(~counted, 0)  # an ignored pixel may hold anything
                loss_sum += loss.sum(0, dtype=exact)
                if losses is not None:
                    losses[n, start:stop] = loss
                if received is None:
                    continue
                factor = (own + scale * class_sum if label_smoothing else own) / total
                values *= factor
                if label_smoothing:
                    values -= scale if weight is None else scale * weight[:, None, None]
                values.scatter_(0, labels[None], values.gather(0, labels[None]) - own)
                if _is_by_slabs(device) or not factor.isfinite().all():  # a GPU would have to be waited for
                    values.masked_fill_(~counted, 0)  # an ignored pixel may hold anything
                received.add(start, stop, values)
            if received is not None:
                received.flush()
    return Sums(
        loss_sum.sum(),
        weight_sum.sum(),
        pixels.sum(),
        correct.sum() if "correct" in want else None,
        losses,
        gradient,
    )


class _Received:
    """The adjoint of ``Rows``: sums the gradients of output rows in wide rows, then narrows those into ``grad``."""

    def __init__(self, stage: Stage, grad: Tensor) -> None:
        self.stage, self.grad = stage, grad
        self._wide: dict[int, Tensor] = {}

    def add(self, start: int, stop: int, band: Tensor) -> None:
        for r in range(start, stop):
            neighbours, shares = self.stage.neighbours[:, r], self.stage.shares[:, r]
            self.flush(keep=neighbours.tolist())
            for i, share in zip(neighbours.tolist(), shares.tolist(), strict=True):
                if i in self._wide:
                    self._wide[i].add_(band[:, r - start], alpha=share)
                elif share:
                    self._wide[i] = band[:, r - start] * share

    def flush(self, keep: Sequence[int] = ()) -> None:
        for i in [i for i in self._wide if i not in keep]:
            self.grad[:, i] += self.stage.narrow(self._wide.pop(i))


class _ReceivedBySlabs:
    """The adjoint of ``Slabs``."""

    def __init__(self, stage: Stage, grad: Tensor) -> None:
        self.stage, self.grad = stage, grad

    def add(self, start: int, stop: int, band: Tensor) -> None:
        low, high = self.stage.read_by(start, stop)
        self.grad[:, low:high] += _gather(self.stage.narrow(band), 1, *self.stage.row_adjoint(start, stop))

    def flush(self) -> None: ...
